//! Rollback: from a canary to the active version alone, or to an earlier version.

use portcullis_core::id::{OrgId, PolicyVersion};

use super::change::{Change, OrgChange};
use super::orphans::{self, Orphaning};
use super::{NOT_ACTIVATED, compiled, listed, no_policy};
use crate::admin_log::AdminLog;
use crate::args::{RollbackArgs, Session, Which};
use crate::report::{CliError, Report};
use crate::store::{Activation, PolicyAction, Store, Target};
use crate::time::{Seconds, since_1970};

/// How many entries of the history a rollback without `--to` reads.
const REMEMBERED: u32 = 1_000;
/// For this many seconds, another operator's rollback is not undone without an explicit request.
const FRESH: u64 = 3_600;

pub(crate) fn rollback(session: &Session, args: &RollbackArgs) -> Result<Report, CliError> {
    let mut store = Store::open(session)?;
    let admin_log = AdminLog::new(session, &mut store, Some(&args.reason))?;
    // Decided again at each try: the version before depends on the faster operator.
    store.until_done(NOT_ACTIVATED, |store| {
        let organisations = match args.which.org.as_slice() {
            [] => store.organisations()?,
            chosen => chosen.to_vec(),
        };
        let mut entries = store.watch_history(&organisations, REMEMBERED)?;
        // An operator of one organisation undoes its part of a change of several.
        for entry in &mut entries {
            entry.organisations.retain(|org| organisations.contains(org));
        }
        entries.retain(|entry| concerns(entry, &args.which));
        let last = entries.first().ok_or_else(no_policy)?;
        let (steps, untouched) = match &args.to {
            Some(version) => (
                named(version, session, &args.which, store)?,
                "not named by this policy, unchanged",
            ),
            None => (undone(&entries, args, store)?, "unchanged"),
        };
        if args.to.is_none() && args.from.is_none() && !args.force {
            is_not_undone_already(last, &admin_log, Seconds::now())?;
        }
        match &args.from {
            Some(from) => steps.iter().try_for_each(|step| still_there(from, step))?,
            None if args.force => {}
            None => steps.iter().try_for_each(ends_no_canary)?,
        }
        args.which.covers(&steps.iter().map(|step| step.org.clone()).collect::<Vec<_>>())?;
        orphans::consider_steps(store, &steps, Orphaning::of(args.orphan_keys))?;
        let untouched = args.which.org.is_empty().then_some(untouched);
        let (verb, at) = (PolicyAction::Rollback, since_1970());
        Change { verb, admin_log: admin_log.clone(), steps, untouched, at }.carry_out(store)
    })
}

/// Two operators may roll back the same bad push at the same time: the second rollback must not activate it again.
fn is_not_undone_already(last: &Activation, by: &AdminLog, now: Seconds) -> Result<(), CliError> {
    let age = now.0.saturating_sub(last.activated_at);
    let same = last.actor == by.actor && last.actor_claim == by.claim;
    if last.verb != PolicyAction::Rollback || same || age >= FRESH {
        return Ok(());
    }
    let found =
        format!("{} went back to {} {age} s ago: {}", last.actor, last.version, last.reason);
    Err(CliError::new(found, "the policy history")
        .expected("--from VERSION with the version that is to go, or --force to undo that rollback; nothing was changed")
        .next("portcullis policy history"))
}

/// A canary ends only on request, not because of a rollback.
fn ends_no_canary(step: &OrgChange) -> Result<(), CliError> {
    let Some(canary) = step.before.canary() else {
        return Ok(());
    };
    let (tried, share) = (&canary.record.version, canary.share());
    let active = step.before.version().map_or_else(|| "no policy".to_owned(), ToString::to_string);
    Err(CliError::new(format!("policy {tried} is tried on {share} of {}", step.org), "the active policies")
        .expected(format!(
            "portcullis policy canary stop, which ends the trial and leaves {active} active; or --from {active}, which \
             goes back from {active} and ends the trial, too; nothing was changed"
        ))
        .next("portcullis policy canary stop --reason …"))
}

/// The version to roll back from must be active or a canary now.
fn still_there(from: &PolicyVersion, step: &OrgChange) -> Result<(), CliError> {
    let tried = step.before.canary().map(|canary| &canary.record.version);
    if step.before.version() == Some(from) || tried == Some(from) {
        return Ok(());
    }
    let active = step.before.version().map_or_else(|| "no policy".to_owned(), ToString::to_string);
    Err(CliError::new(format!("{active} is active for {}", step.org), "--from")
        .expected(format!("{from}: another operator changed it; nothing was changed"))
        .next("portcullis policy history"))
}

