//! A change of what is active: carried out for all its organisations, and reported.

use portcullis_core::id::{OrgId, PolicyVersion};
use serde_json::{Value, json};

use super::active_versions;
use crate::moment::Seconds;
use crate::report::{Refusal, Report};
use crate::scribe::Scribe;
use crate::store::{Activation, Move, Store, Verb};

/// A stored version that is to become active.
pub(super) struct Change {
    pub(super) version: PolicyVersion,
    pub(super) scribe: Scribe,
    pub(super) verb: Verb,
    pub(super) organisations: Vec<OrgId>,
}

impl Change {
    /// Nothing when somebody else was faster. What was decided on beyond the organisations' state must
    /// be watched already.
    pub(super) fn carry_out(&self, store: &mut Store) -> Result<Option<Report>, Refusal> {
        store.watch_organisations(&self.organisations)?;
        let (mut moves, mut steps) = (Vec::new(), Vec::new());
        let mut changed = false;
        for org in &self.organisations {
            let rev = store.active_rev(org)?;
            changed |= rev.as_deref() != Some(self.version.as_str());
            let (from, last) = (store.active(org)?, store.last_entry(org)?);
            let step = (from.as_ref(), &self.version);
            let entry = self.scribe.of_policy(self.verb.deed(), org, step, last.as_deref());
            steps.push(Move { org: org.clone(), from: rev, last, entry });
            moves.push((org.clone(), from));
        }
        if !changed {
            store.unwatch()?;
        } else if store.activate(&self.activation(), &steps)?.is_none() {
            return Ok(None);
        }
        let elsewhere: Vec<(OrgId, PolicyVersion)> = active_versions(store)?
            .into_iter()
            .filter(|(org, _)| !self.organisations.contains(org))
            .collect();
        Ok(Some(self.report(changed, &moves, &elsewhere)))
    }

    fn activation(&self) -> Activation {
        Activation {
            version: self.version.clone(),
            activated_at: Seconds::now().0,
            actor: self.scribe.actor.clone(),
            reason: self.scribe.reason.clone(),
            organisations: self.organisations.clone(),
            verb: self.verb,
        }
    }

    fn report(
        &self,
        changed: bool,
        moves: &[(OrgId, Option<PolicyVersion>)],
        elsewhere: &[(OrgId, PolicyVersion)],
    ) -> Report {
        let mut text = if changed {
            format!("policy {} is active, from the next request on", self.version)
        } else {
            format!("policy {} is active already; nothing was changed", self.version)
        };
        for (org, from) in moves {
            let from = match from {
                Some(version) if *version == self.version => "as before".to_owned(),
                Some(version) => format!("before: {version}"),
                None => "before: no policy".to_owned(),
            };
            text.push_str(&format!("\n  {org}  {from}"));
        }
        for (org, version) in elsewhere {
            text.push_str(&format!("\n  {org}  not named by this policy, stays on {version}"));
        }
        let moves: Vec<Value> =
            moves.iter().map(|(org, from)| json!({ "org": org, "from": from })).collect();
        let json = json!({
            "version": self.version,
            "verb": self.verb,
            "changed": changed,
            "organisations": moves,
        });
        Report::done(text, json)
    }
}
