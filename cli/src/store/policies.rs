//! Policy documents, their activation, and the history.

use portcullis_core::audit::AdminAction;
use portcullis_core::id::{OrgId, PolicyVersion};
use portcullis_core::json;
use portcullis_redis_lua::{Key, PutPolicy, PutPolicyReply};
use serde::{Deserialize, Serialize};

use super::active_policy::{ActivePolicy, CanaryScope};
use super::{Store, Topology};
use crate::report::{CliError, progress};

/// One line of the policy history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Activation {
    /// The version of the entry: activated, rolled back to, or used as a canary.
    pub(crate) version: PolicyVersion,
    /// Seconds since the Unix epoch.
    pub(crate) activated_at: u64,
    /// The microseconds: several changes may be in one second.
    #[serde(default)]
    pub(crate) micros: u32,
    pub(crate) actor: String,
    /// The operator's name that the tool reports in addition to an ACL user of Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) actor_claim: Option<String>,
    pub(crate) reason: String,
    pub(crate) organisations: Vec<OrgId>,
    pub(crate) verb: PolicyAction,
    /// The callers of the canary, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) canary: Option<CanaryScope>,
    /// The canary that ended with this change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_canary: Option<PolicyVersion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PolicyAction {
    Push,
    /// Another version becomes a canary.
    Canary,
    /// The canary becomes the active version.
    Promote,
    /// A canary ends; the active version stays.
    CanaryStop,
    Rollback,
}

/// One organisation's part of an activation.
pub(crate) struct Move {
    pub(crate) org: OrgId,
    /// The revision before.
    pub(crate) from: Option<String>,
    /// The end of its admin chain.
    pub(crate) last: Option<Vec<u8>>,
    /// The next entry of its admin chain.
    pub(crate) entry: String,
    /// The new revision.
    pub(crate) rev: String,
    /// The new record.
    pub(crate) doc: String,
}

impl PolicyAction {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            PolicyAction::Push => "push",
            PolicyAction::Canary => "canary",
            PolicyAction::Promote => "promote",
            PolicyAction::CanaryStop => "canary_stop",
            PolicyAction::Rollback => "rollback",
        }
    }

    /// Whether it activates a version; otherwise a canary starts or ends.
    pub(crate) fn activates(self) -> bool {
        match self {
            PolicyAction::Push | PolicyAction::Promote | PolicyAction::Rollback => true,
            PolicyAction::Canary | PolicyAction::CanaryStop => false,
        }
    }

    /// Its name in the admin chain.
    pub(crate) fn action(self) -> AdminAction {
        match self {
            PolicyAction::Push => AdminAction::PolicyPush,
            PolicyAction::Canary => AdminAction::PolicyCanary,
            PolicyAction::Promote => AdminAction::PolicyPromote,
            PolicyAction::CanaryStop => AdminAction::PolicyCanaryStop,
            PolicyAction::Rollback => AdminAction::PolicyRollback,
        }
    }
}

impl Store {
    /// The version that is active for an organisation.
    pub(crate) fn active(&mut self, org: &OrgId) -> Result<Option<PolicyVersion>, CliError> {
        Ok(self.active_policy(org)?.target.map(|target| target.version))
    }

    /// The active version of an organisation, and its canary.
    pub(crate) fn active_policy(&mut self, org: &OrgId) -> Result<ActivePolicy, CliError> {
        let key = Key::policy(org.as_str());
        let (rev, doc): (Option<String>, Option<Vec<u8>>) =
            self.query(redis::cmd("HMGET").arg(key.as_str()).arg(&["rev", "doc"]))?;
        Ok(ActivePolicy::read(rev, doc.as_deref()))
    }

    /// A policy document.
    pub(crate) fn policy(
        &mut self,
        version: &PolicyVersion,
    ) -> Result<Option<serde_json::Value>, CliError> {
        let key = Key::policy_document(version.as_str());
        let text: Option<Vec<u8>> = self.query(redis::cmd("GET").arg(key.as_str()))?;
        text.map(|text| {
            json::parse_strict(&text).map_err(|error| {
                CliError::new(format!("the policy document is damaged: {error}"), key.as_str())
                    .next("portcullis policy push FILE --reason …")
            })
        })
        .transpose()
    }

