//! Key records, and when their secrets were last used.

use std::collections::BTreeMap;

use portcullis_core::auth::record::KeyRecord;
use portcullis_core::id::{KeyId, OrgId};
use portcullis_redis_lua::{Expected, Key, PutRecord, PutRecordReply};
use redis::Cmd;

use super::Store;
use crate::report::CliError;

/// So many records are asked for at once.
const PAGE: usize = 500;

/// A record and the revision it was read at.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) rev: String,
    pub(crate) record: KeyRecord,
}

/// A record that this program does not understand.
pub(crate) struct Unreadable {
    /// The name of the Redis key.
    pub(crate) place: String,
    pub(crate) fault: String,
}

/// One of all records of an organisation.
pub(crate) struct Listed {
    pub(crate) id: KeyId,
    pub(crate) stored: Result<Stored, Unreadable>,
    pub(crate) used: Used,
}

/// What became of a record that was to be written.
pub(crate) enum Written {
    As {
        rev: String,
    },
    /// It, or something else of the organisation, was changed since it was read.
    Conflict {
        /// The revision of the record now, if there is one.
        rev: Option<String>,
    },
}

/// When the secrets of a key were last used: seconds since the Unix epoch by
/// [`StoredSecret::label`](portcullis_core::auth::record::StoredSecret::label).
pub(crate) type Used = BTreeMap<String, u64>;

impl Store {
    /// The record, if there is one; refuses to speak of one that cannot be read.
    pub(crate) fn record(&mut self, org: &OrgId, id: &KeyId) -> Result<Option<Stored>, CliError> {
        let found = self.record_or_fault(org, id)?.transpose();
        found.map_err(|Unreadable { place, fault }| {
            CliError::new(format!("the record of key {id} cannot be read: {fault}"), place)
                .expected("a record written by this version of portcullis or an older one")
        })
    }

    /// Of which of these ids there is a record, be it readable or not.
    pub(crate) fn have_records(
        &mut self,
        org: &OrgId,
        ids: &[&KeyId],
    ) -> Result<Vec<bool>, CliError> {
        let mut have = Vec::new();
        for ids in ids.chunks(PAGE) {
            let records = ids.iter().map(|id| record_fields(org, id)).collect();
            let records: Vec<Fields> = self.connection.all(records)?;
            have.extend(
                ids.iter().zip(records).map(|(id, fields)| read(org, id, fields).is_some()),
            );
        }
        Ok(have)
    }

    /// The record, if there is one, or what is wrong with it.
    fn record_or_fault(
        &mut self,
        org: &OrgId,
        id: &KeyId,
    ) -> Result<Option<Result<Stored, Unreadable>>, CliError> {
        let fields = self.query(&record_fields(org, id))?;
        Ok(read(org, id, fields))
    }

    /// Every record of an organisation by its id, and when its secrets were last used.
    pub(crate) fn records(&mut self, org: &OrgId) -> Result<Vec<Listed>, CliError> {
        let mut listed = Vec::new();
        for ids in self.record_ids(org)?.chunks(PAGE) {
            let records = ids.iter().map(|id| record_fields(org, id)).collect();
            let records: Vec<Fields> = self.connection.all(records)?;
            let used = ids.iter().map(|id| used_fields(org, id)).collect();
            let used: Vec<Used> = self.connection.all(used)?;
            let both = ids.iter().zip(records).zip(used);
            listed.extend(both.filter_map(|((id, fields), used)| {
                Some(Listed { id: id.clone(), stored: read(org, id, fields)?, used })
            }));
        }
        Ok(listed)
    }

    /// The ids of an organisation's records, sorted.
    fn record_ids(&mut self, org: &OrgId) -> Result<Vec<KeyId>, CliError> {
        let key = Key::record_index(org.as_str());
        let ids: Vec<String> = self.query(redis::cmd("SMEMBERS").arg(key.as_str()))?;
        let mut ids: Vec<_> = ids.iter().filter_map(|id| KeyId::new(id)).collect();
        ids.sort();
        Ok(ids)
    }

    /// Writes a record and the entry that tells of it, or neither.
    pub(crate) fn put_record(
        &mut self,
        record: &KeyRecord,
        expected: Expected,
        last_entry: Option<&[u8]>,
        entry: &str,
    ) -> Result<Written, CliError> {
        self.may_change(record.org.as_str())?;
        let doc = serde_json::to_string(record)
            .map_err(|error| CliError::new(error.to_string(), "the new record"))?;
        let (org, id) = (record.org.as_str(), record.id.as_str());
        let put = PutRecord { org, id, expected, doc: &doc, last_entry, entry };
        let reply = self.change(&put.call())?;
        match put.decode(reply) {
            Ok(PutRecordReply::Written { rev }) => {
                self.wait_for_replicas(Some(&Key::record(org, id)));
                Ok(Written::As { rev })
            }
            Ok(PutRecordReply::Conflict { rev }) => Ok(Written::Conflict { rev }),
            Err(error) => Err(self.unscripted(&error)),
        }
    }

    /// When each secret of a key was last used, a minute late at most.
    pub(crate) fn used(&mut self, org: &OrgId, id: &KeyId) -> Result<Used, CliError> {
        self.query(&used_fields(org, id))
    }
}

/// `rev` and `doc`, as far as they are there.
type Fields = (Option<String>, Option<Vec<u8>>);

fn record_fields(org: &OrgId, id: &KeyId) -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(Key::record(org.as_str(), id.as_str()).as_str()).arg(&["rev", "doc"]);
    command
}

fn used_fields(org: &OrgId, id: &KeyId) -> Cmd {
    let mut command = redis::cmd("HGETALL");
    command.arg(Key::used(org.as_str(), id.as_str()).as_str());
    command
}

fn read(org: &OrgId, id: &KeyId, (rev, doc): Fields) -> Option<Result<Stored, Unreadable>> {
    let (rev, doc) = rev.zip(doc)?;
    Some(KeyRecord::parse(&doc).map(|record| Stored { rev, record }).map_err(|fault| Unreadable {
        place: Key::record(org.as_str(), id.as_str()).to_string(),
        fault: fault.to_string(),
    }))
}
