//! Lists the tools of a live MCP server: first with the era of 2026-07-28, then with the older handshake.
//!
//! Owns a minimal MCP client.

use std::time::Duration;

use serde_json::{Map, Value, json};
use ureq::Agent;
use ureq::http::Request;

use crate::http;
use crate::report::CliError;

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
const BOUND: Duration = Duration::from_secs(30);
const MAX_BODY: u64 = 16 * 1_024 * 1_024;
const MOST_PAGES: usize = 100;

/// The URL and the headers, and what an operator does when it does not list tools.
pub(crate) struct Server {
    url: String,
    headers: Vec<(String, String)>,
    next: &'static str,
    agent: Agent,
}

struct Answer {
    status: u16,
    session: Option<String>,
    message: Value,
}

/// The headers with the era and the session.
type Era<'a> = &'a [(&'a str, &'a str)];

impl Server {
    pub(crate) fn new(
        url: &str,
        headers: Vec<(String, String)>,
        next: &'static str,
    ) -> Result<Self, CliError> {
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(CliError::new(format!("the URL {url:?}"), "the command line")
                .expected("a URL that starts with https:// or http://"));
        }
        Ok(Self { url: url.to_owned(), headers, next, agent: http::agent(BOUND) })
    }

    /// Every tool, page by page, as the server lists it.
    pub(crate) fn tools(&self) -> Result<Vec<Value>, CliError> {
        let modern = [("mcp-protocol-version", MODERN), ("mcp-method", "tools/list")];
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": client(),
        });
        let first = self.post(&page(None, Some(&meta)), &modern)?;
        if matches!(first.status, 401 | 403) {
            return Err(self.refused(&first));
        }
        if first.message.pointer("/result/tools").is_some() {
            return self.pages(first, |cursor| page(Some(cursor), Some(&meta)), &modern);
        }
        self.legacy_tools()
    }

    fn legacy_tools(&self) -> Result<Vec<Value>, CliError> {
        let hello = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client()});
        let opened = self.post(&request("initialize", hello), &[])?;
        let version = opened.message.pointer("/result/protocolVersion").and_then(Value::as_str);
        let Some(version) = version else {
            return Err(self.refused(&opened));
        };
        let mut era = vec![("mcp-protocol-version", version)];
        era.extend(opened.session.as_deref().map(|session| ("mcp-session-id", session)));
        self.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}), &era)?;
        let first = self.post(&page(None, None), &era)?;
        let tools = self.pages(first, |cursor| page(Some(cursor), None), &era);
        if opened.session.is_some() {
            // Optional: a server ends sessions by itself, too.
            let _ = self.send("DELETE", Vec::new(), &era);
        }
        tools
    }

    fn pages(
        &self,
        first: Answer,
        next: impl Fn(&str) -> Value,
        era: Era<'_>,
    ) -> Result<Vec<Value>, CliError> {
        let (mut tools, mut answer) = (Vec::new(), first);
        for _ in 0..MOST_PAGES {
            let Some(items) = answer.message.pointer("/result/tools").and_then(Value::as_array)
            else {
                return Err(self.refused(&answer));
            };
            tools.extend(items.iter().cloned());
            let cursor = answer.message.pointer("/result/nextCursor").and_then(Value::as_str);
            let Some(cursor) = cursor else {
                return Ok(tools);
            };
            answer = self.post(&next(cursor), era)?;
        }
        Err(CliError::new(format!("more than {MOST_PAGES} pages of tools"), &self.url)
            .expected("a list that ends"))
    }

    fn post(&self, message: &Value, era: Era<'_>) -> Result<Answer, CliError> {
        self.send("POST", message.to_string().into_bytes(), era)
    }

    fn send(&self, method: &str, body: Vec<u8>, era: Era<'_>) -> Result<Answer, CliError> {
        let failed = |error: String| {
            CliError::new(error, &self.url)
                .expected("an MCP server that answers over streamable HTTP")
                .next("check the URL, and that the server runs")
        };
        let mut request = Request::builder()
            .method(method)
            .uri(&self.url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        for (name, value) in era {
            request = request.header(*name, *value);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        // An error about a header must not show its value.
        let request =
            request.body(body).map_err(|_| failed("a header has no valid form".to_owned()))?;
        let mut response = self.agent.run(request).map_err(|error| failed(error.to_string()))?;
        let session = response.headers().get("mcp-session-id");
        let session = session.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_BODY).read_to_vec();
        let body = body.map_err(|error| failed(error.to_string()))?;
        Ok(Answer { status, session, message: message_in(&String::from_utf8_lossy(&body)) })
    }

    fn refused(&self, answer: &Answer) -> CliError {
        let why = answer.message.pointer("/error/message").and_then(Value::as_str);
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        CliError::new(format!("status {}{why}", answer.status), &self.url)
            .expected("a list of tools")
            .next(self.next)
    }
}

fn client() -> Value {
    json!({"name": "portcullis discover", "version": env!("CARGO_PKG_VERSION")})
}

fn request(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

fn page(cursor: Option<&str>, meta: Option<&Value>) -> Value {
    let cursor = cursor.map(|cursor| ("cursor".to_owned(), cursor.into()));
    let meta = meta.map(|meta| ("_meta".to_owned(), meta.clone()));
    let params: Map<String, Value> = cursor.into_iter().chain(meta).collect();
    request("tools/list", params.into())
}

/// The answer in a body: JSON, or the matching event of a stream.
fn message_in(body: &str) -> Value {
    if let Ok(message) = serde_json::from_str(body) {
        return message;
    }
    let events = body.split("\n\n").flat_map(|event| event.split("\r\n\r\n"));
    let data = events.map(|event| {
        let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
        lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
    });
    let mut messages = data.filter_map(|data| serde_json::from_str::<Value>(&data).ok());
    messages.find(|message| message.get("id") == Some(&json!(1))).unwrap_or_default()
}
