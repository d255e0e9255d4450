//! The life of the one Redis stream of a worker.
//!
//! Owns the queue of commands whose replies are outstanding (Redis answers in order), a deadline
//! for each, the reopening with back-off and jitter, and the reload of a script that Redis forgot.
//! Has no socket and no clock: the driver opens, sends and closes as told, and says what happened.

use std::collections::VecDeque;
use std::time::Duration;

use portcullis_redis_lua::{ADMIT, BIND, Script, Value};

use super::resp::{Command, Decoder};
use crate::call::CallFailure;
use crate::time::UnixTime;

/// Commands whose replies are outstanding; beyond it a new one fails at once rather than wait.
const MAX_PENDING: usize = 1_024;
/// The scripts that the filter runs, loaded whenever the stream opens.
const PREAMBLE: [&Script; 2] = [&ADMIT, &BIND];
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// What the driver must do, in order.
#[derive(Debug, PartialEq)]
pub enum Output<W> {
    /// Open the stream, then call [`Connection::opened`].
    Open,
    /// Send these bytes on the stream.
    Send(Vec<u8>),
    /// Close the stream; nothing more will be heard of it.
    Close,
    /// A command's reply.
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
    jitter: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has asked for anything yet.
    Idle,
    /// Commands wait for the first opening.
    Wanted,
    /// Open, and not yet heard from. `after` counts the failures that came before.
    Opening { after: u32 },
    /// Open and answering.
    Up,
    /// Lost; to be reopened at `until`. `failures` in a row.
    Down { until: UnixTime, failures: u32 },
}

#[derive(Debug)]
struct Pending<W> {
    waiter: Waiter<W>,
    command: Command,
    deadline: UnixTime,
}

#[derive(Debug)]
enum Waiter<W> {
    /// A request of the exchange.
    Caller(W),
    /// The connection itself: scripts that it loads when it opens.
    Preamble,
}

impl<W> Connection<W> {
    /// A stream that opens when it is first wanted. `seed` spreads the reopening of many workers.
    #[must_use]
    pub fn new(timeout: Duration, seed: u64) -> Self {
        Self {
            state: State::Idle,
            pending: VecDeque::new(),
            decoder: Decoder::default(),
            timeout,
            jitter: seed | 1,
        }
    }

    /// Whether Redis answered last time it was asked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Sends a command, or fails it at once when that is already certain.
    #[must_use]
    pub fn submit(&mut self, now: UnixTime, waiter: W, command: Command) -> Vec<Output<W>> {
        if self.pending.len() >= MAX_PENDING {
            return vec![Output::Failed(waiter, CallFailure::Refused)];
        }
        let send = match self.state {
            State::Idle | State::Wanted => {
                self.state = State::Wanted;
                Vec::new()
            }
            State::Opening { after: 0 } | State::Up => vec![Output::Send(command.encode())],
            // Nobody waits for a Redis that was just seen dead.
            State::Opening { .. } | State::Down { .. } => {
                return vec![Output::Failed(waiter, CallFailure::Refused)];
            }
        };
        let deadline = now.after(self.timeout);
        self.pending.push_back(Pending { waiter: Waiter::Caller(waiter), command, deadline });
        send
    }

    /// Time has passed: opens what is wanted, gives up what is overdue.
    #[must_use]
    pub fn tick(&mut self, now: UnixTime) -> Vec<Output<W>> {
        match self.state {
            State::Idle => Vec::new(),
            State::Wanted => vec![Output::Open],
            State::Down { until, .. } if now < until => Vec::new(),
            State::Down { .. } => vec![Output::Open],
            State::Opening { .. } | State::Up => {
                let overdue = self.pending.front().is_some_and(|head| head.deadline <= now);
                if !overdue {
                    return Vec::new();
                }
                // Replies come in order: without the first, none of them can be told apart.
                let mut out = vec![Output::Close];
                out.extend(self.lose(now, CallFailure::TimedOut));
                out
            }
        }
    }

    /// The stream that [`Output::Open`] asked for is there: sends scripts, then what waited.
    #[must_use]
    pub fn opened(&mut self, now: UnixTime) -> Vec<Output<W>> {
        let after = match self.state {
            State::Down { failures, .. } => failures,
            State::Idle | State::Wanted | State::Opening { .. } | State::Up => 0,
        };
        self.state = State::Opening { after };
        self.decoder = Decoder::default();
        let deadline = now.after(self.timeout);
        let waiting = std::mem::take(&mut self.pending);
        let preamble = PREAMBLE.iter().map(|script| Pending {
            waiter: Waiter::Preamble,
            command: Command::Load(script),
            deadline,
        });
        self.pending = preamble.chain(waiting).collect();
        self.pending.iter().map(|pending| Output::Send(pending.command.encode())).collect()
    }

    /// The stream could not be opened, or ended.
    #[must_use]
    pub fn closed(&mut self, now: UnixTime) -> Vec<Output<W>> {
        self.lose(now, CallFailure::Disconnected)
    }

    /// Bytes came.
    #[must_use]
    pub fn received(&mut self, now: UnixTime, bytes: &[u8]) -> Vec<Output<W>> {
        let replies = match self.decoder.feed(bytes) {
            Ok(replies) => replies,
            Err(_) => return self.abandon(now),
        };
        let mut out = Vec::new();
        for reply in replies {
            let Some(pending) = self.pending.pop_front() else {
                out.extend(self.abandon(now));
                return out;
            };
            match (pending.waiter, pending.command) {
                // A Redis that is loading its data, or a user who may not, answers with an error.
                (Waiter::Preamble, _) if matches!(reply, Value::Error(_)) => {
                    out.extend(self.abandon(now));
                    return out;
                }
                (Waiter::Preamble, _) => self.state = State::Up,
                (Waiter::Caller(waiter), Command::Script(call)) if reply.is_noscript() => {
                    let (waiter, deadline) = (Waiter::Caller(waiter), pending.deadline);
                    let command = Command::ScriptSource(call);
                    out.push(Output::Send(command.encode()));
                    self.pending.push_back(Pending { waiter, command, deadline });
                }
                (Waiter::Caller(waiter), _) => out.push(Output::Reply(waiter, reply)),
            }
        }
        out
    }

    fn abandon(&mut self, now: UnixTime) -> Vec<Output<W>> {
        let mut out = vec![Output::Close];
        out.extend(self.lose(now, CallFailure::Unreadable));
        out
    }

    fn lose(&mut self, now: UnixTime, why: CallFailure) -> Vec<Output<W>> {
        let failures = match self.state {
            State::Opening { after } => after.saturating_add(1),
            State::Down { failures, .. } => failures.saturating_add(1),
            State::Idle | State::Wanted | State::Up => 1,
        };
        let until = now.after(self.backoff(failures));
        self.state = State::Down { until, failures };
        self.decoder = Decoder::default();
        std::mem::take(&mut self.pending)
            .into_iter()
            .filter_map(|pending| match pending.waiter {
                Waiter::Caller(waiter) => Some(Output::Failed(waiter, why)),
                Waiter::Preamble => None,
            })
            .collect()
    }

    /// Doubles from [`FIRST_BACKOFF`] to [`LONGEST_BACKOFF`]; up to half of it less, by chance.
    fn backoff(&mut self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        let longest = FIRST_BACKOFF.saturating_mul(factor).min(LONGEST_BACKOFF);
        // xorshift64: not for secrets, only so that workers do not knock all at once.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let half = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX).div_ceil(2);
        longest.saturating_sub(Duration::from_micros(self.jitter.checked_rem(half).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests;
