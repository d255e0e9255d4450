//! The part of a connector that one principal sees.
//!
//! Owns which tools, prompts and resources a principal may use. Other modules check the content of a call.

use std::fmt;
use std::rc::Rc;

use serde_json::Value;

use super::trail::Broken;
use crate::auth::{Principal, Restrictions, Writes};
use crate::denial::Denial;
use crate::id::PolicyName;
use crate::mcp::Listing;
use crate::policy::{Access, Check, Closed, Connector, Enforcement, Names, Policy, Role, Uris};

/// The position of a role's grant on a connector in a policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) role: &'a PolicyName,
    pub(super) connector: &'a PolicyName,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "roles.{}.{}", self.role, self.connector)
    }
}

/// What a role may do on a connector.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoleAccess<'a> {
    pub(super) role: &'a Role,
    pub(super) access: &'a Access,
    pub(super) connector: &'a Connector,
}

impl RoleAccess<'_> {
    /// The rule that forbids the role to call `tool`, if any. `place` is the position of the role's grant in the
    /// policy.
    pub(super) fn tool(&self, place: Place<'_>, tool: &str) -> Result<(), Broken> {
        let unknown = || Denial::UnknownTool(tool.to_owned());
        let (allowed, shown) = (self.access.allow.matches(tool), self.access.show.matches(tool));
        if self.access.deny.matches(tool) {
            return Err(Broken::new(format!("{place}.deny"), unknown()));
        }
        match (allowed, shown) {
            (false, false) => Err(Broken::new(format!("{place}.allow"), unknown())
                .because("no pattern of `allow` or `show` matches the tool")),
            (false, true) => Err(Broken::forbidden(format!("{place}.show"))),
            (true, _) if self.may_change(tool) => Ok(()),
            (true, shown) => {
                let rule = match self.access.writes {
                    Writes::Closed => format!("{place}.allow_write"),
                    Writes::Open => format!("roles.{}.allow_write", place.role),
                };
                let broken = match shown {
                    true => Broken::forbidden(rule),
                    false => Broken::new(rule, unknown()),
                };
                Err(broken.because("the policy does not state that the tool only reads"))
            }
        }
    }

    /// Whether `tool` is read-only, or the role may change data.
    fn may_change(&self, tool: &str) -> bool {
        match (self.role.writes, self.access.writes) {
            (Writes::Open, Writes::Open) => true,
            (Writes::Closed, _) | (_, Writes::Closed) => self.connector.reads_only(tool),
        }
    }

    fn sees(&self, tool: &str) -> bool {
        let callable = self.access.allow.matches(tool) && self.may_change(tool);
        !self.access.deny.matches(tool) && (callable || self.access.show.matches(tool))
    }
}

/// The rule that forbids the use of a prompt, if any.
pub(super) fn prompt(place: Place<'_>, names: &Names, prompt: &str) -> Result<(), Broken> {
    let rule = match (names.deny.matches(prompt), names.allow.matches(prompt)) {
        (true, _) => format!("{place}.prompts.deny"),
        (false, false) => format!("{place}.prompts"),
        (false, true) => return Ok(()),
    };
    Err(Broken::new(rule, Denial::UnknownPrompt(prompt.to_owned())))
}

/// The rule that forbids reading a resource, if any.
pub(super) fn resource(place: Place<'_>, rules: &Uris, uri: &str) -> Result<(), Broken> {
    rules.judge(uri).map_err(|closed| {
        let (list, why) = match closed {
            Closed::NotAllowed => ("", ""),
            Closed::Denied => (".deny", ""),
            Closed::Ambiguous(why) => ("", why),
        };
        let rule = format!("{place}.resources{list}");
        Broken::new(rule, Denial::UnknownResource(uri.to_owned())).because(why)
    })
}

/// The rule that forbids a tool despite the role's grant, if any: the credential's own restrictions, or a missing
/// review.
pub(super) fn restricted(
    restrictions: &Restrictions,
    connector: &Connector,
    tool: &str,
) -> Result<(), &'static str> {
    if restrictions.tools.as_ref().is_some_and(|only| !only.matches(tool)) {
        return Err("credential.tools");
    }
    if connector.hides_unpinned(tool) {
        return Err("connectors.unpinned");
    }
    match restrictions.writes {
        Writes::Closed if !connector.reads_only(tool) => Err("credential.allow_write"),
        Writes::Closed | Writes::Open => Ok(()),
    }
}

/// The part of one connector that one principal sees.
#[derive(Clone, Debug)]
pub struct View {
    policy: Rc<Policy>,
    connector: PolicyName,
    role: PolicyName,
    restrictions: Restrictions,
}

impl View {
    /// The view of `principal` on `connector`.
    #[must_use]
    pub fn new(policy: &Rc<Policy>, principal: &Principal, connector: &PolicyName) -> Self {
        Self {
            policy: policy.clone(),
            connector: connector.clone(),
            role: principal.role.clone(),
            restrictions: principal.restrictions.clone(),
        }
    }

    /// Whether the principal sees the item of a list; `None` when the item has no name.
    #[must_use]
    pub fn sees(&self, listing: Listing, item: &Value) -> Option<bool> {
        let name = |member: &str| item.get(member).and_then(Value::as_str);
        let Some(connector) = self.policy.connectors.get(&self.connector) else {
            return Some(false);
        };
        let grant = grant(&self.policy, &self.role, &self.connector);
        let rule = grant.map_or(Enforcement::Enforce, |grant| grant.access.enforcement);
        // With authorisation in shadow mode the caller may call every tool, so lists must show them.
        let shadow = match self.policy.enforcement(Check::Authorisation, rule) {
            Enforcement::Shadow => true,
            Enforcement::Enforce => false,
        };
        let judged = |seen: &dyn Fn(RoleAccess<'_>) -> bool| shadow || grant.is_some_and(seen);
        Some(match listing {
            Listing::Tools => {
                let tool = name("name")?;
                restricted(&self.restrictions, connector, tool).is_ok()
                    && judged(&|grant| grant.sees(tool))
            }
            Listing::Prompts => {
                let name = name("name")?;
                judged(&|grant| grant.access.prompts.opens(name))
            }
            Listing::Resources => {
                let uri = name("uri")?;
                judged(&|grant| grant.access.resources.opens(uri))
            }
            Listing::Templates => {
                let template = name("uriTemplate")?;
                judged(&|grant| grant.access.resources.opens(template))
            }
        })
    }
}

/// The role's grant on `connector`, if it has one.
pub(super) fn grant<'a>(
    policy: &'a Policy,
    role: &PolicyName,
    connector: &PolicyName,
) -> Option<RoleAccess<'a>> {
    let (role, connector_name) = (policy.roles.get(role)?, connector);
    let access = role.connectors.get(connector_name)?;
    let connector = policy.connectors.get(connector_name)?;
    Some(RoleAccess { role, access, connector })
}
