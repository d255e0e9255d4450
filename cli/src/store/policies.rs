//! Policy documents, which of them is active for whom, and how that came about.

use portcullis_core::audit::Deed;
use portcullis_core::id::{OrgId, PolicyVersion};
use portcullis_core::json;
use portcullis_redis_lua::Key;
use serde::{Deserialize, Serialize};

use super::Store;
use crate::report::Refusal;

/// One line of the policy history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Activation {
    pub(crate) version: PolicyVersion,
    /// Seconds since the Unix epoch.
    pub(crate) activated_at: u64,
    pub(crate) actor: String,
    pub(crate) reason: String,
    pub(crate) organisations: Vec<OrgId>,
    pub(crate) verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verb {
    Push,
    Rollback,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verb::Push => "push",
            Verb::Rollback => "rollback",
        }
    }

    /// How the admin chain calls it.
    pub(crate) fn deed(self) -> Deed {
        match self {
            Verb::Push => Deed::PolicyPush,
            Verb::Rollback => Deed::PolicyRollback,
        }
    }
}

impl Store {
    /// The version that is active for an organisation.
    pub(crate) fn active(&mut self, org: &OrgId) -> Result<Option<PolicyVersion>, Refusal> {
        let rev = self.active_rev(org)?;
        let version = rev.as_deref().and_then(|rev| rev.split('+').next());
        Ok(version.and_then(PolicyVersion::new))
    }

    /// The revision of what is active for an organisation: the version, and more when another one is
    /// tried on some callers.
    pub(crate) fn active_rev(&mut self, org: &OrgId) -> Result<Option<String>, Refusal> {
        let key = Key::policy(org.as_str());
        self.query(redis::cmd("HGET").arg(key.as_str()).arg("rev"))
    }

    /// A policy document.
    pub(crate) fn policy(
        &mut self,
        version: &PolicyVersion,
    ) -> Result<Option<serde_json::Value>, Refusal> {
        let key = Key::policy_document(version.as_str());
        let text: Option<Vec<u8>> = self.query(redis::cmd("GET").arg(key.as_str()))?;
        text.map(|text| {
            json::parse_strict(&text).map_err(|error| {
                Refusal::new(format!("the policy document is damaged: {error}"), key.as_str())
                    .next("portcullis policy push FILE --reason …")
            })
        })
        .transpose()
    }

    /// Stores a document under its version, for good. It cannot replace another one.
    pub(crate) fn put_policy(
        &mut self,
        version: &PolicyVersion,
        document: &serde_json::Value,
    ) -> Result<(), Refusal> {
        let key = Key::policy_document(version.as_str());
        let canonical = json::canonical(document);
        let mut write = redis::pipe();
        write.cmd("SET").arg(key.as_str()).arg(&canonical).arg("NX").ignore();
        write.cmd("GET").arg(key.as_str());
        let (stored,): (String,) = self.pipeline(&write)?;
        if stored == canonical {
            return Ok(());
        }
        Err(Refusal::new("another document is stored under this version", key.as_str())
            .expected("the document that the version is the digest of")
            .next("find out who wrote it; nothing was activated"))
    }

    /// The policy history, newest first, at most `limit` entries.
    pub(crate) fn history(&mut self, limit: u32) -> Result<Vec<Activation>, Refusal> {
        let key = Key::policy_history();
        let last = i64::from(limit).saturating_sub(1);
        let entries: Vec<Vec<u8>> =
            self.query(redis::cmd("LRANGE").arg(key.as_str()).arg(0).arg(last))?;
        entries
            .iter()
            .map(|entry| {
                serde_json::from_slice(entry).map_err(|error| {
                    Refusal::new(format!("an entry cannot be read: {error}"), key.as_str())
                        .expected("a history written by this version of portcullis")
                })
            })
            .collect()
    }

    /// As [`Store::history`]; from here on, a change of it makes [`Store::activate`] come to nothing.
    pub(crate) fn watch_history(&mut self, limit: u32) -> Result<Vec<Activation>, Refusal> {
        self.watch(&[Key::policy_history()])?;
        self.history(limit)
    }

    /// From here on, a change of these organisations' policies or admin chains by somebody else makes
    /// [`Store::activate`] come to nothing.
    pub(crate) fn watch_organisations(&mut self, organisations: &[OrgId]) -> Result<(), Refusal> {
        let keys = |org: &OrgId| [Key::policy(org.as_str()), Key::admin(org.as_str())];
        self.watch(&organisations.iter().flat_map(keys).collect::<Vec<_>>())
    }

    fn watch(&mut self, keys: &[Key]) -> Result<(), Refusal> {
        let names: Vec<&str> = keys.iter().map(Key::as_str).collect();
        self.query(redis::cmd("WATCH").arg(names))
    }

    /// Whatever was watched may change.
    pub(crate) fn unwatch(&mut self) -> Result<(), Refusal> {
        self.query(&redis::cmd("UNWATCH"))
    }

    /// Makes a stored version the active one of all its organisations, and notes it in the history and
    /// in each admin chain (`entries`, in the order of the organisations), in one step. Nothing is
    /// done, and nothing returned, when something that is watched was changed by somebody else.
    pub(crate) fn activate(
        &mut self,
        activation: &Activation,
        entries: &[String],
    ) -> Result<Option<()>, Refusal> {
        let Activation { version, activated_at, actor, reason, organisations, .. } = activation;
        let pointer = serde_json::json!({
            "version": version,
            "activated_at": activated_at,
            "actor": actor,
            "reason": reason,
        });
        let noted = serde_json::to_string(activation)
            .map_err(|error| Refusal::new(error.to_string(), "the new history entry"))?;

        let mut change = redis::pipe();
        change.atomic();
        for (org, entry) in organisations.iter().zip(entries) {
            let key = Key::policy(org.as_str());
            change.cmd("HSET").arg(key.as_str());
            change.arg("rev").arg(version.as_str()).arg("doc").arg(pointer.to_string()).ignore();
            change.cmd("SADD").arg(Key::organisations().as_str()).arg(org.as_str()).ignore();
            change.cmd("RPUSH").arg(Key::admin(org.as_str()).as_str()).arg(entry).ignore();
        }
        change.cmd("LPUSH").arg(Key::policy_history().as_str()).arg(noted).ignore();
        self.pipeline(&change)
    }
}
