//! The deny list in Redis: valid credentials that are refused.
//!
//! Owns that an entry and its place in the list change together, by `put_denial.lua`. The filter compares its revision,
//! which differs after each change.

use portcullis_core::auth::deny_list::DenyListEntry;
use portcullis_core::id::OrgId;
use portcullis_redis_lua::{DenialState, Key, Note, PutDenial};

use super::Store;
use crate::random::base62;
use crate::report::CliError;

impl Store {
    /// Denies the credentials of `key` from the next request on. `entry` makes the next line of the admin chain.
    pub(crate) fn deny(
        &mut self,
        org: &OrgId,
        key: &Key,
        record: &DenyListEntry,
        entry: impl Fn(Option<&[u8]>) -> String,
    ) -> Result<(), CliError> {
        let doc = serde_json::to_string(record)
            .map_err(|error| CliError::new(error.to_string(), "the denial"))?;
        let rev = base62(16)?;
        self.put_denial(org, key, DenialState::Denied { rev: &rev, doc: &doc }, entry)
    }

    /// Removes an entry; returns whether there was one.
    pub(crate) fn undeny(
        &mut self,
        org: &OrgId,
        key: &Key,
        entry: impl Fn(Option<&[u8]>) -> String,
    ) -> Result<bool, CliError> {
        if !self.query::<bool>(redis::cmd("EXISTS").arg(key.as_str()))? {
            return Ok(false);
        }
        self.put_denial(org, key, DenialState::Allowed, entry)?;
        Ok(true)
    }

    /// Writes a change together with its entry in the admin chain; repeats that when the chain has grown meanwhile.
    fn put_denial(
        &mut self,
        org: &OrgId,
        denial: &Key,
        state: DenialState<'_>,
        entry: impl Fn(Option<&[u8]>) -> String,
    ) -> Result<(), CliError> {
        self.may_change(org.as_str())?;
        self.until_done("the denials are as they were", |store| {
            let last = store.last_entry(org)?;
            let entry = entry(last.as_deref());
            let note = Note { last_entry: last.as_deref(), entry: &entry };
            let put = PutDenial { org: org.as_str(), denial, state, note };
            Ok(store.noted(&put.call())?.then_some(()))
        })
    }

    /// One deny-list entry, if it exists.
    pub(crate) fn denial(&mut self, key: &Key) -> Result<Option<DenyListEntry>, CliError> {
        let doc: Option<Vec<u8>> = self.query(redis::cmd("HGET").arg(key.as_str()).arg("doc"))?;
        doc.map(|doc| DenyListEntry::parse(&doc)).transpose().map_err(|error| {
            CliError::new(format!("a denial cannot be read: {error}"), key.as_str())
                .expected("one written by this version of portcullis or an older one")
        })
    }

    /// An organisation's deny list, the latest entry first.
    pub(crate) fn denials(&mut self, org: &OrgId) -> Result<Vec<DenyListEntry>, CliError> {
        let index = Key::denied_index(org.as_str());
        let keys: Vec<String> = self.query(redis::cmd("SMEMBERS").arg(index.as_str()))?;
        let documents = keys.iter().map(|key| redis::cmd("HGET").arg(key).arg("doc").clone());
        let documents: Vec<Option<Vec<u8>>> = self.connection.all(documents.collect())?;
        let mut denials = Vec::new();
        for (key, doc) in keys.iter().zip(documents) {
            let record =
                doc.map(|doc| DenyListEntry::parse(&doc)).transpose().map_err(|error| {
                    CliError::new(format!("a denial cannot be read: {error}"), key.as_str())
                        .expected("one written by this version of portcullis or an older one")
                })?;
            denials.extend(record);
        }
        denials.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.what.cmp(&b.what)));
        Ok(denials)
    }
}
