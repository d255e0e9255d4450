//! `portcullis audit`: verifies logs and admin chains, and shows the latter.
//!
//! Owns files and line numbers. What an intact chain is, the core decides.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use portcullis_core::audit::Verifier;
use portcullis_core::id::OrgId;
use serde_json::{Map, Value, json};

use crate::args::{Session, ShowAuditArgs, VerifyArgs};
use crate::moment::Seconds;
use crate::report::{Refusal, Report, Verdict, table};
use crate::store::Store;

pub(crate) fn verify(session: &Session, args: &VerifyArgs) -> Result<Report, Refusal> {
    let mut log =
        Log { verifier: Verifier::new(args.start.into()), entries: 0, bad: 0, first: None };
    if args.admin {
        let mut store = Store::open(session)?;
        for org in organisations(args.org.as_ref(), &mut store)? {
            let (place, mut numbers) = (format!("the admin chain of {org}"), 1..);
            store.each_entry(&org, |line| {
                log.line(&place, numbers.next().unwrap_or_default(), line);
            })?;
        }
    }
    for file in &args.files {
        log.read(file)?;
    }
    Ok(log.report())
}

/// Who changed which key or policy.
pub(crate) fn show(session: &Session, args: &ShowAuditArgs) -> Result<Report, Refusal> {
    // Without its `Z`: what is so much longer, such as a fraction of the second, sorts after it.
    let since = args.since.map(|moment| moment.ago(Seconds::now()).rfc3339());
    let since = since.as_deref().unwrap_or_default().trim_end_matches('Z');
    let mut store = Store::open(session)?;
    let mut entries: Vec<Map<String, Value>> = Vec::new();
    let mut unreadable = 0_u64;
    for org in organisations(args.org.as_ref(), &mut store)? {
        store.each_entry(&org, |line| match serde_json::from_slice::<Map<_, _>>(line) {
            Ok(entry) => {
                let about =
                    args.key.as_ref().is_none_or(|id| text(&entry, "api_key_id") == id.as_str());
                // Both are RFC 3339 in UTC, so that text sorts as time does.
                let recent = text(&entry, "timestamp") >= since;
                if about && recent {
                    entries.push(entry);
                }
            }
            Err(_) => unreadable = unreadable.saturating_add(1),
        })?;
    }
    let seq = |entry: &Map<String, Value>| entry.get("seq").and_then(Value::as_u64);
    entries.sort_by(|a, b| {
        text(b, "timestamp").cmp(text(a, "timestamp")).then_with(|| seq(b).cmp(&seq(a)))
    });
    entries.truncate(usize::try_from(args.limit).unwrap_or(usize::MAX));
    let header = ["TIME", "ORG", "ACTION", "KEY", "NAME", "BY", "REASON", "CHANGES"];
    let rows = entries.iter().map(|entry| {
        let [time, org, action, key, name, by, reason] =
            ["timestamp", "org_id", "action", "api_key_id", "principal", "actor", "reason"]
                .map(|field| text(entry, field).to_owned());
        [time, org, action, key, name, by, reason, changes(entry)]
    });
    let mut shown = match entries.is_empty() {
        true => "no entries".to_owned(),
        false => table(header, rows.collect()),
    };
    if unreadable > 0 {
        shown.push_str(&format!(
            "\n{unreadable} lines are no entries; portcullis audit verify --admin names the first"
        ));
    }
    Ok(Report::done(shown, json!({ "entries": entries, "unreadable": unreadable })))
}

fn organisations(one: Option<&OrgId>, store: &mut Store) -> Result<Vec<OrgId>, Refusal> {
    one.map_or_else(|| store.organisations(), |org| Ok(vec![org.clone()]))
}

fn text<'a>(entry: &'a Map<String, Value>, field: &str) -> &'a str {
    entry.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// `role: admin -> analyst`, each change in short.
fn changes(entry: &Map<String, Value>) -> String {
    let side = |change: &Value, side: &str| match change.get(side) {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let changes = entry.get("changes").and_then(Value::as_object);
    let told = changes.into_iter().flatten().map(|(field, change)| {
        format!("{field}: {} -> {}", side(change, "from"), side(change, "to"))
    });
    told.collect::<Vec<_>>().join("; ")
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
            self.line(&place, number, &line);
        }
        Ok(())
    }

    fn line(&mut self, place: &str, number: u64, line: &[u8]) {
        self.entries = self.entries.saturating_add(1);
        let fault = match std::str::from_utf8(line) {
            Ok(text) => self.verifier.line(text).err().map(|fault| fault.to_string()),
            Err(_) => Some("not an audit entry: not UTF-8".to_owned()),
        };
        if let Some(fault) = fault {
            self.bad = self.bad.saturating_add(1);
            let place = place.to_owned();
            self.first.get_or_insert(BadEntry { place, line: number, fault });
        }
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
