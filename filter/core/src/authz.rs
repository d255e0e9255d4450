//! Whether a principal may do what a message asks for.
//!
//! Owns the verdict and the rule it names. Knows nothing of credentials, limits or transport.

use serde_json::Value;

use crate::auth::Principal;
use crate::denial::Denial;
use crate::id::PolicyName;
use crate::mcp::{Listing, Message, Operation};
use crate::policy::{Access, Connector, Policy};

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
    match &message.operation {
        // Tasks and sessions are bound to who opened them; the admission checks that.
        Operation::Initialize
        | Operation::Housekeeping
        | Operation::List(_)
        | Operation::Task(_)
        | Operation::Response
        | Operation::Listen
        | Operation::EndSession => Ok(()),
        Operation::CallTool(call) if access.allow.matches(&call.name) => Ok(()),
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

/// Whether the holder of `access` sees the item of a list; `None` when it has no name to judge by.
#[must_use]
pub fn sees(access: &Access, listing: Listing, item: &Value) -> Option<bool> {
    let name = |member: &str| item.get(member).and_then(Value::as_str);
    Some(match listing {
        Listing::Tools => {
            let tool = name("name")?;
            access.allow.matches(tool) || access.show.matches(tool)
        }
        Listing::Prompts => access.prompts.matches(name("name")?),
        Listing::Resources => access.resources.matches(name("uri")?),
        Listing::Templates => access.resources.matches(name("uriTemplate")?),
    })
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
