//! Lines of Vault's audit device, by the id of the gateway's request that caused them.
//!
//! Owns how the two logs are joined: Vault logs the header `x-request-id` if its operator configured that. Values in
//! Vault's log are HMACs; they are not used here.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde::Deserialize;

use crate::report::CliError;

/// A longer line is not about a read of a credential.
const LONGEST: u64 = 1_048_576;

/// Vault's log entries, by the gateway's request id.
#[derive(Debug, Default)]
pub(super) struct VaultLog {
    reads: HashMap<String, Vec<VaultRead>>,
}

/// One response of Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VaultRead {
    pub(super) time: String,
    /// The path of the API.
    pub(super) path: String,
    /// The display name of the token.
    pub(super) name: String,
    /// The reason for a refusal; otherwise empty.
    pub(super) error: String,
    /// The line as it is.
    pub(super) line: String,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    auth: Auth,
    request: Request,
}

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(default)]
    display_name: String,
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    path: String,
    #[serde(default)]
    headers: Option<HashMap<String, Vec<String>>>,
}

impl VaultLog {
    /// The responses in these files. Skips lines that are not Vault's.
    pub(super) fn named(files: &[impl AsRef<Path>]) -> Result<Self, CliError> {
        let mut log = Self::default();
        for file in files.iter().map(AsRef::as_ref) {
            log.read(file).map_err(|error| {
                CliError::new(error.to_string(), file.display().to_string()).expected(
                    "the file of Vault's audit device (type file), one JSON object a line",
                )
            })?;
        }
        Ok(log)
    }

    fn read(&mut self, file: &Path) -> std::io::Result<()> {
        let mut reader = BufReader::new(File::open(file)?);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if let Ok(text) = std::str::from_utf8(&line) {
                self.note(text.trim_end());
            }
        }
    }

    fn note(&mut self, text: &str) {
        let Ok(line) = serde_json::from_str::<Line>(text) else { return };
        if line.kind != "response" {
            return;
        }
        let headers = line.request.headers.unwrap_or_default();
        let ids = headers.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-request-id"));
        for id in ids.flat_map(|(_, ids)| ids) {
            self.reads.entry(id).or_default().push(VaultRead {
                time: line.time.clone(),
                path: line.request.path.clone(),
                name: line.auth.display_name.clone(),
                error: line.error.trim().to_owned(),
                line: text.to_owned(),
            });
        }
    }

    /// Vault's responses for this request.
    pub(super) fn of(&self, request_id: &str) -> &[VaultRead] {
        self.reads.get(request_id).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_by_the_id_of_our_request() {
        let mut log = VaultLog::default();
        let response = r#"{"type":"response","time":"2026-11-29T10:00:00Z","auth":{"display_name":"token-portcullis"},
            "request":{"path":"secret/data/crm","headers":{"X-Request-Id":["r-1"]}}}"#;
        log.note(response);
        log.note(r#"{"type":"request","request":{"path":"secret/data/crm","headers":{"x-request-id":["r-1"]}}}"#);
        log.note(r#"{"type":"response","request":{"path":"sys/health"}}"#);
        log.note("a line of another program");
        let [read] = log.of("r-1") else { panic!("{log:?}") };
        assert_eq!(
            (read.path.as_str(), read.name.as_str()),
            ("secret/data/crm", "token-portcullis")
        );
        assert!(log.of("r-2").is_empty());
    }
}
