//! The records in Redis as the commands see them: typed, and every failure already worded.
//!
//! Owns the connection and the commands sent over it. Key names and scripts are `redis-lua`'s; what
//! a record says is the core's. Each change is atomic: a record by `put_record.lua`, the active
//! policy by one `MULTI` under a `WATCH` of the history. Speaks to one Redis; in a Redis Cluster
//! each organisation is one slot, so a `MULTI` over several organisations would have to be split.

use std::time::Duration;

use portcullis_core::auth::record::KeyRecord;
use portcullis_core::id::{KeyId, OrgId, PolicyVersion};
use portcullis_core::json;
use portcullis_redis_lua::{Expected, Key, PutRecord, PutRecordReply, ScriptCall, Value};
use redis::{ConnectionLike as _, FromRedisValue, Pipeline};
use serde::{Deserialize, Serialize};

use crate::args::Session;
use crate::report::Refusal;

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Store {
    connection: redis::Connection,
    /// Host and port; never the password.
    place: String,
}

/// A record and the revision it was read at.
pub(crate) struct Stored {
    pub(crate) rev: String,
    pub(crate) record: KeyRecord,
}

/// What became of a record that was to be written.
pub(crate) enum Written {
    As {
        rev: String,
    },
    /// Somebody else changed it since it was read.
    Conflict,
}

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
}

impl Store {
    pub(crate) fn open(session: &Session) -> Result<Self, Refusal> {
        let url = session.redis.as_deref().filter(|url| !url.is_empty()).ok_or_else(|| {
            Refusal::usage("no Redis to speak to")
                .expected("--redis URL or PORTCULLIS_REDIS, such as redis://127.0.0.1:6379/")
        })?;
        let client = redis::Client::open(url).map_err(|error| {
            Refusal::usage(format!("the Redis URL cannot be read: {error}"))
                .expected("a URL such as redis://127.0.0.1:6379/")
        })?;
        let place = format!("Redis at {}", client.get_connection_info().addr());
        let connection = client
            .get_connection_with_timeout(PATIENCE)
            .and_then(|connection| {
                connection.set_read_timeout(Some(PATIENCE))?;
                connection.set_write_timeout(Some(PATIENCE))?;
                Ok(connection)
            })
            .map_err(|error| unavailable(&place, &error))?;
        Ok(Self { connection, place })
    }

    /// The record, if there is one.
    pub(crate) fn record(&mut self, org: &OrgId, id: &KeyId) -> Result<Option<Stored>, Refusal> {
        let key = Key::record(org.as_str(), id.as_str());
        let (rev, doc): (Option<String>, Option<Vec<u8>>) =
            self.query(redis::cmd("HMGET").arg(key.as_str()).arg(&["rev", "doc"]))?;
        let (Some(rev), Some(doc)) = (rev, doc) else {
            return Ok(None);
        };
        let record = KeyRecord::parse(&doc).map_err(|error| {
            Refusal::new(format!("the record of key {id} cannot be read: {error}"), key.as_str())
                .expected("a record written by this version of portcullis or an older one")
        })?;
        Ok(Some(Stored { rev, record }))
    }

    /// The ids of an organisation's records, sorted.
    pub(crate) fn record_ids(&mut self, org: &OrgId) -> Result<Vec<KeyId>, Refusal> {
        let key = Key::record_index(org.as_str());
        let ids: Vec<String> = self.query(redis::cmd("SMEMBERS").arg(key.as_str()))?;
        let mut ids: Vec<_> = ids.iter().filter_map(|id| KeyId::new(id)).collect();
        ids.sort();
        Ok(ids)
    }

    pub(crate) fn put_record(
        &mut self,
        record: &KeyRecord,
        expected: Expected,
    ) -> Result<Written, Refusal> {
        let doc = serde_json::to_string(record)
            .map_err(|error| Refusal::new(error.to_string(), "the new record"))?;
        let put =
            PutRecord { org: record.org.as_str(), id: record.id.as_str(), expected, doc: &doc };
        let reply = self.run(&put.call())?;
        match put.decode(reply) {
            Ok(PutRecordReply::Written { rev }) => Ok(Written::As { rev }),
            Ok(PutRecordReply::Conflict { .. }) => Ok(Written::Conflict),
            Err(error) => Err(Refusal::new(error.to_string(), &self.place)
                .expected("Redis 7 or Valkey, and a user who may run scripts")),
        }
    }

