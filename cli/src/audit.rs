//! `portcullis audit verify`: reads logs, names the first bad entry.
//!
//! Owns files and line numbers. What an intact chain is, the core decides.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use portcullis_core::audit::Verifier;
use serde_json::{Value, json};

use crate::args::VerifyArgs;
use crate::report::{Refusal, Report, Verdict, table};

pub(crate) fn verify(args: &VerifyArgs) -> Result<Report, Refusal> {
    let mut log =
        Log { verifier: Verifier::new(args.start.into()), entries: 0, bad: 0, first: None };
    for file in &args.files {
        log.read(file)?;
    }
    Ok(log.report())
}

struct Log {
    verifier: Verifier,
    entries: u64,
    bad: u64,
    first: Option<BadEntry>,
}

struct BadEntry {
    place: String,
    line: u64,
    fault: String,
}

impl Log {
    fn read(&mut self, file: &Path) -> Result<(), Refusal> {
        let (place, lines): (String, Box<dyn BufRead>) = if file == Path::new("-") {
            ("standard input".to_owned(), Box::new(std::io::stdin().lock()))
        } else {
            let place = file.display().to_string();
            let opened = File::open(file).map_err(|error| unreadable(&place, &error))?;
            (place, Box::new(BufReader::new(opened)))
        };
        for (number, line) in (1..).zip(lines.split(b'\n')) {
            let line = line.map_err(|error| unreadable(&place, &error))?;
            self.entries = self.entries.saturating_add(1);
            let fault = match std::str::from_utf8(&line) {
                Ok(text) => self.verifier.line(text).err().map(|fault| fault.to_string()),
                Err(_) => Some("not an audit entry: not UTF-8".to_owned()),
            };
            if let Some(fault) = fault {
                self.bad = self.bad.saturating_add(1);
                self.first.get_or_insert(BadEntry { place: place.clone(), line: number, fault });
            }
        }
        Ok(())
    }

    fn report(&self) -> Report {
        let chains: Vec<_> = self.verifier.chains().collect();
        let header = ["CHAIN", "FIRST", "LAST", "HEAD"];
        let rows = chains.iter().map(|chain| {
            let (first, last) = (chain.first.to_string(), chain.last.to_string());
            [chain.chain.clone(), first, last, chain.head.clone()]
        });
        let (verdict, text) = match &self.first {
            Some(BadEntry { place, line, fault }) => (
                Verdict::Wanting,
                format!(
                    "{place}:{line}: {fault}\nNOT INTACT: {} of {} lines are bad; the first is named above",
                    self.bad, self.entries
                ),
            ),
            None if self.entries == 0 => (Verdict::Wanting, "no audit entries".to_owned()),
            None => (
                Verdict::Good,
                format!("{}\nintact: {} entries", table(header, rows.collect()), self.entries),
            ),
        };
        let json = json!({
            "intact": verdict == Verdict::Good,
            "entries": self.entries,
            "bad": self.bad,
            "first_bad": self.first.as_ref().map(|BadEntry { place, line, fault }| {
                json!({ "file": place, "line": line, "fault": fault })
            }),
            "chains": chains.iter().map(|chain| json!({
                "chain": chain.chain,
                "first": chain.first,
                "last": chain.last,
                "head": chain.head,
            })).collect::<Vec<Value>>(),
        });
        Report::judged(verdict, text, json)
    }
}

fn unreadable(place: &str, error: &std::io::Error) -> Refusal {
    Refusal::new(format!("cannot be read: {error}"), place)
        .expected("an audit log: one JSON object a line")
}
