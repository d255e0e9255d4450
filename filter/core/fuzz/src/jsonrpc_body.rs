//! Request bodies: whatever is taken for a message means the same to any other reader.

use portcullis_core::denial::Denial;
use portcullis_core::json::{canonical, parse_strict};
use portcullis_core::mcp::{Era, Message, Operation, Sender};
use serde_json::Value;

/// The input is the body.
pub fn check(body: &[u8]) {
    let strict = parse_strict(body);
    if let Ok(value) = &strict {
        let lenient: Value = serde_json::from_slice(body).expect("a lenient reader takes it too");
        assert_eq!(*value, lenient);
        let once = canonical(value);
        let again = parse_strict(once.as_bytes()).expect("the canonical form is strict JSON");
        assert_eq!(canonical(&again), once);
    }
    match Message::parse(body) {
        Ok(message) => is_told_truly(&message, &strict.expect("a message is strict JSON")),
        Err(malformed) => {
            let code = Denial::from(malformed.fault).code(Era::Legacy);
            assert!([-32_600, -32_602, -32_700].contains(&code), "{code}");
        }
    }
}

/// What was understood is what stands there.
fn is_told_truly(message: &Message, body: &Value) {
    assert_eq!(body["jsonrpc"], "2.0");
    match &message.sender {
        Sender::Request(id) => {
            assert!(id.is_string() || id.is_i64(), "{id}");
            assert_eq!(*id, body["id"]);
        }
        Sender::NoReplyExpected => {
            assert!(!matches!(message.operation, Operation::CallTool(_)), "nobody would be told");
        }
        Sender::Unknown => panic!("a message without a sender"),
    }
    assert_eq!(message.method, body["method"].as_str().unwrap_or_default());
    if let Operation::CallTool(call) = &message.operation {
        assert_eq!(body["method"], "tools/call");
        assert_eq!(body["params"]["name"], call.name.as_str());
        let arguments = body["params"].get("arguments").and_then(Value::as_object).cloned();
        assert_eq!(arguments.unwrap_or_default(), call.arguments);
    }
    if let Some(name) = message.object_name() {
        let params = &body["params"];
        let named = ["name", "uri", "taskId"].into_iter().any(|member| params[member] == name);
        assert!(named, "{name:?} is not in {params}");
    }
}
