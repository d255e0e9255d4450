//! Keys to which a policy gives limits of their own, and which none of its organisations has.
//!
//! Owns how they are found and named. A policy without Redis cannot know them.

use portcullis_core::id::{KeyId, OrgId};
use portcullis_core::policy::Policy;

use super::listed;
use crate::report::{CliError, progress};
use crate::store::Store;

/// So many are named, the others are counted.
const NAMED: usize = 10;

/// Ids below `keys:` that no organisation of the policy has; none where that may not be read.
pub(crate) fn unknown(store: &mut Store, policy: &Policy) -> Result<Vec<KeyId>, CliError> {
    let mut unknown: Vec<&KeyId> = policy.keys.keys().collect();
    for org in &policy.organisations {
        if unknown.is_empty() {
            break;
        }
        match store.have_records(org, &unknown) {
            Ok(have) => {
                let mut have = have.into_iter();
                unknown.retain(|_| !have.next().unwrap_or_default());
            }
            Err(refusal) if refusal.is_for_want_of_rights() => {
                let found = refusal.found();
                progress(&format!(
                    "warning: whether the keys of `keys` exist is not known: {found}"
                ));
                return Ok(Vec::new());
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(unknown.into_iter().cloned().collect())
}

/// `keys.k1a2b3, keys.k9x8y7: no key of acme and south has this id, …`.
pub(crate) fn told(unknown: &[KeyId], policy: &Policy) -> String {
    let named: Vec<String> = unknown.iter().take(NAMED).map(|id| format!("keys.{id}")).collect();
    let more = match unknown.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let organisations: Vec<OrgId> = policy.organisations.iter().cloned().collect();
    format!(
        "{}{more}: found no key of {} with this id, so the limits count no calls; portcullis key list shows the ids",
        named.join(", "),
        listed(&organisations)
    )
}

/// Says which keys these are.
pub(super) fn warn(unknown: &[KeyId], policy: &Policy) {
    if !unknown.is_empty() {
        progress(&format!("warning: {}", told(unknown, policy)));
    }
}

/// With `--strict`, a warning refuses.
pub(super) fn refuse(unknown: &[KeyId], policy: &Policy, place: &str) -> Result<(), CliError> {
    if unknown.is_empty() {
        return Ok(());
    }
    Err(CliError::new(told(unknown, policy), place)
        .expected("ids of keys that exist below `keys`; nothing was changed")
        .next("portcullis key list"))
}
