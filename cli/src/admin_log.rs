//! What is written down of a change: an entry of the organisation's admin chain.
//!
//! Owns who did it, why, and which facts of a key or policy changed. The form of an entry and the
//! chain are the core's; that an entry is written together with its change is the store's.

use portcullis_core::audit::{AdminAction, AdminEntry, Chain};
use portcullis_core::auth::record::KeyRecord;
use portcullis_core::auth::{IdentityKind, Principal};
use portcullis_core::authz::approval::{self, Waiting};
use portcullis_core::id::OrgId;
use serde_json::{Map, Value, json};

use crate::random::base62;
use crate::report::CliError;
use crate::session::Session;
use crate::store::{NamedCanary, Store, Target};
use crate::time::{Seconds, timestamp};

/// Writes the entries of one command.
#[derive(Clone)]
pub(crate) struct AdminLog {
    /// The ACL user of Redis, if there is one; who this machine says it is otherwise.
    pub(crate) actor: String,
    /// Who this machine says it is, beside an ACL user: several people may share that.
    pub(crate) claim: Option<String>,
    pub(crate) reason: String,
    request_id: String,
}

impl AdminLog {
    pub(crate) fn new(
        session: &Session,
        store: &mut Store,
        reason: Option<&str>,
    ) -> Result<Self, CliError> {
        let (actor, claim) = match store.acl_user() {
            Some(user) => (user, session.actor_name().ok()),
            None => (session.actor_name()?, None),
        };
        Ok(Self {
            actor,
            claim,
            reason: reason.unwrap_or_default().to_owned(),
            request_id: format!("cli-{}", base62(16)?),
        })
    }

    /// The line that follows `last` and tells how `before` became `after`.
    pub(crate) fn of_key(
        &self,
        action: AdminAction,
        before: Option<&KeyRecord>,
        after: &KeyRecord,
        last: Option<&[u8]>,
    ) -> String {
        let mut entry = self.entry(action, &after.org);
        entry.api_key_id = Some(after.id.to_string());
        entry.principal = Some(after.name.clone());
        entry.changes = changes(&before.map(facts).unwrap_or_default(), &facts(after));
        chain(&after.org, last).append_action(&entry)
    }

    /// The line that follows `last` and tells what is active now, and what is tried.
    pub(crate) fn of_policy(
        &self,
        action: AdminAction,
        org: &OrgId,
        (from, to): (Option<&Target>, &Target),
        last: Option<&[u8]>,
    ) -> String {
        let mut entry = self.entry(action, org);
        entry.policy_version = Some(to.version.to_string());
        let facts = |target: &Target| {
            let canary = target.canary.as_ref().map(NamedCanary::view);
            Map::from_iter([
                ("policy_version".to_owned(), json!(target.version)),
                ("canary".to_owned(), json!(canary)),
            ])
        };
        entry.changes = changes(&from.map(facts).unwrap_or_default(), &facts(to));
        chain(org, last).append_action(&entry)
    }

    /// The line that follows `last` and tells what of the windows of `caller` was changed.
    pub(crate) fn of_limits(
        &self,
        action: AdminAction,
        caller: &Principal,
        changes: Map<String, Value>,
        last: Option<&[u8]>,
    ) -> String {
        let mut entry = self.entry(action, &caller.org);
        match caller.identity.kind() {
            IdentityKind::Key(id) => entry.api_key_id = Some(id.to_string()),
            IdentityKind::Token { subject: name, .. } | IdentityKind::Certificate(name) => {
                entry.client_id = Some(name.clone());
            }
        }
        entry.principal = Some(caller.name.clone());
        entry.changes = changes;
        chain(&caller.org, last).append_action(&entry)
    }

    /// The line that follows `last` and tells what is denied now, or no longer.
    pub(crate) fn of_denial(
        &self,
        action: AdminAction,
        org: &OrgId,
        (what, issued_before): (&str, Option<u64>),
        last: Option<&[u8]>,
    ) -> String {
        let mut entry = self.entry(action, org);
        let said = |side: &str, value: &str| json!({ side: value });
        let side = if action == AdminAction::TokenDeny { "to" } else { "from" };
        entry.changes.insert("denied".to_owned(), said(side, what));
        if let Some(seconds) = issued_before {
            entry
                .changes
                .insert("issued_before".to_owned(), said(side, &Seconds(seconds).rfc3339()));
        }
        chain(org, last).append_action(&entry)
    }

