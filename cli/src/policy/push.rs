//! Storing a document under its digest, and making it active or trying it on some callers.

use std::collections::BTreeSet;

use portcullis_core::id::{OrgId, PolicyVersion};
use portcullis_core::nearest::slip;
use portcullis_core::policy::Policy;

use super::canary_callers::{canary, knows_keys};
use super::change::{Change, Ends, Moved, OrgChange};
use super::diff::{Beside, Keys, Preview};
use super::findings::{Findings, LocatedWarning, findings};
use super::orphans::{self, Orphan, Orphaning};
use super::{NOT_ACTIVATED, count, fits, listed, review, unknown_keys};
use crate::admin_log::AdminLog;
use crate::args::{PushArgs, Session, Which};
use crate::document::Document;
use crate::report::{CliError, Report, progress};
use crate::store::{ActivePolicy, NamedCanary, PolicyAction, Store, Target};
use crate::time::since_1970;

pub(crate) fn push(session: &Session, args: &PushArgs) -> Result<Report, CliError> {
    pushed_beside(session, args, OtherCanary::Replaced)
}

/// What becomes of a canary that is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OtherCanary {
    Replaced,
    /// Nothing is changed.
    Kept,
}

pub(super) fn pushed_beside(
    session: &Session,
    args: &PushArgs,
    other: OtherCanary,
) -> Result<Report, CliError> {
    let document = Document::read(&args.file)?;
    let (policy, version) = sound(&document, args.strict)?;
    let canary = canary(&args.canary, &version)?;
    let cases = review::cases(&args.file, &policy, &args.review)?;
    if let (Some(cases), false) = (&cases, args.dry_run) {
        review::refuse(cases, &args.review, &document.place)?;
    }
    let mut store = Store::open(session)?;
    let admin_log = AdminLog::new(session, &mut store, args.reason.as_deref())?;
    fits(&policy, &document.place, &store)?;
    let organisations = chosen(&args.which, &policy, &document.place)?;
    session.within(&organisations, "the document", &document.place)?;
    knows_keys(&mut store, &args.canary, &organisations)?;
    warn_of_new(&mut store, &organisations)?;
    // Beside the watch: it only warns, and asks for each key of each organisation.
    let unknown = unknown_keys::unknown(&mut store, &policy)?;
    if args.strict {
        unknown_keys::refuse(&unknown, &policy, &document.place)?;
    }
    let (canary, version) = (canary.as_ref(), &version);
    let pushed = Pushed { args, policy: &policy, version, canary, organisations, other };
    let shown = pushed.planned(&mut store, &Moved::new())?;
    let orphaning = Orphaning::of(args.orphan_keys);
    let preview = |store: &mut Store| {
        let keys = Keys { orphans: &shown.orphans, orphaning, unknown: &unknown, policy: &policy };
        let beside = Beside { cases: cases.as_ref(), args: &args.review };
        Preview::of(store, &document, version, &shown.steps, &keys, &beside)
    };
    if args.dry_run {
        return preview(&mut store).map(Preview::report);
    }
    consider(&shown, orphaning, &document.place)?;
    let asked = review::asks(session, &args.review) && shown.steps.iter().any(OrgChange::is_change);
    if asked {
        let text = preview(&mut store)?.text();
        review::confirm(&text, &document.place)?;
        // Redis may have closed the connection while a person read.
        store.reopen()?;
    } else {
        cases.iter().flat_map(|cases| &cases.failures).for_each(|line| progress(line));
        unknown_keys::warn(&unknown, &policy);
        if orphaning == Orphaning::Warned {
            orphans::warn(&shown.orphans);
        }
        if !args.review.against.is_empty() {
            preview(&mut store)?.replayed().into_iter().flat_map(str::lines).for_each(progress);
        }
    }
    // The tries of one push have one time in the histories once an organisation is moved, and of two pushes the later change
    // has the later time.
    let (mut at, mut moved) = (since_1970(), Moved::new());
    let change = |steps, at| {
        let untouched =
            (pushed.verb() == PolicyAction::Push).then_some("not named by this policy, unchanged");
        Change { verb: pushed.verb(), admin_log: admin_log.clone(), steps, untouched, at }
    };
    let done = store.until_done(NOT_ACTIVATED, |store| {
        if moved.is_empty() {
            at = since_1970();
        }
        store.watch_organisations(&pushed.organisations)?;
        // Before what is compared: a key that is issued afterwards has an entry, and the change is tried again.
        let ends = pushed.organisations.iter().map(|org| store.last_entry(org));
        let ends = ends.collect::<Result<Ends, _>>()?;
        let now = pushed.planned(store, &moved)?;
        if asked && !now.is_same(&shown) {
            return Err(changed_meanwhile(&document.place));
        }
        if now.orphans != shown.orphans {
            consider(&now, orphaning, &document.place)?;
            orphans::warn(&now.orphans);
        }
        store.put_policy(version, &document.value)?;
        change(now.steps, at).carry_out_after(store, ends, &mut moved)
    });
    done.or_else(|refusal| {
        if moved.is_empty() {
            return Err(refusal);
        }
        let there: Vec<OrgId> = moved.iter().map(|(org, _)| org.clone()).collect();
        change(pushed.steps(moved)?, at).note(&mut store)?;
        let there = listed(&there);
        Err(refusal
            .expected(format!(
                "all organisations of the document; only {there} has policy {version} now"
            ))
            .next("portcullis policy diff FILE, then the same command again"))
    })
}

