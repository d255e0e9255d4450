//! The state of a worker's only Redis stream.
//!
//! Owns the queue of commands with outstanding replies (Redis answers in order), a deadline for each, the reopening
//! with back-off and jitter, and the reload of a script that Redis lost. Has no socket and no clock: the driver opens,
//! sends and closes as requested, and reports what happened.
//!
//! A command past its deadline fails alone. Its reply is dropped when it arrives: a slow script delays the commands
//! behind it, but does not cost the stream. Only a complete reply shows that Redis is alive: single bytes do not. Time
//! in which the worker itself was busy does not count, see [`Connection::excuse`].
//!
//! One organisation cannot fill the queue: each part of Redis (one organisation) may have as many outstanding commands
//! as there are free places, and half of that for bindings.
//!
//! ```text
//!                 ┌──────────── an answer ◀───────────┐
//! Wanted ─▶ Opening ─ an answer ─▶ Up ─ silent for 2 deadlines ─▶ Up, stalled ─ silent for long ─▶ Down ─┐
//!             ▲ └──────────────── lost, or silent for long ──────────────────────────────────────▶ │     │
//!             └──────────────────────────── after a wait that doubles, with jitter ◀──────────────┘─────┘
//! ```
//! Commands wait in the states `Wanted`, `Up` and the very first `Opening`. In all other states they fail at once.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use portcullis_redis_lua::{ScriptCall, Value};

use super::resp::{Command, Decoder};
use crate::driver::call::CallFailure;
use crate::resilience::backoff::Backoff;
use crate::resilience::breaker::Breakers;
use crate::time::UnixTime;

/// The most commands with outstanding replies; further ones fail at once instead of waiting. One organisation alone may
/// have half of them.
const MAX_PENDING: usize = 2_048;
/// With fewer outstanding commands there is room for all, and shares are not computed.
const CROWDED: usize = 256;
/// After a silence of this many deadlines, Redis counts as hung: no further command waits for it.
const STALLED_AFTER: u32 = 2;
/// After a silence of this length (or of four deadlines, if that is longer), the stream is replaced: a peer that
/// vanished answers only on a new one.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(1);
/// A stream without traffic is probed this often, so that its loss is known before a call needs it.
const IDLE_PROBE: Duration = Duration::from_secs(5);

/// The actions of the driver, in order.
#[derive(Debug, PartialEq)]
pub enum Output<W> {
    /// Open the stream, then call [`Connection::opened`].
    Open,
    /// Send these bytes on the stream.
    Send(Vec<u8>),
    /// Close the stream; it sends no further events.
    Close(Cause),
    /// A command's reply.
    Reply(W, Value),
    /// A command's failure.
    Failed(W, CallFailure),
}

/// The reason for closing a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No byte came for too long.
    Silent,
    /// The first command on it got this error: no permission to use Redis, or Redis is loading.
    Unusable(String),
    /// The data is not an answer to the commands.
    Unreadable,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("it does not answer"),
            Self::Unusable(error) => write!(f, "it answered {error:?} to PING"),
            Self::Unreadable => f.write_str("what it sends is not RESP2, or answers nothing"),
        }
    }
}

/// The result of the connection's own probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// Redis answered after this time.
    Answered(Duration),
    /// The stream is lost, or Redis is unusable.
    Lost,
}

/// The stream of a worker; `W` identifies the receiver of a reply.
#[derive(Debug)]
pub struct Connection<W> {
    state: State,
    pending: VecDeque<Pending<W>>,
    decoder: Decoder,
    timeout: Duration,
    /// When the last complete reply arrived.
    heard: UnixTime,
    /// Whether Redis counted as hung at the last tick, and has not answered since. Between ticks the worker may be too
    /// busy to receive an answer.
    hung: bool,
    backoff: Backoff,
    breakers: Breakers<String>,
    probed: Option<Probed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No command was submitted yet.
    Idle,
    /// Commands wait for the first opening.
    Wanted,
    /// Opened, but without an answer so far. `after` is the number of failures before.
    Opening { after: u32 },
    /// Open and answering, or silent for a short time.
    Up,
    /// Lost; it is reopened at `until`. `failures` in a row.
    Down { until: UnixTime, failures: u32 },
}

