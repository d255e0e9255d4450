//! A gateway that is called, the form of a call, and its traces: at the server and in the audit log.
//!
//! Knows nothing about how the gateway was installed.

use super::front::Front;
use crate::failure::{Failure, Result};
use portcullis_stack::{Stack, http, ready};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Envoy's main thread writes the access log, and it also compiles a new module: on a busy machine that takes most of a
/// minute.
pub(super) const FLUSHED_WITHIN: Duration = Duration::from_secs(120);
/// The time between two polls.
const LOOK: Duration = Duration::from_millis(100);

/// The host of the shipped routes.
pub(crate) const HOST: &str = "mcp.example.com";
pub(crate) const PATH: &str = "/demo/mcp";

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A tool that the caller may call.
    Allowed,
    /// A tool that the caller may not call.
    Danger,
    /// Without a credential.
    NoKey,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Allowed, Self::Danger, Self::NoKey];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Danger => "danger",
            Self::NoKey => "nokey",
        }
    }

    pub(crate) fn tool(self) -> &'static str {
        match self {
            Self::Allowed | Self::NoKey => "query_users",
            Self::Danger => "delete_user",
        }
    }
}

/// A gateway to call, and the files with its traces.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) url: String,
    pub(crate) key: String,
    /// The requests that the MCP server received.
    pub(crate) record: PathBuf,
    /// The file with the lines of the audit log, perhaps among others.
    pub(crate) audit: PathBuf,
    /// Whether its routes have guards. Without guards, calls may be answered while a part is missing.
    pub(crate) is_guarded: bool,
    /// The traces of the server's streams.
    pub(crate) streams: StreamTraces,
}

/// The file in which the server records its streams, and the folder in which it looks for the streams that it may
/// answer.
#[derive(Clone, Debug)]
pub(crate) struct StreamTraces {
    pub(crate) record: PathBuf,
    pub(crate) released: PathBuf,
}

impl Gateway {
    pub(crate) fn of(stack: &Stack, front: &Front, url: String, audit: PathBuf) -> Self {
        let (key, record) = (stack.analyst.key.clone(), stack.connector.record().to_owned());
        let streams = StreamTraces {
            record: front.record().to_owned(),
            released: front.released().to_owned(),
        };
        Self { url, key, record, audit, is_guarded: true, streams }
    }

    /// Makes one call.
    pub(crate) fn call(&self, kind: Kind, label: &str, number: usize) -> Reply {
        self.call_host(HOST, kind, label, number)
    }

    /// Makes one call to another host.
    pub(crate) fn call_host(&self, host: &str, kind: Kind, label: &str, number: usize) -> Reply {
        self.call_saying(host, kind, (label, number), &[])
    }

