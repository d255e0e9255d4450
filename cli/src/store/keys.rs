//! Key records, and when their secrets were last used.

use std::collections::BTreeMap;

use portcullis_core::auth::record::KeyRecord;
use portcullis_core::id::{KeyId, OrgId};
use portcullis_redis_lua::{Expected, Key, PutRecord, PutRecordReply};

use super::Store;
use crate::report::Refusal;

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

/// What became of a record that was to be written.
pub(crate) enum Written {
    As {
        rev: String,
    },
    /// Somebody else changed it, or something else of the organisation, since it was read.
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
    pub(crate) fn record(&mut self, org: &OrgId, id: &KeyId) -> Result<Option<Stored>, Refusal> {
        let found = self.record_or_fault(org, id)?.transpose();
        found.map_err(|Unreadable { place, fault }| {
            Refusal::new(format!("the record of key {id} cannot be read: {fault}"), place)
                .expected("a record written by this version of portcullis or an older one")
        })
    }

    /// The record, if there is one, or what is wrong with it.
    pub(crate) fn record_or_fault(
        &mut self,
        org: &OrgId,
        id: &KeyId,
    ) -> Result<Option<Result<Stored, Unreadable>>, Refusal> {
        let key = Key::record(org.as_str(), id.as_str());
        let (rev, doc): (Option<String>, Option<Vec<u8>>) =
            self.query(redis::cmd("HMGET").arg(key.as_str()).arg(&["rev", "doc"]))?;
        let (Some(rev), Some(doc)) = (rev, doc) else {
            return Ok(None);
        };
        Ok(Some(match KeyRecord::parse(&doc) {
            Ok(record) => Ok(Stored { rev, record }),
            Err(fault) => Err(Unreadable { place: key.to_string(), fault: fault.to_string() }),
        }))
    }

    /// The ids of an organisation's records, sorted.
    pub(crate) fn record_ids(&mut self, org: &OrgId) -> Result<Vec<KeyId>, Refusal> {
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
    ) -> Result<Written, Refusal> {
        let doc = serde_json::to_string(record)
            .map_err(|error| Refusal::new(error.to_string(), "the new record"))?;
        let (org, id) = (record.org.as_str(), record.id.as_str());
        let put = PutRecord { org, id, expected, doc: &doc, last_entry, entry };
        let reply = self.run(&put.call())?;
        match put.decode(reply) {
            Ok(PutRecordReply::Written { rev }) => Ok(Written::As { rev }),
            Ok(PutRecordReply::Conflict { rev }) => Ok(Written::Conflict { rev }),
            Err(error) => Err(Refusal::new(error.to_string(), self.link.place())
                .expected("Redis 7 or Valkey, and a user who may run scripts")),
        }
    }

    /// When each secret of a key was last used, a minute late at most.
    pub(crate) fn used(&mut self, org: &OrgId, id: &KeyId) -> Result<Used, Refusal> {
        let key = Key::used(org.as_str(), id.as_str());
        self.query(redis::cmd("HGETALL").arg(key.as_str()))
    }
}
