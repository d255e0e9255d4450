//! A change of active policies: executed for all its organisations, and reported.

use std::time::Duration;

use portcullis_core::id::{OrgId, PolicyVersion};
use serde_json::{Value, json};

use super::{NOT_ACTIVATED, count, listed};
use crate::admin_log::AdminLog;
use crate::escape;
use crate::report::{CliError, Report, progress};
use crate::store::{Activation, ActivePolicy, CanaryScope, Move, PolicyAction, Store, Target};
use crate::time::Seconds;

/// The new state of some organisations.
pub(super) struct Change {
    pub(super) verb: PolicyAction,
    pub(super) admin_log: AdminLog,
    pub(super) steps: Vec<OrgChange>,
    /// Why other organisations are unchanged, if the output should count them.
    pub(super) untouched: Option<&'static str>,
    /// The time in the history, since the Unix epoch: the same for all tries of one command.
    pub(super) at: Duration,
}

/// The ends of admin chains before a change.
pub(super) type Ends = Vec<Option<Vec<u8>>>;

/// Organisations that an earlier try of the same command changed, with their state before. Only in a Redis Cluster.
pub(super) type Moved = Vec<(OrgId, ActivePolicy)>;

/// One organisation's part.
pub(super) struct OrgChange {
    pub(super) org: OrgId,
    /// The state before, read under a watch.
    pub(super) before: ActivePolicy,
    pub(super) after: Target,
}

impl OrgChange {
    pub(super) fn is_change(&self) -> bool {
        self.before.rev.as_ref() != Some(&self.after.rev())
    }

    /// The version of the history's entry.
    fn subject(&self) -> &PolicyVersion {
        match &self.after.canary {
            Some(canary) => &canary.record.version,
            None => &self.after.version,
        }
    }

    pub(super) fn share(&self) -> Option<CanaryScope> {
        self.after.canary.as_ref().map(|canary| canary.share())
    }

    /// The canary that ends with this change.
    fn ended_canary(&self) -> Option<&PolicyVersion> {
        let ended = self.before.canary().map(|canary| &canary.record.version)?;
        let goes_on =
            self.after.canary.as_ref().is_some_and(|canary| canary.record.version == *ended);
        (!goes_on && self.after.version != *ended).then_some(ended)
    }

    pub(super) fn view(&self) -> Value {
        let (canary, before) = (self.after.canary.as_ref(), self.before.canary());
        let canaries = [("canary", canary), ("canary_before", before)];
        let canaries =
            canaries.into_iter().filter_map(|(name, canary)| Some((name, canary?.view())));
        let versions = [
            ("org", json!(self.org)),
            ("from", json!(self.before.version())),
            ("to", json!(self.after.version)),
        ];
        versions.into_iter().chain(canaries).collect()
    }

    /// The state before, for operators.
    pub(super) fn told(&self) -> String {
        let version = match self.before.version() {
            _ if self.after.canary.is_some() => format!("{} stays active", self.after.version),
            Some(version) if *version == self.after.version => "as before".to_owned(),
            Some(version) => format!("before: {version}"),
            None => "before: no policy".to_owned(),
        };
        let Some(before) = self.before.canary() else {
            return version;
        };
        let (tried, share) = (&before.record.version, before.share());
        match &self.after.canary {
            Some(canary) if canary == before => version,
            Some(canary) if canary.record.version == *tried => {
                format!("{version}; the canary was on {share}")
            }
            Some(_) => format!("{version}; replaces the canary {tried} ({share})"),
            None if self.after.version == *tried => format!("{version}; was tried on {share}"),
            None => format!("{version}; the canary {tried} ({share}) is over"),
        }
    }
}

