//! Entries as rows for operators and scripts, one at a time.
//!
//! Owns the columns, their widths, and that untrusted text reaches a terminal only escaped.

use std::borrow::Cow;
use std::io::{BufWriter, IsTerminal as _, Result, Stdout, Write};

use unicode_width::UnicodeWidthChar as _;

use super::entry::Entry;
use super::vault_log::{VaultLog, VaultRead};
use crate::escape;
use crate::report::Output;

/// Time, status and duration; the other columns share the rest of the terminal.
const FIXED: [usize; 3] = [20, 10, 7];
const GAP: usize = 2;
/// The columns for a pipe, or for a terminal of unknown width: nothing is cut.
const PIPED: Widths = Widths { caller: 24, call: 36, why: 30, is_cut: false };

/// Writes entries to standard output.
pub(super) struct Rows {
    out: BufWriter<Stdout>,
    output: Output,
    widths: Widths,
    written: u64,
    vault: VaultLog,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Widths {
    caller: usize,
    call: usize,
    why: usize,
    /// Whether long cells are cut.
    is_cut: bool,
}

impl Rows {
    pub(super) fn new(output: Output) -> Self {
        let out = std::io::stdout();
        let size = if out.is_terminal() { terminal_size::terminal_size() } else { None };
        let widths = size.map_or(PIPED, |(width, _)| Widths::within(width.0.into()));
        Self {
            out: BufWriter::with_capacity(64 * 1_024, out),
            output,
            widths,
            written: 0,
            vault: VaultLog::default(),
        }
    }

    /// The same, with Vault's answers below each entry.
    pub(super) fn beside(self, vault: VaultLog) -> Self {
        Self { vault, ..self }
    }

    pub(super) fn write(&mut self, entry: &Entry<'_>, line: &str) -> Result<()> {
        match self.output {
            Output::Json => writeln!(self.out, "{}", json_line(line))?,
            Output::Table => {
                if self.written == 0 {
                    let header = ["TIME", "STATUS", "MS", "CALLER", "CALL", "RULE, EVENTS"];
                    writeln!(self.out, "{}", self.widths.row(header.map(str::to_owned)))?;
                }
                writeln!(self.out, "{}", self.widths.row(cells(entry)))?;
            }
        }
        for read in self.vault.of(&entry.request_id) {
            match self.output {
                Output::Json => writeln!(self.out, "{}", json_line(&read.line))?,
                Output::Table => writeln!(self.out, "{}", self.widths.row(cells_of_vault(read)))?,
            }
        }
        self.written = self.written.saturating_add(1);
        Ok(())
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.out.flush()
    }
}

/// The line as it is, except that characters which a terminal interprets become JSON escapes. Value and hash stay the
/// same.
pub(super) fn json_line(line: &str) -> Cow<'_, str> {
    if line.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Cow::Borrowed(line);
    }
    Cow::Owned(match line.bytes().any(|byte| byte < b' ') {
        false => escape::json(line),
        // Tabs between members, which an escape would damage. A line that is not JSON is no entry, and is not written.
        true => {
            let value = serde_json::from_str::<serde_json::Value>(line).unwrap_or_default();
            escape::json(&value.to_string())
        }
    })
}

fn cells_of_vault(read: &VaultRead) -> [String; 6] {
    let status = if read.error.is_empty() { "read" } else { "refused" };
    let path = format!("vault {}", read.path);
    let cells = [
        seconds(&read.time),
        status.to_owned(),
        String::new(),
        read.name.clone(),
        path,
        read.error.clone(),
    ];
    cells.map(|cell| escape::line(&cell))
}

fn cells(entry: &Entry<'_>) -> [String; 6] {
    let name = [&*entry.principal, entry.caller(), &*entry.actor, &*entry.client_address];
    let name = name.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    let caller = match entry.org_id.is_empty() {
        true => name.to_owned(),
        false => format!("{}/{name}", &*entry.org_id),
    };
    let call = match entry.subject() {
        "" if entry.mcp_method.is_empty() && entry.action.is_empty() => {
            format!("{} {}", entry.operation(), &*entry.path)
        }
        "" => entry.operation().to_owned(),
        subject => format!("{} {subject}", entry.operation()),
    };
    let mut why = entry.notable_events();
    if !entry.decision.rule.is_empty() {
        why.insert(0, entry.decision.rule.to_string());
    }
    let latency = entry.latency_ms.map(|latency| latency.to_string()).unwrap_or_default();
    let cells = [
        seconds(&entry.timestamp),
        entry.status.to_string(),
        latency,
        caller,
        call,
        why.join(", "),
    ];
    cells.map(|cell| escape::line(&cell))
}

