//! What was activated when, by whom and why; and what a version says.

use portcullis_core::id::{OrgId, PolicyVersion};
use serde_json::json;

use super::{active_for, active_versions, no_policy, stored_document};
use crate::args::{HistoryArgs, Session, ShowPolicyArgs};
use crate::moment::Seconds;
use crate::report::{Refusal, Report, table};
use crate::store::Store;

pub(crate) fn history(session: &Session, args: &HistoryArgs) -> Result<Report, Refusal> {
    let mut store = Store::open(session)?;
    let entries = store.history(args.limit)?;
    let active = active_versions(&mut store)?;
    let header = ["ACTIVATED", "VERSION", "VERB", "ORGANISATIONS", "BY", "REASON", "ACTIVE FOR"];
    // Only the newest entry of a version is the one that made it active.
    let mut seen: Vec<&PolicyVersion> = Vec::new();
    let mut rows = Vec::new();
    let mut views = Vec::new();
    for entry in &entries {
        let newest = !seen.contains(&&entry.version);
        seen.push(&entry.version);
        let active_for = if newest { active_for(&active, &entry.version) } else { Vec::new() };
        rows.push([
            Seconds(entry.activated_at).rfc3339(),
            entry.version.to_string(),
            entry.verb.as_str().to_owned(),
            comma_separated(&entry.organisations),
            entry.actor.clone(),
            entry.reason.clone(),
            comma_separated(&active_for),
        ]);
        views.push(json!({
            "activated_at": Seconds(entry.activated_at).rfc3339(),
            "version": entry.version,
            "verb": entry.verb,
            "organisations": entry.organisations,
            "actor": entry.actor,
            "reason": entry.reason,
            "active_for": active_for,
        }));
    }
    let text = if rows.is_empty() { "no policy yet".to_owned() } else { table(header, rows) };
    Ok(Report::done(text, json!({ "history": views })))
}

pub(crate) fn show(session: &Session, args: &ShowPolicyArgs) -> Result<Report, Refusal> {
    let mut store = Store::open(session)?;
    let version = match &args.version {
        Some(version) => version.clone(),
        None => match store.history(1)?.pop() {
            Some(newest) => newest.version,
            None => return Err(no_policy()),
        },
    };
    let document = stored_document(&mut store, &version)?;
    let active = active_versions(&mut store)?;
    let text = serde_json::to_string_pretty(&document)
        .map_err(|error| Refusal::new(error.to_string(), format!("policy {version}")))?;
    let active_for = active_for(&active, &version);
    let json = json!({ "version": version, "active_for": active_for, "document": document });
    Ok(Report::done(text, json))
}

fn comma_separated(organisations: &[OrgId]) -> String {
    organisations.iter().map(OrgId::as_str).collect::<Vec<_>>().join(", ")
}
