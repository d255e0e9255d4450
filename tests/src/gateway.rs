//! One Envoy as a test sees it: requests go in, and each answer leads to the upstream's record and the audit entry.
//!
//! Owns the link between an answer, the requests recorded upstream and the audit entry: the request id.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portcullis_stack::{Envoy, Stack};
use serde_json::Value;

use crate::audit::AuditLog;
use crate::wire::{Reply, Request, Wire};
use crate::world::Mode;

/// A gateway and the demo connector behind it.
#[derive(Clone, Debug)]
pub struct Gateway {
    address: SocketAddr,
    audit: AuditLog,
    record: PathBuf,
}

impl Gateway {
    /// The stack's first Envoy.
    pub fn of(stack: &Stack) -> Self {
        Self::at(&stack.envoy, stack.connector.record())
    }

    /// Any Envoy; the demo connector writes its requests to `record`.
    pub fn at(envoy: &Envoy, record: &Path) -> Self {
        let audit = AuditLog::at(envoy.audit_log());
        Self { address: envoy.address(), audit, record: record.to_owned() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// Sends one request on a new connection, so that either worker may get it.
    pub fn send(&self, request: &Request) -> Answer {
        let sent = Instant::now();
        let mut wire = Wire::connect(self.address).expect("connect to the gateway");
        let reply = wire.exchange(request).unwrap_or_else(|fault| {
            panic!("no answer to {} {}: {fault}", request.method, request.path)
        });
        self.answer(reply, sent)
    }

    /// The answer that arrived on the test's own connection.
    pub fn answer(&self, reply: Reply, sent: Instant) -> Answer {
        Answer { reply, sent, received: Instant::now(), gateway: self.clone() }
    }

    /// The requests that reached the demo connector so far.
    pub fn recorded(&self) -> Vec<Value> {
        self.recorded_with("")
    }

    /// The recorded requests that contain `part`. The record is long, so only these lines are parsed as JSON.
    fn recorded_with(&self, part: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.record).unwrap_or_default();
        let lines = text.lines().filter(|line| line.contains(part));
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// An answer of the gateway.
#[derive(Clone, Debug)]
pub struct Answer {
    pub reply: Reply,
    pub sent: Instant,
    pub received: Instant,
    gateway: Gateway,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.reply.status
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.reply.header(name)
    }

    pub fn took(&self) -> Duration {
        self.received - self.sent
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.reply.body).into_owned()
    }

    /// The JSON-RPC message in the answer: JSON, or the last event of a stream.
    pub fn message(&self) -> Value {
        let text = self.text();
        let streamed =
            self.header("content-type").is_some_and(|value| value.starts_with("text/event-stream"));
        let last = match streamed {
            true => text.lines().rev().filter_map(|line| line.strip_prefix("data:")).next(),
            false => Some(text.as_str()),
        };
        last.and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_else(|| panic!("no JSON-RPC message in {} {text:?}", self.status()))
    }

    /// The `result` of the message; panics on an error.
    pub fn result(&self) -> Value {
        let mut message = self.message();
        assert_eq!(self.status(), 200, "{message}");
        assert!(message.get("error").is_none(), "{message}");
        message["result"].take()
    }

    /// `structuredContent.rows` of a tool's result.
    pub fn rows(&self) -> Vec<Value> {
        let result = self.result();
        result["structuredContent"]["rows"]
            .as_array()
            .cloned()
            .unwrap_or_else(|| panic!("{result}"))
    }

    /// The names in the result of `tools/list`, in order.
    pub fn tools(&self) -> Vec<String> {
        let result = self.result();
        let tools = result["tools"].as_array().unwrap_or_else(|| panic!("no tools in {result}"));
        tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
    }

    pub fn error_code(&self) -> Option<i64> {
        self.message()["error"]["code"].as_i64()
    }

    /// The id that connects answer, upstream and audit entry; every response has one.
    pub fn request_id(&self) -> String {
        self.header("x-portcullis-request-id")
            .unwrap_or_else(|| panic!("no request id: {:?} {}", self.reply.headers, self.text()))
    }

    /// The requests that reached the demo connector for this answer.
    pub fn upstream(&self) -> Vec<Value> {
        let id = self.request_id();
        let mut seen = self.gateway.recorded_with(&id);
        seen.retain(|request| sent_header(request, "x-portcullis-request-id") == [id.as_str()]);
        if Mode::of_this_run() == Mode::Split {
            // In split mode, headers of a call go upstream before the decision on its body; a request without a body
            // was not executed.
            seen.retain(|request| request["method"] != "POST" || request["body"] != "");
        }
        seen
    }

    /// The audit entry; waits for it.
    pub fn audit(&self) -> Value {
        self.gateway.audit.entry(&self.request_id())
    }

    /// Checks that the call was refused with this status and code, is audited as refused, and never reached the
    /// upstream.
    pub fn assert_refused(&self, status: u16, code: i64) {
        assert_eq!((self.status(), self.error_code()), (status, Some(code)), "{}", self.text());
        let entry = self.audit();
        assert_eq!(entry["decision"]["effect"], "deny", "{entry}");
        assert_eq!(entry["http_status"], status, "{entry}");
        assert_eq!(self.upstream(), Vec::<Value>::new(), "the upstream got a refused request");
    }
}

/// The values of a header in a line of the connector's record.
pub fn sent_header<'a>(recorded: &'a Value, name: &str) -> Vec<&'a str> {
    let pairs = recorded["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
    pairs.iter().filter(|pair| pair[0] == name).filter_map(|pair| pair[1].as_str()).collect()
}
