//! Changes by an operator: each takes effect from the next request on, on every worker.

use super::guide::{Answer, Guide, abridged};
use super::notes::Notes;
use super::rotation::rotated;
use super::tour::{Group, TourStep};
use crate::failure::{Failure, Result};
use portcullis_stack::{IssuedKey, KeySpec};
use serde_json::json;
use std::fs;
use std::path::PathBuf;

pub(crate) const GROUP: Group = Group {
    title: "What an operator changes",
    steps: &[
        TourStep {
            title: "A key is rotated under a client that calls without a pause: nothing fails",
            walk: rotated,
        },
        TourStep { title: "A revoked key is refused on the next request", walk: revoked },
        TourStep { title: "A new policy: what it changes, and a trial on one caller", walk: tried },
        TourStep {
            title: "Promoted, it counts for everybody from the next request",
            walk: promoted,
        },
        TourStep { title: "And a rollback, too", walk: rolled_back },
    ],
};

/// Enough requests, each on a new connection, to reach both workers.
const ON_EVERY_WORKER: usize = 6;

fn revoked(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let issued = guide
        .stack
        .operator
        .issue_key(&KeySpec { name: "tour-revoked", ..KeySpec::acme("analyst") })?;
    let before = many(guide, &issued.key, "query_users", notes)?;
    notes.expect("the key to work", before == [200; ON_EVERY_WORKER]);
    let done = guide.operator(&["key", "revoke", &issued.id, "--reason", "the tour"], notes)?;
    notes.expect("the operator's tool to succeed", done);
    let answer = guide.call(&issued.key, "query_users", json!({"limit": 1}), notes)?;
    notes.expect("status 401", answer.status() == 401);
    let after = many(guide, &issued.key, "query_users", notes)?;
    notes.expect("every further request to be refused", after == [401; ON_EVERY_WORKER]);
    Ok(())
}

fn tried(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let file = policy_with_notes(guide)?.display().to_string();
    let compared = guide.operator(&["policy", "diff", &file], notes)?;
    notes.expect("the operator's tool to tell what differs", compared);
    let analyst = &guide.stack.analyst;
    let before = note(guide, &analyst.key, notes)?;
    notes.expect("create_note to be refused to an analyst", before.status() == 403);
    let reason = "analysts may write notes";
    let arguments = ["policy", "push", &file, "--canary-caller", &analyst.id, "--reason", reason];
    let done = guide.operator(&arguments, notes)?;
    notes.expect("the operator's tool to succeed", done);
    let after = note(guide, &analyst.key, notes)?;
    notes.expect("the very next request of that caller to be admitted", after.status() == 200);
    let other = note(guide, &other_analyst(guide)?.key, notes)?;
    notes.expect("another analyst to be refused as before", other.status() == 403);
    Ok(())
}

fn promoted(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let other = other_analyst(guide)?;
    let done = guide.operator(&["policy", "promote", "--reason", "no complaints"], notes)?;
    notes.expect("the operator's tool to succeed", done);
    let after = note(guide, &other.key, notes)?;
    notes
        .expect("the very next request of the other analyst to be admitted", after.status() == 200);
    Ok(())
}

fn other_analyst(guide: &Guide<'_>) -> Result<IssuedKey> {
    let spec = KeySpec { name: "tour-other", ..KeySpec::acme("analyst") };
    Ok(guide.stack.operator.issue_key(&spec)?)
}

fn rolled_back(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let arguments = ["policy", "rollback", "--reason", "the tour is over"];
    let done = guide.operator(&arguments, notes)?;
    notes.expect("the operator's tool to succeed", done);
    let after = note(guide, &guide.stack.analyst.key, notes)?;
    notes.expect("the very next request to be refused again", after.status() == 403);
    Ok(())
}

fn note(guide: &Guide<'_>, key: &str, notes: &mut Notes) -> Result<Answer> {
    guide.call(key, "create_note", json!({"title": "Tour", "body": "a note"}), notes)
}

fn many(guide: &Guide<'_>, key: &str, tool: &str, notes: &mut Notes) -> Result<Vec<u16>> {
    notes.sent(format!("{ON_EVERY_WORKER} calls of {tool}, key {}", abridged(key)));
    let statuses = (0..ON_EVERY_WORKER)
        .map(|_| Ok(guide.call_silently(key, tool, &json!({"limit": 1}))?.status()))
        .collect::<Result<Vec<u16>>>()?;
    notes.came(format!("{statuses:?}"));
    Ok(statuses)
}

/// The demo policy with one changed line: it allows analysts a tool that was only shown to them.
fn policy_with_notes(guide: &Guide<'_>) -> Result<PathBuf> {
    let unusable =
        |reason: String| Failure::new(format!("a changed copy of the demo policy: {reason}"));
    let policy = fs::read_to_string(&guide.stack.options().policy)
        .map_err(|error| unusable(error.to_string()))?;
    let changed = policy.replacen("show: [create_note]", "show: []", 1).replacen(
        "allow: [query_users, search_contacts, get_dashboard_metrics]",
        "allow: [query_users, search_contacts, get_dashboard_metrics, create_note]",
        1,
    );
    let file = guide.stack.dir().join("policy-with-notes.yaml");
    fs::write(&file, changed).map_err(|error| unusable(error.to_string()))?;
    Ok(file)
}