impl Change {
    /// Executes the change; nothing when another operator was faster. When a Cluster changed a part of the organisations
    /// before that, the change goes on with the others, unless their policies changed, too: then the histories of that
    /// part have it, and the error names it.
    pub(super) fn carry_out(&self, store: &mut Store) -> Result<Option<Report>, CliError> {
        let mut moved = Moved::new();
        match self.try_once(store, &mut moved) {
            done if moved.is_empty() => return done,
            Ok(Some(report)) => return Ok(Some(report)),
            Ok(None) => {}
            Err(refusal) => return Err(self.in_part(&moved, refusal, store)),
        }
        let done = store.until_done(NOT_ACTIVATED, |store| {
            self.are_as_before(store, &moved)?;
            self.try_once(store, &mut moved)
        });
        done.map(Some).map_err(|refusal| self.in_part(&moved, refusal, store))
    }

    fn try_once(&self, store: &mut Store, moved: &mut Moved) -> Result<Option<Report>, CliError> {
        let ends = self.steps.iter().map(|step| store.last_entry(&step.org));
        let ends = ends.collect::<Result<Ends, _>>()?;
        self.carry_out_after(store, ends, moved)
    }

    /// Whether the organisations that are not changed yet have the policies that the change was decided on.
    fn are_as_before(&self, store: &mut Store, moved: &Moved) -> Result<(), CliError> {
        let left = self.steps.iter().filter(|step| moved.iter().all(|(org, _)| *org != step.org));
        for step in left {
            if store.active_policy(&step.org)?.rev != step.before.rev {
                let found =
                    format!("another operator changed the policy of {} meanwhile", step.org);
                return Err(CliError::new(found, "the active policies"));
            }
        }
        Ok(())
    }

    /// Writes the history of the organisations that were changed; the error says that others were not.
    fn in_part(&self, moved: &Moved, refusal: CliError, store: &mut Store) -> CliError {
        let is_moved = |org: &OrgId| moved.iter().any(|(one, _)| one == org);
        let mut noted = self.noted();
        noted.iter_mut().for_each(|entry| entry.organisations.retain(is_moved));
        noted.retain(|entry| !entry.organisations.is_empty());
        if let Err(unwritten) = store.note(&noted) {
            progress(&format!("warning: the history could not be written: {}", unwritten.found()));
        }
        let there: Vec<OrgId> = moved.iter().map(|(org, _)| org.clone()).collect();
        refusal.expected(format!("all organisations; only {} changed", listed(&there))).next(
            "portcullis policy history, then the same command again for the others, with --org",
        )
    }

    /// As [`Change::carry_out`], if the admin chains still have these ends, one for each step. Adds the organisations that
    /// it changed before another operator was faster to `moved`, and leaves out those that are there.
    pub(super) fn carry_out_after(
        &self,
        store: &mut Store,
        ends: Ends,
        moved: &mut Moved,
    ) -> Result<Option<Report>, CliError> {
        let changed = self.steps.iter().any(OrgChange::is_change);
        if changed {
            let moves: Vec<Move> = self
                .steps
                .iter()
                .zip(ends)
                .map(|(step, last)| {
                    let done = moved.iter().any(|(org, _)| *org == step.org);
                    let one = self.moved(step, last);
                    // A move to where it is: none.
                    if done { Move { from: Some(one.rev.clone()), ..one } } else { one }
                })
                .collect();
            let mut reached = Vec::new();
            let done = store.activate(&self.noted(), &moves, &mut reached);
            for step in self.steps.iter().filter(|step| step.is_change()) {
                let is_new = moved.iter().all(|(org, _)| *org != step.org);
                if is_new && reached.contains(&step.org) {
                    moved.push((step.org.clone(), step.before.clone()));
                }
            }
            if done?.is_none() {
                return Ok(None);
            }
        } else {
            store.unwatch()?;
        }
        let text = format!("{}{}", self.headline(changed), self.details(store));
        Ok(Some(Report::done(text, self.view(changed))))
    }

