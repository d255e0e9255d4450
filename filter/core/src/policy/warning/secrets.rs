//! Secrets in a policy. Operators read it, it stands in a repository, and its messages go to callers.
//!
//! Owns which texts are looked at: all, but for those of a connector's credential, of which a secret is a fault. What a
//! secret looks like, the audit log's redaction knows.

use serde_json::Value;

use super::{Warning, WarningKind};
use crate::audit::has_token;

pub(super) fn warn(path: &str, value: &Value, warnings: &mut Vec<Warning>) {
    match value {
        Value::String(text) if has_token(text) => warnings.push(Warning {
            path: path.to_owned(),
            kind: WarningKind::Secret,
            found: "a text with a secret in it (not shown)".to_owned(),
            expected:
                "no key and no token: everybody who reads the policy has it now, so rotate it"
                    .to_owned(),
        }),
        Value::Object(members) => {
            for (name, value) in members.iter().filter(|(name, _)| !is_credential(path, name)) {
                let dot = if path.is_empty() { "" } else { "." };
                warn(&format!("{path}{dot}{name}"), value, warnings);
            }
        }
        Value::Array(items) => {
            let each = items.iter().enumerate();
            each.for_each(|(at, item)| warn(&format!("{path}[{at}]"), item, warnings));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether it is the credential of a connector, which has a check of its own.
fn is_credential(path: &str, name: &str) -> bool {
    let connector = path.strip_prefix("connectors.");
    name == "credential" && connector.is_some_and(|name| !name.contains('.'))
}
