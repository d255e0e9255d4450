//! The record file: each request that this server received, as one JSON line.
//!
//! Demos and tests read it to see what a gateway forwarded and what it removed. It contains secrets on purpose and
//! exists only with `--record`. Knows nothing of credentials or MCP.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde::Serialize;

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    method: &'a str,
    path: &'a str,
    /// Pairs in the order received; a name may come twice.
    headers: Vec<(&'a str, String)>,
    body: String,
    /// Absent unless the client broke off the body or it was too long; then `body` is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_fault: Option<String>,
}

#[derive(Clone)]
pub(crate) struct Recorder {
    file: Arc<Mutex<File>>,
}

impl Recorder {
    pub(crate) fn append_to(path: &Path) -> Result<Self, String> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| format!("record file {}: {e}", path.display()))?;
        Ok(Self { file: Arc::new(Mutex::new(file)) })
    }

    pub(crate) fn note(&self, head: &Parts, body: Result<&[u8], String>) -> std::io::Result<()> {
        let (body, body_fault) = match body {
            Ok(bytes) => (String::from_utf8_lossy(bytes).into_owned(), None),
            Err(fault) => (String::new(), Some(fault)),
        };
        let mut line = serde_json::to_vec(&Line {
            time: jiff::Timestamp::now().to_string(),
            method: head.method.as_str(),
            path: head.uri.path_and_query().map_or(head.uri.path(), |path| path.as_str()),
            headers: pairs(&head.headers),
            body,
            body_fault,
        })?;
        line.push(b'\n');
        // One write call per line: a reader never sees half a line of a finished request.
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(&str, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}
