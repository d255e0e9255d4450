//! The only Redis stream of a worker.
//!
//! Owns the host's stream, the sender of each command, and the handling of answers: those for an exchange are events
//! for it; those for a read of a policy document are the worker's own. The core decides how a document is read, and
//! when the stream is opened. No other module sends to Redis.
//!
//! A command may be sent in any callback, also in one that Envoy runs inside a callback of the stream
//! itself: when the peer has closed, Envoy reports the end of the stream once that callback is over.
//! A stream is opened and reset in ticks only.

use std::collections::VecDeque;
use std::time::Duration;

use log::{error, warn};
use portcullis_core::config::Redis;
use portcullis_core::driver::call::{CallFailure, Dependency, Reply};
use portcullis_core::id::PolicyVersion;
use portcullis_core::redis::documents::Progress;
use portcullis_core::redis::{Command, Connection, Documents, Output, Probed};
use portcullis_core::time::UnixTime;
use portcullis_redis_lua::{ScriptCall, Value};

use crate::guarded::Guarded;
use crate::host::{self, BufferType};
use crate::waiter::{DependencyEvent, Waiter};

/// One log line is enough for thousands of errors.
const BETWEEN_LOGGED_ERRORS: Duration = Duration::from_secs(10);

/// The stream, and everything that waits for it.
pub(crate) struct RedisStream {
    state: Guarded<State>,
}

struct State {
    settings: Option<Redis>,
    connection: Connection<Asker>,
    /// Policy documents that are being read.
    documents: Documents<Waiter>,
    /// The host's token of the open stream.
    stream: Option<u32>,
    /// Streams that were given up. They are reset in a tick, because Envoy still uses a stream whose callback runs.
    given_up: Vec<u32>,
    /// When an error of Redis was last logged.
    logged_error: Option<UnixTime>,
    /// When the end of a stream was last logged.
    logged_end: Option<UnixTime>,
    seed: u64,
}

/// The sender of a command.
#[derive(Clone, Debug)]
enum Asker {
    /// An exchange.
    Call(Waiter),
    /// The worker itself, for a checkpoint of its audit chain.
    Checkpoint(UnixTime),
    /// The worker itself, for a part of a document.
    Document {
        /// Its version.
        version: PolicyVersion,
        /// When this part was requested.
        since: UnixTime,
    },
}

impl Asker {
    const fn since(&self) -> UnixTime {
        match self {
            Self::Call(Waiter { since, .. })
            | Self::Checkpoint(since)
            | Self::Document { since, .. } => *since,
        }
    }
}

impl State {
    fn new(settings: Option<Redis>, seed: u64) -> Self {
        // Without Redis no command is ever submitted, so none waits.
        let timeout = settings.as_ref().map(|redis| redis.timeout).unwrap_or_default();
        Self {
            settings,
            connection: Connection::new(timeout, seed),
            documents: Documents::new(timeout),
            stream: None,
            given_up: Vec::new(),
            logged_error: None,
            logged_end: None,
            seed,
        }
    }

    fn give_up(&mut self) {
        self.given_up.extend(self.stream.take());
    }
}

impl RedisStream {
    /// A stream that opens when it is first needed.
    pub(crate) fn new(settings: Option<Redis>, seed: u64) -> Self {
        Self { state: Guarded::new(State::new(settings, seed)) }
    }

    /// Takes a new configuration. Fails the commands that wait for another Redis, including the ranges of documents.
    pub(crate) fn reconfigure(
        &self,
        now: UnixTime,
        settings: Option<Redis>,
    ) -> Vec<DependencyEvent> {
        let lost = self.state.with(|state| {
            if state.settings == settings {
                return None;
            }
            state.give_up();
            Some(state.connection.closed(now))
        });
        let Some(lost) = lost.flatten() else { return Vec::new() };
        let events = self.carry_out(now, lost);
        self.state.with(|state| {
            let given_up = std::mem::take(&mut state.given_up);
            *state = State { given_up, ..State::new(settings, state.seed) };
        });
        events
    }

    /// Whether the next tick has work: a deadline or an opening, a document, a stream to reset.
    pub(crate) fn is_waiting(&self) -> bool {
        let waiting = self.state.with(|state| {
            state.connection.is_waiting()
                || state.documents.is_waiting()
                || !state.given_up.is_empty()
        });
        waiting.unwrap_or_default()
    }

    /// Submits `command`; `waiter` gets the answer.
    pub(crate) fn submit(&self, waiter: Waiter, command: Command) -> Vec<DependencyEvent> {
        let (now, asker) = (waiter.since, Asker::Call(waiter));
        let outputs = self.state.with(|state| state.connection.submit(now, asker, command));
        self.carry_out(now, outputs.unwrap_or_default())
    }

