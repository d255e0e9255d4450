//! The history of activations and canaries, with operator and reason; and the content of a version.

use portcullis_core::id::{OrgId, PolicyVersion};
use serde_json::{Value, json};

use super::{active_policies, listed, no_policy, stored_document};
use crate::args::{HistoryArgs, Session, ShowPolicyArgs};
use crate::report::{CliError, Output, Report, pretty, progress, table};
use crate::store::{Activation, ActivePolicy, CanaryScope, Store};
use crate::time::Seconds;

pub(crate) fn history(session: &Session, args: &HistoryArgs) -> Result<Report, CliError> {
    let mut store = Store::open(session)?;
    let organisations = store.organisations()?;
    let entries = store.history(&organisations, args.limit)?;
    let active_policies = active_policies(&mut store)?;
    let header =
        ["ACTIVATED", "VERSION", "VERB", "CANARY", "ORGANISATIONS", "BY", "REASON", "ACTIVE FOR"];
    // Only the newest entry of a version is the one that activated it.
    let mut seen: Vec<&PolicyVersion> = Vec::new();
    let mut rows = Vec::new();
    let mut views = Vec::new();
    for entry in &entries {
        let newest = !seen.contains(&&entry.version);
        seen.push(&entry.version);
        let part = match newest {
            true => InForce::of(&entry.version, &active_policies),
            false => InForce::default(),
        };
        rows.push(row(entry, &part));
        views.push(view(entry, &part));
    }
    let text = if rows.is_empty() { "no policy yet".to_owned() } else { table(header, rows) };
    Ok(Report::done(text, json!({ "history": views })))
}

/// The callers for which a version is in force.
#[derive(Default)]
struct InForce {
    active_for: Vec<OrgId>,
    canary_for: Vec<(OrgId, CanaryScope)>,
}

impl InForce {
    fn of(version: &PolicyVersion, active_policies: &[(OrgId, ActivePolicy)]) -> Self {
        let mut part = Self::default();
        for (org, active_policy) in active_policies {
            if active_policy.version() == Some(version) {
                part.active_for.push(org.clone());
            }
            if let Some(canary) =
                active_policy.canary().filter(|canary| canary.record.version == *version)
            {
                part.canary_for.push((org.clone(), canary.share()));
            }
        }
        part
    }

    fn text(&self) -> String {
        let tried = self.canary_for.iter().map(|(org, share)| format!("{org} ({share})"));
        self.active_for.iter().map(OrgId::to_string).chain(tried).collect::<Vec<_>>().join(", ")
    }

    fn canary_view(&self) -> Vec<Value> {
        let view = |(org, share): &(OrgId, CanaryScope)| json!({ "org": org, "percent": share.percent, "callers": share.callers });
        self.canary_for.iter().map(view).collect()
    }
}

fn row(entry: &Activation, part: &InForce) -> [String; 8] {
    let canary = match (&entry.canary, &entry.ended_canary) {
        (Some(share), None) => share.to_string(),
        (Some(share), Some(ended)) => format!("{share}; ended {ended}"),
        (None, Some(ended)) => format!("ended {ended}"),
        (None, None) => String::new(),
    };
    [
        Seconds(entry.activated_at).rfc3339(),
        entry.version.to_string(),
        entry.verb.as_str().to_owned(),
        canary,
        listed(&entry.organisations),
        match &entry.actor_claim {
            Some(claim) if *claim != entry.actor => format!("{} ({claim})", entry.actor),
            _ => entry.actor.clone(),
        },
        entry.reason.clone(),
        part.text(),
    ]
}

fn view(entry: &Activation, part: &InForce) -> Value {
    json!({
        "activated_at": Seconds(entry.activated_at).rfc3339(),
        "version": entry.version,
        "verb": entry.verb,
        "canary": entry.canary,
        "ended_canary": entry.ended_canary,
        "organisations": entry.organisations,
        "actor": entry.actor,
        "actor_claim": entry.actor_claim,
        "reason": entry.reason,
        "active_for": part.active_for,
        "canary_for": part.canary_view(),
    })
}

pub(crate) fn show(session: &Session, args: &ShowPolicyArgs) -> Result<Report, CliError> {
    let mut store = Store::open(session)?;
    let version = match &args.version {
        Some(version) => version.clone(),
        None => activated_last(&mut store)?,
    };
    let document = stored_document(&mut store, &version)?;
    let part = InForce::of(&version, &active_policies(&mut store)?);
    let text = pretty(&document);
    if session.output == Output::Table {
        // Not part of the document, which operators save.
        for (org, share) in &part.canary_for {
            progress(&format!("{org} only tries this version: {share}"));
        }
    }
    let json = json!({
        "version": version,
        "active_for": part.active_for,
        "canary_for": part.canary_view(),
        "document": document,
    });
    Ok(Report::done(text, json))
}

/// A canary is not an activation.
fn activated_last(store: &mut Store) -> Result<PolicyVersion, CliError> {
    const REMEMBERED: u32 = 1_000;
    let organisations = store.organisations()?;
    let entries = store.history(&organisations, REMEMBERED)?;
    let activated = entries.into_iter().find(|entry| entry.verb.activates());
    activated.map(|entry| entry.version).ok_or_else(no_policy)
}