    /// Makes one call with further headers.
    pub(crate) fn call_saying(
        &self,
        host: &str,
        kind: Kind,
        (label, number): (&str, usize),
        more: &[(&str, &str)],
    ) -> Reply {
        let id = format!("{label}-{}-{number}", kind.name());
        let message = json!({
            "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": kind.tool(), "arguments": {"limit": 1}},
        });
        self.send(host, kind, &agent(label, kind), (&message.to_string(), more))
    }

    /// The audit entries of one kind.
    pub(crate) fn entries_with(&self, label: &str, kind: Kind) -> Vec<Value> {
        let agent = agent(label, kind);
        let mut entries = entries(&self.audit);
        entries.retain(|entry| entry.get("user_agent").and_then(Value::as_str) == Some(&agent));
        entries
    }

    /// The requests of one kind that the server received.
    pub(crate) fn received(&self, label: &str, kind: Kind) -> Vec<String> {
        let sign = format!("{label}-{}-", kind.name());
        let text = fs::read_to_string(&self.record).unwrap_or_default();
        text.lines().filter(|line| line.contains(&sign)).map(str::to_owned).collect()
    }

    /// Makes one call of each kind to another host, or at another address to `HOST`, and fails when one reaches the
    /// server. Each status must be one of `statuses`, unless that is empty.
    pub(crate) fn refuses(&self, host: &str, label: &str, statuses: &[u16]) -> Result<()> {
        let replies = Kind::ALL.map(|kind| (kind, self.call_host(host, kind, label, 1)));
        let reached = Kind::ALL.map(|kind| self.reached(label, kind));
        let expected = |reply: &Reply| {
            !reply.result && (statuses.is_empty() || statuses.contains(&reply.status))
        };
        if reached == [0; 3] && replies.iter().all(|(_, reply)| expected(reply)) {
            return Ok(());
        }
        let [allowed, danger, nokey] = reached;
        let found: Vec<String> = replies
            .iter()
            .map(|(kind, reply)| format!("{} {}", kind.name(), reply.status))
            .collect();
        Err(Failure::new(format!(
            "there, {allowed} allowed, {danger} danger, {nokey} nokey of 1 each reached the server ({})",
            found.join(", ")
        )))
    }

    /// Sends a message of any form, with further headers.
    pub(crate) fn send(
        &self,
        host: &str,
        kind: Kind,
        user_agent: &str,
        (body, more): (&str, &[(&str, &str)]),
    ) -> Reply {
        let bearer = format!("Bearer {}", self.key);
        let mut headers = vec![
            ("host", host),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("user-agent", user_agent),
        ];
        if kind != Kind::NoKey {
            headers.push(("authorization", &bearer));
        }
        headers.extend(more);
        match http::send("POST", &format!("{}{PATH}", self.url), &headers, body.as_bytes()) {
            Ok(reply) => Reply {
                status: reply.status,
                judged: reply.header("x-portcullis-request-id").is_some(),
                result: reply.json().get("result").is_some_and(Value::is_object),
                body: reply.text(),
            },
            Err(error) => {
                Reply { status: 0, judged: false, result: false, body: error.to_string() }
            }
        }
    }

    /// Makes an allowed call with a body of 900 KB.
    pub(crate) fn large(&self, label: &str) -> Reply {
        let message = json!({
            "jsonrpc": "2.0", "id": format!("{label}-allowed-0"), "method": "tools/call",
            "params": {"name": "query_users", "arguments": {"limit": 1}, "_meta": {"padding": "x".repeat(900_000)}},
        });
        self.send(HOST, Kind::Allowed, &agent(label, Kind::Allowed), (&message.to_string(), &[]))
    }

    /// The port of its URL.
    pub(crate) fn port(&self) -> &str {
        self.url.rsplit(':').next().unwrap_or_default()
    }

    /// Waits for this many entries, and then checks the numbers of executions and entries.
    pub(crate) fn traces(
        &self,
        label: &str,
        kind: Kind,
        executed: usize,
        entries: usize,
    ) -> Result<()> {
        let awaited = format!("{entries} entries of {label}");
        within(FLUSHED_WITHIN, &awaited, || (self.entries(label, kind) >= entries).then_some(()))?;
        let (reached, written) = (self.reached(label, kind), self.entries(label, kind));
        if (reached, written) == (executed, entries) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "expected {executed} executions and {entries} entries, found {reached} and {written}"
        )))
    }

    /// How many requests of one kind reached the server.
    pub(crate) fn reached(&self, label: &str, kind: Kind) -> usize {
        self.received(label, kind).len()
    }

    /// How many audit entries of one kind there are.
    pub(crate) fn entries(&self, label: &str, kind: Kind) -> usize {
        entries_of(&self.audit, &agent(label, kind))
    }
}

/// How many audit entries have this user agent.
pub(crate) fn entries_of(audit: &Path, agent: &str) -> usize {
    let of_it = |entry: &&Value| entry.get("user_agent").and_then(Value::as_str) == Some(agent);
    entries(audit).iter().filter(of_it).count()
}

/// A reply.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// 0 without a reply.
    pub(crate) status: u16,
    /// Whether it has the filter's request id.
    pub(crate) judged: bool,
    /// Whether it is a JSON-RPC result.
    pub(crate) result: bool,
    pub(crate) body: String,
}

fn agent(label: &str, kind: Kind) -> String {
    format!("mesh-{label}-{}", kind.name())
}

/// Waits until `probe` returns a value. The bound does not depend on the machine's load: each operation has a wait of
/// its own.
pub(crate) fn within<T>(
    bound: Duration,
    awaited: &str,
    probe: impl FnMut() -> Option<T>,
) -> Result<T> {
    ready::within(bound, LOOK, probe)
        .ok_or_else(|| Failure::new(format!("waited {} s for {awaited}", bound.as_secs())))
}

/// Fails unless `holds`.
pub(super) fn expect(holds: bool, what: &str, reply: &dyn std::fmt::Debug) -> Result<()> {
    if holds { Ok(()) } else { Err(Failure::new(format!("expected {what}, found {reply:?}"))) }
}

/// The audit entries in a file that may contain other lines.
pub(crate) fn entries(file: &Path) -> Vec<Value> {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    text.unwrap_or_default()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|entry| entry.get("prev_hash").is_some())
        .collect()
}