    /// Records the end of the audit chain.
    pub(crate) fn checkpoint(&self, now: UnixTime, call: ScriptCall) -> Vec<DependencyEvent> {
        let (asker, command) = (Asker::Checkpoint(now), Command::Script(call));
        let outputs = self.state.with(|state| state.connection.submit(now, asker, command));
        self.carry_out(now, outputs.unwrap_or_default())
    }

    /// Requests the document of `version` for `waiter`.
    pub(crate) fn read_policy(
        &self,
        waiter: Waiter,
        version: &PolicyVersion,
    ) -> Vec<DependencyEvent> {
        let now = waiter.since;
        let progress = self.state.with(|state| state.documents.wait(now, version, waiter));
        let mut events = Vec::new();
        let outputs = self.go_on(now, version, progress.flatten(), &mut events);
        events.extend(self.carry_out(now, outputs));
        events
    }

    /// Bytes came on the stream `token`.
    pub(crate) fn received(&self, now: UnixTime, token: u32, size: usize) -> Vec<DependencyEvent> {
        if self.stream() != Some(token) {
            return Vec::new();
        }
        let outputs = match host::buffer(BufferType::GrpcReceiveBuffer, size) {
            Ok(bytes) => self.state.with(|state| state.connection.received(now, &bytes)),
            Err(_) => self.state.with(|state| {
                state.give_up();
                state.connection.closed(now)
            }),
        };
        self.carry_out(now, outputs.unwrap_or_default())
    }

    /// The stream `token` ended.
    pub(crate) fn ended(&self, now: UnixTime, token: u32) -> Vec<DependencyEvent> {
        // There is no stream left to reset, and Envoy must not be asked to.
        self.state.with(|state| state.given_up.retain(|given_up| *given_up != token));
        if self.stream() != Some(token) {
            return Vec::new();
        }
        self.log_end(now);
        let outputs = self.lost(now);
        self.carry_out(now, outputs)
    }

    /// The worker was busy for this time until now, and could not receive replies.
    pub(crate) fn excuse(&self, now: UnixTime, busy: Duration) {
        self.state.with(|state| state.connection.excuse(now, busy));
    }

    /// Resets the streams that were given up. In ticks only.
    pub(crate) fn reset_given_up(&self) {
        let given_up = self.state.with(|state| std::mem::take(&mut state.given_up));
        given_up.unwrap_or_default().into_iter().for_each(host::reset_stream);
    }

    /// Time has passed.
    pub(crate) fn tick(&self, now: UnixTime) -> Vec<DependencyEvent> {
        let outputs = self.state.with(|state| state.connection.tick(now)).unwrap_or_default();
        let overdue = self.state.with(|state| state.documents.overdue(now)).unwrap_or_default();
        let overdue = overdue.into_iter().map(|waiter| waiter.failed(CallFailure::TimedOut));
        let mut events: Vec<_> = overdue.collect();
        events.extend(self.carry_out(now, outputs));
        events
    }

    fn stream(&self) -> Option<u32> {
        self.state.with(|state| state.stream).flatten()
    }

