//! `key rotate --older-than`: rotates one key after the other, each on its own.
//!
//! Owns which keys are due. A key that cannot be rotated does not stop the others.

use portcullis_core::auth::record::KeyRecord;
use portcullis_core::id::{KeyId, OrgId};
use portcullis_core::secret::Secret;
use serde_json::{Map, Value, json};

use super::out::KeyFile;
use super::renewal::{Terms, renew};
use super::view::{ONCE, rfc3339};
use crate::admin_log::AdminLog;
use crate::args::{OneKey, RotateArgs, Session, Which};
use crate::report::{CliError, Report, Verdict, progress, table};
use crate::store::Store;
use crate::time::Seconds;

/// A key that is due.
struct Due {
    org: OrgId,
    id: KeyId,
    name: String,
    since: u64,
}

/// The result of one rotation.
enum Fate {
    Rotated { key: Secret, old_works_until: Option<u64> },
    Failed(CliError),
}

pub(super) fn rotate(session: &Session, args: &RotateArgs) -> Result<Report, CliError> {
    let now = Seconds::now();
    let mut store = Store::open(session)?;
    let admin_log = AdminLog::new(session, &mut store, args.reason.as_deref())?;
    let due = due(&mut store, args, now)?;
    if args.dry_run || due.is_empty() {
        return Ok(announced(&due, args));
    }
    if args.org.is_none() {
        let mut concerned: Vec<OrgId> = due.iter().map(|due| due.org.clone()).collect();
        concerned.dedup();
        Which { org: Vec::new(), all: args.all }.covers(&concerned)?;
    }
    let mut file = args.out.as_deref().map(KeyFile::create).transpose()?;
    let terms = Terms::of(args);
    let (mut fates, total) = (Vec::new(), due.len());
    for (number, due) in (1_usize..).zip(&due) {
        let fate = fate(&mut store, &admin_log, due, terms, file.as_mut());
        progress(&format!("{number}/{total}  {}", line(due, &fate)));
        fates.push((due, fate));
    }
    Ok(report(&fates, file.as_ref()))
}

/// Active keys whose secret is old enough.
fn due(store: &mut Store, args: &RotateArgs, now: Seconds) -> Result<Vec<Due>, CliError> {
    let age = args.older_than.map_or(0, |span| span.0);
    let organisations = match &args.org {
        Some(org) => vec![org.clone()],
        None => store.organisations()?,
    };
    let is_due = |record: &KeyRecord| {
        record.is_alive(now.0).is_ok()
            && record.current_since().saturating_add(age) <= now.0
            && args.role.as_ref().is_none_or(|role| *role == record.role)
    };
    let mut due = Vec::new();
    for org in organisations {
        // `key list` reports the records that cannot be read.
        let records = store.records(&org)?.into_iter().filter_map(|listed| listed.stored.ok());
        let records = records.map(|stored| stored.record).filter(is_due);
        due.extend(records.map(|record| Due {
            org: record.org.clone(),
            since: record.current_since(),
            id: record.id,
            name: record.name,
        }));
    }
    Ok(due)
}

fn fate(
    store: &mut Store,
    admin_log: &AdminLog,
    due: &Due,
    terms: Terms,
    file: Option<&mut KeyFile>,
) -> Fate {
    let args = OneKey { id: due.id.clone(), org: Some(due.org.clone()) };
    match renew(store, admin_log, &args, terms, file) {
        Ok((stored, key)) => {
            Fate::Rotated { key, old_works_until: stored.record.overlap_until(Seconds::now().0) }
        }
        Err(refusal) => Fate::Failed(refusal),
    }
}

fn line(due: &Due, fate: &Fate) -> String {
    format!("{}/{}  {}  {}", due.org, due.id, due.name, told(fate))
}

fn told(fate: &Fate) -> String {
    match fate {
        Fate::Rotated { old_works_until: Some(end), .. } => {
            format!("rotated, the old secret works until {}", rfc3339(*end))
        }
        Fate::Rotated { old_works_until: None, .. } => {
            "rotated, the old secret no longer works".to_owned()
        }
        Fate::Failed(refusal) => format!("NOT rotated: {}", refusal.found()),
    }
}

fn announced(due: &[Due], args: &RotateArgs) -> Report {
    let header = ["ID", "ORG", "NAME", "SECRET SINCE"];
    let rows = due
        .iter()
        .map(|due| [due.id.to_string(), due.org.to_string(), due.name.clone(), rfc3339(due.since)]);
    let text = match due.is_empty() {
        true => "no key is that old; nothing was changed".to_owned(),
        false => format!("{}\n\nNothing was changed.", table(header, rows.collect())),
    };
    let views: Vec<Map<String, Value>> = due.iter().map(named).collect();
    Report::done(
        text,
        json!({ "dry_run": args.dry_run, "due": views, "rotated": [], "failed": [] }),
    )
}

fn report(fates: &[(&Due, Fate)], file: Option<&KeyFile>) -> Report {
    let (mut rows, mut rotated, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (due, fate) in fates {
        let mut view = named(due);
        let (until, outcome) = match fate {
            Fate::Rotated { key, old_works_until } => {
                let until = old_works_until.map(rfc3339);
                let shown = file.is_none().then(|| key.expose());
                view.insert("overlap_until".to_owned(), json!(until));
                view.insert("key".to_owned(), json!(shown));
                rotated.push(view);
                let shown = shown.map(str::to_owned);
                let shown = shown.unwrap_or_else(|| "in the file".to_owned());
                (until.unwrap_or_else(|| "-".to_owned()), shown)
            }
            Fate::Failed(refusal) => {
                view.insert("error".to_owned(), refusal.view());
                failed.push(view);
                ("-".to_owned(), format!("NOT rotated: {}", refusal.found()))
            }
        };
        rows.push([due.id.to_string(), due.org.to_string(), due.name.clone(), until, outcome]);
    }
    let header = ["ID", "ORG", "NAME", "OLD KEY UNTIL", "NEW KEY"];
    let counted = format!("{} rotated, {} not", rotated.len(), failed.len());
    let text = format!("{}\n\n{counted}. {ONCE}", table(header, rows));
    let verdict = match (rotated.is_empty(), failed.is_empty()) {
        (_, true) => Verdict::Good,
        (true, false) => Verdict::Wanting,
        (false, false) => Verdict::Partly,
    };
    let out = file.map(KeyFile::place);
    let is_rotated = |(due, fate): &(&Due, Fate)| {
        matches!(fate, Fate::Rotated { .. }).then(|| due.id.to_string())
    };
    let rotated_ids: Vec<String> = fates.iter().filter_map(is_rotated).collect();
    let json = json!({ "dry_run": false, "rotated": rotated, "failed": failed, "out": out });
    let report = Report::judged(verdict, text, json);
    match (file, rotated_ids.is_empty()) {
        (None, false) => report.only_here(
            format!("the new secrets of these keys are shown here alone: {}", rotated_ids.join(", ")),
            "portcullis key rotate ID --force --overlap 0s --reason … for each, with an output that can be written \
             or --out FILE",
        ),
        (_, _) => report,
    }
}

fn named(due: &Due) -> Map<String, Value> {
    Map::from_iter([
        ("org".to_owned(), json!(due.org)),
        ("id".to_owned(), json!(due.id)),
        ("name".to_owned(), json!(due.name)),
        ("secret_since".to_owned(), json!(rfc3339(due.since))),
    ])
}
