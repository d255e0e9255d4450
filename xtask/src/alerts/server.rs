//! An MCP server with faults: it answers late or with nonsense, fails, or hands out one session twice.
//!
//! Owns its answer to each message. Listens on loopback until the program ends.

use crate::failure::{Failure, Result};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Longer than every latency threshold of an alert.
const LATE: Duration = Duration::from_secs(7);
const LONGEST_BODY: u64 = 1 << 20;

/// Starts the server; returns its address.
pub(crate) fn start() -> Result<SocketAddr> {
    let fault = |error| Failure::new(format!("could not start the misbehaving server: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that disconnects early does not matter.
            thread::spawn(move || serve(&stream).ok());
        }
    });
    Ok(address)
}

fn serve(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = Vec::new();
    reader.take(LONGEST_BODY.min(length)).read_to_end(&mut body)?;
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (status, session, result) = answer(&message);
    // A failure has no body that an MCP client could parse.
    let reply = match status {
        200 => json!({"jsonrpc": "2.0", "id": message.get("id"), "result": result}).to_string(),
        _ => "{}".to_owned(),
    };
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n{session}\r\n{reply}",
        reply.len()
    )
}

/// Status, a further header, and the result.
fn answer(message: &Value) -> (u16, &'static str, Value) {
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let said = |words: &str| json!({"content": [{"type": "text", "text": words}]});
    match (text("/method"), text("/params/arguments/message")) {
        ("initialize", _) => {
            let server = json!({"name": "misbehaving", "version": "1"});
            let result = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": server});
            (200, "mcp-session-id: the-same-for-everybody\r\n", result)
        }
        // The first tool has a number as its name.
        ("tools/list", _) => {
            let schema = json!({"type": "object"});
            (
                200,
                "",
                json!({"tools": [{"name": 5, "inputSchema": schema}, {"name": "echo", "inputSchema": schema}]}),
            )
        }
        ("tools/call", "late") => {
            thread::sleep(LATE);
            (200, "", said("late"))
        }
        ("tools/call", "fail") => (503, "", said("failed")),
        _ => (200, "", said("well")),
    }
}
