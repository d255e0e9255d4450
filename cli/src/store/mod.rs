//! The records in Redis for commands: typed, with an error message for every failure.
//!
//! Owns the commands sent over [`Connection`]. `redis-lua` owns key names and scripts, the core the content of records.
//! Each change is atomic together with its entry in the admin chain: a record by `put_record.lua` and similar scripts,
//! the active policy by one `MULTI` under a `WATCH` of its basis. In a Cluster, where no transaction covers several
//! organisations, `put_policy.lua` changes one organisation after the other.

mod active_policy;
mod admin;
mod approvals;
mod checkpoints;
mod denials;
mod intents;
mod keys;
mod operators;
mod policies;
mod restore;
mod windows;

use std::time::Duration;

use portcullis_core::id::OrgId;
use portcullis_redis_lua::{Key, NotedReply, ReplyError, ScriptCall, Value};
use redis::FromRedisValue;

pub(crate) use active_policy::{ActivePolicy, CanaryScope, NamedCanary, Target};
pub(crate) use approvals::Approval;
pub(crate) use intents::Told;
pub(crate) use keys::{Listed, Stored, Used, Written};
pub(crate) use operators::AclUser;
pub(crate) use policies::{Activation, Move, PolicyAction};

use crate::cause::Cause;
pub(crate) use crate::connection::Topology;
use crate::connection::{Connection, Node, PATIENCE, Spread};
use crate::random::below;
use crate::report::{CliError, progress};
use crate::session::{Session, beyond};

/// How often a change is tried when another operator is faster. One of the competitors always succeeds, so this many
/// others would have to write at the same moment.
const TRIES: u64 = 100;

pub(crate) struct Store {
    connection: Connection,
    url: String,
    /// The only organisation of an operator who is limited to one.
    organisation: Option<OrgId>,
    /// Whether it was looked for.
    looked_for: bool,
    replicas: Replicas,
}

/// Whether it is still useful to ask for the state of replicas.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Replicas {
    Asked,
    /// They lacked the last change, or could not be asked, and the operator knows.
    GivenUp,
}

impl Store {
    pub(crate) fn open(session: &Session) -> Result<Self, CliError> {
        Self::open_within(session, PATIENCE)
    }

    /// As [`Self::open`]; no answer takes longer than `patience`.
    pub(crate) fn open_within(session: &Session, patience: Duration) -> Result<Self, CliError> {
        let url = session.redis.as_deref().filter(|url| !url.is_empty()).ok_or_else(|| {
            CliError::usage("no Redis to speak to")
                .expected("--redis URL or PORTCULLIS_REDIS, such as redis://127.0.0.1:6379/")
        })?;
        Ok(Self {
            connection: Connection::open(url, patience)?,
            url: url.to_owned(),
            organisation: session.organisation.clone(),
            looked_for: false,
            replicas: Replicas::Asked,
        })
    }

    /// Reconnects after a connection was lost.
    pub(crate) fn reopen(&mut self) -> Result<(), CliError> {
        self.connection = Connection::open(&self.url, PATIENCE)?;
        Ok(())
    }

    /// Hosts and ports; never a password.
    pub(crate) fn address(&self) -> &str {
        self.connection.address()
    }

    pub(crate) fn ping(&mut self) -> Result<(), CliError> {
        self.query::<String>(&redis::cmd("PING")).map(drop)
    }

    /// The server's clock, since the Unix epoch.
    pub(crate) fn time(&mut self) -> Result<Duration, CliError> {
        let (seconds, micros): (u64, u32) = self.query(&redis::cmd("TIME"))?;
        Ok(Duration::new(seconds, micros.saturating_mul(1_000)))
    }

    /// The information of each server about itself.
    pub(crate) fn nodes(&mut self) -> Result<Vec<Node>, CliError> {
        self.connection.nodes()
    }

    /// One server, or a Cluster.
    pub(crate) fn topology(&self) -> Topology {
        self.connection.topology()
    }

    /// The ACL user of this connection, except the default user, which proves no identity.
    pub(crate) fn acl_user(&mut self) -> Option<String> {
        let asked = self.query::<String>(redis::cmd("ACL").arg("WHOAMI")).ok();
        // A user without permission for the command was still accepted under the name in the URL.
        let user = asked.or_else(|| self.connection.user().map(str::to_owned))?;
        (user != "default").then_some(user)
    }

    /// All organisations with a policy or key, past or present, sorted; for an operator of one, that one.
    pub(crate) fn organisations(&mut self) -> Result<Vec<OrgId>, CliError> {
        if let Some(only) = self.organisation.clone() {
            self.look_for(&only);
            return Ok(vec![only]);
        }
        let names = self.query(redis::cmd("SMEMBERS").arg(Key::organisations().as_str()));
        let names: Vec<String> =
            names.map_err(|refusal: CliError| match refusal.is_for_want_of_rights() {
                true => refusal
                    .expected(
                        "a user who may see all organisations, or the name of the operator's own",
                    )
                    .next(
                        "PORTCULLIS_ORG=NAME in the environment of an operator of one organisation",
                    ),
                false => refusal,
            })?;
        let mut organisations: Vec<_> = names.iter().filter_map(|name| OrgId::new(name)).collect();
        organisations.sort();
        Ok(organisations)
    }