/// A command that was sent or is about to be sent.
#[derive(Debug)]
struct Pending<W> {
    sent: UnixTime,
    awaited: Awaited<W>,
}

#[derive(Debug)]
enum Awaited<W> {
    /// A command of an exchange.
    Caller { waiter: W, command: Command, deadline: UnixTime },
    /// A command without a receiver: its caller got a timeout.
    Late { command: Command },
    /// A probe of the connection itself.
    Probe,
}

impl<W> Awaited<W> {
    fn part(&self) -> Option<&str> {
        match self {
            Self::Caller { command, .. } | Self::Late { command } => command.part(),
            Self::Probe => None,
        }
    }
}

impl<W> Connection<W> {
    /// A stream that opens when it is first needed; each command may take `timeout`. `seed` spreads the reopening of
    /// many workers.
    #[must_use]
    pub fn new(timeout: Duration, seed: u64) -> Self {
        Self {
            state: State::Idle,
            pending: VecDeque::new(),
            decoder: Decoder::default(),
            timeout,
            heard: UnixTime::from_micros(0),
            hung: false,
            backoff: Backoff::new(seed),
            breakers: Breakers::new(seed),
            probed: None,
        }
    }

    /// Whether Redis answered the last command.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// The result of the connection's own probes since the last call: it shows whether Redis is available without a
    /// command.
    pub fn take_probed(&mut self) -> Option<Probed> {
        self.probed.take()
    }

