//! `policy canary`: a policy on some callers, on more of them, on none, or on all.
//!
//! Owns what each step wants to be there before it. What is chosen for a caller is the core's.

use portcullis_core::id::{OrgId, PolicyVersion};

use super::canary_callers::{callers, knows_keys};
use super::change::{Change, OrgChange};
use super::orphans::{self, Orphaning};
use super::push::{OtherCanary, pushed_beside};
use super::{NOT_ACTIVATED, compiled, listed};
use crate::admin_log::AdminLog;
use crate::args::{
    CanaryArgs, CanaryStartArgs, CanaryStopArgs, CanaryWidenArgs, PromoteArgs, PushArgs, Session,
    Which,
};
use crate::report::{CliError, Report};
use crate::store::{NamedCanary, PolicyAction, Store, Target};
use crate::time::since_1970;

/// Tries a document on some callers, where nothing is tried yet.
pub(crate) fn start(session: &Session, args: CanaryStartArgs) -> Result<Report, CliError> {
    let CanaryStartArgs { file, callers, dry_run, strict, orphan_keys, review, which, reason } =
        args;
    let canary = CanaryArgs::from(callers);
    nobody(&canary)?;
    let if_active = None;
    let push =
        PushArgs { file, reason, dry_run, strict, orphan_keys, if_active, review, which, canary };
    pushed_beside(session, &push, OtherCanary::Kept)
}

/// Refuses a canary without callers.
fn nobody(args: &CanaryArgs) -> Result<(), CliError> {
    match args.percent.unwrap_or_default() == 0 && callers(args).is_empty() {
        true => Err(CliError::usage("a canary without callers")
            .expected("--percent 1% to 99%, or callers by name, such as --caller ID")),
        false => Ok(()),
    }
}

/// Tries what is tried on more callers.
pub(crate) fn widen(session: &Session, args: CanaryWidenArgs) -> Result<Report, CliError> {
    let CanaryWidenArgs { callers: more, which, reason } = args;
    let more = CanaryArgs::from(more);
    nobody(&more)?;
    let named = callers(&more);
    let wider = |active: PolicyVersion, canary: &NamedCanary| {
        let (before, percent) = (canary.share().percent, more.percent);
        if percent.is_some_and(|percent| percent < before) {
            return Err(CliError::new(
                format!("policy {} is tried on {before} %", canary.record.version),
                "the active policies",
            )
            .expected("a larger share; nothing was changed")
            .next("portcullis policy canary stop, then start with the smaller share"));
        }
        let canary = canary.widened(percent.unwrap_or(before), named.clone());
        Ok(Target { version: active, canary: Some(canary) })
    };
    let asked = Asked { which: &which, reason: &reason, orphaning: Orphaning::Warned };
    of_canaries(session, &asked, PolicyAction::Canary, wider, |store, organisations| {
        knows_keys(store, &more, organisations)
    })
}

/// Makes what is tried the active version for all callers.
pub(crate) fn promote(session: &Session, args: &PromoteArgs) -> Result<Report, CliError> {
    let PromoteArgs { which, orphan_keys, reason } = args;
    let asked = Asked { which, reason, orphaning: Orphaning::of(*orphan_keys) };
    let tried = |_, canary: &NamedCanary| Ok(Target::alone(canary.record.version.clone()));
    of_canaries(session, &asked, PolicyAction::Promote, tried, |_, _| Ok(()))
}

/// Ends the trial: the active version decides for all callers again.
pub(crate) fn stop(session: &Session, args: &CanaryStopArgs) -> Result<Report, CliError> {
    // The active version takes from no key what it had.
    let asked = Asked { which: &args.which, reason: &args.reason, orphaning: Orphaning::Warned };
    let active = |active, _: &NamedCanary| Ok(Target::alone(active));
    of_canaries(session, &asked, PolicyAction::CanaryStop, active, |_, _| Ok(()))
}

struct Asked<'a> {
    which: &'a Which,
    reason: &'a str,
    orphaning: Orphaning,
}

/// Moves organisations with a canary to what `chosen` makes of the active version and the canary.
fn of_canaries(
    session: &Session,
    asked: &Asked<'_>,
    verb: PolicyAction,
    chosen: impl Fn(PolicyVersion, &NamedCanary) -> Result<Target, CliError>,
    judged: impl Fn(&mut Store, &[OrgId]) -> Result<(), CliError>,
) -> Result<Report, CliError> {
    let mut store = Store::open(session)?;
    let admin_log = AdminLog::new(session, &mut store, Some(asked.reason))?;
    store.until_done(NOT_ACTIVATED, |store| {
        let only = &asked.which.org;
        let organisations = if only.is_empty() { store.organisations()? } else { only.clone() };
        store.watch_organisations(&organisations)?;
        let (mut steps, mut without) = (Vec::new(), Vec::new());
        for org in organisations {
            let before = store.active_policy(&org)?;
            let after = match (before.version().cloned(), before.canary()) {
                (Some(active), Some(canary)) => Some(chosen(active, canary)?),
                (_, _) => None,
            };
            match after {
                Some(after) => steps.push(OrgChange { org, before, after }),
                None => without.push(org),
            }
        }
        if steps.is_empty() || !(only.is_empty() || without.is_empty()) {
            let of = if only.is_empty() { String::new() } else { listed(&without) };
            return Err(no_canary(&of));
        }
        let concerned: Vec<OrgId> = steps.iter().map(|step| step.org.clone()).collect();
        asked.which.covers(&concerned)?;
        judged(store, &concerned)?;
        for step in &steps {
            compiled(&step.after.version, store)?;
        }
        orphans::consider_steps(store, &steps, asked.orphaning)?;
        let (admin_log, at) = (admin_log.clone(), since_1970());
        Change { verb, admin_log, steps, untouched: None, at }.carry_out(store)
    })
}

fn no_canary(of: &str) -> CliError {
    let of = if of.is_empty() { String::new() } else { format!(" in {of}") };
    CliError::new(format!("no policy is tried on some callers{of}"), "the active policies")
        .expected("a canary; nothing was changed")
        .next("portcullis policy canary start FILE --percent 10% --reason …")
}
