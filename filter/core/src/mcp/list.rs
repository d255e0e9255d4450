//! `tools/list` results, cut down to what the caller may see.
//!
//! Owns which members change: the tools that are left out, and how long and by whom the result may
//! be cached. Everything else, the order included, stays as the server wrote it.

use serde_json::Value;

/// A filtered list must not outlive the policy by more than this (milliseconds).
const LONGEST_TTL_MS: u64 = 10_000;

/// Filters a JSON-RPC message in place when it carries a list of tools; whether it changed.
///
/// # Errors
/// A list whose shape is not MCP's: it cannot be filtered, so it must not pass.
pub fn filter_tools(
    message: &mut Value,
    visible: impl Fn(&str) -> bool,
) -> Result<bool, UnreadableList> {
    filter(message, &visible)
}

fn filter(message: &mut Value, visible: &dyn Fn(&str) -> bool) -> Result<bool, UnreadableList> {
    if let Value::Array(batch) = message {
        // Several messages at once: part of MCP 2025-03-26, and some servers never stopped.
        return batch.iter_mut().try_fold(false, |changed, message| {
            filter(message, visible).map(|also| changed || also)
        });
    }
    let Some(result) = message.get_mut("result").and_then(Value::as_object_mut) else {
        return Ok(false);
    };
    let Some(tools) = result.get_mut("tools") else {
        return Ok(false);
    };
    let tools = tools.as_array_mut().ok_or(UnreadableList)?;
    let before = tools.len();
    let mut readable = true;
    tools.retain(|tool| match tool.get("name").and_then(Value::as_str) {
        Some(name) => visible(name),
        None => {
            readable = false;
            false
        }
    });
    if !readable {
        return Err(UnreadableList);
    }
    let mut changed = tools.len() != before;
    // What one principal sees must not be served to another (MCP 2026-07-28 caching).
    if let Some(scope) = result.get_mut("cacheScope").filter(|scope| *scope != "private") {
        *scope = "private".into();
        changed = true;
    }
    if let Some(ttl) = result.get_mut("ttlMs").filter(|ttl| outlives(ttl)) {
        *ttl = LONGEST_TTL_MS.into();
        changed = true;
    }
    Ok(changed)
}

fn outlives(ttl: &Value) -> bool {
    ttl.as_u64().is_none_or(|ttl| ttl > LONGEST_TTL_MS)
}

/// A list of tools that is not of MCP's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadableList;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // Proves: C3
    #[test]
    fn hidden_tools_leave_and_everything_else_stays_in_order() {
        let mut message = json!({"jsonrpc": "2.0", "id": 1, "result": {
            "tools": [{"name": "b", "x": 1}, {"name": "hidden"}, {"name": "a"}],
            "nextCursor": "c", "cacheScope": "public", "ttlMs": 3_600_000
        }});
        assert_eq!(filter_tools(&mut message, |name| name != "hidden"), Ok(true));
        assert_eq!(
            message["result"].to_string(),
            r#"{"tools":[{"name":"b","x":1},{"name":"a"}],"nextCursor":"c","cacheScope":"private","ttlMs":10000}"#
        );
        assert_eq!(filter_tools(&mut message, |_| true), Ok(false));
    }

    // Proves: C3, X17
    #[test]
    fn a_list_in_a_batch_is_filtered_too() {
        let list = json!({"id": 1, "result": {"tools": [{"name": "hidden"}, {"name": "a"}]}});
        let mut batch = json!([{"method": "ping"}, list]);
        assert_eq!(filter_tools(&mut batch, |name| name != "hidden"), Ok(true));
        assert_eq!(batch[1]["result"]["tools"], json!([{"name": "a"}]));
        let mut batch = json!([{"result": {"tools": [7]}}, {"method": "ping"}]);
        assert_eq!(filter_tools(&mut batch, |_| true), Err(UnreadableList));
    }

    #[test]
    fn what_is_not_a_list_passes_and_what_cannot_be_read_does_not() {
        assert_eq!(filter_tools(&mut json!({"error": {}}), |_| false), Ok(false));
        assert_eq!(filter_tools(&mut json!({"result": {"content": []}}), |_| false), Ok(false));
        for tools in [json!({}), json!([{"title": "x"}]), json!([{"name": 7}]), json!(["x"])] {
            let mut message = json!({"result": {"tools": tools}});
            assert_eq!(filter_tools(&mut message, |_| true), Err(UnreadableList));
        }
    }
}