    /// Every organisation that a policy or key was ever written for, sorted.
    pub(crate) fn organisations(&mut self) -> Result<Vec<OrgId>, Refusal> {
        let names: Vec<String> =
            self.query(redis::cmd("SMEMBERS").arg(Key::organisations().as_str()))?;
        let mut organisations: Vec<_> = names.iter().filter_map(|name| OrgId::new(name)).collect();
        organisations.sort();
        Ok(organisations)
    }

    /// The version that is active for an organisation.
    pub(crate) fn active(&mut self, org: &OrgId) -> Result<Option<PolicyVersion>, Refusal> {
        let key = Key::policy(org.as_str());
        let rev: Option<String> = self.query(redis::cmd("HGET").arg(key.as_str()).arg("rev"))?;
        Ok(rev.as_deref().and_then(PolicyVersion::new))
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

    /// The policy history, newest first, at most `limit` entries. From here on, a change by somebody
    /// else makes [`Store::activate`] fail, until it is called.
    pub(crate) fn watch_history(&mut self, limit: u32) -> Result<Vec<Activation>, Refusal> {
        let key = Key::policy_history();
        self.query::<()>(redis::cmd("WATCH").arg(key.as_str()))?;
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

    /// Makes a stored version the active one of all its organisations, and notes it, in one step.
    pub(crate) fn activate(&mut self, activation: &Activation) -> Result<(), Refusal> {
        let Activation { version, activated_at, actor, reason, organisations, .. } = activation;
        let pointer = serde_json::json!({
            "version": version,
            "activated_at": activated_at,
            "actor": actor,
            "reason": reason,
        });
        let entry = serde_json::to_string(activation)
            .map_err(|error| Refusal::new(error.to_string(), "the new history entry"))?;

        let mut change = redis::pipe();
        change.atomic();
        for org in organisations {
            let key = Key::policy(org.as_str());
            change.cmd("HSET").arg(key.as_str());
            change.arg("rev").arg(version.as_str()).arg("doc").arg(pointer.to_string()).ignore();
            change.cmd("SADD").arg(Key::organisations().as_str()).arg(org.as_str()).ignore();
        }
        change.cmd("LPUSH").arg(Key::policy_history().as_str()).arg(entry).ignore();
        let done: Option<()> = self.pipeline(&change)?;
        done.ok_or_else(|| {
            Refusal::new("somebody else changed the policy at the same moment", &self.place)
                .expected("no other change in between; nothing was changed")
                .next("portcullis policy history, then try again")
        })
    }

    /// Makes an organisation known, so that its keys are listed.
    pub(crate) fn add_organisation(&mut self, org: &OrgId) -> Result<(), Refusal> {
        self.query(redis::cmd("SADD").arg(Key::organisations().as_str()).arg(org.as_str()))
    }

    fn run(&mut self, call: &ScriptCall) -> Result<Value, Refusal> {
        let reply = self.words(&call.evalsha())?;
        if reply.is_noscript() { self.words(&call.eval()) } else { Ok(reply) }
    }

    fn words(&mut self, words: &[Vec<u8>]) -> Result<Value, Refusal> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word.as_slice());
        }
        let reply = self.connection.req_command(&command);
        reply.map(neutral).map_err(|error| unavailable(&self.place, &error))
    }

    fn query<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, Refusal> {
        command.query(&mut self.connection).map_err(|error| unavailable(&self.place, &error))
    }

    fn pipeline<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> Result<T, Refusal> {
        pipeline.query(&mut self.connection).map_err(|error| unavailable(&self.place, &error))
    }
}

fn unavailable(place: &str, error: &redis::RedisError) -> Refusal {
    Refusal::new(error.to_string(), place)
        .expected("a Redis 7 or Valkey server that answers, and a user who may write portcullis:*")
        .next("check --redis or PORTCULLIS_REDIS")
}

fn neutral(reply: redis::Value) -> Value {
    match reply {
        redis::Value::Nil => Value::Nil,
        redis::Value::Int(number) => Value::Int(number),
        redis::Value::BulkString(bytes) => Value::Bulk(bytes),
        redis::Value::SimpleString(text) => Value::Status(text),
        redis::Value::Okay => Value::Status("OK".to_owned()),
        redis::Value::Array(elements) => Value::Array(elements.into_iter().map(neutral).collect()),
        redis::Value::ServerError(error) => {
            Value::Error(format!("{} {}", error.code(), error.details().unwrap_or_default()))
        }
        other => Value::Error(format!("a reply that RESP2 does not have: {other:?}")),
    }
}
