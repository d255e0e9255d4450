//! `audit verify`: whether logs and admin chains are intact, and go as far as they are known to have gone.
//!
//! Owns the account of what was read. What an intact chain is, the core decides.

use portcullis_core::audit::{Anchor, Found, LineFault, Verifier};
use serde_json::{Value, json};

use super::halt::Halt;
use super::log::{CUT, Item, Logs, Place, Quiet, too_long};
use super::organisations;
use crate::args::{ChainStart, Session, VerifyArgs};
use crate::escape;
use crate::report::{CliError, Report, Verdict, table};
use crate::store::Store;

#[cfg(test)]
mod mutations;

/// So many bad lines are shown to people; scripts get ten times as many.
const SHOWN: usize = 100;
const KEPT: usize = 1_000;

pub(crate) fn verify(session: &Session, args: &VerifyArgs) -> Result<Report, CliError> {
    let mut log = Log::new(args.start, args.expect.clone());
    if args.admin {
        let mut store = Store::open(session)?;
        for org in organisations(args.org.as_ref(), &mut store)? {
            let (place, mut numbers) = (format!("the admin chain of {org}"), 1..);
            store.each_entry(&org, |line| {
                log.entry(&place, numbers.next().unwrap_or_default(), line);
            })?;
        }
    }
    let read = Logs::named(&args.files)?.each(Quiet::UntilTheEnd, |place, item| {
        log.item(place, &item);
        Ok(())
    });
    match read {
        Err(Halt::Refused(refusal)) => Err(refusal),
        // Nothing was written yet.
        Err(Halt::Output(_)) | Ok(()) => Ok(log.report()),
    }
}

struct Log {
    verifier: Verifier,
    start: ChainStart,
    anchors: Vec<Anchor>,
    entries: u64,
    /// Lines of others.
    foreign: u64,
    /// Entries that sequence numbers say there were.
    missing: u64,
    bad: u64,
    /// The first ones.
    faults: Vec<BadEntry>,
}

struct BadEntry {
    place: String,
    line: u64,
    fault: String,
}

impl Log {
    fn new(start: ChainStart, anchors: Vec<Anchor>) -> Self {
        Self {
            verifier: Verifier::new(start.into()),
            start,
            anchors,
            entries: 0,
            foreign: 0,
            missing: 0,
            bad: 0,
            faults: Vec::new(),
        }
    }

    /// A line of a file, which others may write to as well.
    fn item(&mut self, place: Place<'_>, item: &Item<'_>) {
        let fault = match item {
            Item::Foreign => {
                self.foreign = self.foreign.saturating_add(1);
                return;
            }
            Item::Entry(line) => return self.entry(place.file, place.line, line),
            Item::Cut => CUT.to_owned(),
            Item::TooLong(length) => too_long(*length),
            Item::Damaged(why) => why.clone(),
        };
        self.entries = self.entries.saturating_add(1);
        self.fault(place.file, place.line, fault);
    }

    fn entry(&mut self, place: &str, number: u64, line: &[u8]) {
        self.entries = self.entries.saturating_add(1);
        let fault = match std::str::from_utf8(line) {
            Ok(text) => {
                self.anchors.iter_mut().for_each(|anchor| anchor.look(text));
                self.verifier.line(text).err().map(|fault| self.told(&fault))
            }
            Err(_) => Some("not an audit entry: not UTF-8".to_owned()),
        };
        if let Some(fault) = fault {
            self.fault(place, number, fault);
        }
    }

    fn fault(&mut self, place: &str, number: u64, fault: String) {
        self.bad = self.bad.saturating_add(1);
        if self.faults.len() < KEPT {
            self.faults.push(BadEntry { place: place.to_owned(), line: number, fault });
        }
    }

    /// The fault in words; a gap is counted.
    fn told(&mut self, fault: &LineFault) -> String {
        let mut told = fault.to_string();
        if let LineFault::OutOfSequence { expected, found, .. } = fault
            && let Some(gap @ 1..) = found.checked_sub(*expected)
        {
            self.missing = self.missing.saturating_add(gap);
            if *expected == 1 && self.start == ChainStart::Genesis {
                told.push_str(
                    " (in a log that was rotated they are in older files: name those too, or --start anywhere)",
                );
            }
        }
        told
    }

