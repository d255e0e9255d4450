//! `audit verify`: whether logs and admin chains are intact, and contain all anchors.
//!
//! Owns the report on the lines. The core defines an intact chain.

use jiff::Timestamp;
use portcullis_core::audit::{Anchor, Anchors, Found, LineFault, Verifier};
use serde::Serialize;
use serde_json::{Value, json};

use super::anchor::read;
use super::anchor_log::AnchorLog;
use super::halt::Halt;
use super::log::{CUT, Item, Logs, Place, Quiet, too_long};
use super::reconcile::{Intents, OPEN_MS};
use super::signature::read_public_key;
use super::{organisations, signature};
use crate::args::{ChainStart, Session, VerifyArgs};
use crate::escape;
use crate::report::{CliError, Report, Verdict, table};
use crate::store::Store;
use crate::time::since_1970;

#[cfg(test)]
mod mutations;

/// The most bad lines in the output for operators; scripts get ten times as many.
const SHOWN: usize = 100;
const KEPT: usize = 1_000;
/// The most cut lines of logs of anchors that the output for operators names; scripts get `KEPT`.
const CUT_LINES_SHOWN: usize = 10;
/// A gateway records the end of its chain within this time: the longest `checkpoint_seconds`.
const LATEST_NOTE_S: i64 = 3_600;

/// The message for a line of a log of anchors that is cut off, and after which there is no entry.
const CUT_ANCHOR: &str =
    "the line is cut off: it is no anchor. The next `audit anchor` goes on after it";

pub(crate) fn verify(session: &Session, args: &VerifyArgs) -> Result<Report, CliError> {
    let mut anchors = Anchors::default();
    anchors.extend(args.expect.iter().cloned());
    let mut vouched = Vouched::default();
    let key = args.public_key.as_deref().map(read_public_key).transpose()?;
    for file in &args.anchors {
        let mut log = AnchorLog::new(key.as_ref());
        read(file, &mut log)?;
        if log.entries == 0 {
            log.faults.push((1, "no entries: nothing is anchored".to_owned()));
        }
        let cut_lines = std::mem::take(&mut log.cut_lines).into_iter();
        log.faults.extend(cut_lines.map(|cut| (cut.number, CUT_ANCHOR.to_owned())));
        vouched.take(&file.display().to_string(), &mut log);
        anchors.extend(log.anchors.iter().cloned());
    }
    vouched.checked = key.as_ref().map(signature::shown);
    if args.checkpoints {
        anchors.extend(Store::open(session)?.checkpoints()?);
    }
    let mut log = Log::new(args.start, anchors);
    log.vouched = vouched;
    log.admin = args.admin;
    log.partial = args.partial;
    if args.intents {
        log.intents = Intents::read(args, &mut Store::open(session)?)?;
    }
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
        // No output was written yet.
        Err(Halt::Output(_)) | Ok(()) => Ok(log.report()),
    }
}

struct Log {
    verifier: Verifier,
    start: ChainStart,
    /// Admin chains are verified instead of files.
    admin: bool,
    /// Chains without any entry belong to other gateways.
    partial: bool,
    intents: Intents,
    vouched: Vouched,
    entries: u64,
    /// The number of lines of other programs.
    foreign: u64,
    /// The number of missing entries, from the sequence numbers.
    missing: u64,
    bad: u64,
    /// The first bad entries.
    faults: Vec<BadEntry>,
}

/// The state of the logs of anchors.
#[derive(Default)]
struct Vouched {
    entries: u64,
    faults: Vec<BadEntry>,
    /// How many cut lines the entries name.
    cut_lines: usize,
    /// The first of them.
    cut_places: Vec<CutPlace>,
    /// The time of the newest entry.
    newest: Option<String>,
    /// The key for the signatures.
    checked: Option<String>,
}

