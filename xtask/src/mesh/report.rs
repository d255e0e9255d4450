//! The results of trials and operations: a line for each trial, a row for each operation, and the exit status.
//!
//! Knows nothing about the trials.

use super::calls::Tally;
use crate::failure::{Failure, Result};
use crate::progress::seconds;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Trials and operations so far.
#[derive(Default)]
pub(crate) struct Report {
    passed: u32,
    failed: u32,
    rows: Vec<Row>,
}

/// One operation under load.
struct Row {
    install: String,
    operation: String,
    tally: Tally,
    verdict: std::result::Result<(), String>,
}

/// Which form of the shipped files a table describes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guards {
    /// With their guards.
    Shipped,
    /// Without their guards.
    LeftOut,
}

/// What a table is about.
pub(crate) struct Table<'a> {
    /// The title, after "Operations on".
    pub(crate) of: &'a str,
    /// The command that writes it.
    pub(crate) command: &'a str,
}

impl Guards {
    /// The end of the name of a table's file.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Shipped => "",
            Self::LeftOut => "-without-guards",
        }
    }
}

impl Report {
    /// Runs one trial and reports its fault, if any. Returns whether it passed.
    pub(crate) fn trial(
        &mut self,
        install: &str,
        name: &str,
        run: impl FnOnce() -> Result<()>,
    ) -> bool {
        let started = Instant::now();
        let outcome = run();
        let took = seconds(started.elapsed());
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("ok   {install}: {name}  {took}");
                true
            }
            Err(failure) => {
                self.failed += 1;
                println!("FAIL {install}: {name}  {took}\n     {failure}");
                false
            }
        }
    }

    /// Reports one operation, with the three counts.
    pub(crate) fn operation(
        &mut self,
        install: &str,
        operation: &str,
        tally: Tally,
        verdict: std::result::Result<(), String>,
    ) {
        let gap = seconds(tally.longest_gap);
        match &verdict {
            Ok(()) => {
                self.passed += 1;
                println!("ok   {install}: {operation}  longest gap {gap}");
            }
            Err(wrong) => {
                self.failed += 1;
                println!("FAIL {install}: {operation}  longest gap {gap}\n     {wrong}");
            }
        }
        println!("     allowed {}", tally.allowed);
        println!("     danger  {}", tally.danger);
        println!("     nokey   {}", tally.nokey);
        println!("     streams {}", tally.streams);
        self.rows.push(Row {
            install: install.to_owned(),
            operation: operation.to_owned(),
            tally,
            verdict,
        });
    }

    /// The table of operations of the installs whose names begin with one of `installs`, as Markdown.
    pub(crate) fn write(
        &self,
        about: &Table<'_>,
        installs: &[&str],
        guards: Guards,
        file: &Path,
    ) -> Result<()> {
        let is_of = |row: &&Row| installs.iter().any(|name| row.install.starts_with(name));
        let rows: Vec<&Row> = self.rows.iter().filter(is_of).collect();
        if rows.is_empty() {
            return Ok(());
        }
        fs::write(file, table(about, guards, &rows)).map_err(|error| {
            Failure::new(format!("could not write {}: {error}", file.display()))
        })?;
        println!("the table of operations is {}", file.display());
        Ok(())
    }

    /// Prints the last line, which scripts read.
    pub(crate) fn conclude(&self) -> Result<()> {
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 {
            Ok(())
        } else {
            Err(Failure::new("the logs are in target/mesh/run/ or target/chart/run/"))
        }
    }
}

fn table(Table { of, command }: &Table<'_>, guards: Guards, rows: &[&Row]) -> String {
    let (title, option) = match guards {
        Guards::Shipped => ("", ""),
        Guards::LeftOut => (", without guards", " --without-guards"),
    };
    let failed = rows.iter().filter(|row| row.verdict.is_err()).count();
    let more = match guards {
        Guards::Shipped => ["", ""],
        Guards::LeftOut => [" what did not hold |", "---|"],
    };
    let mut text = format!(
        "# Operations on {of}, under load{title}\n\n\
         Written by `cargo xtask {command}{option}`; do not edit. `danger` is a tool that the\n\
         caller may not call, `nokey` a call without a credential: how many reached the MCP server, of how many\n\
         sent. The gap is the longest time without an answered allowed call. After an operation that closes the\n\
         gateway, the calls until its end count, too. Two streams of a client are open from before the operation\n\
         until its end: a call whose answer waits, and a GET on which it listens; three more, without a credential or\n\
         for `danger`, must not get to the server. Of {} operations, {} hold.\n\n\
         | install | operation | allowed: answered / sent | at the server | entries | `danger`, `nokey` at the server | longest gap | streams |{}\n\
         |---|---|---|---|---|---|---|---|{}\n",
        rows.len(),
        rows.len().saturating_sub(failed),
        more[0],
        more[1],
    );
    for Row { install, operation, tally, verdict } in rows {
        let (allowed, gap) = (&tally.allowed, rounded(tally.longest_gap));
        let (mark, what) = match (verdict, guards) {
            (Ok(()), Guards::Shipped) => ("", String::new()),
            (Ok(()), Guards::LeftOut) => ("", "  |".to_owned()),
            (Err(_), Guards::Shipped) => (" **does not hold**", String::new()),
            (Err(wrong), Guards::LeftOut) => ("", format!(" {wrong} |")),
        };
        // Writing to a `String` does not fail.
        let _ = writeln!(
            text,
            "| {install} | {operation}{mark} | {} / {} | {} | {} | {} of {}, {} of {} | {gap} | {} |{what}",
            allowed.answered,
            allowed.sent,
            allowed.reached,
            allowed.entries,
            tally.danger.reached,
            tally.danger.sent,
            tally.nokey.reached,
            tally.nokey.sent,
            tally.streams
        );
    }
    text
}

fn rounded(gap: Duration) -> String {
    format!("{:.1} s", gap.as_secs_f64())
}