    /// Opens, sends and closes as the connection says.
    fn carry_out(&self, now: UnixTime, outputs: Vec<Output<Asker>>) -> Vec<DependencyEvent> {
        let mut outputs = VecDeque::from(outputs);
        let (mut unsent, mut events) = (Vec::new(), Vec::new());
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::Open => outputs.extend(self.open(now)),
                Output::Send(bytes) => unsent.extend(bytes),
                Output::Close(cause) => {
                    warn!("the Redis stream is given up: {cause}");
                    self.state.with(State::give_up);
                }
                Output::Reply(asker, value) => {
                    let mut outcome = Ok(now.since(asker.since()));
                    if let Value::Error(error) = &value {
                        self.log_error(now, error);
                        // A server that answers every call with an error is not up.
                        outcome = Err(CallFailure::Unreadable);
                    }
                    events.push(DependencyEvent::Called(Dependency::Redis, outcome));
                    outputs.extend(self.answered(now, asker, value, &mut events));
                }
                Output::Failed(asker, why) => {
                    events.push(DependencyEvent::Called(Dependency::Redis, Err(why)));
                    outputs.extend(self.failed(now, asker, why, &mut events));
                }
            }
            if outputs.is_empty() && !unsent.is_empty() {
                outputs.extend(self.send(now, &std::mem::take(&mut unsent)));
            }
        }
        events.extend(self.probed());
        events
    }

    /// The result of the connection's own probes: they show whether Redis is available without a call.
    fn probed(&self) -> Option<DependencyEvent> {
        let probed = self.state.with(|state| state.connection.take_probed()).flatten()?;
        let outcome = match probed {
            Probed::Answered(took) => Ok(took),
            Probed::Lost => Err(CallFailure::Disconnected),
        };
        Some(DependencyEvent::Called(Dependency::Redis, outcome))
    }

    fn open(&self, now: UnixTime) -> Vec<Output<Asker>> {
        let cluster = |state: &mut State| state.settings.as_ref().map(|it| it.cluster.clone());
        let cluster = self.state.with(cluster).flatten();
        match cluster.ok_or(host::HostError).and_then(|cluster| host::open_stream(&cluster)) {
            Ok(stream) => {
                let outputs = self.state.with(|state| {
                    state.stream = Some(stream);
                    state.connection.opened(now)
                });
                outputs.unwrap_or_default()
            }
            Err(_) => self.lost(now),
        }
    }

    /// Sends these bytes to the host as one message.
    fn send(&self, now: UnixTime, bytes: &[u8]) -> Vec<Output<Asker>> {
        // The stream was lost a moment ago, and the commands with it.
        let Some(stream) = self.stream() else { return Vec::new() };
        match host::send(stream, bytes) {
            Ok(()) => Vec::new(),
            Err(_) => self.lost(now),
        }
    }

    fn lost(&self, now: UnixTime) -> Vec<Output<Asker>> {
        let outputs = self.state.with(|state| {
            state.stream = None;
            state.connection.closed(now)
        });
        outputs.unwrap_or_default()
    }

    fn answered(
        &self,
        now: UnixTime,
        asker: Asker,
        value: Value,
        events: &mut Vec<DependencyEvent>,
    ) -> Vec<Output<Asker>> {
        match asker {
            Asker::Call(waiter) => {
                events.push(waiter.done(Reply::Redis(value)));
                Vec::new()
            }
            Asker::Checkpoint(_) => {
                events.push(DependencyEvent::Checkpointed(Some(value)));
                Vec::new()
            }
            Asker::Document { version, .. } => {
                let progress =
                    self.state.with(|state| state.documents.answered(now, &version, value));
                self.go_on(now, &version, progress.flatten(), events)
            }
        }
    }

    fn failed(
        &self,
        now: UnixTime,
        asker: Asker,
        why: CallFailure,
        events: &mut Vec<DependencyEvent>,
    ) -> Vec<Output<Asker>> {
        match asker {
            Asker::Call(waiter) => {
                events.push(waiter.failed(why));
                Vec::new()
            }
            Asker::Checkpoint(_) => {
                events.push(DependencyEvent::Checkpointed(None));
                Vec::new()
            }
            Asker::Document { version, .. } => {
                let progress = self.state.with(|state| state.documents.failed(now, &version, why));
                self.go_on(now, &version, progress.flatten(), events)
            }
        }
    }

    /// Continues or ends a read of a document.
    fn go_on(
        &self,
        now: UnixTime,
        version: &PolicyVersion,
        progress: Option<Progress<Waiter>>,
        events: &mut Vec<DependencyEvent>,
    ) -> Vec<Output<Asker>> {
        match progress {
            Some(Progress::Ask(command)) => {
                let asker = Asker::Document { version: version.clone(), since: now };
                let outputs = self.state.with(|state| state.connection.submit(now, asker, command));
                return outputs.unwrap_or_default();
            }
            Some(Progress::Read { document, waiters }) => {
                let version = version.clone();
                events.push(DependencyEvent::PolicyRead { version, document, waiters });
            }
            Some(Progress::Failed(why, waiters)) => {
                events.extend(waiters.into_iter().map(|waiter| waiter.failed(why)));
            }
            None => {}
        }
        Vec::new()
    }

    /// Logs an error that waiting does not solve: no permission, no memory, the wrong node.
    fn log_error(&self, now: UnixTime, error: &str) {
        if self.is_due(now, |state| &mut state.logged_error) {
            error!("Redis answered with an error, see docs/troubleshooting.md: {error}");
        }
    }

    /// Logs the end of a stream. During an outage a stream ends with each attempt to open one.
    fn log_end(&self, now: UnixTime) {
        if self.is_due(now, |state| &mut state.logged_end) {
            warn!(
                "the Redis stream ended: see the cluster of redis.cluster in /clusters, and Redis's log"
            );
        }
    }

    /// Whether a line that was last logged at `last` is due; if so, it counts as logged now.
    fn is_due(&self, now: UnixTime, last: fn(&mut State) -> &mut Option<UnixTime>) -> bool {
        let due = self.state.with(|state| {
            let last = last(state);
            let due = last.is_none_or(|last| now.since(last) >= BETWEEN_LOGGED_ERRORS);
            if due {
                *last = Some(now);
            }
            due
        });
        due == Some(true)
    }
}