impl Vouched {
    fn take(&mut self, place: &str, log: &mut AnchorLog<'_>) {
        self.entries = self.entries.saturating_add(log.entries);
        self.cut_lines = self.cut_lines.saturating_add(log.named_cut_lines.len());
        let room = KEPT.saturating_sub(self.cut_places.len());
        let first = log.named_cut_lines.drain(..).take(room);
        self.cut_places.extend(first.map(|line| CutPlace { file: place.to_owned(), line }));
        self.newest = self.newest.take().max(log.newest.take());
        self.faults.extend(log.faults.drain(..).map(|(line, fault)| BadEntry {
            place: place.to_owned(),
            line,
            fault,
        }));
    }

    /// The first cut lines, and how many more there are.
    fn cut_places(&self) -> String {
        let first = self.cut_places.iter().take(CUT_LINES_SHOWN);
        let mut places: Vec<_> =
            first.map(|CutPlace { file, line }| format!("{}:{line}", escape::line(file))).collect();
        if let more @ 1.. = self.cut_lines.saturating_sub(places.len()) {
            places.push(format!("{more} more"));
        }
        places.join(", ")
    }

    fn text(&self, found: usize) -> Option<String> {
        let newest = self.newest.as_deref().unwrap_or("none");
        let checked = match self.checked {
            Some(_) => "signatures hold",
            None => "signatures are not checked: --public-key",
        };
        (self.entries > 0).then(|| {
            let entries = self.entries;
            let cut = match self.cut_lines {
                0 => String::new(),
                cut => format!(
                    "; lines that are cut off, as the entries after them say: {cut} ({})",
                    self.cut_places()
                ),
            };
            format!(
                "anchors: {found} found; {entries} entries of them, the newest of {newest}; {checked}{cut}"
            )
        })
    }
}

struct BadEntry {
    place: String,
    line: u64,
    fault: String,
}

/// The place of a cut line in a log of anchors.
#[derive(Serialize)]
struct CutPlace {
    file: String,
    line: u64,
}

impl Log {
    fn new(start: ChainStart, anchors: Anchors) -> Self {
        Self {
            verifier: Verifier::expecting(start.into(), anchors),
            start,
            admin: false,
            partial: false,
            intents: Intents::default(),
            vouched: Vouched::default(),
            entries: 0,
            foreign: 0,
            missing: 0,
            bad: 0,
            faults: Vec::new(),
        }
    }

    /// Handles a line of a file, to which other programs may write as well.
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
                self.intents.look(text);
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

    /// The message for the fault; counts a gap.
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

