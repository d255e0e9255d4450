//! The audit log as a reader sees it: lines of a file, written with a short delay.
//!
//! Owns the wait for a line. Verifies nothing; the CLI does that.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
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

    /// Waits for the entry of that request. There is never more than one.
    pub fn entry(&self, request_id: &str) -> Value {
        let found = ready::eventually(&format!("the audit entry of {request_id}"), WITHIN, || {
            let entries = self.latest_where(request_id);
            (!entries.is_empty()).then_some(entries)
        });
        let mut entries = found.unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(entries.len(), 1, "one entry per request: {entries:?}");
        entries.remove(0)
    }

    /// The entries whose `field` has that value, so far. Tests share a log of many megabytes, so this parses only lines
    /// that contain the value.
    pub fn entries_where(&self, field: &str, value: &str) -> Vec<Value> {
        let lines = self.lines();
        let candidates = lines.iter().filter(|line| line.contains(value));
        let entries = candidates.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.filter(|entry| entry[field] == value).collect()
    }

    /// The entries of that request among the last megabytes.
    fn latest_where(&self, request_id: &str) -> Vec<Value> {
        const LATEST: u64 = 4 << 20;
        let Ok(mut file) = fs::File::open(&self.file) else { return Vec::new() };
        let length = file.metadata().map(|metadata| metadata.len()).unwrap_or_default();
        let mut bytes = Vec::new();
        let read = file
            .seek(SeekFrom::Start(length.saturating_sub(LATEST)))
            .and_then(|_| file.read_to_end(&mut bytes));
        if read.is_err() {
            return Vec::new();
        }
        let text = String::from_utf8_lossy(&bytes);
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let candidates = complete.lines().filter(|line| line.contains(request_id));
        let entries = candidates.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.filter(|entry| entry["request_id"] == request_id).collect()
    }

    /// Every entry so far, without a line that is still being written.
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
