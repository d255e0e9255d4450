//! The final output of a command: a report, or a refusal. Owns both their forms (text and JSON), their streams, and the
//! exit status.

use std::io::Write as _;
use std::process::ExitCode;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cause::{Cause, Rights};
use crate::escape;
use crate::secrets;

/// How the outcome of a command is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// The report of a completed command.
#[derive(Debug)]
#[must_use]
pub(crate) struct Report {
    body: Body,
    verdict: Verdict,
    /// What is lost with the text, if that cannot be written.
    only_here: Option<Lost>,
}

/// A secret that was stored as a digest, and is shown once.
#[derive(Debug)]
struct Lost {
    what: String,
    next: String,
}

#[derive(Debug)]
enum Body {
    Shown {
        text: String,
        json: Value,
    },
    /// The command wrote its output itself, piece by piece.
    Written,
}

/// Whether the checked object is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Wanting,
    /// Only some of several changes were made.
    Partly,
}

/// What the exit status 1 says of a command: an error that is not that exits with 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// "No", "none" or "different": its answer, which no error is.
    Question,
    /// It does not show that: there is none, or the operator may not see it. An outage is something else.
    Reading,
    /// Nothing was changed, or that is not certain.
    Change,
}

/// A command that failed; see [`ActionOutcome`].
#[derive(Debug)]
pub(crate) struct CliError(Box<Reasons>);

#[derive(Debug, Serialize)]
struct Reasons {
    found: String,
    #[serde(rename = "where")]
    place: String,
    expected: String,
    next: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<LocatedFault>,
    /// The exit status that it has for every command.
    #[serde(skip)]
    status: Option<u8>,
    /// Whether what the command asks is not there: an outage, a file that cannot be read.
    #[serde(skip)]
    unavailable: bool,
    #[serde(skip)]
    outcome: ActionOutcome,
    #[serde(skip)]
    rights: Rights,
}

/// The effect of a failed command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ActionOutcome {
    NotDone,
    /// No answer: the change may have been made.
    Unknown,
}

/// A fault of a document, with its line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct LocatedFault {
    /// The file, when the document has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    pub(crate) line: Option<usize>,
    pub(crate) path: String,
    pub(crate) found: String,
    pub(crate) expected: String,
}

impl Report {
    pub(crate) fn done(text: impl Into<String>, json: Value) -> Self {
        Self::judged(Verdict::Good, text, json)
    }

    pub(crate) fn judged(verdict: Verdict, text: impl Into<String>, json: Value) -> Self {
        Self { body: Body::Shown { text: text.into(), json }, verdict, only_here: None }
    }

    /// `what` is nowhere but in this report: an output that cannot be written has to say so, and what to do `next`.
    pub(crate) fn only_here(mut self, what: impl Into<String>, next: impl Into<String>) -> Self {
        self.only_here = Some(Lost { what: what.into(), next: next.into() });
        self
    }

    /// A report of a command that has written its output itself, because it is too large to keep.
    pub(crate) fn written(verdict: Verdict) -> Self {
        Self { body: Body::Written, verdict, only_here: None }
    }

    /// Prints the report of a command of this kind.
    pub(crate) fn print(&self, output: Output, kind: Kind) -> ExitCode {
        if let Body::Shown { text, json } = &self.body {
            let text = match output {
                Output::Table => escape::text(text),
                Output::Json => pretty(json),
            };
            let mut stdout = std::io::stdout();
            let written = writeln!(stdout, "{}", text.trim_end_matches('\n'));
            match (written.and_then(|()| stdout.flush()), &self.only_here) {
                (Ok(()), _) => {}
                (Err(error), None) => return unwritable(&error, kind, output),
                (Err(error), Some(Lost { what, next })) => {
                    return CliError::new(
                        format!("{what}, and cannot be written: {error}"),
                        "standard output",
                    )
                    .expected("an output that takes it; the change was made all the same")
                    .next(next)
                    .print(output);
                }
            }
        }
        match self.verdict {
            Verdict::Good => ExitCode::SUCCESS,
            Verdict::Wanting => ExitCode::from(1),
            Verdict::Partly => ExitCode::from(3),
        }
    }
}

impl CliError {
    pub(crate) fn new(found: impl Into<String>, place: impl Into<String>) -> Self {
        Self(Box::new(Reasons {
            found: found.into(),
            place: place.into(),
            expected: String::new(),
            next: String::new(),
            faults: Vec::new(),
            status: None,
            unavailable: false,
            outcome: ActionOutcome::NotDone,
            rights: Rights::Unknown,
        }))
    }

    /// Redis answered with an error whose cause is known; nothing was done.
    pub(crate) fn of(cause: Cause, error: &str, place: impl Into<String>) -> Self {
        let expected = format!("no error; Redis says: {error}");
        let mut refusal = Self::new(cause.found, place).expected(expected).next(cause.next);
        refusal.0.rights = cause.rights();
        // A user without a permission is refused; a Redis that serves no user says nothing.
        refusal.0.unavailable = !refusal.is_for_want_of_rights();
        refusal
    }

    /// The command line is wrong.
    pub(crate) fn usage(found: impl Into<String>) -> Self {
        let mut refusal = Self::new(found, "the command line").next("portcullis --help");
        refusal.0.status = Some(2);
        refusal
    }

    /// The command could not start: the exit status is that of wrong usage.
    pub(crate) fn not_asked(mut self) -> Self {
        self.0.status = Some(2);
        self
    }

    /// The refusal is what the command found out.
    pub(crate) fn into_answer(mut self) -> Self {
        self.0.status = Some(1);
        self
    }

    /// What the command asks is not there: an outage, a file that cannot be read.
    pub(crate) fn unavailable(mut self) -> Self {
        self.0.unavailable = true;
        self
    }