    /// The line that follows `last` and tells what was decided about a call that waited.
    pub(crate) fn of_call(
        &self,
        action: AdminAction,
        waiting: &Waiting,
        last: Option<&[u8]>,
    ) -> String {
        let mut entry = self.entry(action, &waiting.org);
        entry.principal = Some(waiting.principal.clone());
        entry.changes = Map::from_iter([
            ("approval".to_owned(), json!({ "to": approval::id(&waiting.digest) })),
            ("client_id".to_owned(), json!({ "to": waiting.client_id })),
            ("request_id".to_owned(), json!({ "to": waiting.request_id })),
            ("tool".to_owned(), json!({ "to": format!("{}/{}", waiting.connector, waiting.tool) })),
        ]);
        chain(&waiting.org, last).append_action(&entry)
    }

    /// The line that follows `last` and tells what was done to the organisation as a whole.
    pub(crate) fn of_organisation(
        &self,
        action: AdminAction,
        org: &OrgId,
        last: Option<&[u8]>,
    ) -> String {
        chain(org, last).append_action(&self.entry(action, org))
    }

    fn entry(&self, action: AdminAction, org: &OrgId) -> AdminEntry {
        let mut entry = AdminEntry::of(action, timestamp(), org.to_string());
        entry.request_id.clone_from(&self.request_id);
        entry.actor.clone_from(&self.actor);
        entry.actor_claim.clone_from(&self.claim);
        entry.reason.clone_from(&self.reason);
        entry
    }
}

/// The chain to go on with. After something that is no entry a new one starts, under a name of its
/// own: a spoilt log keeps no key from being revoked, and verifying finds the spot.
fn chain(org: &OrgId, last: Option<&[u8]>) -> Chain {
    let Some(last) = last else {
        return Chain::new(format!("admin:{org}"));
    };
    let going_on = std::str::from_utf8(last).ok().and_then(Chain::after);
    going_on.unwrap_or_else(|| Chain::new(format!("admin:{org}:{}", Seconds::now().0)))
}

/// What a record says, without anything that proves a key.
pub(crate) fn facts(record: &KeyRecord) -> Map<String, Value> {
    let time = |seconds: Option<u64>| seconds.map(|seconds| Seconds(seconds).rfc3339());
    let replaced = record.rotated.as_ref().map(|rotation| rotation.overlap_until);
    let facts = [
        ("not_before", json!(time(record.not_before))),
        ("expires_at", json!(time(record.expires_at))),
        ("secret", json!(record.current().map(|secret| secret.label()))),
        ("overlap_until", json!(time(replaced))),
        ("revoked", json!(record.revoked.is_some())),
    ];
    let facts = facts.map(|(name, value)| (name.to_owned(), value));
    terms(record).into_iter().chain(facts).collect()
}

/// What a key is for and what it may do.
pub(crate) fn terms(record: &KeyRecord) -> Map<String, Value> {
    let terms = [
        ("name", json!(record.name)),
        ("role", json!(record.role)),
        ("tier", json!(record.tier)),
        ("connectors", json!(record.connectors)),
        ("tools", json!(record.tools)),
        ("read_only", json!(record.read_only)),
        ("sources", json!(record.sources)),
        ("certificate", json!(record.certificate)),
    ];
    terms.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

/// The members that differ; what is null or false on a side is left out there.
fn changes(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    let said = |facts: &Map<String, Value>, name: &str| {
        facts.get(name).filter(|value| !matches!(value, Value::Null)).cloned()
    };
    let mut changes = Map::new();
    for name in after.keys() {
        let (from, to) = (said(before, name), said(after, name));
        let unsaid = from.is_none() && (to.is_none() || to == Some(Value::Bool(false)));
        if from == to || unsaid {
            continue;
        }
        let sides = [("from", from), ("to", to)];
        let sides = sides.into_iter().filter_map(|(side, value)| Some((side.to_owned(), value?)));
        changes.insert(name.clone(), Value::Object(sides.collect()));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let before = object(json!({"role": "admin", "tools": null, "read_only": false, "x": [1]}));
        let after =
            object(json!({"role": "analyst", "tools": ["a"], "read_only": true, "x": null}));
        assert_eq!(
            Value::Object(changes(&before, &after)),
            json!({
                "role": {"from": "admin", "to": "analyst"},
                "tools": {"to": ["a"]},
                "read_only": {"from": false, "to": true},
                "x": {"from": [1]},
            })
        );
        let issued = changes(&Map::new(), &before);
        assert_eq!(issued.keys().collect::<Vec<_>>(), ["role", "x"]);
        assert!(changes(&after, &after).is_empty());
    }
}
