//! The one refusal that is a result: arguments that a model can repair its call by.
//!
//! Owns its form. What is wrong with the arguments, `schema` says.

use serde_json::{Value, json};

use crate::mcp::Era;

/// Arguments that break the pinned input schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidArguments {
    /// The tool.
    pub tool: String,
    /// What is wrong, and where.
    pub text: String,
}

impl InvalidArguments {
    /// A tool result that says what is wrong: clients show errors of the protocol to people, and results
    /// to models (MCP 2025-11-25, tools, error handling).
    pub(super) fn result(&self, id: &Value, era: Era) -> Vec<u8> {
        let mut result = json!({"content": [{"type": "text", "text": self.text}], "isError": true});
        if let (Era::Modern, Value::Object(result)) = (era, &mut result) {
            result.insert("resultType".to_owned(), "complete".into());
        }
        json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string().into_bytes()
    }
}
