//! The refusal that is a tool result: a model can repair its call with it.
//!
//! Owns its form. `schema` describes the faults of the arguments.

use serde_json::{Value, json};

use crate::mcp::Era;

/// Arguments that break the pinned input schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidArguments {
    /// The tool.
    pub tool: String,
    /// The faults and their positions.
    pub text: String,
}

impl InvalidArguments {
    /// A tool result with the faults: clients show protocol errors to users, and results to models (MCP 2025-11-25,
    /// tools, error handling).
    pub(super) fn result(&self, id: &Value, era: Era) -> Vec<u8> {
        let mut result = json!({"content": [{"type": "text", "text": self.text}], "isError": true});
        if let (Era::Modern, Value::Object(result)) = (era, &mut result) {
            result.insert("resultType".to_owned(), "complete".into());
        }
        json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string().into_bytes()
    }
}
