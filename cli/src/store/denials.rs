//! Denials in Redis: what proves itself and is refused nevertheless.
//!
//! Owns that a denial and its place in the list change together. The filter looks at its revision, which is another one
//! after each change.

use portcullis_core::auth::denied::DeniedRecord;
use portcullis_core::id::OrgId;
use portcullis_redis_lua::Key;
use redis::Pipeline;

use super::{Store, TRIES};
use crate::random::base62;
use crate::report::Refusal;

impl Store {
    /// Denies what `key` stands for, from the next request on. `entry` makes the line of the admin chain
    /// that follows the last one.
    pub(crate) fn deny(
        &mut self,
        org: &OrgId,
        key: &Key,
        record: &DeniedRecord,
        entry: impl Fn(Option<&[u8]>) -> String,
    ) -> Result<(), Refusal> {
        let doc = serde_json::to_string(record)
            .map_err(|error| Refusal::new(error.to_string(), "the denial"))?;
        let index = Key::denied_index(org.as_str());
        self.noted(org, entry, |change| {
            change.cmd("HSET").arg(key.as_str());
            change.arg("rev").arg(base62(16)?).arg("doc").arg(&doc).ignore();
            change.cmd("SADD").arg(index.as_str()).arg(key.as_str()).ignore();
            Ok(())
        })
    }

    /// Takes a denial back; whether there was one.
    pub(crate) fn undeny(
        &mut self,
        org: &OrgId,
        key: &Key,
        entry: impl Fn(Option<&[u8]>) -> String,
    ) -> Result<bool, Refusal> {
        if !self.query::<bool>(redis::cmd("EXISTS").arg(key.as_str()))? {
            return Ok(false);
        }
        let index = Key::denied_index(org.as_str());
        self.noted(org, entry, |change| {
            change.cmd("DEL").arg(key.as_str()).ignore();
            change.cmd("SREM").arg(index.as_str()).arg(key.as_str()).ignore();
            Ok(())
        })?;
        Ok(true)
    }

    /// A change and the entry that tells of it, together; again when the chain has grown meanwhile.
    fn noted(
        &mut self,
        org: &OrgId,
        entry: impl Fn(Option<&[u8]>) -> String,
        add: impl Fn(&mut Pipeline) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let chain = Key::admin(org.as_str());
        for _ in 0..TRIES {
            self.query::<()>(redis::cmd("WATCH").arg(chain.as_str()))?;
            let last = self.last_entry(org)?;
            let mut change = redis::pipe();
            change.atomic();
            add(&mut change)?;
            change.cmd("RPUSH").arg(chain.as_str()).arg(entry(last.as_deref())).ignore();
            if self.pipeline::<Option<()>>(&change)?.is_some() {
                return Ok(());
            }
        }
        Err(Refusal::new("others changed the admin chain all the time", chain.as_str())
            .next("try again"))
    }

    /// What is denied in an organisation, the latest first.
    pub(crate) fn denials(&mut self, org: &OrgId) -> Result<Vec<DeniedRecord>, Refusal> {
        let index = Key::denied_index(org.as_str());
        let keys: Vec<String> = self.query(redis::cmd("SMEMBERS").arg(index.as_str()))?;
        let mut denials = Vec::new();
        for key in keys {
            let doc: Option<Vec<u8>> = self.query(redis::cmd("HGET").arg(&key).arg("doc"))?;
            let record = doc.map(|doc| DeniedRecord::parse(&doc)).transpose().map_err(|error| {
                Refusal::new(format!("a denial cannot be read: {error}"), key.as_str())
                    .expected("one written by this version of portcullis or an older one")
            })?;
            denials.extend(record);
        }
        denials.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.what.cmp(&b.what)));
        Ok(denials)
    }
}