    /// The same, of a command of this kind.
    pub(crate) fn of_kind(mut self, kind: Kind) -> Self {
        let is_answer = match kind {
            Kind::Question => false,
            Kind::Reading => !self.0.unavailable,
            Kind::Change => true,
        };
        self.0.status.get_or_insert(if is_answer { 1 } else { 2 });
        self
    }

    pub(crate) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.0.expected = expected.into();
        self
    }

    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.0.next = next.into();
        self
    }

    pub(crate) fn faults(mut self, faults: Vec<LocatedFault>) -> Self {
        self.0.faults = faults;
        self
    }

    /// There was no answer.
    pub(crate) fn unanswered(mut self) -> Self {
        self.0.outcome = ActionOutcome::Unknown;
        self
    }

    /// The command had asked for a change. To repeat one that was made can undo it, as with `policy rollback`.
    pub(crate) fn perhaps_made(mut self) -> Self {
        if self.0.outcome == ActionOutcome::Unknown {
            self.0.found.push_str("; the change may have been made");
            self.0.next =
                "before you repeat it, look whether it was made (`key show`, `policy history`, \
                           `token list`, `approve list`)"
                    .to_owned();
        }
        self
    }

    /// It is certain that nothing was changed.
    pub(crate) fn certain(mut self) -> Self {
        self.0.outcome = ActionOutcome::NotDone;
        self
    }

    pub(crate) fn outcome(&self) -> ActionOutcome {
        self.0.outcome
    }

    /// Whether another Redis user may have the permission.
    pub(crate) fn is_for_want_of_rights(&self) -> bool {
        self.0.rights == Rights::Wanting
    }

    /// The finding, in a few words.
    pub(crate) fn found(&self) -> &str {
        &self.0.found
    }

    /// The remedy, if one is known.
    pub(crate) fn next_step(&self) -> &str {
        &self.0.next
    }

    /// The refusal for scripts.
    pub(crate) fn view(&self) -> Value {
        json!(self.0)
    }

    pub(crate) fn print(&self, output: Output) -> ExitCode {
        let text = match output {
            Output::Table => self.0.text(),
            Output::Json => pretty(&json!({ "error": self.0 })),
        };
        let text = secrets::hidden(&text, &secrets::command_line());
        // A failed write cannot be reported.
        let _ = writeln!(std::io::stderr(), "{text}");
        self.status()
    }

    fn status(&self) -> ExitCode {
        ExitCode::from(self.0.status.unwrap_or(1))
    }
}

impl Reasons {
    fn text(&self) -> String {
        // Each part on one line: untrusted text must not add lines.
        let mut text = format!("error: {}", escape::line(&self.found));
        for fault in &self.faults {
            text.push_str(&format!("\n  {}", escape::line(&fault.text(&self.place))));
        }
        let parts = [("where", &self.place), ("expected", &self.expected), ("next", &self.next)];
        for (label, part) in parts.into_iter().filter(|(_, part)| !part.is_empty()) {
            text.push_str(&format!("\n  {label:<9} {}", escape::line(part)));
        }
        text
    }
}

impl LocatedFault {
    /// `policy.yaml:17: roles.analyst.dmeo: found …, expected …`, the form that editors and CI parse.
    pub(crate) fn text(&self, file: &str) -> String {
        let Self { file: own, line, path, found, expected } = self;
        let file = own.as_deref().unwrap_or(file);
        let line = line.map(|line| format!(":{line}")).unwrap_or_default();
        let path = if path.is_empty() { "the document" } else { path };
        format!("{file}{line}: {path}: found {found}, expected {expected}")
    }
}

/// Writes one line about the progress of a long command to standard error.
pub(crate) fn progress(line: &str) {
    // A failed write cannot be reported.
    let _ = writeln!(std::io::stderr(), "{}", escape::line(line));
}

/// A table without lines: easy to read, and to process with `cut`.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| escape::line(&cell))));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A JSON document for scripts, formatted for reading.
pub(crate) fn pretty(json: &Value) -> String {
    // A `Value` always serialises.
    escape::json(&serde_json::to_string_pretty(json).unwrap_or_default())
}

/// A closed pipe (`| head`) needs no message. Any other error does. What a command found out is not known without its
/// text; a change was made all the same.
fn unwritable(error: &std::io::Error, kind: Kind, output: Output) -> ExitCode {
    let refusal = CliError::new(error.to_string(), "standard output").unavailable().of_kind(kind);
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return refusal.status();
    }
    match kind {
        Kind::Question | Kind::Reading => {
            refusal.expected("an output that takes the report").next("make room, and ask again")
        }
        Kind::Change => refusal
            .expected("an output that takes the report; what the command did is done all the same")
            .next("do not repeat it before you have looked"),
    }
    .print(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_no_lines_and_no_trailing_blanks() {
        let rows = vec![["1".into(), "x".into()], ["200".into(), "".into()]];
        assert_eq!(table(["ID", "NAME"], rows), "ID   NAME\n1    x\n200");
        let rows = vec![["1".into(), "x\n2 \u{202e}y".into()]];
        assert_eq!(table(["ID", "NAME"], rows), "ID  NAME\n1   x\\n2 \\u{202e}y");
    }

    #[test]
    fn a_refusal_says_what_where_and_what_next() {
        let fault = LocatedFault {
            file: None,
            line: Some(3),
            path: "roles.a".into(),
            found: "5".into(),
            expected: "an object".into(),
        };
        let refusal = CliError::new("1 fault", "p.yaml").expected("none").next("repair it");
        assert_eq!(
            refusal.faults(vec![fault]).0.text(),
            "error: 1 fault\n  p.yaml:3: roles.a: found 5, expected an object\n  where     p.yaml\n  \
             expected  none\n  next      repair it"
        );
    }
}
