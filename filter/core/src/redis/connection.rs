//! The life of the one Redis stream of a worker.
//!
//! Owns the queue of commands whose replies are outstanding (Redis answers in order), a deadline
//! for each, the reopening with back-off and jitter, and the reload of a script that Redis forgot. Has no socket and no clock: the driver opens, sends and closes as told, and says
//! what happened.
//!
//! A command that is overdue fails alone. Its reply is read and dropped when it comes, so that one
//! slow script costs those behind it what is left of their own deadlines, and not the stream.
//!
//! ```text
//!                 ┌──────────── an answer ◀───────────┐
//! Wanted ─▶ Opening ─ an answer ─▶ Up ─ silent for 2 deadlines ─▶ Up, stalled ─ silent for long ─▶ Down ─┐
//!             ▲ └──────────────── lost, or silent for long ──────────────────────────────────────▶ │     │
//!             └──────────────────────────── after a wait that doubles, with jitter ◀──────────────┘─────┘
//! ```
//! Commands wait in `Wanted`, in `Up` and in the very first `Opening`. Everywhere else they fail at once.

use std::collections::VecDeque;
use std::time::Duration;

use portcullis_redis_lua::{ScriptCall, Value};

use super::cause::Cause;
use super::not_now::not_now;
use super::resp::{Command, Decoder};
use crate::backoff::Backoff;
use crate::breaker::Breakers;
use crate::call::CallFailure;
use crate::time::UnixTime;

/// Commands whose replies are outstanding; beyond it a new one fails at once rather than wait.
const MAX_PENDING: usize = 1_024;
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
    /// A command's reply. Of several that asked for the same string, the first gets it; the others are
    /// told afterwards, with nil, that it has it.
    Reply(W, Value),
    /// A command's failure.
    Failed(W, CallFailure),
}

/// The stream of a worker; `W` names who waits for a reply.
#[derive(Debug)]
pub struct Connection<W> {
    state: State,
    pending: VecDeque<Pending<W>>,
    decoder: Decoder,
    timeout: Duration,
    /// When the last byte came.
    heard: UnixTime,
    backoff: Backoff,
    breakers: Breakers<String>,
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
    /// `others` asked for the same string after it, and are answered after it.
    Caller { waiter: W, command: Command, deadline: UnixTime, others: Vec<W> },
    /// By nobody any more: the caller was told that it took too long.
    Late,
    /// By the connection itself, to know whether anybody is there.
    Probe,
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
            backoff: Backoff::new(seed),
            breakers: Breakers::new(seed),
        }
    }

    /// Whether Redis answered last time it was asked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == State::Up
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
        if self.pending.len() >= MAX_PENDING {
            return vec![Output::Failed(waiter, CallFailure::Refused)];
        }
        let passes = !self.stalled(now) && self.lets_pass(now, &command);
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
        if let Some(first) = self.same_string(&command) {
            if first.len() >= MAX_PENDING {
                return vec![Output::Failed(waiter, CallFailure::Refused)];
            }
            first.push(waiter);
            return Vec::new();
        }
        self.expect(now, Awaited::Caller { waiter, command, deadline, others: Vec::new() });
        send
    }

    /// Who else waits for what `command` would read; a policy is megabytes, and all need it at once.
    fn same_string(&mut self, command: &Command) -> Option<&mut Vec<W>> {
        let Command::Get(wanted) = command else { return None };
        self.pending.iter_mut().find_map(|pending| match &mut pending.awaited {
            Awaited::Caller { command: Command::Get(key), others, .. } if key == wanted => {
                Some(others)
            }
            Awaited::Caller { .. } | Awaited::Late | Awaited::Probe => None,
        })
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
        self.heard = now;
        let Ok(replies) = self.decoder.feed(bytes) else {
            return self.abandon(now, Cause::Unreadable, CallFailure::Unreadable);
        };
        let mut out = Vec::new();
        for reply in replies {
            let awaited = self.pending.pop_front().map(|pending| pending.awaited);
            match (awaited, reply) {
                (
                    Some(Awaited::Caller {
                        waiter, command: Command::Script(call), deadline, ..
                    }),
                    reply,
                ) if reply.is_noscript() => {
                    out.push(self.resend(now, waiter, call, deadline));
                }
                (Some(Awaited::Caller { waiter, command, others, .. }), reply) => {
                    let why = not_now(&reply);
                    out.push(self.settled(now, waiter, &command, reply));
                    out.extend(others.into_iter().map(|other| match why {
                        Some(why) => Output::Failed(other, why),
                        None => Output::Reply(other, Value::Nil),
                    }));
                }
                (Some(Awaited::Late), _) => {}
                // A Redis that is loading its data, or a user who may not, answers with an error.
                (Some(Awaited::Probe), Value::Error(error)) => {
                    let cause = Cause::Unusable(error);
                    out.extend(self.abandon(now, cause, CallFailure::Unreadable));
                    return out;
                }
                (Some(Awaited::Probe), _) => self.state = State::Up,
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
        self.expect(now, Awaited::Caller { waiter, command, deadline, others: Vec::new() });
        send
    }

    fn lets_pass(&mut self, now: UnixTime, command: &Command) -> bool {
        let trial = self.timeout.saturating_mul(STALLED_AFTER);
        command.part().is_none_or(|part| self.breakers.lets_pass(now, part, trial))
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

    fn stalled(&self, now: UnixTime) -> bool {
        self.silence(now) >= self.timeout.saturating_mul(STALLED_AFTER)
    }

    /// Looks after an open stream.
    fn watch(&mut self, now: UnixTime) -> Vec<Output<W>> {
        let patience = GIVEN_UP_AFTER.max(self.timeout.saturating_mul(4));
        if self.silence(now) >= patience {
            return self.abandon(now, Cause::Silent, CallFailure::TimedOut);
        }
        if self.stalled(now) {
            return self.give_up(now, |_| true);
        }
        if self.pending.is_empty() && now.since(self.heard) >= IDLE_PROBE {
            return self.probe(now);
        }
        if self.decoder.is_within_a_reply() && now.since(self.heard) < self.timeout {
            // A large policy is on its way: Redis answers, and what waits behind it is next.
            return Vec::new();
        }
        self.give_up(now, |deadline| deadline <= now)
    }

    /// Tells the callers whose deadline is `hopeless` that it took too long.
    fn give_up(&mut self, now: UnixTime, hopeless: impl Fn(UnixTime) -> bool) -> Vec<Output<W>> {
        let mut out = Vec::new();
        for pending in &mut self.pending {
            let due = match &pending.awaited {
                Awaited::Caller { deadline, .. } => hopeless(*deadline),
                Awaited::Late | Awaited::Probe => false,
            };
            if due
                && let Awaited::Caller { waiter, command, others, .. } =
                    std::mem::replace(&mut pending.awaited, Awaited::Late)
            {
                command.part().inspect(|part| self.breakers.failed(now, *part));
                let all = std::iter::once(waiter).chain(others);
                out.extend(all.map(|waiter| Output::Failed(waiter, CallFailure::TimedOut)));
            }
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
        self.decoder = Decoder::default();
        std::mem::take(&mut self.pending)
            .into_iter()
            .flat_map(|pending| match pending.awaited {
                Awaited::Caller { waiter, mut others, .. } => {
                    others.insert(0, waiter);
                    others
                }
                Awaited::Late | Awaited::Probe => Vec::new(),
            })
            .map(|waiter| Output::Failed(waiter, why))
            .collect()
    }
}

#[cfg(test)]
mod tests;
