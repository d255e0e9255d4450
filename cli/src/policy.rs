//! `portcullis policy`: check, push, history, show, rollback.
//!
//! Owns the life of a version: written once under its digest, made active by flipping one pointer
//! per organisation, noted in the history. What a document means is the core's business.

use portcullis_core::id::{OrgId, PolicyVersion};
use portcullis_core::policy::{self, Policy};
use serde_json::{Value, json};

use crate::args::{CheckArgs, HistoryArgs, PushArgs, RollbackArgs, Session, ShowPolicyArgs};
use crate::document::Document;
use crate::moment::Seconds;
use crate::report::{LocatedFault, Refusal, Report, Verdict, table};
use crate::scribe::Scribe;
use crate::store::{Activation, Move, Store, Topology, Verb};

/// How far back a rollback without `--to` looks.
const REMEMBERED: u32 = 1_000;
const NOT_ACTIVATED: &str = "no policy was activated";

pub(crate) fn check(args: &CheckArgs) -> Result<Report, Refusal> {
    let document = Document::read(&args.file)?;
    let place = &document.place;
    match compile(&document) {
        Ok((policy, version)) => Ok(Report::done(
            format!("{place}: good, version {version}: {}", summary(&policy)),
            json!({ "file": place, "valid": true, "version": version, "faults": [] }),
        )),
        Err(faults) => {
            let lines: Vec<_> = faults.iter().map(|fault| fault.text(place)).collect();
            let text = format!("{}\n{place}: {}", lines.join("\n"), count(faults.len(), "fault"));
            let json = json!({ "file": place, "valid": false, "version": null, "faults": faults });
            Ok(Report::judged(Verdict::Wanting, text, json))
        }
    }
}

pub(crate) fn push(session: &Session, args: &PushArgs) -> Result<Report, Refusal> {
    let document = Document::read(&args.file)?;
    let (policy, version) = compile(&document).map_err(|faults| {
        Refusal::new(format!("the document has {}", count(faults.len(), "fault")), &document.place)
            .expected("a policy without faults; nothing was changed")
            .next(format!("repair them, then portcullis policy check {}", document.place))
            .faults(faults)
    })?;
    let scribe = Scribe::new(session, Some(&args.reason))?;
    let mut store = Store::open(session)?;
    fits(&policy, &document.place, &store)?;
    store.put_policy(&version, &document.value)?;
    let organisations = policy.organisations.iter().cloned().collect();
    let change = Change { version, scribe, verb: Verb::Push, organisations };
    store.until_done(NOT_ACTIVATED, |store| change.carry_out(store))
}

pub(crate) fn history(session: &Session, args: &HistoryArgs) -> Result<Report, Refusal> {
    let mut store = Store::open(session)?;
    let entries = store.history(args.limit)?;
    let active = active_versions(&mut store)?;
    let header = ["ACTIVATED", "VERSION", "VERB", "ORGANISATIONS", "BY", "REASON", "ACTIVE FOR"];
    // Only the newest entry of a version is the one that made it active.
    let mut seen: Vec<&PolicyVersion> = Vec::new();
    let mut rows = Vec::new();
    let mut views = Vec::new();
    for entry in &entries {
        let newest = !seen.contains(&&entry.version);
        seen.push(&entry.version);
        let active_for = if newest { active_for(&active, &entry.version) } else { Vec::new() };
        rows.push([
            Seconds(entry.activated_at).rfc3339(),
            entry.version.to_string(),
            entry.verb.as_str().to_owned(),
            comma_separated(&entry.organisations),
            entry.actor.clone(),
            entry.reason.clone(),
            comma_separated(&active_for),
        ]);
        views.push(json!({
            "activated_at": Seconds(entry.activated_at).rfc3339(),
            "version": entry.version,
            "verb": entry.verb,
            "organisations": entry.organisations,
            "actor": entry.actor,
            "reason": entry.reason,
            "active_for": active_for,
        }));
    }
    let text = if rows.is_empty() { "no policy yet".to_owned() } else { table(header, rows) };
    Ok(Report::done(text, json!({ "history": views })))
}

