//! The life of the one Redis stream of a worker.
//!
//! Owns the queue of commands whose replies are outstanding (Redis answers in order), a deadline
//! for each, the reopening with back-off and jitter, and the reload of a script that Redis forgot. Has
//! no socket and no clock: the driver opens, sends and closes as told, and says what happened.
//!
//! A command that is overdue fails alone. Its reply is read and dropped when it comes, so that one
//! slow script costs those behind it what is left of their own deadlines, and not the stream. Only a
//! whole reply is a sign of life: bytes that trickle are none. Time in which the worker itself was busy
//! does not count, see [`Connection::excuse`].
//!
//! Whoever fills the queue leaves room for others: each part of Redis (one organisation) may have as
//! many commands outstanding as there are places left, and half of that for bindings.
//!
//! ```text
//!                 ┌──────────── an answer ◀───────────┐
//! Wanted ─▶ Opening ─ an answer ─▶ Up ─ silent for 2 deadlines ─▶ Up, stalled ─ silent for long ─▶ Down ─┐
//!             ▲ └──────────────── lost, or silent for long ──────────────────────────────────────▶ │     │
//!             └──────────────────────────── after a wait that doubles, with jitter ◀──────────────┘─────┘
//! ```
//! Commands wait in `Wanted`, in `Up` and in the very first `Opening`. Everywhere else they fail at once.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use portcullis_redis_lua::{ScriptCall, Value};

use super::resp::{Command, Decoder};
use crate::driver::call::CallFailure;
use crate::resilience::backoff::Backoff;
use crate::resilience::breaker::Breakers;
use crate::time::UnixTime;

/// Commands whose replies are outstanding; beyond it a new one fails at once rather than wait. One
/// organisation alone may have half of them.
const MAX_PENDING: usize = 2_048;
/// While fewer are outstanding there is room for everybody, and nobody counts.
const CROWDED: usize = 256;
/// Silent for so many deadlines, Redis counts as hung: nobody else waits for it.
const STALLED_AFTER: u32 = 2;
/// Silent for so long (or for four deadlines, if that is longer), the stream itself is in doubt: a
/// peer that is gone without a word answers only on a new one.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(1);
/// A stream without traffic is tried this often, so that its loss is known before a call needs it.
const IDLE_PROBE: Duration = Duration::from_secs(5);

/// What the driver must do, in order.
#[derive(Debug, PartialEq)]
pub enum Output<W> {
    /// Open the stream, then call [`Connection::opened`].
    Open,
    /// Send these bytes on the stream.
    Send(Vec<u8>),
    /// Close the stream; nothing more will be heard of it.
    Close(Cause),
    /// A command's reply.
    Reply(W, Value),
    /// A command's failure.
    Failed(W, CallFailure),
}

/// Why a stream is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No byte came for too long.
    Silent,
    /// The first command on it was answered with this error: no right to use it, or still loading.
    Unusable(String),
    /// What came is not an answer to what was asked.
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

/// What the connection found out by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// Redis answered after so long.
    Answered(Duration),
    /// The stream is lost, or Redis cannot be used.
    Lost,
}

/// The stream of a worker; `W` names who waits for a reply.
#[derive(Debug)]
pub struct Connection<W> {
    state: State,
    pending: VecDeque<Pending<W>>,
    decoder: Decoder,
    timeout: Duration,
    /// When the last whole reply came.
    heard: UnixTime,
    /// Whether Redis counted as hung at the last tick, and has not answered since. Between ticks the
    /// worker may be too busy to hear it.
    hung: bool,
    backoff: Backoff,
    breakers: Breakers<String>,
    probed: Option<Probed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has asked for anything yet.
    Idle,
    /// Commands wait for the first opening.
    Wanted,
    /// Open, and not yet heard from. `after` counts the failures that came before.
    Opening { after: u32 },
    /// Open and answering, or stalled since a moment ago.
    Up,
    /// Lost; to be reopened at `until`. `failures` in a row.
    Down { until: UnixTime, failures: u32 },
}

/// A command on the wire, or about to be.
#[derive(Debug)]
struct Pending<W> {
    sent: UnixTime,
    awaited: Awaited<W>,
}

#[derive(Debug)]
enum Awaited<W> {
    /// By a request of an exchange.
    Caller { waiter: W, command: Command, deadline: UnixTime },
    /// By nobody any more: the caller was told that it took too long.
    Late { command: Command },
    /// By the connection itself, to know whether anybody is there.
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
    /// A stream that opens when it is first wanted; each command may take `timeout`. `seed` spreads
    /// the reopening of many workers.
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

    /// Whether Redis answered last time it was asked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// What the connection found out since somebody last looked: whether Redis is there is known without a call, too.
    pub fn take_probed(&mut self) -> Option<Probed> {
        self.probed.take()
    }

    /// Whether anything hangs on the next [`Connection::tick`]: an opening, or somebody's deadline.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        match self.state {
            State::Idle => false,
            State::Wanted | State::Down { .. } => true,
            State::Opening { .. } | State::Up => !self.pending.is_empty(),
        }
    }

    /// Sends a command, or fails it at once when that is already certain.
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
            // Nobody waits for a Redis that was just seen dead or hung, or a part of it.
            State::Opening { .. } | State::Up | State::Down { .. } => {
                return vec![Output::Failed(waiter, CallFailure::Refused)];
            }
        };
        let deadline = now.after(self.timeout);
        self.expect(now, Awaited::Caller { waiter, command, deadline });
        send
    }

    /// Whether `command` leaves room for others.
    fn has_room(&self, command: &Command) -> bool {
        let free = MAX_PENDING.saturating_sub(self.pending.len());
        if self.pending.len() < CROWDED {
            return true;
        }
        let part = command.part();
        let of_part = self.pending.iter().filter(|pending| pending.awaited.part() == part).count();
        // A binding is made for an answer that is there already; admissions go before it.
        let share = if command.binds() { free / 2 } else { free };
        of_part < share
    }

    /// The worker was busy for so long until now, and could not hear Redis: that counts against nobody.
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

    /// Time has passed: opens what is wanted, gives up what is overdue.
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

    /// The stream that [`Output::Open`] asked for is there: tries it, then sends what waited.
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

    /// Bytes came.
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
                // A Redis that is loading its data, or a user who may not, answers with an error.
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

    /// Sends a script by its source; it stands behind what was sent in the meantime.
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

    /// A reply as the caller gets it: what only says that Redis cannot be asked now is a failure.
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

    /// How long Redis has owed an answer without a word.
    fn silence(&self, now: UnixTime) -> Duration {
        let first = self.pending.front();
        first.map_or(Duration::ZERO, |first| now.since(first.sent.max(self.heard)))
    }

    /// Looks after an open stream.
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

    /// Tells the callers whose deadline is `hopeless` that it took too long.
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

/// Whether a reply only says that Redis cannot be asked now, and why.
fn not_now(reply: &Value) -> Option<CallFailure> {
    /// Of a server that is starting, failing over or busy, and of a Cluster that lacks a part.
    const NOT_NOW: [&str; 6] =
        ["LOADING ", "MASTERDOWN ", "READONLY ", "BUSY ", "CLUSTERDOWN ", "TRYAGAIN "];
    let Value::Error(text) = reply else { return None };
    match text.as_str() {
        // Envoy's redis_proxy: the server behind it did not answer in time, or hung up.
        "upstream failure" => Some(CallFailure::Disconnected),
        "no upstream host" => Some(CallFailure::Refused),
        text if NOT_NOW.iter().any(|code| text.starts_with(code)) => Some(CallFailure::Refused),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