/// A document, and where it is pushed.
struct Pushed<'a> {
    args: &'a PushArgs,
    policy: &'a Policy,
    version: &'a PolicyVersion,
    canary: Option<&'a NamedCanary>,
    organisations: Vec<OrgId>,
    other: OtherCanary,
}

/// What a push would change.
struct Planned {
    steps: Vec<OrgChange>,
    orphans: Vec<Orphan>,
}

impl Pushed<'_> {
    fn verb(&self) -> PolicyAction {
        if self.canary.is_some() { PolicyAction::Canary } else { PolicyAction::Push }
    }

    /// What would change now, unless that is refused. Organisations that an earlier try moved count as they were before.
    fn planned(&self, store: &mut Store, moved: &Moved) -> Result<Planned, CliError> {
        let Self { args, policy, version, .. } = *self;
        let before = |org: &OrgId| {
            let known = moved.iter().find(|(one, _)| one == org).cloned();
            known.map_or_else(|| Ok((org.clone(), store.active_policy(org)?)), Ok)
        };
        let active_policies =
            self.organisations.iter().map(before).collect::<Result<Vec<_>, CliError>>()?;
        replaces_one(&args.which, version, &active_policies)?;
        if self.other == OtherCanary::Kept {
            active_policies.iter().try_for_each(has_no_canary)?;
        }
        let steps = self.steps(active_policies)?;
        if let Some(expected) = &args.if_active {
            still_active(expected, &steps)?;
        }
        let active = |step: &OrgChange| (step.org.clone(), step.before.version().cloned());
        let concerned: Vec<_> = steps.iter().map(active).collect();
        let orphans = orphans::orphans(store, policy, &concerned)?;
        Ok(Planned { steps, orphans })
    }

    fn steps(
        &self,
        active_policies: Vec<(OrgId, ActivePolicy)>,
    ) -> Result<Vec<OrgChange>, CliError> {
        match self.canary {
            Some(canary) => tried(canary, active_policies),
            None => Ok(pushed(self.version, active_policies)),
        }
    }
}

impl Planned {
    fn is_same(&self, other: &Self) -> bool {
        let revisions = |planned: &Self| -> Vec<_> {
            planned.steps.iter().map(|step| (step.org.clone(), step.before.rev.clone())).collect()
        };
        revisions(self) == revisions(other) && self.orphans == other.orphans
    }
}

/// Refuses to orphan keys without --orphan-keys.
fn consider(planned: &Planned, orphaning: Orphaning, place: &str) -> Result<(), CliError> {
    match orphaning {
        Orphaning::Refused => orphans::refuse(&planned.orphans, place),
        Orphaning::Warned => Ok(()),
    }
}

/// The answer was about something else.
fn changed_meanwhile(place: &str) -> CliError {
    let found =
        "the active policy changed while you looked, or the keys that lose their role or tier";
    CliError::new(found, place)
        .expected("what was shown; nothing was changed")
        .next("run the command again")
}

/// The policy of a document without faults. What is probably not meant is said, and with `--strict` refused.
fn sound(document: &Document, strict: bool) -> Result<(Policy, PolicyVersion), CliError> {
    let place = &document.place;
    let Findings { policy, faults, warnings } = findings(document);
    let told = |warning: &LocatedWarning| warning.text(place);
    let refused = |number: usize, what: &str| {
        CliError::new(format!("the document has {}", count(number, what)), place)
            .expected(format!("a policy without {what}s; nothing was changed"))
            .next(format!("repair them, then portcullis policy check {}", document.argument()))
    };
    let Some(policy) = policy else {
        return Err(refused(faults.len(), "fault").faults(faults));
    };
    if strict && !warnings.is_empty() {
        let number = warnings.len();
        return Err(
            refused(number, "warning").faults(warnings.into_iter().map(Into::into).collect())
        );
    }
    warnings.iter().map(told).for_each(|line| progress(&line));
    Ok(policy)
}

/// The organisations that a document is pushed for.
fn chosen(which: &Which, policy: &Policy, place: &str) -> Result<Vec<OrgId>, CliError> {
    let unnamed: Vec<OrgId> =
        which.org.iter().filter(|org| !policy.organisations.contains(*org)).cloned().collect();
    if !unnamed.is_empty() {
        let found = format!("the document does not name {}", listed(&unnamed));
        return Err(CliError::new(found, place).expected("--org with organisations that it names"));
    }
    Ok(policy.organisations.iter().filter(|org| which.means(org)).cloned().collect())
}

