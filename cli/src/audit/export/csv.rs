//! Entries as comma-separated values (RFC 4180), for spreadsheets.
//!
//! Owns the columns, and that no cell is a formula.

use serde_json::value::RawValue;

use crate::audit::entry::{Entry, Text};
use crate::escape;

const COLUMNS: [&str; 52] = [
    "timestamp",
    "org_id",
    "principal",
    "api_key_id",
    "client_id",
    "role",
    "connector",
    "mcp_method",
    "tool_name",
    "prompt_name",
    "resource_uri",
    "resource_uris",
    "task_id",
    "task_ids",
    "input",
    "status",
    "effect",
    "rule",
    "http_status",
    "error_code",
    "latency_ms",
    "upstream_ms",
    "rows_returned",
    "credits",
    "policy_version",
    "degraded",
    "events",
    "client_address",
    "user_agent",
    "http_method",
    "path",
    "auth_method",
    "certificate_sha256",
    "request_id",
    "trace_id",
    "input_sha256",
    "actor",
    "actor_claim",
    "action",
    "reason",
    "changes",
    "chain",
    "seq",
    "hash",
    "secret",
    "oauth_client_id",
    "agent_id",
    "actors",
    "query",
    "started_at",
    "module",
    "prev_hash",
];

pub(super) fn header() -> String {
    COLUMNS.join(",")
}

/// The entry, without line end.
pub(super) fn row(entry: &Entry<'_>) -> String {
    let list = |texts: &[Text<'_>]| match texts {
        [] => String::new(),
        texts => serde_json::to_string(texts).unwrap_or_default(),
    };
    let number = |number: Option<u64>| number.map(|it| it.to_string()).unwrap_or_default();
    let cells: [String; COLUMNS.len()] = [
        cell(&entry.timestamp),
        cell(&entry.org_id),
        cell(&entry.principal),
        cell(&entry.api_key_id),
        cell(&entry.client_id),
        cell(&entry.role),
        cell(&entry.connector),
        cell(&entry.mcp_method),
        cell(&entry.tool_name),
        cell(&entry.prompt_name),
        cell(&entry.resource_uri),
        cell(&list(&entry.resource_uris)),
        cell(&entry.task_id),
        cell(&list(&entry.task_ids)),
        cell(raw(entry.input)),
        cell(&entry.status),
        cell(&entry.decision.effect),
        cell(&entry.decision.rule),
        number(entry.http_status),
        entry.error_code.map(|code| code.to_string()).unwrap_or_default(),
        number(entry.latency_ms),
        number(entry.upstream_ms),
        number(entry.rows_returned),
        number(entry.credits),
        cell(&entry.policy_version),
        cell(&list(&entry.degraded)),
        cell(raw(entry.events)),
        cell(&entry.client_address),
        cell(&entry.user_agent),
        cell(&entry.http_method),
        cell(&entry.path),
        cell(&entry.auth_method),
        cell(&entry.certificate_sha256),
        cell(&entry.request_id),
        cell(&entry.trace_id),
        cell(&entry.input_sha256),
        cell(&entry.actor),
        cell(&entry.actor_claim),
        cell(&entry.action),
        cell(&entry.reason),
        cell(raw(entry.changes)),
        cell(&entry.chain),
        number(entry.seq),
        cell(&entry.hash),
        cell(&entry.secret),
        cell(&entry.oauth_client_id),
        cell(&entry.agent_id),
        cell(&list(&entry.actors)),
        cell(&list(&entry.query)),
        cell(&entry.started_at),
        cell(&entry.module),
        cell(&entry.prev_hash),
    ];
    cells.join(",")
}

fn raw(json: Option<&RawValue>) -> &str {
    json.map_or("", RawValue::get)
}

/// A text that a spreadsheet shows and does not compute, on one line.
fn cell(text: &str) -> String {
    let text = escape::line(text);
    // An apostrophe before what begins a formula, as OWASP advises; also in full width, and behind blanks.
    let computed =
        |letter: char| matches!(letter, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠');
    let text = if text.trim_start().starts_with(computed) { format!("'{text}") } else { text };
    match text.contains([',', '"', '\'', ' ']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    /// What a reader of RFC 4180 makes of a row.
    fn read(row: &str) -> Vec<String> {
        let (mut cells, mut quoted) = (vec![String::new()], false);
        let mut letters = row.chars().peekable();
        while let Some(letter) = letters.next() {
            let last = cells.last_mut().unwrap();
            match (letter, quoted) {
                ('"', true) if letters.peek() == Some(&'"') => {
                    letters.next();
                    last.push('"');
                }
                ('"', _) => quoted = !quoted,
                (',', false) => cells.push(String::new()),
                (letter, _) => last.push(letter),
            }
        }
        cells
    }

    // Proves: A19
    #[test]
    fn a_row_reads_back_and_has_no_formula() {
        for line in samples::all() {
            let (entry, _) = Entry::read(line.as_bytes()).unwrap();
            let row = row(&entry);
            assert!(!row.contains(['\n', '\r']), "{row}");
            let cells = read(&row);
            assert_eq!(cells.len(), COLUMNS.len(), "{row}");
            let formula =
                |cell: &&String| cell.starts_with(['=', '+', '@']) || cell.starts_with("-c");
            assert_eq!(cells.iter().find(formula), None);
            let at = |name: &str| &cells[COLUMNS.iter().position(|it| *it == name).unwrap()];
            assert_eq!(*at("hash"), *entry.hash);
            assert_eq!(*at("input"), entry.input.map(|it| it.get().to_owned()).unwrap_or_default());
        }
        let line = samples::full();
        let cells = read(&row(&Entry::read(line.as_bytes()).unwrap().0));
        assert!(
            cells.contains(&"'=cmd|' /C calc'!A0".to_owned())
                && cells.contains(&"'+curl".to_owned())
        );
        assert!(cells.contains(&"-31403".to_owned()));
    }

    // Finding: `query` was in no column.
    // Proves: A19
    #[test]
    fn every_member_of_an_entry_has_a_column() {
        for line in samples::all() {
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
            let members = entry.as_object().unwrap().keys().map(String::as_str);
            let absent = |name: &&str| *name != "decision" && !COLUMNS.contains(name);
            assert_eq!(members.clone().find(absent), None, "{line}");
            // An empty cell is of a member that the entry does not have.
            let cells = read(&row(&Entry::read(line.as_bytes()).unwrap().0));
            let empty = COLUMNS.iter().zip(&cells).filter(|(_, cell)| cell.is_empty());
            let missed = empty.map(|(name, _)| name).find(|name| {
                let value = &entry[**name];
                !value.is_null() && value != ""
            });
            assert_eq!(missed, None, "{line}");
        }
        let cells = read(&row(&Entry::read(samples::full().as_bytes()).unwrap().0));
        assert!(cells.contains(&r#"["toolsets","=x"]"#.to_owned()), "{cells:?}");
    }

    #[test]
    fn whatever_begins_a_formula_is_neutralised() {
        for (text, written) in [
            ("=1+1", "\"'=1+1\""),
            (" =1", "\"' =1\""),
            ("-2+3", "\"'-2+3\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\\t=1"),
            ("\r\n=1", "\\r\\n=1"),
            ("＝1", "\"'＝1\""),
            ("plain", "plain"),
            ("a,\"b\"", "\"a,\"\"b\"\"\""),
        ] {
            assert_eq!(cell(text), written, "{text:?}");
        }
    }
}
