//! `portcullis audit`: verifies, anchors, searches, follows, exports and reviews logs; verifies and shows admin chains.
//!
//! Owns the output for admin chains. `log` reads logs, for all commands; each command has its own module.

mod anchor;
mod anchor_log;
mod calls;
mod entry;
mod export;
mod filter;
mod follow;
mod halt;
mod lines;
mod log;
mod progress;
mod reconcile;
mod report;
mod rows;
mod search;
mod signature;
mod tail;
mod top;
mod vault_log;
mod verify;

use portcullis_core::id::OrgId;
use serde_json::{Map, Value, json};

pub(crate) use anchor::anchor;
pub(crate) use calls::{Call, each_call};
pub(crate) use export::export;
pub(crate) use report::report;
pub(crate) use search::search;
pub(crate) use tail::tail;
pub(crate) use top::top;
pub(crate) use verify::verify;

use crate::args::{Session, ShowAuditArgs};
use crate::report::{CliError, Report, table};
use crate::store::Store;
use crate::time::Seconds;

/// The changes of keys and the policy, with their operators.
pub(crate) fn show(session: &Session, args: &ShowAuditArgs) -> Result<Report, CliError> {
    // Without its `Z`: a longer text, such as one with a fraction of the second, sorts after it.
    let since = args.since.map(|time| time.ago(Seconds::now()).rfc3339());
    let since = since.as_deref().unwrap_or_default().trim_end_matches('Z');
    let mut store = Store::open(session)?;
    let mut entries: Vec<Map<String, Value>> = Vec::new();
    let mut unreadable = 0_u64;
    for org in organisations(args.org.as_ref(), &mut store)? {
        store.each_entry(&org, |line| match serde_json::from_slice::<Map<_, _>>(line) {
            Ok(entry) => {
                let about =
                    args.key.as_ref().is_none_or(|id| text(&entry, "api_key_id") == id.as_str());
                // Both are RFC 3339 in UTC: the order of the texts is the order of the times.
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
        let by = match text(entry, "actor_claim") {
            claim if claim.is_empty() || claim == by => by,
            claim => format!("{by} ({claim})"),
        };
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

fn organisations(one: Option<&OrgId>, store: &mut Store) -> Result<Vec<OrgId>, CliError> {
    one.map_or_else(|| store.organisations(), |org| Ok(vec![org.clone()]))
}

fn text<'a>(entry: &'a Map<String, Value>, field: &str) -> &'a str {
    entry.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Each change in short: `role: admin -> analyst`.
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