/// The organisations that the version names and the arguments select, each with that version alone.
fn named(
    version: &PolicyVersion,
    session: &Session,
    which: &Which,
    store: &mut Store,
) -> Result<Vec<OrgChange>, CliError> {
    let policy = compiled(version, store)?;
    let unnamed: Vec<OrgId> =
        which.org.iter().filter(|org| !policy.organisations.contains(*org)).cloned().collect();
    if !unnamed.is_empty() {
        let found = format!("policy {version} does not name {}", listed(&unnamed));
        return Err(CliError::new(found, "--org").expected("organisations that it names"));
    }
    let organisations: Vec<OrgId> =
        policy.organisations.into_iter().filter(|org| which.means(org)).collect();
    session.within(&organisations, &format!("policy {version}"), "--to")?;
    store.watch_organisations(&organisations)?;
    let step = |org: OrgId| {
        let before = store.active_policy(&org)?;
        Ok(OrgChange { org, before, after: Target::alone(version.clone()) })
    };
    organisations.into_iter().map(step).collect()
}

/// The organisations of the last change: without the canary for some of their callers, or otherwise with the version
/// before.
fn undone(
    entries: &[Activation],
    args: &RollbackArgs,
    store: &mut Store,
) -> Result<Vec<OrgChange>, CliError> {
    let last = entries.first().ok_or_else(no_policy)?;
    let organisations: Vec<OrgId> =
        last.organisations.iter().filter(|org| args.which.means(org)).cloned().collect();
    store.watch_organisations(&organisations)?;
    if args.from.is_none() {
        organisations.iter().try_for_each(|org| changed_what_is_active(entries, org))?;
    }
    let (mut canaries, mut others) = (Vec::new(), Vec::new());
    for org in organisations {
        let before = store.active_policy(&org)?;
        let active = before.target.as_ref().map(|target| target.version.clone());
        match (active, before.canary()) {
            // Rolls back from the active version, although there is also a canary.
            (Some(active), Some(_)) if args.from.as_ref() == Some(&active) => {
                let earlier = earlier(entries, &org, &active);
                others.extend(earlier.map(|to| OrgChange {
                    org,
                    before,
                    after: Target::alone(to),
                }));
            }
            (Some(active), Some(_)) => {
                canaries.push(OrgChange { org, before, after: Target::alone(active) });
            }
            (_, _) => {
                let earlier = earlier(entries, &org, &last.version);
                others.extend(earlier.map(|to| OrgChange {
                    org,
                    before,
                    after: Target::alone(to),
                }));
            }
        }
    }
    if !canaries.is_empty() {
        return Ok(canaries);
    }
    if others.is_empty() {
        return Err(CliError::new(
            "there is no earlier version to go back to",
            "the policy history",
        )
        .expected("at least two versions for the same organisation")
        .next("portcullis policy history, then --to VERSION"));
    }
    for step in &others {
        compiled(&step.after.version, store)?;
    }
    Ok(others)
}

/// The last active version of `org` before `active`. (The history has it; in a Cluster this may be the second try, so
/// the current version does not.)
/// Refuses to undo a rollback that ended a canary alone: the version before the active one is not what it undid.
fn changed_what_is_active(entries: &[Activation], org: &OrgId) -> Result<(), CliError> {
    let mut activated =
        entries.iter().filter(|entry| entry.organisations.contains(org) && entry.verb.activates());
    let (Some(last), Some(before)) = (entries.first(), activated.nth(1)) else { return Ok(()) };
    let Some(ended) = &last.ended_canary else { return Ok(()) };
    if last.verb != PolicyAction::Rollback || last.version != before.version {
        return Ok(());
    }
    let active = &last.version;
    Err(CliError::new(
        format!("the last rollback ended the canary {ended} of {org}, and left {active} active"),
        "the policy history",
    )
    .expected(format!(
        "--from {active} to go back from that, or portcullis policy canary start to try {ended} again; nothing was \
         changed"
    ))
    .next("portcullis policy history"))
}

fn earlier(entries: &[Activation], org: &OrgId, active: &PolicyVersion) -> Option<PolicyVersion> {
    let mut activated =
        entries.iter().filter(|entry| entry.organisations.contains(org) && entry.verb.activates());
    activated.find(|entry| entry.version != *active).map(|entry| entry.version.clone())
}

fn concerns(entry: &Activation, which: &Which) -> bool {
    entry.organisations.iter().any(|org| which.means(org))
}
