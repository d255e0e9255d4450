//! Envoy's configuration dump: what of it is in force.
//!
//! Owns the walk. What stands where is its readers' business.

use serde_json::Value;

/// Parts of the dump that no request meets: what was refused, what is not ready yet, what is on its way out.
const NOT_IN_FORCE: [&str; 3] = ["error_state", "warming_state", "draining_state"];

/// Every object of the dump that is in force.
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
