//! The two clients of the tour: the unmodified PyPI `mcp` client, and plain HTTP where statuses and headers matter.
//!
//! Owns how MCP messages are sent. Knows nothing about the expected answers.

use super::notes::Notes;
use crate::failure::{Failure, Result};
use portcullis_stack::http::{self, Reply};
use portcullis_stack::{Stack, Tools, process};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

/// The headers of an answer that the tour shows.
const SHOWN: [&str; 4] = ["www-authenticate", "retry-after", "ratelimit", "ratelimit-policy"];
/// How much of a body the tour shows.
const SHOWN_BODY: usize = 300;

/// The context of every step.
pub(crate) struct Guide<'a> {
    pub(crate) stack: &'a Stack,
    tools: Tools,
}

/// An answer and how long it took.
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) took: Duration,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.reply.status
    }

    /// The JSON-RPC error's code; 0 without one.
    pub(crate) fn code(&self) -> i64 {
        self.reply.json().pointer("/error/code").and_then(Value::as_i64).unwrap_or_default()
    }

    pub(crate) fn message(&self) -> String {
        let body = self.reply.json();
        body.pointer("/error/message").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.reply.header(name)
    }
}

impl<'a> Guide<'a> {
    pub(crate) fn new(stack: &'a Stack, tools: Tools) -> Self {
        Self { stack, tools }
    }

    /// Lists the tools of the demo connector over plain HTTP.
    pub(crate) fn list(&self, key: &str, notes: &mut Notes) -> Result<Answer> {
        notes.sent(format!("POST /demo/mcp  tools/list  key {}", abridged(key)));
        self.post(Some(key), "tools/list", json!({}), notes)
    }

    /// As [`Guide::list`], without output.
    pub(crate) fn list_silently(&self, key: &str) -> Result<Answer> {
        self.send(Some(key), "tools/list", &json!({}))
    }

    /// Calls a tool of the demo connector over plain HTTP.
    pub(crate) fn call(
        &self,
        key: &str,
        tool: &str,
        arguments: Value,
        notes: &mut Notes,
    ) -> Result<Answer> {
        notes.sent(format!("POST /demo/mcp  tools/call {tool} {arguments}  key {}", abridged(key)));
        self.post(Some(key), "tools/call", json!({"name": tool, "arguments": arguments}), notes)
    }

    /// As [`Guide::call`], without output, for the many calls of one step.
    pub(crate) fn call_silently(&self, key: &str, tool: &str, arguments: &Value) -> Result<Answer> {
        self.send(Some(key), "tools/call", &json!({"name": tool, "arguments": arguments}))
    }

    /// Calls a tool without a credential.
    pub(crate) fn call_anonymously(&self, tool: &str, notes: &mut Notes) -> Result<Answer> {
        notes.sent(format!("POST /demo/mcp  tools/call {tool}  without a key"));
        self.post(None, "tools/call", json!({"name": tool, "arguments": {}}), notes)
    }

    fn post(
        &self,
        key: Option<&str>,
        method: &str,
        params: Value,
        notes: &mut Notes,
    ) -> Result<Answer> {
        let answer = self.send(key, method, &params)?;
        show(&answer, notes);
        Ok(answer)
    }

    fn send(&self, key: Option<&str>, method: &str, params: &Value) -> Result<Answer> {
        let message =
            json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let bearer = key.map(|key| format!("Bearer {key}"));
        let mut headers = vec![
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        let started = Instant::now();
        let reply = http::send("POST", &self.stack.mcp_url(), &headers, message.as_bytes())?;
        Ok(Answer { reply, took: started.elapsed() })
    }

    /// Runs the PyPI client against one of the connectors; it prints one JSON document.
    pub(crate) fn python_client(
        &self,
        url: &str,
        key: &str,
        arguments: &[&str],
        notes: &mut Notes,
    ) -> Result<Value> {
        notes.sent(format!(
            "client.py {}  (PyPI mcp, unmodified)  key {}",
            arguments.join(" "),
            abridged(key)
        ));
        let mut command = self.tools.python_command();
        command.arg(self.client_script()).args(["--url", url, "--key", key]).args(arguments);
        let output = process::output("the Python client", command)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        notes.came(clipped(text.trim()));
        serde_json::from_str(&text).map_err(|error| {
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            Failure::new(format!("one JSON document from the client: {error} {complaint}"))
        })
    }

    /// Runs the operator's tool, and shows the command as a person would type it.
    pub(crate) fn operator(&self, arguments: &[&str], notes: &mut Notes) -> Result<bool> {
        self.operator_with(arguments, &[], notes)
    }

    /// As [`Guide::operator`], with secrets in the environment, which the tour does not show.
    pub(crate) fn operator_with(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
        notes: &mut Notes,
    ) -> Result<bool> {
        notes.sent(format!("portcullis {}", arguments.join(" ")));
        let output = self.stack.operator.run_with(arguments, environment)?;
        notes.came(String::from_utf8_lossy(&output.stdout).trim());
        notes.came(String::from_utf8_lossy(&output.stderr).trim());
        Ok(output.status.success())
    }

    /// A command for the reader's own shell.
    pub(crate) fn ready_made_command(&self) -> String {
        let command: &Command = &self.tools.python_command();
        format!(
            "PYTHONPATH={} {} {} --url {} --key {} call query_users '{{\"limit\": 3}}'",
            self.tools.python_path.display(),
            command.get_program().to_string_lossy(),
            self.client_script().display(),
            self.stack.mcp_url(),
            self.stack.analyst.key
        )
    }

    fn client_script(&self) -> std::path::PathBuf {
        self.stack.options().root.join("demo/python/client.py")
    }
}

fn show(answer: &Answer, notes: &mut Notes) {
    let headers: Vec<String> =
        SHOWN.iter().filter_map(|name| Some(format!("{name}: {}", answer.header(name)?))).collect();
    notes.came(format!("{}  {}", answer.status(), headers.join("  ")).trim_end());
    notes.came(clipped(answer.reply.text().trim()));
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(SHOWN_BODY) {
        Some((end, _)) => format!("{} …", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The beginning of a key: it identifies the key, and does not authenticate.
pub(crate) fn abridged(key: &str) -> String {
    let shown: String = key.chars().take(18).collect();
    format!("{shown}…")
}
