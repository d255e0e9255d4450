//! One JSON-RPC message from a client.
//!
//! Owns what a well-formed message is (JSON-RPC 2.0; MCP: one object, no batch). What stays open is
//! whether the caller may send it.

use serde_json::{Map, Value};

use super::operation::Operation;
use crate::denial::Denial;
use crate::json;

/// Who sent a message, as far as an error reply has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A request: the reply carries its id, with its type.
    Request(Value),
    /// A notification or a response: a reply has no id.
    NoReplyExpected,
    /// The id could not be read.
    Unknown,
}

/// A parsed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who expects an answer.
    pub sender: Sender,
    /// The method; empty for a response.
    pub method: String,
    /// What it asks for.
    pub operation: Operation,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`, the mark of a modern request.
    pub claimed_version: Option<String>,
}

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// Members whose meaning must not hang on a reader that ignores case, as some do.
const ENVELOPE: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS: [&str; 7] = ["name", "arguments", "uri", "ref", "taskId", "notifications", "_meta"];
impl Message {
    /// Reads a request body.
    ///
    /// # Errors
    /// [`Denial::Unreadable`] and [`Denial::NotOneMessage`].
    pub fn parse(body: &[u8]) -> Result<Self, Denial> {
        match json::parse_strict(body).map_err(Denial::Unreadable)? {
            Value::Object(members) => Self::read(members),
            Value::Array(_) => Err(Denial::NotOneMessage("Batches are not accepted")),
            _ => Err(Denial::NotOneMessage("The body must be one JSON-RPC object")),
        }
    }

    /// A request that carries no message.
    #[must_use]
    pub fn bodiless(operation: Operation) -> Self {
        let sender = Sender::NoReplyExpected;
        Self { sender, method: String::new(), operation, claimed_version: None }
    }

    fn read(mut members: Map<String, Value>) -> Result<Self, Denial> {
        let bad = |detail| Err(Denial::NotOneMessage(detail));
        if members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return bad("The member jsonrpc must be \"2.0\"");
        }
        if !spelled_exactly(&members, &ENVELOPE) {
            return bad("A member differs from a JSON-RPC member only by case");
        }
        let answers = members.contains_key("result") || members.contains_key("error");
        let sender = match (members.remove("id"), answers) {
            (None, false) | (Some(_), true) => Sender::NoReplyExpected,
            (Some(id), false) if is_id(&id) => Sender::Request(id),
            (Some(_), false) => return bad("The id must be a string or an integer"),
            (None, true) => return bad("A response needs an id"),
        };
        let sender = match (members.remove("method"), answers) {
            (Some(Value::String(method)), false) => {
                return Self::of_method(sender, method, members.remove("params"));
            }
            (None, true) => sender,
            (Some(_), true) => return bad("A message cannot be a request and a response"),
            (_, false) => return bad("The member method must be a string"),
        };
        let (method, operation) = (String::new(), Operation::Response);
        Ok(Self { sender, method, operation, claimed_version: None })
    }

    fn of_method(sender: Sender, method: String, params: Option<Value>) -> Result<Self, Denial> {
        let bad = |detail| Err(Denial::NotOneMessage(detail));
        let mut params = match params {
            None => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return bad("The member params must be an object"),
        };
        if !spelled_exactly(&params, &PARAMS) {
            return bad("A member of params differs from a known one only by case");
        }
        let claimed_version = match params.get("_meta") {
            None => None,
            Some(Value::Object(meta)) => match meta.get(META_VERSION) {
                None => None,
                Some(Value::String(version)) => Some(version.clone()),
                Some(_) => return bad("The protocol version in _meta must be a string"),
            },
            Some(_) => return bad("The member _meta must be an object"),
        };
        let operation = match &sender {
            Sender::Request(_) => Operation::of_request(&method, &mut params)?,
            Sender::NoReplyExpected | Sender::Unknown => Operation::of_notification(&method),
        };
        Ok(Self { sender, method, operation, claimed_version })
    }

    /// The value that `Mcp-Name` must mirror (MCP 2026-07-28 headers).
    #[must_use]
    pub fn object_name(&self) -> Option<&str> {
        match (&self.operation, self.method.as_str()) {
            (Operation::CallTool(call), _) => Some(&call.name),
            (Operation::Prompt(name), "prompts/get") => Some(name),
            (Operation::Resource(uri), "resources/read") => Some(uri),
            (Operation::Task(id), "tasks/get" | "tasks/update" | "tasks/cancel") => Some(id),
            _ => None,
        }
    }
}

/// MCP: a string or an integer, never null. Fractions and integers that readers round are refused.
fn is_id(id: &Value) -> bool {
    const SAFE: u64 = 1 << 53;
    match id {
        Value::String(_) => true,
        Value::Number(number) => {
            number.as_i64().is_some_and(|integer| integer.unsigned_abs() <= SAFE)
        }
        _ => false,
    }
}

fn spelled_exactly(members: &Map<String, Value>, known: &[&str]) -> bool {
    members.keys().all(|name| {
        known.contains(&name.as_str())
            || !known.iter().any(|known| name.eq_ignore_ascii_case(known))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> i64 {
        Message::parse(body.as_bytes()).unwrap_err().code(crate::mcp::Era::Legacy)
    }

    fn operation(body: &str) -> Operation {
        Message::parse(body.as_bytes()).unwrap().operation
    }

    // Proves: B2, X17
    #[test]
    fn only_one_well_formed_message_is_a_message() {
        for id in ["null", "1.5", "1e3", "9007199254740993", "{}", "[]", "true"] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
            assert_eq!(code(&body), -32_600, "{id}");
        }
        for body in [
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            r#""ping""#,
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"Name":"x","name":"y"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","name":"y"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":[]}}"#,
        ] {
            assert_eq!(code(body), -32_600, "{body}");
        }
        assert_eq!(code("{"), -32_700);
    }

    #[test]
    fn messages_are_what_they_ask_for() {
        assert_eq!(
            operation(r#"{"jsonrpc":"2.0","id":0,"method":"ping"}"#),
            Operation::Housekeeping
        );
        assert_eq!(operation(r#"{"jsonrpc":"2.0","id":"a","result":{}}"#), Operation::Response);
        let skills = r#"{"jsonrpc":"2.0","id":1,"method":"skills/run"}"#;
        assert_eq!(operation(skills), Operation::Unknown);
        let read = r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a:b"}}"#;
        assert_eq!(operation(read), Operation::Resource("a:b".into()));
        // A completion tells values of a prompt, so it is a use of the prompt.
        let complete = r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete",
            "params":{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":""}}}"#;
        assert_eq!(operation(complete), Operation::Prompt("p".into()));
        let listen = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen",
            "params":{"notifications":{"resourceSubscriptions":["a:b"],"toolsListChanged":true}}}"#;
        let resources = vec!["a:b".to_owned()];
        assert_eq!(operation(listen), Operation::Subscriptions { resources, tasks: vec![] });
        // A notification cannot call a tool: nobody would learn what became of it.
        assert_eq!(
            operation(r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"x"}}"#),
            Operation::Unknown
        );
        assert_eq!(operation(r#"{"jsonrpc":"2.0","method":"initialize"}"#), Operation::Unknown);
    }
}
