//! Keys that a new policy would leave without their role or tier.
//!
//! Owns which keys these are, and how they are named. A key without a role or tier under the active policy is not among
//! them.

use portcullis_core::auth::record::KeyRecord;
use portcullis_core::id::{OrgId, PolicyVersion};
use portcullis_core::policy::{self, Policy};
use serde::Serialize;

use super::change::OrgChange;
use super::{compiled, count, stored_document};
use crate::escape;
use crate::key::lacks;
use crate::report::{CliError, progress};
use crate::store::Store;
use crate::time::Seconds;

/// A key for which the new policy refuses every call.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Orphan {
    org: OrgId,
    id: String,
    name: String,
    /// `role analyst`, `tier std`, or both.
    lacks: String,
}

/// The most keys that are named; the others are counted.
const NAMED: usize = 10;

/// Active keys of these organisations that `policy` would orphan.
pub(super) fn orphans(
    store: &mut Store,
    policy: &Policy,
    organisations: &[(OrgId, Option<PolicyVersion>)],
) -> Result<Vec<Orphan>, CliError> {
    let now = Seconds::now();
    let mut orphans = Vec::new();
    for (org, active) in organisations {
        let listed = match store.records(org) {
            Ok(listed) => listed,
            Err(refusal) if refusal.is_for_want_of_rights() => {
                progress(&format!(
                    "warning: whether keys of {org} lose their role or tier is not known: {}",
                    refusal.found()
                ));
                continue;
            }
            Err(refusal) => return Err(refusal),
        };
        let records = listed.into_iter().filter_map(|listed| listed.stored.ok());
        let alive = records.map(|stored| stored.record).filter(|it| it.is_alive(now.0).is_ok());
        let lacking: Vec<(KeyRecord, String)> = alive
            .filter_map(|record| Some((lacks(&record, policy)?, record)).map(|(a, b)| (b, a)))
            .collect();
        if lacking.is_empty() {
            continue;
        }
        let before = match active {
            Some(version) => policy::compile(&stored_document(store, version)?).ok(),
            None => None,
        };
        // A key that the active policy does not serve loses nothing.
        let served =
            |record: &KeyRecord| before.as_ref().is_some_and(|it| lacks(record, it).is_none());
        orphans.extend(lacking.into_iter().filter(|(record, _)| served(record)).map(
            |(record, lacks)| Orphan {
                org: record.org.clone(),
                id: record.id.to_string(),
                name: record.name,
                lacks,
            },
        ));
    }
    Ok(orphans)
}

/// `the document lacks the role or the tier of 2 active keys: k1a2b3 of acme (role analyst), …`.
pub(super) fn told(orphans: &[Orphan]) -> String {
    let named = orphans.iter().take(NAMED);
    let named: Vec<String> = named
        .map(|Orphan { org, id, name, lacks }| format!("{id} of {org} ({name}: {lacks})"))
        .collect();
    let more = match orphans.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more, which policy push --dry-run --output json names"),
    };
    format!(
        "the document lacks the role or the tier of {}: {}{more}",
        count(orphans.len(), "active key"),
        named.join(", ")
    )
}

/// Warns about the keys that lose their role or tier, when the operator asked for that.
pub(super) fn warn(orphans: &[Orphan]) {
    if !orphans.is_empty() {
        progress(&escape::line(&format!("warning: {}", told(orphans))));
    }
}

/// The handling of a change that orphans keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Orphaning {
    Refused,
    /// The operator allows it: the keys are named.
    Warned,
}

impl Orphaning {
    /// The handling from `--orphan-keys`.
    pub(super) fn of(orphan_keys: bool) -> Self {
        if orphan_keys { Self::Warned } else { Self::Refused }
    }
}

/// Checks a change to stored versions for orphaned keys.
pub(super) fn consider_steps(
    store: &mut Store,
    steps: &[OrgChange],
    orphaning: Orphaning,
) -> Result<(), CliError> {
    let changes = steps.iter().filter(|step| step.before.version() != Some(&step.after.version));
    for OrgChange { org, before, after } in changes {
        let policy = compiled(&after.version, store)?;
        let found = orphans(store, &policy, &[(org.clone(), before.version().cloned())])?;
        match orphaning {
            Orphaning::Refused => refuse(&found, &format!("policy {}", after.version))?,
            Orphaning::Warned => warn(&found),
        }
    }
    Ok(())
}

/// Refuses to orphan keys unintentionally.
pub(super) fn refuse(orphans: &[Orphan], place: &str) -> Result<(), CliError> {
    if orphans.is_empty() {
        return Ok(());
    }
    Err(CliError::new(told(orphans), place)
        .expected("a policy with the roles and tiers of all active keys, or --orphan-keys: their calls would be refused with 403; nothing was changed")
        .next("portcullis key set ID --role ROLE --tier TIER, or portcullis key revoke ID"))
}