/// Says which organisation is new and has nearly the name of one that is there: a push makes it, and no command removes
/// it.
fn warn_of_new(store: &mut Store, organisations: &[OrgId]) -> Result<(), CliError> {
    // An operator of one organisation sees no other one, and may be the first to push its policy.
    if store.organisation().is_some() {
        return Ok(());
    }
    let Ok(known) = store.organisations() else { return Ok(()) };
    let names: Vec<&str> = known.iter().map(OrgId::as_str).collect();
    for org in organisations.iter().filter(|org| !known.contains(org)) {
        let slip = slip(org.as_str(), &names);
        if !slip.is_empty() {
            progress(&format!("warning: {org} is an organisation without a policy so far{slip}"));
        }
    }
    Ok(())
}

/// A document that takes the place of several others has to be asked for: else one organisation's document with a
/// second name in it replaces the policy of the second.
fn replaces_one(
    which: &Which,
    version: &PolicyVersion,
    active_policies: &[(OrgId, ActivePolicy)],
) -> Result<(), CliError> {
    let replaced = |(org, active_policy): &(OrgId, ActivePolicy)| {
        let active = active_policy.version().filter(|active| *active != version)?;
        Some((org.clone(), active.clone()))
    };
    let replaced: Vec<_> = active_policies.iter().filter_map(replaced).collect();
    let versions: BTreeSet<&PolicyVersion> = replaced.iter().map(|(_, active)| active).collect();
    if versions.len() < 2 {
        return Ok(());
    }
    which.covers(&replaced.iter().map(|(org, _)| org.clone()).collect::<Vec<_>>()).map_err(|refusal| {
        let each: Vec<_> = replaced.iter().map(|(org, active)| format!("{org} has {active}")).collect();
        refusal.expected(format!(
            "organisations with one policy, and {}: --org ORG for each that is meant, or --all for all that the \
             document names; nothing was changed",
            each.join(", ")
        ))
    })
}

/// A trial is not replaced by another one unasked.
fn has_no_canary((org, active_policy): &(OrgId, ActivePolicy)) -> Result<(), CliError> {
    let Some(canary) = active_policy.canary() else { return Ok(()) };
    let (tried, share) = (&canary.record.version, canary.share());
    let found = format!("policy {tried} is tried on {share} of {org} already");
    Err(CliError::new(found, "the active policies")
        .expected("no canary; nothing was changed")
        .next("portcullis policy canary widen, stop or promote; or policy push --canary, which replaces it"))
}

/// What was looked at before is what is replaced.
fn still_active(expected: &PolicyVersion, steps: &[OrgChange]) -> Result<(), CliError> {
    let moved =
        steps.iter().find(|step| step.is_change() && step.before.version() != Some(expected));
    let Some(OrgChange { org, before, .. }) = moved else {
        return Ok(());
    };
    let found = match before.version() {
        Some(active) => format!("{active} is active for {org}"),
        None => format!("no policy is active for {org}"),
    };
    Err(CliError::new(found, "--if-active")
        .expected(format!("{expected}: another operator changed it; nothing was changed"))
        .next("portcullis policy diff, then push again with --if-active and the version that is active now"))
}

fn pushed(version: &PolicyVersion, active_policies: Vec<(OrgId, ActivePolicy)>) -> Vec<OrgChange> {
    let after = Target::alone(version.clone());
    let step = |(org, before)| OrgChange { org, before, after: after.clone() };
    active_policies.into_iter().map(step).collect()
}

/// The active version stays; it has to be there, and to be another one.
fn tried(
    canary: &NamedCanary,
    active_policies: Vec<(OrgId, ActivePolicy)>,
) -> Result<Vec<OrgChange>, CliError> {
    let version = &canary.record.version;
    let (mut steps, mut without, mut same) = (Vec::new(), Vec::new(), Vec::new());
    for (org, before) in active_policies {
        match before.version().cloned() {
            None => without.push(org),
            Some(active) if active == *version => same.push(org),
            Some(active) => {
                let after = Target { version: active, canary: Some(canary.clone()) };
                steps.push(OrgChange { org, before, after });
            }
        }
    }
    if !without.is_empty() {
        return Err(CliError::new(
            format!("{} without an active policy", listed(&without)),
            "the organisations of the document",
        )
        .expected("an active version that decides about the other callers; nothing was changed")
        .next("portcullis policy push FILE --reason … without --canary"));
    }
    if !same.is_empty() {
        return Err(CliError::new(
            format!("policy {version} is the active one of {}", listed(&same)),
            "the document",
        )
        .expected("another version than the active one; nothing was changed")
        .next("portcullis policy diff FILE"));
    }
    Ok(steps)
}