    /// Stores a document under its version, permanently. It cannot replace another one.
    pub(crate) fn put_policy(
        &mut self,
        version: &PolicyVersion,
        document: &serde_json::Value,
    ) -> Result<(), CliError> {
        let key = Key::policy_document(version.as_str());
        let canonical = json::canonical_exact(document);
        // Not SET with NX: permission for SET is permission to replace an existing document.
        self.query::<bool>(redis::cmd("SETNX").arg(key.as_str()).arg(&canonical))?;
        let stored: String = self.query(redis::cmd("GET").arg(key.as_str()))?;
        if stored == canonical {
            if self.topology() == Topology::Cluster {
                // The key may be on a different node.
                self.wait_for_replicas(Some(&key));
            }
            return Ok(());
        }
        Err(CliError::new("another document is stored under this version", key.as_str())
            .expected("the document that the version is the digest of")
            .next("find out who wrote it; nothing was activated"))
    }

    /// The policy history of these organisations, newest first, at most `limit` entries.
    pub(crate) fn history(
        &mut self,
        organisations: &[OrgId],
        limit: u32,
    ) -> Result<Vec<Activation>, CliError> {
        let last = i64::from(limit).saturating_sub(1);
        let read = |key: &Key| redis::cmd("LRANGE").arg(key.as_str()).arg(0).arg(last).clone();
        let keys: Vec<Key> = organisations.iter().map(|org| Key::history(org.as_str())).collect();
        let mut lists: Vec<Vec<Activation>> = Vec::new();
        for page in keys.chunks(PAGE) {
            let lines: Vec<Vec<Vec<u8>>> = self.connection.all(page.iter().map(read).collect())?;
            for (key, lines) in page.iter().zip(lines) {
                lists.push(activations(key, &lines)?);
            }
        }
        let mut entries = merged(lists);
        entries.extend(self.earlier_history(organisations, last)?);
        entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(entries)
    }

    /// The common list in which older releases kept the history. An operator of one organisation may not read it.
    fn earlier_history(
        &mut self,
        organisations: &[OrgId],
        last: i64,
    ) -> Result<Vec<Activation>, CliError> {
        let key = Key::policy_history();
        let read = redis::cmd("LRANGE").arg(key.as_str()).arg(0).arg(last).clone();
        let lines: Vec<Vec<u8>> = match self.query(&read) {
            Err(refusal) if refusal.is_for_want_of_rights() => Vec::new(),
            lines => lines?,
        };
        let mut entries = activations(&key, &lines)?;
        entries.retain(|entry| entry.organisations.iter().any(|org| organisations.contains(org)));
        Ok(entries)
    }

    /// As [`Store::history`]; from now on, a change of it makes [`Store::activate`] return nothing.
    pub(crate) fn watch_history(
        &mut self,
        organisations: &[OrgId],
        limit: u32,
    ) -> Result<Vec<Activation>, CliError> {
        let keys: Vec<Key> = organisations.iter().map(|org| Key::history(org.as_str())).collect();
        if !keys.is_empty() {
            self.watch(&keys)?;
        }
        self.history(organisations, limit)
    }

    /// From now on, another operator's change of these organisations' policies or admin chains makes
    /// [`Store::activate`] return nothing.
    pub(crate) fn watch_organisations(&mut self, organisations: &[OrgId]) -> Result<(), CliError> {
        let keys = |org: &OrgId| [Key::policy(org.as_str()), Key::admin(org.as_str())];
        self.watch(&organisations.iter().flat_map(keys).collect::<Vec<_>>())
    }

    fn watch(&mut self, keys: &[Key]) -> Result<(), CliError> {
        if self.topology() == Topology::Cluster {
            // The script compares the basis of the decision when it writes.
            return Ok(());
        }
        let names: Vec<&str> = keys.iter().map(Key::as_str).collect();
        self.query(redis::cmd("WATCH").arg(names))
    }

    /// Ends all watches.
    pub(crate) fn unwatch(&mut self) -> Result<(), CliError> {
        match self.topology() {
            Topology::Server => self.query(&redis::cmd("UNWATCH")),
            Topology::Cluster => Ok(()),
        }
    }