    /// Whether the next [`Connection::tick`] may have an effect: an opening, or a deadline.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        match self.state {
            State::Idle => false,
            State::Wanted | State::Down { .. } => true,
            State::Opening { .. } | State::Up => !self.pending.is_empty(),
        }
    }

    /// Sends a command, or fails it at once when its failure is certain.
    #[must_use]
    pub fn submit(&mut self, now: UnixTime, waiter: W, command: Command) -> Vec<Output<W>> {
        if !self.has_room(&command) {
            return vec![Output::Failed(waiter, CallFailure::Refused)];
        }
        let passes = !self.hung && self.lets_pass(now, &command);
        let send = match self.state {
            State::Idle | State::Wanted => {
                self.state = State::Wanted;
                Vec::new()
            }
            State::Opening { after: 0 } | State::Up if passes => {
                vec![Output::Send(command.encode())]
            }
            // No command waits for a Redis, or a part of it, that was just dead or hung.
            State::Opening { .. } | State::Up | State::Down { .. } => {
                return vec![Output::Failed(waiter, CallFailure::Refused)];
            }
        };
        let deadline = now.after(self.timeout);
        self.expect(now, Awaited::Caller { waiter, command, deadline });
        send
    }

    /// Whether `command` leaves room for other organisations.
    fn has_room(&self, command: &Command) -> bool {
        let free = MAX_PENDING.saturating_sub(self.pending.len());
        if self.pending.len() < CROWDED {
            return true;
        }
        let part = command.part();
        let of_part = self.pending.iter().filter(|pending| pending.awaited.part() == part).count();
        // A binding belongs to a response that has arrived already; admissions have priority.
        let share = if command.binds() { free / 2 } else { free };
        of_part < share
    }

    /// The worker was busy for this time until now, and could not receive replies: that time does not count as silence.
    pub fn excuse(&mut self, now: UnixTime, busy: Duration) {
        let moved = |from: UnixTime| from.after(busy.min(now.since(from)));
        self.heard = moved(self.heard);
        for pending in &mut self.pending {
            let sent = pending.sent;
            pending.sent = moved(sent);
            if let Awaited::Caller { deadline, .. } = &mut pending.awaited {
                *deadline = deadline.after(pending.sent.since(sent));
            }
        }
    }

    /// Time has passed: opens the stream when it is needed, and fails overdue commands.
    #[must_use]
    pub fn tick(&mut self, now: UnixTime) -> Vec<Output<W>> {
        match self.state {
            State::Idle => Vec::new(),
            State::Wanted => {
                let mut out = self.give_up(now, |deadline| deadline <= now);
                self.pending.retain(|pending| matches!(pending.awaited, Awaited::Caller { .. }));
                out.push(Output::Open);
                out
            }
            State::Down { until, .. } if now < until => Vec::new(),
            State::Down { .. } => vec![Output::Open],
            State::Opening { .. } | State::Up => self.watch(now),
        }
    }

    /// The stream of [`Output::Open`] is open: probes it, then sends the waiting commands.
    #[must_use]
    pub fn opened(&mut self, now: UnixTime) -> Vec<Output<W>> {
        let after = match self.state {
            State::Down { failures, .. } => failures,
            State::Idle | State::Wanted | State::Opening { .. } | State::Up => 0,
        };
        self.state = State::Opening { after };
        self.decoder = Decoder::default();
        let waiting = std::mem::take(&mut self.pending);
        let mut out = self.probe(now);
        for Pending { awaited, .. } in waiting {
            if let Awaited::Caller { command, .. } = &awaited {
                out.push(Output::Send(command.encode()));
                self.expect(now, awaited);
            }
        }
        out
    }

    /// The stream could not be opened, or ended.
    #[must_use]
    pub fn closed(&mut self, now: UnixTime) -> Vec<Output<W>> {
        self.lose(now, CallFailure::Disconnected)
    }

    /// Bytes arrived.
    #[must_use]
    pub fn received(&mut self, now: UnixTime, bytes: &[u8]) -> Vec<Output<W>> {
        let Ok(replies) = self.decoder.feed(bytes) else {
            return self.abandon(now, Cause::Unreadable, CallFailure::Unreadable);
        };
        if !replies.is_empty() {
            (self.heard, self.hung) = (now, false);
        }
        let mut out = Vec::new();
        for reply in replies {
            let (sent, awaited) = match self.pending.pop_front() {
                Some(Pending { sent, awaited }) => (sent, Some(awaited)),
                None => (now, None),
            };
            match (awaited, reply) {
                (
                    Some(Awaited::Caller { waiter, command: Command::Script(call), deadline }),
                    reply,
                ) if reply.is_noscript() => {
                    out.push(self.resend(now, waiter, call, deadline));
                }
                (Some(Awaited::Caller { waiter, command, .. }), reply) => {
                    out.push(self.settled(now, waiter, &command, reply));
                }
                (Some(Awaited::Late { .. }), _) => {}
                // Redis answers with an error while it loads its data, or when the user has no permission.
                (Some(Awaited::Probe), Value::Error(error)) => {
                    let cause = Cause::Unusable(error);
                    out.extend(self.abandon(now, cause, CallFailure::Unreadable));
                    return out;
                }
                (Some(Awaited::Probe), _) => {
                    self.state = State::Up;
                    self.probed = Some(Probed::Answered(now.since(sent)));
                }
                (None, _) => {
                    out.extend(self.abandon(now, Cause::Unreadable, CallFailure::Unreadable));
                    return out;
                }
            }
        }
        out
    }

    /// Sends a script by its source; it is queued after the commands sent meanwhile.
    fn resend(
        &mut self,
        now: UnixTime,
        waiter: W,
        call: ScriptCall,
        deadline: UnixTime,
    ) -> Output<W> {
        let command = Command::ScriptSource(call);
        let send = Output::Send(command.encode());
        self.expect(now, Awaited::Caller { waiter, command, deadline });
        send
    }

    fn lets_pass(&mut self, now: UnixTime, command: &Command) -> bool {
        let probe = self.timeout.saturating_mul(STALLED_AFTER);
        command.part().is_none_or(|part| self.breakers.lets_pass(now, part, probe))
    }

    /// A reply for its caller: an error that means that Redis is unavailable now becomes a failure.
    fn settled(&mut self, now: UnixTime, waiter: W, command: &Command, reply: Value) -> Output<W> {
        match not_now(&reply) {
            Some(why) => {
                command.part().inspect(|part| self.breakers.failed(now, *part));
                Output::Failed(waiter, why)
            }
            None => {
                command.part().inspect(|part| self.breakers.answered(*part));
                Output::Reply(waiter, reply)
            }
        }
    }

    fn expect(&mut self, sent: UnixTime, awaited: Awaited<W>) {
        self.pending.push_back(Pending { sent, awaited });
    }

    fn probe(&mut self, now: UnixTime) -> Vec<Output<W>> {
        self.expect(now, Awaited::Probe);
        vec![Output::Send(Command::Ping.encode())]
    }

    /// How long Redis has owed an answer and been silent.
    fn silence(&self, now: UnixTime) -> Duration {
        let first = self.pending.front();
        first.map_or(Duration::ZERO, |first| now.since(first.sent.max(self.heard)))
    }

    /// Checks an open stream.
    fn watch(&mut self, now: UnixTime) -> Vec<Output<W>> {
        let patience = GIVEN_UP_AFTER.max(self.timeout.saturating_mul(4));
        if self.silence(now) >= patience {
            return self.abandon(now, Cause::Silent, CallFailure::TimedOut);
        }
        self.hung = self.silence(now) >= self.timeout.saturating_mul(STALLED_AFTER);
        if self.hung {
            return self.give_up(now, |_| true);
        }
        if self.pending.is_empty() && now.since(self.heard) >= IDLE_PROBE {
            return self.probe(now);
        }
        self.give_up(now, |deadline| deadline <= now)
    }

    /// Fails the commands whose deadline is `hopeless`.
    fn give_up(&mut self, now: UnixTime, hopeless: impl Fn(UnixTime) -> bool) -> Vec<Output<W>> {
        let mut out = Vec::new();
        for pending in &mut self.pending {
            let awaited = std::mem::replace(&mut pending.awaited, Awaited::Probe);
            pending.awaited = match awaited {
                Awaited::Caller { waiter, command, deadline } if hopeless(deadline) => {
                    command.part().inspect(|part| self.breakers.failed(now, *part));
                    out.push(Output::Failed(waiter, CallFailure::TimedOut));
                    Awaited::Late { command }
                }
                awaited => awaited,
            };
        }
        out
    }

    fn abandon(&mut self, now: UnixTime, cause: Cause, why: CallFailure) -> Vec<Output<W>> {
        let mut out = vec![Output::Close(cause)];
        out.extend(self.lose(now, why));
        out
    }

    fn lose(&mut self, now: UnixTime, why: CallFailure) -> Vec<Output<W>> {
        let failures = match self.state {
            State::Opening { after } => after.saturating_add(1),
            State::Down { failures, .. } => failures.saturating_add(1),
            State::Idle | State::Wanted | State::Up => 1,
        };
        let until = now.after(self.backoff.wait(failures));
        self.state = State::Down { until, failures };
        self.probed = Some(Probed::Lost);
        self.hung = false;
        self.decoder = Decoder::default();
        std::mem::take(&mut self.pending)
            .into_iter()
            .filter_map(|pending| match pending.awaited {
                Awaited::Caller { waiter, .. } => Some(Output::Failed(waiter, why)),
                Awaited::Late { .. } | Awaited::Probe => None,
            })
            .collect()
    }
}

/// The failure, when a reply means that Redis is unavailable now.
fn not_now(reply: &Value) -> Option<CallFailure> {
    /// Errors of a server that is starting, failing over or busy, and of an incomplete Cluster.
    const NOT_NOW: [&str; 6] =
        ["LOADING ", "MASTERDOWN ", "READONLY ", "BUSY ", "CLUSTERDOWN ", "TRYAGAIN "];
    let Value::Error(text) = reply else { return None };
    match text.as_str() {
        // Envoy's redis_proxy: the server behind it did not answer in time, or closed the connection.
        "upstream failure" => Some(CallFailure::Disconnected),
        "no upstream host" => Some(CallFailure::Refused),
        text if NOT_NOW.iter().any(|code| text.starts_with(code)) => Some(CallFailure::Refused),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