pub(crate) fn show(session: &Session, args: &ShowPolicyArgs) -> Result<Report, Refusal> {
    let mut store = Store::open(session)?;
    let version = match &args.version {
        Some(version) => version.clone(),
        None => match store.history(1)?.pop() {
            Some(newest) => newest.version,
            None => return Err(no_policy()),
        },
    };
    let document = stored_document(&mut store, &version)?;
    let active = active_versions(&mut store)?;
    let text = serde_json::to_string_pretty(&document)
        .map_err(|error| Refusal::new(error.to_string(), format!("policy {version}")))?;
    let active_for = active_for(&active, &version);
    let json = json!({ "version": version, "active_for": active_for, "document": document });
    Ok(Report::done(text, json))
}

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

/// Refuses what the gateways could not use with this Redis: they would go on with the policy before, or serve nobody.
fn fits(policy: &Policy, place: &str, store: &Store) -> Result<(), Refusal> {
    let global = match store.topology() {
        Topology::Server => None,
        Topology::Cluster => policy.global_limit(),
    };
    global.map_or(Ok(()), |limit| {
        let found = format!("{} counts over all organisations", limit.name);
        Err(Refusal::new(found, place)
            .expected(
                "no limit per global in a Redis Cluster: what organisations share is in another place than what is \
                 theirs, and no step can draw from both or neither; nothing was changed",
            )
            .next("per: [org], with a share for each; or one Redis server for all. docs/limits.md says why"))
    })
}

/// A stored version, as far as this program still accepts it.
fn compiled(version: &PolicyVersion, store: &mut Store) -> Result<Policy, Refusal> {
    let document = stored_document(store, version)?;
    policy::compile(&document).map_err(|faults| {
        let faults = faults.iter().map(|fault| LocatedFault {
            line: None,
            path: fault.path.clone(),
            found: fault.found.clone(),
            expected: fault.expected.clone(),
        });
        let place = format!("policy {version}");
        Refusal::new("this version of portcullis does not accept that document any more", place)
            .next("portcullis policy show VERSION, repair it, and push it")
            .faults(faults.collect())
    })
}

/// A stored version that is to become active.
struct Change {
    version: PolicyVersion,
    scribe: Scribe,
    verb: Verb,
    organisations: Vec<OrgId>,
}

impl Change {
    /// Nothing when somebody else was faster. What was decided on beyond the organisations' state must
    /// be watched already.
    fn carry_out(&self, store: &mut Store) -> Result<Option<Report>, Refusal> {
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

fn compile(document: &Document) -> Result<(Policy, PolicyVersion), Vec<LocatedFault>> {
    let policy = policy::compile(&document.value).map_err(|faults| document.located(&faults))?;
    let unusable = policy.schema_faults();
    if !unusable.is_empty() {
        return Err(document.located(&unusable));
    }
    let version = policy::version_of(&document.value).ok_or_else(Vec::new)?;
    Ok((policy, version))
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

fn stored_document(store: &mut Store, version: &PolicyVersion) -> Result<Value, Refusal> {
    store.policy(version)?.ok_or_else(|| {
        Refusal::new(format!("there is no policy {version}"), "the stored policies")
            .expected("a version that was pushed")
            .next("portcullis policy history")
    })
}

fn active_versions(store: &mut Store) -> Result<Vec<(OrgId, PolicyVersion)>, Refusal> {
    let mut active = Vec::new();
    for org in store.organisations()? {
        active.extend(store.active(&org)?.map(|version| (org, version)));
    }
    Ok(active)
}

fn active_for(active: &[(OrgId, PolicyVersion)], version: &PolicyVersion) -> Vec<OrgId> {
    active.iter().filter(|(_, of)| of == version).map(|(org, _)| org.clone()).collect()
}

fn no_policy() -> Refusal {
    Refusal::new("there is no policy yet", "the policy history")
        .expected("a policy that was pushed")
        .next("portcullis policy push FILE --reason …")
}

fn summary(policy: &Policy) -> String {
    [
        (policy.organisations.len(), "organisation"),
        (policy.connectors.len(), "connector"),
        (policy.roles.len(), "role"),
        (policy.tiers.len(), "tier"),
        (policy.limits.len(), "further limit"),
    ]
    .map(|(number, what)| count(number, what))
    .join(", ")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn comma_separated(organisations: &[OrgId]) -> String {
    organisations.iter().map(OrgId::as_str).collect::<Vec<_>>().join(", ")
}
