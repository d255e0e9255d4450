//! `key list` and `key show`.

use std::collections::BTreeMap;

use portcullis_core::policy::Policy;
use serde_json::{Value, json};

use super::view::{details, last_used, rfc3339, status, view, warnings};
use super::{Active, find, lacks};
use crate::args::{ListArgs, OneKey, Session};
use crate::report::{CliError, Report, table};
use crate::store::{Listed, Store, Stored, Used};
use crate::time::Seconds;

const HEADER: [&str; 10] =
    ["ID", "ORG", "NAME", "ROLE", "TIER", "STATUS", "EXPIRES", "ISSUED", "BY", "LAST USED"];

pub(crate) fn list(session: &Session, args: &ListArgs) -> Result<Report, CliError> {
    let now = Seconds::now();
    let mut store = Store::open(session)?;
    let organisations = match &args.org {
        Some(org) => vec![org.clone()],
        None => store.organisations()?,
    };
    let mut keys = Vec::new();
    let mut orphans = BTreeMap::new();
    // An unreadable record does not hide the others.
    let mut unreadable = Vec::new();
    for org in &organisations {
        // Without a readable policy, no key counts as an orphan.
        let active = Active::of(org, &mut store).ok();
        for Listed { id, stored, used } in store.records(org)? {
            match stored {
                Ok(stored) => {
                    let lacking = active.as_ref().and_then(|it| orphan(&stored, it.policy(), now));
                    orphans.extend(lacking.map(|lacks| ((org.clone(), id), lacks)));
                    keys.push((stored, used));
                }
                Err(fault) => unreadable.push((org.clone(), id, fault)),
            }
        }
    }
    keys.sort_by(|(a, _), (b, _)| {
        let order = |key: &Stored| (key.record.org.clone(), key.record.created_at);
        order(a).cmp(&order(b)).then_with(|| a.record.id.cmp(&b.record.id))
    });

    let mut rows: Vec<_> = keys.iter().map(|(stored, used)| row(stored, used, now)).collect();
    let mut views: Vec<Value> = Vec::new();
    for (stored, used) in &keys {
        let mut view = view(stored, used, now);
        let place = (stored.record.org.clone(), stored.record.id.clone());
        if let (Some(lacks), Value::Object(view)) = (orphans.get(&place), &mut view) {
            view.insert("policy_lacks".to_owned(), json!(lacks));
        }
        views.push(view);
    }
    let mut faults = String::new();
    for (org, id, fault) in unreadable {
        let row = [&id.to_string(), org.as_str(), "?", "?", "?", "unreadable", "?", "?", "?", "?"];
        let row = row.map(str::to_owned);
        rows.push(row);
        views.push(json!({ "id": id, "org": org, "status": "unreadable", "fault": fault.fault }));
        faults.push_str(&format!("\nunreadable: {}: {}", fault.place, fault.fault));
    }
    for (Stored { record, .. }, used) in &keys {
        for warning in warnings(record, used, now) {
            faults.push_str(&format!("\nwarning: {}/{}: {warning}", record.org, record.id));
        }
    }
    for ((org, id), lacks) in &orphans {
        faults.push_str(&format!("\nwarning: {org}/{id}: {}", orphaned(lacks)));
    }
    let text = match rows.is_empty() {
        true => "no keys".to_owned(),
        false => table(HEADER, rows) + &faults,
    };
    Ok(Report::done(text, json!({ "keys": views })))
}

fn row(Stored { record, .. }: &Stored, used: &Used, now: Seconds) -> [String; 10] {
    [
        record.id.to_string(),
        record.org.to_string(),
        record.name.clone(),
        record.role.to_string(),
        record.tier.to_string(),
        status(record, now).to_owned(),
        record.expires_at.map_or_else(|| "never".to_owned(), rfc3339),
        rfc3339(record.created_at),
        record.created_by.clone(),
        last_used(used).map_or_else(|| "never".to_owned(), rfc3339),
    ]
}

/// The role and tier of an active key that the active policy lacks.
fn orphan(Stored { record, .. }: &Stored, policy: &Policy, now: Seconds) -> Option<String> {
    record.is_alive(now.0).ok().and_then(|()| lacks(record, policy))
}

fn orphaned(lacks: &str) -> String {
    format!(
        "the active policy lacks its {lacks}: its calls are refused with 403; portcullis key set ID --role ROLE --tier TIER"
    )
}

pub(crate) fn show(session: &Session, args: &OneKey) -> Result<Report, CliError> {
    let now = Seconds::now();
    let mut store = Store::open(session)?;
    let stored = find(&mut store, args)?;
    let used = store.used(&stored.record.org, &stored.record.id)?;
    let record = view(&stored, &used, now);
    let active = Active::of(&stored.record.org, &mut store).ok();
    let lacking = active.and_then(|active| orphan(&stored, active.policy(), now));
    let warning = lacking.as_ref().map(|lacks| format!("\nwarning: {}", orphaned(lacks)));
    let text = details(&stored, &used, now) + &warning.unwrap_or_default();
    Ok(Report::done(text, json!({ "record": record, "policy_lacks": lacking })))
}