/// `2026-11-28T10:00:00.123456Z` without its fraction.
fn seconds(timestamp: &str) -> String {
    match timestamp.split_once('.') {
        Some((seconds, fraction)) if fraction.ends_with('Z') => format!("{seconds}Z"),
        _ => timestamp.to_owned(),
    }
}

impl Widths {
    /// The columns for a terminal of this width.
    fn within(columns: usize) -> Self {
        let fixed = FIXED.iter().map(|width| width.saturating_add(GAP)).sum::<usize>();
        let left = columns.saturating_sub(fixed).saturating_sub(GAP.saturating_mul(2)).max(30);
        let caller = left.saturating_mul(3).checked_div(10).unwrap_or_default();
        let call = left.saturating_mul(4).checked_div(10).unwrap_or_default();
        let why = left.saturating_sub(caller).saturating_sub(call);
        Self { caller, call, why, is_cut: true }
    }

    fn row(&self, cells: [String; 6]) -> String {
        let [time, status, latency] = FIXED;
        let widths = [time, status, latency, self.caller, self.call, self.why];
        let mut row = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let (cell, taken) =
                if self.is_cut { cut(cell, width) } else { (cell.clone(), columns(cell)) };
            row.push_str(&cell);
            row.extend(std::iter::repeat_n(' ', width.saturating_sub(taken).saturating_add(GAP)));
        }
        row.truncate(row.trim_end().len());
        row
    }
}

fn columns(text: &str) -> usize {
    text.chars().map(|letter| letter.width().unwrap_or_default()).sum()
}

/// The part of a cell that fits, and its width.
fn cut(cell: &str, width: usize) -> (String, usize) {
    let whole = columns(cell);
    if whole <= width {
        return (cell.to_owned(), whole);
    }
    let (mut shown, mut taken) = (String::new(), 0_usize);
    for letter in cell.chars() {
        let next = taken.saturating_add(letter.width().unwrap_or_default());
        if next.saturating_add(1) > width {
            break;
        }
        shown.push(letter);
        taken = next;
    }
    shown.push('…');
    (shown, taken.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"api_key_id":"k1","chain":"c","decision":{"effect":"deny","rule":"tool.blocked"},"events":[{"client_id":"k1","event":"tool_access_denied","tool":"pay"}],"http_method":"POST","latency_ms":12,"mcp_method":"tools/call","org_id":"acme","path":"/demo/mcp","principal":"日本語 \u202ebot","seq":1,"status":"denied","timestamp":"2026-11-28T10:00:00.500000Z","tool_name":"a_tool_with_quite_a_long_name"}"#;

    // Proves: A20, B14
    #[test]
    fn a_row_fits_the_terminal_and_is_escaped() {
        let (entry, _) = Entry::read(LINE.as_bytes()).unwrap();
        for width in [80, 100, 200] {
            let row = Widths::within(width).row(cells(&entry));
            assert!(columns(&row) <= width, "{width}: {row}");
            assert!(row.starts_with("2026-11-28T10:00:00Z  denied      12"), "{row}");
            assert!(!row.contains('\u{202e}'));
        }
        assert!(Widths::within(80).row(cells(&entry)).contains('…'));
        let piped = PIPED.row(cells(&entry));
        assert!(piped.contains("acme/日本語 \\u{202e}bot"), "{piped}");
        assert!(piped.ends_with(
            "tools/call a_tool_with_quite_a_long_name  tool.blocked, tool_access_denied"
        ));
    }

    #[test]
    fn a_json_line_keeps_its_value() {
        assert_eq!(json_line(LINE), LINE);
        let odd = "{\"b\":\t1.50, \"a\":\"\u{2800}\"}";
        assert_eq!(json_line(odd), r#"{"b":1.50,"a":"\u2800"}"#);
    }
}
