//! One JSON-RPC message from a client.
//!
//! Owns the definition of a well-formed message (JSON-RPC 2.0; MCP: one object, no batch). Does not decide whether the
//! caller may send it.

use serde_json::{Map, Value};

use super::operation::{self, Operation, is_removed};
use super::{Era, MessageFault, UrlElicitation};
use crate::json::{self, misspelt};

/// The sender of a message, as far as an error reply needs it.
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
    /// The sender, for the reply.
    pub sender: Sender,
    /// The method; empty for a response.
    pub method: String,
    /// What it asks for.
    pub operation: Operation,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`, the mark of a modern request.
    pub claimed_version: Option<String>,
    /// Whether its sender supports URL elicitation; a legacy client declares that once, when it initializes.
    pub elicitation: UrlElicitation,
    /// The arguments of a prompt or a completion; the arguments of a call are in its operation.
    pub input: Map<String, Value>,
}

/// A body that is no message, and the parts of it that an error reply needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The sender, for the reply.
    pub sender: Sender,
    /// The fault.
    pub fault: MessageFault,
}

impl From<MessageFault> for Malformed {
    /// A fault found before there was an id.
    fn from(fault: MessageFault) -> Self {
        Self { sender: Sender::Unknown, fault }
    }
}

const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// Members whose meaning must not depend on whether a reader ignores case, as readers in Go and .NET do.
const ENVELOPE: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS: [&str; 9] =
    ["name", "arguments", "uri", "ref", "taskId", "notifications", "_meta", "argument", "context"];

impl Message {
    /// Reads a request body.
    ///
    /// # Errors
    /// [`MessageFault::Unreadable`], [`MessageFault::NotOneMessage`] and [`MessageFault::BadMeta`].
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        match json::parse_request(body).map_err(MessageFault::Unreadable)? {
            Value::Object(members) => Self::read(members),
            Value::Array(_) => Err(MessageFault::NotOneMessage("Batches are not accepted").into()),
            _ => Err(MessageFault::NotOneMessage("The body must be one JSON-RPC object").into()),
        }
    }

    /// The era according to the message alone. [`super::headers`] decides.
    #[must_use]
    pub fn claimed_era(&self) -> Era {
        if self.claimed_version.is_some() { Era::Modern } else { Era::Legacy }
    }

    /// A request that carries no message.
    #[must_use]
    pub fn bodiless(operation: Operation) -> Self {
        let sender = Sender::NoReplyExpected;
        let (method, input) = (String::new(), Map::new());
        let elicitation = UrlElicitation::Undeclared;
        Self { sender, method, operation, claimed_version: None, elicitation, input }
    }

    fn read(mut members: Map<String, Value>) -> Result<Self, Malformed> {
        let bad = |detail| Err(MessageFault::NotOneMessage(detail).into());
        if members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return bad("The member jsonrpc must be \"2.0\"");
        }
        if misspelt(&members, &ENVELOPE).is_some() {
            return bad("A member differs from a JSON-RPC member only by case");
        }
        let answers = members.contains_key("result") || members.contains_key("error");
        let sender = match (members.remove("id"), answers) {
            (None, false) | (Some(_), true) => Sender::NoReplyExpected,
            (Some(id), false) if is_id(&id) => Sender::Request(id),
            (Some(_), false) => {
                return bad("The id must be a string of at most 1,024 bytes or an integer");
            }
            (None, true) => return bad("A response needs an id"),
        };
        let told = sender.clone();
        let read = match (members.remove("method"), answers) {
            (Some(Value::String(method)), false) => {
                Self::of_method(sender, method, members.remove("params"))
            }
            (None, true) => Ok(Self::response()),
            (Some(_), true) => bad_message("A message cannot be a request and a response"),
            (_, false) => bad_message("The member method must be a string"),
        };
        read.map_err(|fault| Malformed { sender: told, fault })
    }

    /// The client's answer to a request of the server.
    fn response() -> Self {
        Self::bodiless(Operation::Response)
    }

    fn of_method(
        sender: Sender,
        method: String,
        params: Option<Value>,
    ) -> Result<Self, MessageFault> {
        let mut params = match params {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return bad_message("The member params must be an object"),
        };
        if misspelt(&params, &PARAMS).is_some() {
            return bad_message("A member of params differs from a known one only by case");
        }
        let claimed_version = claimed_version(&params)?;
        let elicitation = elicitation(&method, &params);
        let (operation, input) = match &sender {
            Sender::Request(_) if claimed_version.is_some() && is_removed(&method) => {
                (Operation::Unknown, Map::new())
            }
            Sender::Request(_) => {
                let operation = Operation::of_request(&method, &mut params)?;
                (operation, operation::input(&method, &mut params)?)
            }
            Sender::NoReplyExpected | Sender::Unknown => {
                (Operation::of_notification(&method), Map::new())
            }
        };
        Ok(Self { sender, method, operation, claimed_version, elicitation, input })
    }

    /// The arguments for the tool, the prompt or the reference that it names.
    #[must_use]
    pub fn said(&self) -> Option<&Map<String, Value>> {
        match (&self.operation, self.method.as_str()) {
            (Operation::CallTool(call), _) => Some(&call.arguments),
            (_, "prompts/get" | "completion/complete") => Some(&self.input),
            _ => None,
        }
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

fn bad_message(detail: &'static str) -> Result<Message, MessageFault> {
    Err(MessageFault::NotOneMessage(detail))
}

fn claimed_version(params: &Map<String, Value>) -> Result<Option<String>, MessageFault> {
    let bad = |detail| Err(MessageFault::BadMeta(detail));
    match params.get("_meta") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(meta)) if misspelt(meta, &[META_VERSION]).is_some() => {
            bad("A member of params._meta differs from the protocol version's name only by case")
        }
        Some(Value::Object(meta)) => match meta.get(META_VERSION) {
            None => Ok(None),
            Some(Value::String(version)) => Ok(Some(version.clone())),
            Some(_) => bad("The protocol version in params._meta must be a string"),
        },
        Some(_) => bad("The member params._meta must be an object"),
    }
}

/// The client's capability: in each message (MCP 2026-07-28), or when it initializes.
fn elicitation(method: &str, params: &Map<String, Value>) -> UrlElicitation {
    let capabilities = match method {
        "initialize" => params.get("capabilities"),
        _ => params.get("_meta").and_then(|meta| meta.get(META_CAPABILITIES)),
    };
    let url = capabilities.and_then(|declared| declared.get("elicitation")?.get("url"));
    match url {
        Some(Value::Object(_)) => UrlElicitation::Declared,
        Some(_) | None => UrlElicitation::Undeclared,
    }
}

/// The longest id that is a string, in bytes.
const LONGEST_ID: usize = 1_024;

/// MCP: a string or an integer, never null. Fractions and integers that readers round are refused.
fn is_id(id: &Value) -> bool {
    const SAFE: u64 = 1 << 53;
    match id {
        Value::String(text) => text.len() <= LONGEST_ID,
        Value::Number(number) => {
            let integer = number.as_i64().filter(|integer| integer.unsigned_abs() <= SAFE);
            // `-0` is 0 to most readers, so an answer could not be assigned to it.
            integer.is_some() && number.as_str() != "-0"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> i64 {
        crate::denial::Denial::from(Message::parse(body.as_bytes()).unwrap_err().fault)
            .code(Era::Legacy)
    }

    fn operation(body: &str) -> Operation {
        Message::parse(body.as_bytes()).unwrap().operation
    }

    // Proves: B2, X17
    #[test]
    fn only_one_well_formed_message_is_a_message() {
        for id in ["null", "1.5", "1e3", "-0", "1.0", "9007199254740993", "{}", "[]", "true"] {
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

    // Finding 4.2: only the outer two levels were looked at.
    // Proves: B2
    #[test]
    fn a_member_that_a_decision_reads_is_spelled_as_mcp_spells_it_at_every_level() {
        let body = |method: &str, params: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
        };
        let meta = "io.modelcontextprotocol/protocolversion";
        for (method, params) in [
            ("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"a","Name":"b"}}"#),
            ("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"a","URI":"b:c"}}"#),
            (
                "completion/complete",
                r#"{"ref":{"type":"ref/prompt","Type":"ref/resource","name":"a"}}"#,
            ),
            ("subscriptions/listen", r#"{"notifications":{"taskIds":[],"TaskIds":["x"]}}"#),
            ("subscriptions/listen", r#"{"notifications":{"taskIdſ":["x"]}}"#),
            ("subscriptions/listen", r#"{"notifications":{"ResourceSubscriptions":["x:y"]}}"#),
            ("ping", &format!(r#"{{"_meta":{{"{meta}":"2026-07-28"}}}}"#)),
            ("tasks/get", r#"{"taskId":"a","tasKId":"b"}"#),
            ("prompts/get", r#"{"name":"a","Arguments":{}}"#),
        ] {
            let code = code(&body(method, params));
            assert!([-32_600, -32_602].contains(&code), "{method} {params}: {code}");
        }
    }

    // Finding 4.4: a Python server treats null like an absent member.
    #[test]
    fn null_is_as_good_as_absent() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":null}}"#,
        ] {
            assert_eq!(operation(body), Operation::Housekeeping);
        }
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":null}}"#;
        let Operation::CallTool(call) = operation(call) else { panic!("not a call") };
        assert!(call.arguments.is_empty());
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
        // A completion reveals values of a prompt, so it is a use of the prompt.
        let complete = r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete",
            "params":{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":""}}}"#;
        assert_eq!(operation(complete), Operation::Prompt("p".into()));
        let listen = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen",
            "params":{"notifications":{"resourceSubscriptions":["a:b"],"toolsListChanged":true}}}"#;
        let resources = vec!["a:b".to_owned()];
        assert_eq!(operation(listen), Operation::Subscriptions { resources, tasks: vec![] });
        // A notification cannot call a tool: its result would be lost.
        assert_eq!(
            operation(r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"x"}}"#),
            Operation::Unknown
        );
        assert_eq!(operation(r#"{"jsonrpc":"2.0","method":"initialize"}"#), Operation::Unknown);
    }
}
