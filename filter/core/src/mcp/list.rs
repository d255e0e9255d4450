//! Lists (tools, prompts, resources, templates), cut down to what the caller may see.
//!
//! Owns which members change: the items that are left out, and how long and by whom the result may
//! be cached. Everything else, the order included, stays as the server wrote it.

use serde_json::{Map, Value};

use super::Listing;

/// A filtered list must not outlive the policy by more than this (milliseconds).
const LONGEST_TTL_MS: u64 = 10_000;

/// The member of a result that each list is in.
const LISTS: [(&str, Listing); 4] = [
    ("tools", Listing::Tools),
    ("prompts", Listing::Prompts),
    ("resources", Listing::Resources),
    ("resourceTemplates", Listing::Templates),
];

/// Filters a JSON-RPC message in place when its result carries lists; whether it changed. Goes by
/// shape, since a resumed stream carries answers to requests that nobody here remembers.
///
/// # Errors
/// A list that is not of MCP's form: it cannot be filtered, so it must not pass.
pub fn filter(
    message: &mut Value,
    sees: &dyn Fn(Listing, &Value) -> Option<bool>,
) -> Result<bool, UnreadableList> {
    if let Value::Array(batch) = message {
        // Several messages at once: part of MCP 2025-03-26, and some servers never stopped.
        return batch
            .iter_mut()
            .try_fold(false, |changed, message| filter(message, sees).map(|also| changed || also));
    }
    let Some(result) = message.get_mut("result").and_then(Value::as_object_mut) else {
        return Ok(false);
    };
    let (mut changed, mut listed) = (false, false);
    for (member, listing) in LISTS {
        if let Some(items) = result.get_mut(member) {
            listed = true;
            changed |= retain(items, |item| sees(listing, item))?;
        }
    }
    Ok(changed | (listed && make_private(result)))
}

fn retain(
    items: &mut Value,
    sees: impl Fn(&Value) -> Option<bool>,
) -> Result<bool, UnreadableList> {
    let items = items.as_array_mut().ok_or(UnreadableList)?;
    let before = items.len();
    let mut readable = true;
    items.retain(|item| {
        let seen = sees(item);
        readable &= seen.is_some();
        seen.unwrap_or(false)
    });
    if readable { Ok(items.len() != before) } else { Err(UnreadableList) }
}

/// What one principal sees must not be served to another, nor for long (MCP 2026-07-28 caching).
fn make_private(result: &mut Map<String, Value>) -> bool {
    let mut changed = false;
    if let Some(scope) = result.get_mut("cacheScope").filter(|scope| *scope != "private") {
        *scope = "private".into();
        changed = true;
    }
    if let Some(ttl) = result.get_mut("ttlMs").filter(|ttl| outlives(ttl)) {
        *ttl = LONGEST_TTL_MS.into();
        changed = true;
    }
    changed
}

fn outlives(ttl: &Value) -> bool {
    ttl.as_u64().is_none_or(|ttl| ttl > LONGEST_TTL_MS)
}

/// A list that is not of MCP's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadableList;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn by_name(_: Listing, item: &Value) -> Option<bool> {
        item.get("name").and_then(Value::as_str).map(|name| name != "hidden")
    }

    // Proves: C3, X17
    #[test]
    fn hidden_items_leave_and_everything_else_stays_in_order() {
        let mut message = json!({"jsonrpc": "2.0", "id": 1, "result": {
            "tools": [{"name": "b", "x": 1}, {"name": "hidden"}, {"name": "a"}],
            "nextCursor": "c", "cacheScope": "public", "ttlMs": 3_600_000
        }});
        assert_eq!(filter(&mut message, &by_name), Ok(true));
        assert_eq!(
            message["result"].to_string(),
            r#"{"tools":[{"name":"b","x":1},{"name":"a"}],"nextCursor":"c","cacheScope":"private","ttlMs":10000}"#
        );
        assert_eq!(filter(&mut message, &by_name), Ok(false));
        for member in ["prompts", "resources", "resourceTemplates"] {
            let mut message = json!({"result": {member: [{"name": "hidden"}]}});
            assert_eq!(filter(&mut message, &by_name), Ok(true), "{member}");
            assert_eq!(message, json!({"result": {member: []}}));
        }
    }

    // Proves: C3, X17
    #[test]
    fn a_list_in_a_batch_is_filtered_too() {
        let list = json!({"id": 1, "result": {"tools": [{"name": "hidden"}, {"name": "a"}]}});
        let mut batch = json!([{"method": "ping"}, list]);
        assert_eq!(filter(&mut batch, &by_name), Ok(true));
        assert_eq!(batch[1]["result"]["tools"], json!([{"name": "a"}]));
        let mut batch = json!([{"result": {"tools": [7]}}, {"method": "ping"}]);
        assert_eq!(filter(&mut batch, &by_name), Err(UnreadableList));
    }

    #[test]
    fn what_is_not_a_list_passes_and_what_cannot_be_read_does_not() {
        assert_eq!(filter(&mut json!({"error": {}}), &by_name), Ok(false));
        assert_eq!(filter(&mut json!({"result": {"content": []}}), &by_name), Ok(false));
        for tools in [json!({}), json!([{"title": "x"}]), json!([{"name": 7}]), json!(["x"])] {
            let mut message = json!({"result": {"tools": tools}});
            assert_eq!(filter(&mut message, &by_name), Err(UnreadableList));
        }
    }
}