    /// The anchors that the log contradicts.
    fn misses(&self) -> Vec<String> {
        let missed = self.verifier.anchors().iter().filter_map(|anchor| {
            let Anchor { chain, seq, .. } = anchor;
            let seen = self.verifier.chain(chain);
            match (anchor.found(), seen.map(|one| one.last)) {
                (Found::Same, _) => None,
                (Found::Nothing, None) if !self.reads(anchor) => None,
                _ if self.is_open(anchor) => None,
                _ if self.is_rotated_away(anchor, seen.map(|one| one.first)) => None,
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

    fn found(&self, what: Found) -> usize {
        self.verifier.anchors().iter().filter(|anchor| *anchor.found() == what).count()
    }

    /// Whether the entry of an anchor may not be written yet: Envoy writes its log a little later.
    fn is_open(&self, anchor: &Anchor) -> bool {
        let seen = self.verifier.chain(&anchor.chain);
        let at = anchor.at.as_ref().and_then(|at| at.parse::<Timestamp>().ok());
        let at = at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
        let now = u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX);
        *anchor.found() == Found::Nothing
            && !anchor.chain.starts_with("admin:")
            && seen.map_or_else(|| self.reads(anchor), |seen| seen.last < anchor.seq)
            && at.is_some_and(|at| now.abs_diff(at) < OPEN_MS)
    }

    fn open(&self) -> usize {
        self.verifier.anchors().iter().filter(|anchor| self.is_open(anchor)).count()
    }

    /// Whether the chain of an anchor is of the kind that is verified: admin chains are in Redis, all others in files.
    /// An anchor from the command line always counts.
    fn reads(&self, anchor: &Anchor) -> bool {
        anchor.at.is_none() || (anchor.chain.starts_with("admin:") == self.admin && !self.partial)
    }

    /// Whether an old anchor belongs to files that are not among the arguments.
    fn is_rotated_away(&self, anchor: &Anchor, first: Option<u64>) -> bool {
        let older = match (first, &anchor.at, self.verifier.oldest()) {
            // The entry of an anchor recorded long after the log begins must be in the log.
            (Some(first), Some(at), Some(oldest)) => anchor.seq < first && !is_later(at, oldest),
            (Some(first), ..) => anchor.seq < first,
            // Both are RFC 3339 in UTC: the order of the texts is the order of the times.
            (None, Some(at), Some(oldest)) => at.as_str() < oldest,
            (None, ..) => false,
        };
        older && anchor.at.is_some() && self.start == ChainStart::Anywhere
    }

    /// Whether the log is intact and contains all anchors.
    fn verdict(&self, misses: &[String]) -> Verdict {
        let intact = self.bad == 0
            && self.vouched.faults.is_empty()
            && misses.is_empty()
            && !self.intents.lacks_entries()
            && self.entries > 0;
        if intact { Verdict::Good } else { Verdict::Wanting }
    }

    fn report(&self) -> Report {
        let chains: Vec<_> = self.verifier.chains().collect();
        let misses = self.misses();
        let verdict = self.verdict(&misses);
        let (nowhere, open) = (self.found(Found::Nothing), self.open());
        let json = json!({
            "intact": verdict == Verdict::Good,
            "entries": self.entries,
            "bad": self.bad,
            "missing": self.missing,
            "foreign": self.foreign,
            "first_bad": self.faults.first().map(BadEntry::view),
            "faults": self.faults.iter().map(BadEntry::view).collect::<Vec<_>>(),
            "not_as_expected": misses,
            "intents": self.intents.view(),
            "anchors": json!({
                "entries": self.vouched.entries,
                "found": self.found(Found::Same),
                "open": open,
                "elsewhere": nowhere.saturating_sub(misses.len()).saturating_sub(open),
                "cut_lines": self.vouched.cut_lines,
                "cut_places": self.vouched.cut_places,
                "newest": self.vouched.newest,
                "public_key": self.vouched.checked,
                "faults": self.vouched.faults.iter().map(BadEntry::view).collect::<Vec<_>>(),
            }),
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
        let mut lines: Vec<String> = self.faults.iter().take(SHOWN).map(BadEntry::line).collect();
        lines.extend(self.vouched.faults.iter().take(SHOWN).map(BadEntry::line));
        lines.extend(misses.iter().map(|miss| escape::line(miss)));
        lines.extend(self.intents.lines().iter().map(|line| escape::line(line)));
        if let open @ 1.. = self.open() {
            let seconds = std::time::Duration::from_millis(OPEN_MS).as_secs();
            lines.push(format!(
                "{open} chains go on after the log: those entries are younger than {seconds} seconds and may be in a \
                 proxy's buffer"
            ));
        }
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
        } else if !self.vouched.faults.is_empty() {
            lines.push(format!(
                "ANCHORS NOT INTACT: {} faults in {} entries of the log of anchors; {} entries are intact as far as they \
                 go{foreign}",
                self.vouched.faults.len(),
                self.vouched.entries,
                self.entries
            ));
        } else if !misses.is_empty() || self.intents.lacks_entries() {
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
            lines.extend(self.vouched.text(self.found(Found::Same)));
            lines.push(format!("intact: {} entries{foreign}", self.entries));
        }
        lines.join("\n")
    }
}

/// Whether an anchor was recorded so long after `oldest` that its entry cannot be older.
fn is_later(at: &str, oldest: &str) -> bool {
    let seconds = |time: &str| time.parse::<Timestamp>().ok().map(Timestamp::as_second);
    let (at, oldest) = (seconds(at), seconds(oldest));
    at.zip(oldest).is_some_and(|(at, oldest)| at.saturating_sub(oldest) >= LATEST_NOTE_S)
}

impl BadEntry {
    fn line(&self) -> String {
        escape::line(&format!("{}:{}: {}", self.place, self.line, self.fault))
    }

    fn view(&self) -> Value {
        json!({ "file": self.place, "line": self.line, "fault": self.fault })
    }
}
