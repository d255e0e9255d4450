//! The calls that exchanges wait for.
//!
//! Owns the host's tokens and the one Redis stream. Replies arrive in the root context; they are handed
//! on as events for the exchange that waits.
//!
//! A command may be sent in any callback, also in one that Envoy runs inside a callback of the stream
//! itself: when the peer has closed, Envoy reports the end of the stream once that callback is over.

use std::collections::VecDeque;
use std::time::Duration;

use log::{error, warn};
use portcullis_core::call::{CallFailure, Dependency, DependencyCall, Reply};
use portcullis_core::config::Vault;
use portcullis_core::event::Event;
use portcullis_core::redis::{Command, Output, Probed};
use portcullis_core::time::UnixTime;
use portcullis_core::vault::SecretRef;
use portcullis_redis_lua::Value;

use crate::documents::Asker;
use crate::gateway::{Gateway, Waiter};
use crate::host::{self, BufferType, MapType};

/// A reply beyond this is neither a secret nor a key set.
const MAX_REPLY: usize = 1_048_576;
/// One line tells as much as thousands.
const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(10);

impl Gateway {
    /// The reply to the HTTP call `token`.
    pub(crate) fn http_answered(&self, token: u32, headers: usize, size: usize) {
        if self.keys_answered(token, headers, size) {
            return;
        }
        let waiter = self.with(|state| state.vault.remove(&token)).flatten();
        let Some(Waiter { context, call: id, since }) = waiter else {
            return;
        };
        let reply = http_reply(headers, size);
        let now = host::now();
        self.measure_call(Dependency::Vault, reply.is_ok().then(|| now.since(since)), now);
        let event = match reply {
            Ok(body) => Event::CallDone { id, reply: Reply::Vault { body } },
            Err(why) => Event::CallFailed { id, why },
        };
        self.queue([(context, event)]);
        self.work_off(now);
    }

    /// Bytes from Redis.
    pub(crate) fn redis_sent(&self, token: u32, size: usize) {
        if self.with(|state| state.stream) != Some(Some(token)) {
            return;
        }
        let now = host::now();
        let outputs = match host::buffer(BufferType::GrpcReceiveBuffer, size) {
            Ok(bytes) => self.with(|state| state.redis.received(now, &bytes)),
            Err(_) => self.with(|state| {
                state.given_up.extend(state.stream.take());
                state.redis.closed(now)
            }),
        };
        self.deliver(now, outputs.unwrap_or_default());
    }

    /// The Redis stream ended.
    pub(crate) fn redis_closed(&self, token: u32) {
        let now = host::now();
        let outputs = self.with(|state| {
            // There is nothing left to reset, and Envoy must not be asked to.
            state.given_up.retain(|given_up| *given_up != token);
            if state.stream != Some(token) {
                return Vec::new();
            }
            warn!("the Redis stream ended");
            state.stream = None;
            state.redis.closed(now)
        });
        self.deliver(now, outputs.unwrap_or_default());
    }

    /// Time has passed.
    pub(crate) fn tick(&self) {
        let now = host::now();
        self.measure_lateness(now);
        for stream in self.with(|state| std::mem::take(&mut state.given_up)).unwrap_or_default() {
            host::reset_stream(stream);
        }
        self.recheck(now);
        self.look_for_withheld_bodies(now);
        let outputs = self.with(|state| state.redis.tick(now)).unwrap_or_default();
        let overdue = self.overdue_for_documents(now);
        if !outputs.is_empty() || overdue || self.has_mail() {
            self.deliver(now, outputs);
        }
        self.fetch_keys(now);
        self.slow_down(now);
    }

    /// Carries out what the connection says, then delivers what it brought.
    pub(crate) fn deliver(&self, now: UnixTime, outputs: Vec<Output<Asker>>) {
        self.carry_out(now, outputs);
        self.note_probe(now);
        self.work_off(now);
    }

    /// What the connection found out by itself: whether Redis is there is known while nobody calls, too.
    fn note_probe(&self, now: UnixTime) {
        match self.with(|state| state.redis.take_probed()).flatten() {
            Some(Probed::Answered(took)) => self.measure_call(Dependency::Redis, Some(took), now),
            Some(Probed::Lost) => self.measure_call(Dependency::Redis, None, now),
            None => {}
        }
    }

    pub(crate) fn start(&self, waiter: Waiter, call: DependencyCall) {
        let command = match call {
            DependencyCall::Admit(script)
            | DependencyCall::Bind(script)
            | DependencyCall::Charge(script)
            | DependencyCall::Approval(script) => Command::Script(script),
            DependencyCall::Policy(version) => return self.await_document(waiter, &version),
            DependencyCall::Secret(secret) => {
                if let Err(why) = self.ask_vault(waiter, &secret) {
                    self.queue([(waiter.context, Event::CallFailed { id: waiter.call, why })]);
                }
                return;
            }
            DependencyCall::Keys(issuer) => return self.await_keys(waiter, issuer),
        };
        let now = waiter.since;
        let asker = Asker::Call(waiter);
        let outputs = self.with(|state| state.redis.submit(now, asker, command));
        self.carry_out(now, outputs.unwrap_or_default());
    }