    /// The only organisation of an operator who is limited to one.
    pub(crate) fn organisation(&self) -> Option<&OrgId> {
        self.organisation.as_ref()
    }

    /// Whether an organisation has, or ever had, a policy or key. An operator of one may not read the list of all.
    pub(crate) fn is_known(&mut self, org: &OrgId) -> Result<bool, CliError> {
        Ok(self.active_policy(org)?.rev.is_some() || self.last_entry(org)?.is_some())
    }

    /// Says once that the organisation of `--organisation` does not exist: else its lists are empty without a reason.
    fn look_for(&mut self, only: &OrgId) {
        // The command itself reports a Redis that refuses the question.
        if !std::mem::replace(&mut self.looked_for, true)
            && matches!(self.is_known(only), Ok(false))
        {
            progress(&format!(
                "warning: there is no organisation {only} (--organisation or PORTCULLIS_ORG): Redis has no policy, \
                 key or change of it"
            ));
        }
    }

    /// Refuses a change of another organisation than that of `--organisation`. Commands say so earlier.
    fn may_change(&self, org: &str) -> Result<(), CliError> {
        match &self.organisation {
            Some(only) if only.as_str() != org => {
                let what = format!("this is a change of {org}");
                Err(beyond(only, &what, self.connection.address()))
            }
            _ => Ok(()),
        }
    }

    /// Adds an organisation to the list, so that its keys are listed.
    ///
    /// An operator of one organisation has no permission for it: `portcullis operator create` has done it.
    pub(crate) fn add_organisation(&mut self, org: &OrgId) -> Result<(), CliError> {
        let added =
            self.query(redis::cmd("SADD").arg(Key::organisations().as_str()).arg(org.as_str()));
        added.or_else(|refusal: CliError| match refusal.is_for_want_of_rights() {
            true => Ok(()),
            false => Err(refusal),
        })
    }

    /// Repeats `attempt` while another operator is faster. `what` is the error when all tries fail.
    pub(crate) fn until_done<T>(
        &mut self,
        what: &str,
        mut attempt: impl FnMut(&mut Self) -> Result<Option<T>, CliError>,
    ) -> Result<T, CliError> {
        for tried in 0..TRIES {
            if let Some(done) = attempt(self)? {
                return Ok(done);
            }
            // Competitors must not retry at the same moment.
            std::thread::sleep(Duration::from_millis(below(tried.min(20).saturating_add(1))));
        }
        Err(CliError::new(
            "other operators keep changing the same at the same time",
            self.connection.address(),
        )
        .expected(format!("a moment without another change; {what}, nothing was changed"))
        .next("try again"))
    }

    fn run(&mut self, call: &ScriptCall) -> Result<Value, CliError> {
        let reply = self.words(&call.evalsha())?;
        if reply.is_noscript() { self.words(&call.eval()) } else { Ok(reply) }
    }

    /// Runs a script that makes a change: without its answer, the change may have been made.
    fn change(&mut self, call: &ScriptCall) -> Result<Value, CliError> {
        self.run(call).map_err(CliError::perhaps_made)
    }

    /// Runs a read-only script, which a user without write permission may run.
    fn run_ro(&mut self, call: &ScriptCall) -> Result<Value, CliError> {
        let reply = self.words(&call.evalsha_ro())?;
        if reply.is_noscript() { self.words(&call.eval_ro()) } else { Ok(reply) }
    }

    fn words(&mut self, words: &[impl AsRef<[u8]>]) -> Result<Value, CliError> {
        self.connection.words(words)
    }

    fn query<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, CliError> {
        self.connection.query(command)
    }

    /// Runs a script that makes a change and its entry; returns false when another operator was faster.
    fn noted(&mut self, call: &ScriptCall) -> Result<bool, CliError> {
        let reply = self.change(call)?;
        match NotedReply::decode(reply) {
            Ok(NotedReply::Done) => {
                self.wait_for_replicas(call.keys.first());
                Ok(true)
            }
            Ok(NotedReply::Conflict) => Ok(false),
            Err(error) => Err(self.unscripted(&error)),
        }
    }

    /// Waits until the replicas have the write at `key`. If they do not, a failover would lose it: the operator must
    /// know, although the write succeeded.
    fn wait_for_replicas(&mut self, key: Option<&Key>) {
        let Some(key) = key.filter(|_| self.replicas == Replicas::Asked) else {
            return;
        };
        let lost = "a failover now could take this change back";
        let warning = match self.connection.spread(key.as_str()) {
            Spread::Everywhere => return,
            Spread::Partly { reached, replicas } => format!(
                "warning: done, but only {reached} of {replicas} replicas have it after a second: {lost}. Look at \
                 INFO replication on both sides"
            ),
            Spread::Unknown(why) => format!(
                "warning: done, but whether replicas have it is not known ({why}): {lost}, if there are any. \
                 docs/reference/redis-keys.md lists what the user needs: INFO, WAIT"
            ),
        };
        progress(&warning);
        self.replicas = Replicas::GivenUp;
    }

    fn unscripted(&self, error: &ReplyError) -> CliError {
        let text = error.to_string();
        if let Some(cause) = Cause::of(&text) {
            return CliError::of(cause, &text, self.connection.address());
        }
        CliError::new(text, self.connection.address())
            .expected("Redis 7 or Valkey, and a user who may run scripts")
    }
}