    /// Changes the active policies of organisations, with the entries in the history and in each admin chain, in one
    /// step; in a Cluster, one organisation after the other. Returns nothing when another operator changed the basis:
    /// then the decision must be made again. `reached` gets each organisation that a Cluster changed before that.
    pub(crate) fn activate(
        &mut self,
        noted: &[Activation],
        moves: &[Move],
        reached: &mut Vec<OrgId>,
    ) -> Result<Option<()>, CliError> {
        moves.iter().try_for_each(|one| self.may_change(one.org.as_str()))?;
        match self.topology() {
            Topology::Server => {
                // Outside the transaction, which would fail as a whole for a user without this permission.
                for Move { org, .. } in moves {
                    self.add_organisation(org)?;
                }
                let mut change = redis::pipe();
                change.atomic();
                for Move { org, entry, rev, doc, .. } in moves {
                    let key = Key::policy(org.as_str());
                    change.cmd("HSET").arg(key.as_str());
                    change.arg("rev").arg(rev).arg("doc").arg(doc).ignore();
                    change.cmd("HINCRBY").arg(key.as_str()).arg("generation").arg(1).ignore();
                    change.cmd("RPUSH").arg(Key::admin(org.as_str()).as_str()).arg(entry).ignore();
                }
                let noted = lines(noted)?;
                for (history, line) in &noted {
                    change.cmd("LPUSH").arg(history.as_str()).arg(line).ignore();
                }
                let done: Option<()> = self.connection.transaction(&change)?;
                if done.is_some() {
                    self.wait_for_replicas(noted.first().map(|(history, _)| history));
                }
                Ok(done)
            }
            Topology::Cluster => {
                for one in moves {
                    if !self.move_one(one)? {
                        return Ok(None);
                    }
                    reached.push(one.org.clone());
                }
                self.note(noted).map(Some)
            }
        }
    }

    /// Writes the history of policies that are active already: a failure reverts nothing.
    pub(crate) fn note(&mut self, noted: &[Activation]) -> Result<(), CliError> {
        for (history, line) in lines(noted)? {
            let command = redis::cmd("LPUSH").arg(history.as_str()).arg(line).clone();
            if let Err(refusal) = self.query::<()>(&command) {
                let found = refusal.found();
                progress(&format!("warning: done, but the history could not be written: {found}"));
            }
        }
        Ok(())
    }

    /// Changes one organisation; false when another operator was faster.
    fn move_one(&mut self, one: &Move) -> Result<bool, CliError> {
        let Move { org, from, last, entry, rev, doc } = one;
        // Listed before it has a policy, so that an interrupted change leaves no unlisted organisation.
        self.add_organisation(org)?;
        if from.as_ref() == Some(rev) {
            return Ok(true);
        }
        let put = PutPolicy {
            org: org.as_str(),
            expected: from.as_deref(),
            rev,
            doc,
            last_entry: last.as_deref(),
            entry,
        };
        let reply = self.change(&put.call())?;
        match PutPolicy::decode(reply) {
            Ok(PutPolicyReply::Stale) => {
                self.wait_for_replicas(Some(&Key::policy(org.as_str())));
                Ok(true)
            }
            Ok(PutPolicyReply::Conflict) => Ok(false),
            Err(error) => Err(self
                .unscripted(&error)
                .expected(format!("{org} and those after it are where they were ({error})"))),
        }
    }
}

/// How many histories are read at once.
const PAGE: usize = 500;

fn activations(key: &Key, lines: &[Vec<u8>]) -> Result<Vec<Activation>, CliError> {
    let read = |line: &Vec<u8>| {
        serde_json::from_slice(line).map_err(|error| {
            CliError::new(format!("an entry cannot be read: {error}"), key.as_str())
                .expected("a history written by this version of portcullis")
        })
    };
    lines.iter().map(read).collect()
}

/// The line of the history for each organisation.
fn lines(noted: &[Activation]) -> Result<Vec<(Key, String)>, CliError> {
    let mut lines = Vec::new();
    for entry in noted {
        for org in &entry.organisations {
            let own = Activation { organisations: vec![org.clone()], ..entry.clone() };
            let line = serde_json::to_string(&own)
                .map_err(|error| CliError::new(error.to_string(), "the new history entry"))?;
            lines.push((Key::history(org.as_str()), line));
        }
    }
    Ok(lines)
}

/// The histories of several organisations, newest first; the lines of one command are one entry again.
fn merged(lists: Vec<Vec<Activation>>) -> Vec<Activation> {
    let mut entries: Vec<Activation> = lists.into_iter().flatten().collect();
    // Stable: for one organisation, the order in its list counts.
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.activated_at, entry.micros)));
    let mut merged: Vec<Activation> = Vec::new();
    for mut entry in entries {
        let organisations = std::mem::take(&mut entry.organisations);
        let same = merged
            .iter_mut()
            .rev()
            .take_while(|it| (it.activated_at, it.micros) == (entry.activated_at, entry.micros))
            .find(|it| Activation { organisations: Vec::new(), ..(**it).clone() } == entry);
        match same {
            Some(known) => known.organisations.extend(organisations),
            None => merged.push(Activation { organisations, ..entry }),
        }
    }
    merged
}