    fn ask_vault(&self, waiter: Waiter, secret: &SecretRef) -> Result<(), CallFailure> {
        let vault = self.with(|state| state.worker.config.vault.clone()).flatten();
        let Vault { cluster, timeout, mounts, .. } = vault.ok_or(CallFailure::Refused)?;
        let path = secret.api_path(&mounts);
        let [request_id] = host::values(MapType::RequestHeaders, ["x-request-id"]);
        let request_id = String::from_utf8(request_id).unwrap_or_default();
        let token = host::http_get((&cluster, &cluster), &path, Some(&request_id), timeout)
            .map_err(|_| CallFailure::Refused)?;
        self.with(|state| state.vault.insert(token, waiter));
        Ok(())
    }

    /// Opens, sends and closes as the connection says; the events that come of it are mail.
    pub(crate) fn carry_out(&self, now: UnixTime, outputs: Vec<Output<Asker>>) {
        let mut outputs = VecDeque::from(outputs);
        let mut unsent = Vec::new();
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::Open => outputs.extend(self.open_stream(now)),
                Output::Send(bytes) => unsent.extend(bytes),
                Output::Close(cause) => {
                    warn!("the Redis stream is given up: {cause}");
                    self.with(|state| state.given_up.extend(state.stream.take()));
                }
                Output::Reply(asker, value) => {
                    let mut elapsed = Some(now.since(asker.since()));
                    if let Value::Error(error) = &value {
                        self.complain(now, error);
                        // A server that answers every call with an error is not up.
                        elapsed = None;
                    }
                    self.measure_call(Dependency::Redis, elapsed, now);
                    outputs.extend(self.answered(now, asker, value));
                }
                Output::Failed(asker, why) => {
                    self.measure_call(Dependency::Redis, None, now);
                    outputs.extend(self.failed(now, asker, why));
                }
            }
            if outputs.is_empty() && !unsent.is_empty() {
                outputs.extend(self.send(now, &std::mem::take(&mut unsent)));
            }
        }
        self.hurry();
    }

    /// All that is sent in one callback goes to the host as one message.
    fn send(&self, now: UnixTime, bytes: &[u8]) -> Vec<Output<Asker>> {
        // Lost a moment ago, and so were the commands.
        let Some(stream) = self.with(|state| state.stream).flatten() else { return Vec::new() };
        match host::send(stream, bytes) {
            Ok(()) => Vec::new(),
            Err(_) => self.lost(now),
        }
    }

    fn answered(&self, now: UnixTime, asker: Asker, value: Value) -> Vec<Output<Asker>> {
        match asker {
            Asker::Call(Waiter { context, call: id, .. }) => {
                let reply = Reply::Redis(value);
                self.queue([(context, Event::CallDone { id, reply })]);
                Vec::new()
            }
            Asker::Document { version, .. } => self.document_answered(now, &version, value),
        }
    }

    fn failed(&self, now: UnixTime, asker: Asker, why: CallFailure) -> Vec<Output<Asker>> {
        match asker {
            Asker::Call(Waiter { context, call: id, .. }) => {
                self.queue([(context, Event::CallFailed { id, why })]);
                Vec::new()
            }
            Asker::Document { version, .. } => self.document_failed(now, &version, why),
        }
    }

    /// Tells the operator of an error that waiting does not cure: no rights, no memory, the wrong node.
    fn complain(&self, now: UnixTime, error: &str) {
        let due = self.with(|state| {
            let due = state.complained.is_none_or(|last| now.since(last) >= BETWEEN_COMPLAINTS);
            if due {
                state.complained = Some(now);
            }
            due
        });
        if due == Some(true) {
            error!("Redis answered with an error, see docs/troubleshooting.md: {error}");
        }
    }

    fn open_stream(&self, now: UnixTime) -> Vec<Output<Asker>> {
        let redis = self.with(|state| state.worker.config.redis.clone()).flatten();
        match redis.ok_or(host::HostError).and_then(|redis| host::open_stream(&redis.cluster)) {
            Ok(stream) => {
                let outputs = self.with(|state| {
                    state.stream = Some(stream);
                    state.redis.opened(now)
                });
                outputs.unwrap_or_default()
            }
            Err(_) => self.lost(now),
        }
    }

    fn lost(&self, now: UnixTime) -> Vec<Output<Asker>> {
        let outputs = self.with(|state| {
            state.stream = None;
            state.redis.closed(now)
        });
        outputs.unwrap_or_default()
    }
}

/// The body of a good reply. Envoy answers for an unreachable server with a status of its own, or
/// with no headers at all.
pub(crate) fn http_reply(headers: usize, size: usize) -> Result<Vec<u8>, CallFailure> {
    if headers == 0 {
        return Err(CallFailure::TimedOut);
    }
    let [status] = host::values(MapType::CallResponseHeaders, [":status"]);
    let status = std::str::from_utf8(&status).ok().and_then(|text| text.parse::<u16>().ok());
    match status {
        Some(200..300) if size <= MAX_REPLY => host::buffer(BufferType::HttpCallResponseBody, size)
            .map_err(|_| CallFailure::Unreadable),
        Some(200..300) => Err(CallFailure::Unreadable),
        Some(504) => Err(CallFailure::TimedOut),
        Some(status) => Err(CallFailure::Status(status)),
        None => Err(CallFailure::Unreadable),
    }
}
