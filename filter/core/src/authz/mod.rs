//! Whether a principal may make a request.
//!
//! Owns the order of checks, the ruling, and the rule that it names. Knows nothing of credentials, limits or transport.
//! `portcullis explain` uses the same code.
//!
//! In order: the tier, the connector, the credential's own restrictions, the role's tools, scopes, conditions without
//! arguments, caps on records, rules on arguments, conditions on the arguments, approval.

pub mod approval;
mod call;
pub mod explain;
pub mod outcome;
mod trail;
mod view;

use serde_json::{Map, Value};

use crate::auth::Principal;
use crate::denial::Denial;
use crate::id::PolicyName;
use crate::mcp::{Message, Operation, is_of_mcp};
use crate::policy::{Check, Connector, Enforcement, Policy};
use crate::time::UnixTime;
use call::{About, Rules, approval, are_seen, arguments, caps, conditions, scopes};
use trail::Broken;
use view::{Place, RoleAccess, grant, prompt, resource, restricted};

pub use call::{Amendment, Needed, amended};
pub use trail::{Consideration, ConsideredRule, Shadowed, Trail};
pub use view::View;

/// A request to decide on.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The caller.
    pub principal: &'a Principal,
    /// The claims of the caller's token.
    pub claims: &'a Map<String, Value>,
    /// The name of the connector.
    pub name: &'a PolicyName,
    /// The connector.
    pub connector: &'a Connector,
    /// The MCP message.
    pub message: &'a Message,
    /// How much of the request is available.
    pub seen: Seen,
    /// The time.
    pub now: UnixTime,
    /// The source address, without port.
    pub source: &'a str,
}

/// How much of a request is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Only its headers.
    Head,
    /// The whole request.
    Whole,
}

/// How an allowed request is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    /// Changed arguments: at most one change of each.
    pub amendments: Vec<Amendment>,
    /// The approval that it needs first.
    pub approval: Option<Needed>,
}

/// Decides on `case`; `trail` records the rules that were considered.
///
/// # Errors
/// The refusal, with its rule. An object that the caller cannot see is refused like one that does not exist.
pub fn judge(case: &Case<'_>, trail: &mut Trail) -> Result<Ruling, Denial> {
    let Case { policy, principal, name, .. } = *case;
    let place = Place { role: &principal.role, connector: name };
    let tier = || format!("tiers.{}", principal.tier);
    if !policy.tiers.contains_key(&principal.tier) {
        let broken = Broken::forbidden(tier()).because("the policy has no such tier");
        return Err(trail.refuse(broken));
    }
    trail.passed(tier);
    let grant = grant(policy, &principal.role, name);
    if grant.is_none() {
        let broken = Broken::forbidden(place.to_string()).because("the role has no such connector");
        trail.enforce(policy, (Check::Authorisation, Enforcement::Enforce), broken)?;
    }
    let restrictions = &principal.restrictions;
    if restrictions.connectors.as_ref().is_some_and(|only| !only.matches(name.as_str())) {
        return Err(trail.refuse(Broken::forbidden("credential.connectors")));
    }
    // A tool's own conditions are checked with the role's rules for the tool.
    if !matches!(case.message.operation, Operation::CallTool(_)) {
        scopes(case, None, trail)?;
    }
    let mut access = |broken: Result<(), Broken>, rule: &str| match (broken, grant) {
        (Err(broken), Some(grant)) => {
            trail.enforce(policy, (Check::Authorisation, grant.access.enforcement), broken)
        }
        (Ok(()), _) | (Err(_), None) => {
            trail.passed(|| format!("{place}{rule}"));
            Ok(())
        }
    };
    let of = |judge: &dyn Fn(RoleAccess<'_>) -> Result<(), Broken>| grant.map_or(Ok(()), judge);
    match &case.message.operation {
        // Tasks and sessions are bound to the caller who opened them; the admission checks that.
        Operation::Initialize
        | Operation::Housekeeping
        | Operation::List(_)
        | Operation::Task(_)
        | Operation::Response
        | Operation::Listen
        | Operation::EndSession => Ok(Ruling::default()),
        Operation::CallTool(call) => {
            if let Err(rule) = restricted(restrictions, case.connector, &call.name) {
                let denial = Denial::UnknownTool(call.name.clone());
                return Err(trail.refuse(Broken::new(rule, denial)));
            }
            access(of(&|grant| grant.tool(place, &call.name)), ".allow")?;
            scopes(case, case.connector.tools.get(&call.name), trail)?;
            let rules = Rules::of(case, &call.name);
            let came = (call.name.as_str(), &call.arguments);
            conditions(case, came, (&rules, About::Circumstances), trail)?;
            if !are_seen(case.seen) {
                return Ok(Ruling::default());
            }
            let amendments = caps(case, call, &rules, trail)?;
            let goes_on = amended(&call.arguments, &amendments);
            arguments(case, &goes_on, &rules, trail)?;
            conditions(case, (&call.name, &goes_on), (&rules, About::Arguments), trail)?;
            Ok(Ruling { amendments, approval: approval(case, &rules, trail)? })
        }
        Operation::Prompt(name) => {
            access(of(&|grant| prompt(place, &grant.access.prompts, name)), ".prompts")?;
            Ok(Ruling::default())
        }
        Operation::Resource(uri) => {
            access(of(&|grant| resource(place, &grant.access.resources, uri)), ".resources")?;
            Ok(Ruling::default())
        }
        Operation::Subscriptions { resources, .. } => {
            for uri in resources {
                access(of(&|grant| resource(place, &grant.access.resources, uri)), ".resources")?;
            }
            Ok(Ruling::default())
        }
        // A `tools/call` without an id is unknown as well, and is no vendor's method.
        Operation::Unknown
            if case.connector.methods.matches(&case.message.method)
                && !is_of_mcp(&case.message.method) =>
        {
            Ok(Ruling::default())
        }
        Operation::Unknown => {
            let denial = Denial::UnknownMethod(case.message.method.clone());
            Err(trail.refuse(Broken::new(format!("connectors.{name}.methods"), denial)))
        }
    }
}
