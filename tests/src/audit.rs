//! The audit log as a reader sees it: lines of a file, some moments late.
//!
//! Owns waiting for a line. Verifies nothing; that is the CLI's job.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_stack::ready;
use serde_json::Value;

/// Envoy flushes every 100 ms; a busy machine takes its time.
const WITHIN: Duration = Duration::from_secs(10);

/// A file with one entry per line.
#[derive(Clone, Debug)]
pub struct AuditLog {
    file: PathBuf,
}

impl AuditLog {
    pub fn at(file: &Path) -> Self {
        Self { file: file.to_owned() }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The entry of that request; waits for it. There is never more than one.
    pub fn entry(&self, request_id: &str) -> Value {
        let found = ready::eventually(&format!("the audit entry of {request_id}"), WITHIN, || {
            let entries = self.entries_where("request_id", request_id);
            (!entries.is_empty()).then_some(entries)
        });
        let mut entries = found.unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(entries.len(), 1, "one entry per request: {entries:?}");
        entries.remove(0)
    }

    /// The entries whose `field` has that value, so far.
    pub fn entries_where(&self, field: &str, value: &str) -> Vec<Value> {
        let mut entries = self.entries();
        entries.retain(|entry| entry[field] == value);
        entries
    }

    /// Every entry so far; a line that is still being written is left out.
    pub fn entries(&self) -> Vec<Value> {
        self.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Every complete line so far.
    pub fn lines(&self) -> Vec<String> {
        let bytes = fs::read(&self.file).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(str::to_owned).collect()
    }
}