    fn moved(&self, step: &OrgChange, last: Option<Vec<u8>>) -> Move {
        let OrgChange { org, before, after } = step;
        let doc = after.document([
            ("activated_at", json!(Seconds::now().0)),
            ("actor", json!(self.admin_log.actor)),
            ("reason", json!(self.admin_log.reason)),
        ]);
        let sides = (before.target.as_ref(), after);
        let entry = self.admin_log.of_policy(self.verb.action(), org, sides, last.as_deref());
        let (from, rev) = (before.rev.clone(), after.rev());
        Move { org: org.clone(), from, last, entry, rev, doc }
    }

    /// Writes the history of a change that only these organisations have: others were not reached.
    pub(super) fn note(&self, store: &mut Store) -> Result<(), CliError> {
        store.note(&self.noted())
    }

    /// One line of the history for all organisations with the same change.
    fn noted(&self) -> Vec<Activation> {
        let mut noted: Vec<Activation> = Vec::new();
        for step in &self.steps {
            let (version, canary, ended) = (step.subject(), step.share(), step.ended_canary());
            let same = |entry: &&mut Activation| {
                (&entry.version, &entry.canary, entry.ended_canary.as_ref())
                    == (version, &canary, ended)
            };
            if let Some(entry) = noted.iter_mut().find(same) {
                entry.organisations.push(step.org.clone());
                continue;
            }
            noted.push(Activation {
                version: version.clone(),
                activated_at: self.at.as_secs(),
                micros: self.at.subsec_micros(),
                actor: self.admin_log.actor.clone(),
                actor_claim: self.admin_log.claim.clone(),
                reason: self.admin_log.reason.clone(),
                organisations: vec![step.org.clone()],
                verb: self.verb,
                ended_canary: ended.cloned(),
                canary,
            });
        }
        noted
    }

    /// The only version of the change, if there is only one.
    fn version(&self) -> Option<&PolicyVersion> {
        let (first, rest) = self.steps.split_first()?;
        rest.iter().all(|step| step.subject() == first.subject()).then(|| first.subject())
    }

    fn headline(&self, changed: bool) -> String {
        let end = match changed {
            true => ", from the next request on",
            false => " already; nothing was changed",
        };
        match (self.version(), self.steps.first().and_then(OrgChange::share)) {
            (Some(version), Some(share)) => format!("policy {version} is tried on {share}{end}"),
            (Some(version), None) => format!("policy {version} is active{end}"),
            (None, _) => format!("each organisation has another policy active{end}"),
        }
    }

    fn details(&self, store: &mut Store) -> String {
        let several = self.version().is_none();
        let mut text = String::new();
        for step in &self.steps {
            let version = if several { format!("{}, ", step.after.version) } else { String::new() };
            let told = match (self.verb, step.before.version()) {
                (PolicyAction::Rollback, Some(from)) if *from != step.after.version => {
                    let rest = step.told().replacen(&format!("before: {from}"), "", 1);
                    format!("from {from} to {}{rest}", step.after.version)
                }
                (_, _) => format!("{version}{}", step.told()),
            };
            text.push_str(&format!("\n  {}  {}", step.org, escape::line(&told)));
        }
        let Some(why) = self.untouched else {
            return text;
        };
        // The change is done: an operator without access to the others must not see an error.
        let others = match store.organisations() {
            Ok(organisations) => {
                let touched = |org: &OrgId| self.steps.iter().any(|step| step.org == *org);
                organisations.iter().filter(|org| !touched(org)).count()
            }
            Err(refusal) => {
                progress(&format!("other organisations are not counted: {}", refusal.found()));
                0
            }
        };
        if others > 0 {
            text.push_str(&format!("\n  {}: {why}", count(others, "other organisation")));
        }
        text
    }

    fn view(&self, changed: bool) -> Value {
        json!({
            "version": self.version(),
            "verb": self.verb,
            "changed": changed,
            "organisations": self.steps.iter().map(OrgChange::view).collect::<Vec<_>>(),
        })
    }
}
