//! The active parts of Envoy's configuration dump.
//!
//! Owns the walk. Its users know the meaning of the parts.

use serde_json::Value;

/// Inactive parts of the dump: refused, not ready yet, or draining.
const NOT_IN_FORCE: [&str; 3] = ["error_state", "warming_state", "draining_state"];

/// Visits every active object of the dump.
pub(super) fn each_object(node: &Value, see: &mut dyn FnMut(&Value)) {
    match node {
        Value::Object(members) => {
            see(node);
            let in_force =
                members.iter().filter(|(name, _)| !NOT_IN_FORCE.contains(&name.as_str()));
            in_force.for_each(|(_, member)| each_object(member, see));
        }
        Value::Array(elements) => elements.iter().for_each(|element| each_object(element, see)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
