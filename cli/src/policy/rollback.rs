//! Going back to an earlier version.

use portcullis_core::id::PolicyVersion;

use super::change::Change;
use super::{NOT_ACTIVATED, compiled, fits, no_policy};
use crate::args::{RollbackArgs, Session};
use crate::report::{Refusal, Report};
use crate::scribe::Scribe;
use crate::store::{Activation, Store, Verb};

/// How far back a rollback without `--to` looks.
const REMEMBERED: u32 = 1_000;

pub(crate) fn rollback(session: &Session, args: &RollbackArgs) -> Result<Report, Refusal> {
    let mut scribe = Scribe::new(session, args.reason.as_deref())?;
    let mut store = Store::open(session)?;
    // Decided anew each time: what was active before depends on who was faster.
    store.until_done(NOT_ACTIVATED, |store| {
        let entries = store.watch_history(REMEMBERED)?;
        let current = entries.first().ok_or_else(no_policy)?;
        let version = match &args.to {
            Some(version) => version.clone(),
            None => before(&entries).ok_or_else(|| {
                Refusal::new("there is no earlier version to go back to", "the policy history")
                    .expected("at least two versions for the same organisation")
                    .next("portcullis policy history, then --to VERSION")
            })?,
        };
        let policy = compiled(&version, store)?;
        fits(&policy, &format!("policy {version}"), store)?;
        if args.reason.is_none() {
            scribe.reason = format!("back from {}", current.version);
        }
        let organisations = policy.organisations.into_iter().collect();
        Change { version, scribe: scribe.clone(), verb: Verb::Rollback, organisations }
            .carry_out(store)
    })
}

/// What was active before the newest change, for one of the same organisations.
fn before(entries: &[Activation]) -> Option<PolicyVersion> {
    let (current, earlier) = entries.split_first()?;
    let shared = |entry: &Activation| {
        entry.organisations.iter().any(|org| current.organisations.contains(org))
    };
    earlier
        .iter()
        .find(|entry| entry.version != current.version && shared(entry))
        .map(|entry| entry.version.clone())
}
