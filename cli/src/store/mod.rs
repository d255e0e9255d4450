//! The records in Redis as the commands see them: typed, and every failure already worded.
//!
//! Owns the connection and the commands sent over it. Key names and scripts are `redis-lua`'s; what
//! a record says is the core's. Each change is atomic together with the entry that tells of it: a
//! record by `put_record.lua`, the active policy by one `MULTI` under a `WATCH` of what it was decided
//! on. Speaks to one Redis; in a Redis Cluster each organisation is one slot, so a `MULTI` over
//! several organisations would have to be split.

mod admin;
mod denials;
mod keys;
mod policies;
mod windows;

use std::time::Duration;

use portcullis_core::id::OrgId;
use portcullis_redis_lua::{Key, ScriptCall, Value};
use redis::{ConnectionLike as _, FromRedisValue, Pipeline};

pub(crate) use keys::{Stored, Used, Written};
pub(crate) use policies::{Activation, Verb};

use crate::args::Session;
use crate::random::below;
use crate::report::Refusal;

const PATIENCE: Duration = Duration::from_secs(5);
/// A change that somebody else was faster than is tried again. Each time somebody gets through, so
/// this many others would have to be at it at the same moment.
const TRIES: u64 = 100;

pub(crate) struct Store {
    connection: redis::Connection,
    /// Host and port; never the password.
    place: String,
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

    /// Every organisation that a policy or key was ever written for, sorted.
    pub(crate) fn organisations(&mut self) -> Result<Vec<OrgId>, Refusal> {
        let names: Vec<String> =
            self.query(redis::cmd("SMEMBERS").arg(Key::organisations().as_str()))?;
        let mut organisations: Vec<_> = names.iter().filter_map(|name| OrgId::new(name)).collect();
        organisations.sort();
        Ok(organisations)
    }

    /// Makes an organisation known, so that its keys are listed.
    pub(crate) fn add_organisation(&mut self, org: &OrgId) -> Result<(), Refusal> {
        self.query(redis::cmd("SADD").arg(Key::organisations().as_str()).arg(org.as_str()))
    }

    /// Repeats `attempt` while it comes back with nothing: somebody else was faster. `what` is not
    /// done otherwise.
    pub(crate) fn until_done<T>(
        &mut self,
        what: &str,
        mut attempt: impl FnMut(&mut Self) -> Result<Option<T>, Refusal>,
    ) -> Result<T, Refusal> {
        for tried in 0..TRIES {
            if let Some(done) = attempt(self)? {
                return Ok(done);
            }
            // Those who collided do not come back at the same moment.
            std::thread::sleep(Duration::from_millis(below(tried.min(20).saturating_add(1))));
        }
        Err(Refusal::new("somebody else keeps changing the same at the same moment", &self.place)
            .expected(format!("a moment without another change; {what}, nothing was changed"))
            .next("try again"))
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
        .unanswered()
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
