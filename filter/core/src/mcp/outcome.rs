//! What became of a call, read from the server's answer.
//!
//! Owns the recognition of tool errors and the counting of rows. Keeps no output: the audit log
//! says how many rows came back, never which.

use serde_json::Value;

use super::skim;

/// What an answer says about its call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// No answer was recognised.
    #[default]
    Unseen,
    /// A result.
    Result {
        /// How many rows it carries, when that can be told.
        rows: Option<u64>,
    },
    /// A result with `isError: true`.
    ToolError,
    /// A JSON-RPC error with this code.
    ProtocolError(i64),
}

/// The outcome that `message` tells for the request `id`; `None` when it is another message.
#[must_use]
pub fn of(message: &Value, id: &Value) -> Option<Outcome> {
    if message.get("id") != Some(id) {
        return None;
    }
    if let Some(error) = message.get("error") {
        let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
        return Some(Outcome::ProtocolError(code));
    }
    let result = message.get("result")?;
    if result.get("isError").and_then(Value::as_bool) == Some(true) {
        return Some(Outcome::ToolError);
    }
    Some(Outcome::Result { rows: rows(result) })
}

/// The task that a message says was created: MCP 2025-11-25 (`result.task`), or the extension of
/// 2026-07-28 (`resultType: "task"`).
#[must_use]
pub fn task(message: &Value) -> Option<&str> {
    let result = message.get("result")?;
    let flat = result.get("resultType").and_then(Value::as_str) == Some("task");
    let task = if flat { result } else { result.get("task")? };
    task.get("taskId")?.as_str()
}

/// Members under which servers return lists.
pub(super) const LISTS: [&str; 6] = ["rows", "items", "results", "records", "data", "result"];

/// Rows of a tool result: a list in `structuredContent`, there under a usual name, or the same in
/// the JSON of a single text content.
fn rows(result: &Value) -> Option<u64> {
    match result.get("structuredContent") {
        Some(structured) => listed(structured),
        None => match result.get("content")?.as_array()?.as_slice() {
            [only] => listed(&skim::lists(only.get("text")?.as_str()?)?),
            _ => None,
        },
    }
}

fn listed(value: &Value) -> Option<u64> {
    let list = match value {
        Value::Array(list) => list,
        Value::Object(members) => {
            LISTS.iter().find_map(|name| members.get(*name).and_then(Value::as_array))?
        }
        _ => return None,
    };
    u64::try_from(list.len()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // Proves: A15
    #[test]
    fn rows_are_counted_where_servers_put_them() {
        let rows = |result: Value| of(&json!({"id": 1, "result": result}), &json!(1));
        let some = |rows| Some(Outcome::Result { rows: Some(rows) });
        assert_eq!(rows(json!({"structuredContent": {"rows": [1, 2]}})), some(2));
        assert_eq!(rows(json!({"structuredContent": [1]})), some(1));
        assert_eq!(rows(json!({"content": [{"type": "text", "text": "[1,2,3]"}]})), some(3));
        let none = Some(Outcome::Result { rows: None });
        assert_eq!(rows(json!({"content": [{"type": "text", "text": "hello"}]})), none);
        assert_eq!(rows(json!({"content": []})), none);
    }

    #[test]
    fn a_created_task_is_recognised_in_both_forms() {
        let legacy = json!({"id": 1, "result": {"task": {"taskId": "t"}}});
        let modern = json!({"id": 1, "result": {"resultType": "task", "taskId": "t"}});
        assert_eq!((task(&legacy), task(&modern)), (Some("t"), Some("t")));
        assert_eq!(task(&json!({"id": 1, "result": {"taskId": "t"}})), None);
    }

    // Proves: A29
    #[test]
    fn errors_are_told_apart_and_other_ids_are_not_ours() {
        let answer = json!({"id": 1, "result": {"isError": true, "content": []}});
        assert_eq!(of(&answer, &json!(1)), Some(Outcome::ToolError));
        assert_eq!(of(&answer, &json!("1")), None);
        let error = json!({"id": 1, "error": {"code": -32602}});
        assert_eq!(of(&error, &json!(1)), Some(Outcome::ProtocolError(-32602)));
    }
}
