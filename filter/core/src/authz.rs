//! Whether a principal may do what a message asks for.
//!
//! Owns the verdict and the rule it names. Knows nothing of credentials, limits or transport.

use std::rc::Rc;

use serde_json::Value;

use crate::auth::{Narrowing, Principal, Writes};
use crate::denial::Denial;
use crate::id::PolicyName;
use crate::mcp::{Listing, Message, Operation};
use crate::policy::{Access, Connector, Policy, Tool};

/// Judges `message` on the connector `name`.
///
/// # Errors
/// The refusal, with its rule. What the caller cannot see is refused like what does not exist.
pub fn judge(
    policy: &Policy,
    principal: &Principal,
    (name, connector): (&PolicyName, &Connector),
    message: &Message,
) -> Result<(), Denial> {
    let Some(access) = policy.access(&principal.role, name) else {
        return Err(Denial::Forbidden { rule: format!("roles.{}.{name}", principal.role) });
    };
    let narrowing = &principal.narrowing;
    if narrowing.connectors.as_ref().is_some_and(|only| !only.matches(name.as_str())) {
        return Err(Denial::Forbidden { rule: "credential.connectors".to_owned() });
    }
    if !matches!(message.operation, Operation::CallTool(_)) {
        granted(principal, connector, None)?;
    }
    let open = |tool: &str| is_open(narrowing, connector, tool);
    match &message.operation {
        // Tasks and sessions are bound to who opened them; the admission checks that.
        Operation::Initialize
        | Operation::Housekeeping
        | Operation::List(_)
        | Operation::Task(_)
        | Operation::Response
        | Operation::Listen
        | Operation::EndSession => Ok(()),
        Operation::CallTool(call) if !open(&call.name) => {
            Err(Denial::UnknownTool(call.name.clone()))
        }
        Operation::CallTool(call) if access.allow.matches(&call.name) => {
            granted(principal, connector, connector.tools.get(&call.name))
        }
        Operation::CallTool(call) if access.show.matches(&call.name) => {
            Err(Denial::Forbidden { rule: format!("roles.{}.{name}.show", principal.role) })
        }
        Operation::CallTool(call) => Err(Denial::UnknownTool(call.name.clone())),
        Operation::Prompt(prompt) if access.prompts.matches(prompt) => Ok(()),
        Operation::Prompt(prompt) => Err(Denial::UnknownPrompt(prompt.clone())),
        Operation::Resource(uri) => resource(access, uri),
        Operation::Subscriptions { resources, .. } => {
            resources.iter().try_for_each(|uri| resource(access, uri))
        }
        Operation::Unknown if connector.methods.matches(&message.method) => Ok(()),
        Operation::Unknown => Err(Denial::UnknownMethod(message.method.clone())),
    }
}

/// Whether the credential has the scopes that an operation takes. All of them are named, so that a
/// client asks once (MCP 2025-11-25, step-up authorization).
fn granted(
    principal: &Principal,
    connector: &Connector,
    tool: Option<&Tool>,
) -> Result<(), Denial> {
    let mut needed = connector.scopes.clone();
    for scope in tool.into_iter().flat_map(|tool| &tool.scopes) {
        if !needed.contains(scope) {
            needed.push(scope.clone());
        }
    }
    if principal.scopes.missing(&needed).is_empty() {
        Ok(())
    } else {
        Err(Denial::InsufficientScope(needed))
    }
}

fn resource(access: &Access, uri: &str) -> Result<(), Denial> {
    if access.resources.matches(uri) && !climbs(uri) {
        Ok(())
    } else {
        Err(Denial::UnknownResource(uri.to_owned()))
    }
}

/// Whether `uri` has a `..` segment: a server that resolves it opens another resource than a pattern matched.
fn climbs(uri: &str) -> bool {
    let uri = uri.to_ascii_lowercase();
    let (mut plain, mut rest) = (String::with_capacity(uri.len()), uri.as_str());
    while let Some((before, escaped)) = rest.split_once('%') {
        // Escaped once or more often: who knows how many times it is unescaped.
        rest = escaped.trim_start_matches("25");
        let (character, length) = match rest.get(..2) {
            Some("2e") => ('.', 2),
            Some("2f") => ('/', 2),
            Some("5c") => ('\\', 2),
            _ => ('%', 0),
        };
        plain.push_str(before);
        plain.push(character);
        rest = rest.get(length..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain.split(['/', '\\', '?', '#']).any(|segment| segment == "..")
}

/// Whether the credential is open to a tool that its role may be open to.
fn is_open(narrowing: &Narrowing, connector: &Connector, tool: &str) -> bool {
    let named = narrowing.tools.as_ref().is_none_or(|only| only.matches(tool));
    let harmless = match narrowing.writes {
        Writes::Open => true,
        Writes::Closed => connector.tools.get(tool).is_some_and(|tool| tool.read_only),
    };
    named && harmless
}

/// What of one connector one principal sees.
#[derive(Clone, Debug)]
pub struct View {
    policy: Rc<Policy>,
    connector: PolicyName,
    role: PolicyName,
    narrowing: Narrowing,
}

impl View {
    /// The view of `principal` on `connector`.
    #[must_use]
    pub fn new(policy: &Rc<Policy>, principal: &Principal, connector: &PolicyName) -> Self {
        Self {
            policy: policy.clone(),
            connector: connector.clone(),
            role: principal.role.clone(),
            narrowing: principal.narrowing.clone(),
        }
    }

    /// Whether the item of a list is seen; `None` when it has no name to judge by.
    #[must_use]
    pub fn sees(&self, listing: Listing, item: &Value) -> Option<bool> {
        let name = |member: &str| item.get(member).and_then(Value::as_str);
        let access = self.policy.access(&self.role, &self.connector);
        let connector = self.policy.connectors.get(&self.connector);
        let (Some(access), Some(connector)) = (access, connector) else {
            return Some(false);
        };
        Some(match listing {
            Listing::Tools => {
                let tool = name("name")?;
                (access.allow.matches(tool) || access.show.matches(tool))
                    && is_open(&self.narrowing, connector, tool)
            }
            Listing::Prompts => access.prompts.matches(name("name")?),
            Listing::Resources => access.resources.matches(name("uri")?),
            Listing::Templates => access.resources.matches(name("uriTemplate")?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::climbs;

    // Proves: C3
    #[test]
    fn uris_that_climb_are_told_from_those_that_only_have_dots() {
        for uri in [
            "file:///a/../b",
            "file:///a/..",
            "..",
            "file:///a/%2E./b",
            "file:///a/.%252e/b",
            "file:///a%2f..%2Fb",
            "file:///a/..\\b",
            "file:///a/%25252e%2e%255cb",
            "note://../b",
            "file:///a/..?x",
            "file:///a/..#x",
        ] {
            assert!(climbs(uri), "{uri}");
        }
        for uri in [
            "file:///a/...",
            "file:///a..b/c",
            "file:///.a/./b",
            "note://a%2520..",
            "a%",
            "a%2",
            "%e9/%25",
        ] {
            assert!(!climbs(uri), "{uri}");
        }
    }
}