    /// What an anchor says that is not so.
    fn misses(&self) -> Vec<String> {
        let missed = self.anchors.iter().filter_map(|anchor| {
            let Anchor { chain, seq, .. } = anchor;
            let last = self.verifier.chains().find(|one| one.chain == *chain).map(|one| one.last);
            match (anchor.found(), last) {
                (Found::Same, _) => None,
                (Found::Other(hash), _) => Some(format!(
                    "entry {seq} of chain {chain} has the hash {hash}, which is not the expected one: the chain was \
                     replaced, or goes on from an older copy"
                )),
                (Found::Nothing, Some(last)) if last < *seq => Some(format!(
                    "chain {chain} ends with entry {last}, before the expected entry {seq}: its end was cut off, or \
                     this is an older copy"
                )),
                (Found::Nothing, Some(_)) => {
                    Some(format!("entry {seq} of chain {chain} is not in what was read"))
                }
                (Found::Nothing, None) => Some(format!("chain {chain} is not in what was read")),
            }
        });
        missed.collect()
    }

    /// Whether it is intact, as far as it goes and as far as anchors say it went.
    fn verdict(&self, misses: &[String]) -> Verdict {
        let intact = self.bad == 0 && misses.is_empty() && self.entries > 0;
        if intact { Verdict::Good } else { Verdict::Wanting }
    }

    fn report(&self) -> Report {
        let chains: Vec<_> = self.verifier.chains().collect();
        let misses = self.misses();
        let verdict = self.verdict(&misses);
        let json = json!({
            "intact": verdict == Verdict::Good,
            "entries": self.entries,
            "bad": self.bad,
            "missing": self.missing,
            "foreign": self.foreign,
            "first_bad": self.faults.first().map(BadEntry::view),
            "faults": self.faults.iter().map(BadEntry::view).collect::<Vec<_>>(),
            "not_as_expected": misses,
            "chains": chains.iter().map(|chain| json!({
                "chain": chain.chain,
                "first": chain.first,
                "last": chain.last,
                "head": chain.head,
            })).collect::<Vec<Value>>(),
        });
        Report::judged(verdict, self.text(&misses), json)
    }

    fn text(&self, misses: &[String]) -> String {
        let foreign = match self.foreign {
            0 => String::new(),
            foreign => format!("; {foreign} lines of others were passed over"),
        };
        if self.entries == 0 {
            return format!("no audit entries{foreign}");
        }
        let faults = self.faults.iter().take(SHOWN).map(|BadEntry { place, line, fault }| {
            escape::line(&format!("{place}:{line}: {fault}"))
        });
        let mut lines: Vec<String> = faults.collect();
        lines.extend(misses.iter().map(|miss| escape::line(miss)));
        if self.bad > 0 {
            let shown = u64::try_from(SHOWN).unwrap_or(u64::MAX).min(self.bad);
            let missing = match self.missing {
                0 => String::new(),
                missing => format!(", {missing} entries are missing"),
            };
            lines.push(format!(
                "NOT INTACT: {} of {} lines are bad{missing}; {shown} are named above{foreign}",
                self.bad, self.entries
            ));
        } else if !misses.is_empty() {
            lines.push(format!(
                "NOT AS EXPECTED: {} entries, intact as far as they go{foreign}",
                self.entries
            ));
        } else {
            let header = ["CHAIN", "FIRST", "LAST", "HEAD"];
            let rows = self.verifier.chains().map(|chain| {
                let (first, last) = (chain.first.to_string(), chain.last.to_string());
                [chain.chain.clone(), first, last, chain.head.clone()]
            });
            lines.push(table(header, rows.collect()));
            lines.push(format!("intact: {} entries{foreign}", self.entries));
        }
        lines.join("\n")
    }
}

impl BadEntry {
    fn view(&self) -> Value {
        json!({ "file": self.place, "line": self.line, "fault": self.fault })
    }
}
