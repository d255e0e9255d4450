//! MCP messages as tests write them. Owns their form; of HTTP it knows only the headers that mirror a body.

use serde_json::{Value, json};

use crate::wire::Request;

/// The revision whose requests are self-contained.
pub const MODERN: &str = "2026-07-28";

/// A legacy request.
pub fn request(id: impl Into<Value>, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params})
}

/// A legacy `tools/call`.
pub fn call(tool: &str, arguments: Value) -> Value {
    request(1, "tools/call", json!({"name": tool, "arguments": arguments}))
}

/// A legacy `tools/list`.
pub fn list() -> Value {
    request(1, "tools/list", json!({}))
}

/// Turns a message into one of the modern revision, and adds the headers that mirror it.
pub fn modern(path: &str, mut message: Value) -> Request {
    message["params"]["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let header = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (method, name) = (header(&message["method"]), message["params"].get("name").map(header));
    let request = Request::post(path, message.to_string())
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", method);
    match name {
        Some(name) => request.header("mcp-name", name),
        None => request,
    }
}
