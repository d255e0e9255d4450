//! Calls that wait for an approval. The core owns their content; `decide_approval.lua` writes a decision together with
//! its entry in the admin chain.

use portcullis_core::authz::approval::Waiting;
use portcullis_core::id::OrgId;
use portcullis_core::observed::Observed;
use portcullis_redis_lua::{Decide, DecideReply, Key};

use super::Store;
use crate::report::CliError;

/// A call that waits, or that has a decision and was not made yet.
pub(crate) struct Approval {
    /// `pending`, `granted` or `denied`.
    pub(crate) state: String,
    /// The remaining time in milliseconds.
    pub(crate) left_ms: u64,
    pub(crate) waiting: Waiting,
    /// `waiting` as it is stored.
    pub(crate) document: Vec<u8>,
    /// The index of the caller's approvals; none where an older gateway noted the call.
    pub(crate) own: Option<String>,
}

impl Store {
    /// The digests of an organisation's approvals whose id starts with `prefix`; those that expire first come first.
    pub(crate) fn approval_digests(
        &mut self,
        org: &OrgId,
        prefix: &str,
    ) -> Result<Vec<String>, CliError> {
        let index = Key::approvals(org.as_str());
        let digests: Vec<String> =
            self.query(redis::cmd("ZRANGE").arg(index.as_str()).arg(0).arg(-1))?;
        Ok(digests.into_iter().filter(|digest| digest.starts_with(prefix)).collect())
    }

    /// The observation of a pinned tool in lists.
    pub(crate) fn observed(&mut self, key: &Key) -> Result<Observed, CliError> {
        let rev: Option<String> = self.query(redis::cmd("HGET").arg(key.as_str()).arg("rev"))?;
        Ok(rev.map(|rev| Observed::read(&rev)).unwrap_or_default())
    }

    /// One approval, unless it expired meanwhile.
    pub(crate) fn approval(
        &mut self,
        org: &OrgId,
        digest: &str,
    ) -> Result<Option<Approval>, CliError> {
        let key = Key::approval(org.as_str(), digest);
        let (state, doc, own): (Option<String>, Option<Vec<u8>>, Option<String>) =
            self.query(redis::cmd("HMGET").arg(key.as_str()).arg(&["rev", "doc", "own"]))?;
        let (Some(state), Some(doc)) = (state, doc) else {
            return Ok(None);
        };
        let left: i64 = self.query(redis::cmd("PTTL").arg(key.as_str()))?;
        let waiting = serde_json::from_slice(&doc).map_err(|fault| {
            CliError::new(format!("a call that waits cannot be read: {fault}"), key.as_str())
                .expected("one written by a filter of this version")
        })?;
        let left_ms = u64::try_from(left).unwrap_or(0);
        Ok(Some(Approval { state, left_ms, waiting, document: doc, own }))
    }

    /// Writes a decision together with its entry in the admin chain, or neither.
    pub(crate) fn decide(&mut self, decide: &Decide<'_>) -> Result<DecideReply, CliError> {
        self.may_change(decide.org)?;
        let reply = self.change(&decide.call())?;
        let reply = Decide::decode(reply).map_err(|error| self.unscripted(&error))?;
        if matches!(reply, DecideReply::Decided) {
            self.wait_for_replicas(Some(&Key::approval(decide.org, decide.digest)));
        }
        Ok(reply)
    }
}
