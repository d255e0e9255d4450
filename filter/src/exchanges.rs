//! The exchanges of one worker.
//!
//! Owns the table of exchanges by context id, what the host holds of each stream, and the times of each stream. Calls
//! no host: the gateway executes an exchange's answer to an event.

use std::cell::Cell;
use std::time::Duration;

use portcullis_core::denial::Denial;
use portcullis_core::driver::event::{Closing, End, Event, ResponseHead};
use portcullis_core::driver::step::Step;
use portcullis_core::exchange::Exchange;
use portcullis_core::hashing::Map;
use portcullis_core::http::local_reply::LocalReply;
use portcullis_core::order;
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;

use crate::guarded::Guarded;

/// The interval at which open responses are checked, and the most about which Redis is asked each time.
const BETWEEN_RECHECKS: Duration = Duration::from_secs(1);
const MOST_RECHECKS: usize = 100;

/// The exchanges of one worker.
#[derive(Default)]
pub(crate) struct Exchanges {
    entries: Guarded<Map<u32, Entry>>,
    /// When open responses were last checked.
    rechecked: Cell<Option<UnixTime>>,
}

struct Entry {
    exchange: Exchange,
    held: Held,
    body: Body,
    times: Times,
}

/// What the host holds of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// The request: nothing was sent upstream.
    Request,
    /// The response: its headers wait for a call.
    Response,
    /// Nothing.
    Nothing,
}

/// Whether the host shows the body of a request whose headers are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// It did.
    Shown,
    /// It has not yet.
    Unseen,
    /// It has not yet, and was last asked then.
    UnseenAt(UnixTime),
}

/// The times of a stream, by this VM's clock.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// Its headers arrived.
    begun: Option<UnixTime>,
    /// A part of it was sent upstream.
    passed: Option<UnixTime>,
    /// The last part of its response arrived.
    answered: Option<UnixTime>,
}

impl Times {
    fn note(&mut self, event: &Event, now: UnixTime) {
        match event {
            Event::Head { .. } => self.begun = Some(now),
            Event::ResponseHead(ResponseHead { last: true, .. })
            | Event::ResponseBody { last: true, .. } => self.answered = Some(now),
            _ => {}
        }
    }

    /// The end of a request whose response came completely, at `now`.
    fn closing(
        &self,
        now: UnixTime,
        (http_status, end): (u16, End),
        attempts: Option<u64>,
    ) -> Closing {
        let since = |from: Option<UnixTime>, to: UnixTime| {
            from.map(|from| u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX))
        };
        Closing {
            http_status: Some(http_status),
            latency_ms: since(self.begun, now).unwrap_or(0),
            upstream_ms: self.answered.and_then(|answered| since(self.passed, answered)),
            attempts,
            end,
        }
    }
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The upstream's response came completely: with this status, after this many attempts.
    Whole { answer: (u16, End), attempts: Option<u64> },
    /// As the host reports it.
    Told(Closing),
}

impl Exchanges {
    pub(crate) fn open(&self, context: u32) {
        let (exchange, times) = (Exchange::default(), Times::default());
        let entry = Entry { exchange, held: Held::Request, body: Body::Unseen, times };
        self.entries.with(|entries| entries.insert(context, entry));
    }

    pub(crate) fn forget(&self, context: u32) {
        self.entries.with(|entries| entries.remove(&context));
    }

    fn entry<T>(&self, context: u32, act: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.entries.with(|entries| entries.get_mut(&context).map(act)).flatten()
    }

    fn judge(
        &self,
        worker: &Guarded<Worker>,
        context: u32,
        act: impl FnOnce(&mut Entry, &mut Worker) -> Step,
    ) -> Option<Step> {
        self.entry(context, |entry| worker.with(|worker| act(entry, worker))).flatten()
    }

    /// Steps the exchange of `context`.
    pub(crate) fn step(
        &self,
        worker: &Guarded<Worker>,
        (context, now): (u32, UnixTime),
        event: Event,
    ) -> Option<Step> {
        self.judge(worker, context, |entry, worker| {
            entry.times.note(&event, now);
            entry.exchange.step(worker, now, event)
        })
    }

    /// `bytes` of the request's body have arrived, and more follow.
    pub(crate) fn receive(
        &self,
        worker: &Guarded<Worker>,
        (context, now): (u32, UnixTime),
        bytes: usize,
    ) -> Option<Step> {
        self.judge(worker, context, |entry, worker| {
            entry.body = Body::Shown;
            entry.exchange.receive(worker, now, bytes)
        })
    }

    /// The stream of `context` ended.
    pub(crate) fn close(
        &self,
        worker: &Guarded<Worker>,
        (context, now): (u32, UnixTime),
        ending: Ending,
    ) -> Option<Step> {
        self.judge(worker, context, |entry, worker| {
            let closing = match ending {
                Ending::Whole { answer, attempts } => entry.times.closing(now, answer, attempts),
                Ending::Told(closing) => closing,
            };
            entry.exchange.step(worker, now, Event::Closed(closing))
        })
    }

    /// The open responses whose recheck is due; at most once a second.
    pub(crate) fn due_rechecks(&self, now: UnixTime) -> Vec<u32> {
        if self.rechecked.get().is_some_and(|last| now.since(last) < BETWEEN_RECHECKS) {
            return Vec::new();
        }
        self.rechecked.set(Some(now));
        let due = |entry: &Entry| entry.exchange.recheck_due().is_some_and(|due| due <= now);
        let due = self.entries.with(|entries| {
            let due = entries.iter().filter(|(_, entry)| due(entry));
            due.map(|(context, _)| *context).take(MOST_RECHECKS).collect()
        });
        due.unwrap_or_default()
    }

    /// Rechecks whether the caller may receive the response of `context`.
    pub(crate) fn recheck(
        &self,
        worker: &Guarded<Worker>,
        (context, now): (u32, UnixTime),
    ) -> Option<Step> {
        self.judge(worker, context, |entry, worker| entry.exchange.recheck(worker, now))
    }

    /// The gateway's response to a request that it refuses.
    pub(crate) fn reply(&self, context: u32, denial: &Denial) -> Option<LocalReply> {
        self.entry(context, |entry| entry.exchange.reply(denial))
    }

    /// What the host holds of `context`; an unknown exchange holds its request.
    pub(crate) fn held(&self, context: u32) -> Held {
        self.entry(context, |entry| entry.held).unwrap_or(Held::Request)
    }

    pub(crate) fn set_held(&self, context: u32, held: Held) {
        self.entry(context, |entry| entry.held = held);
    }

    /// Nothing of `context` is held any more.
    pub(crate) fn let_go(&self, context: u32, now: UnixTime) {
        self.entry(context, |entry| {
            entry.held = Held::Nothing;
            entry.times.passed.get_or_insert(now);
        });
    }

    /// Requests whose body the host has not shown for at least `patience`: at most `most` of them, those that were
    /// returned longest ago.
    pub(crate) fn unseen_bodies(&self, now: UnixTime, patience: Duration, most: usize) -> Vec<u32> {
        let unseen = self.entries.with(|entries| {
            let mut unseen = Vec::new();
            for (context, entry) in entries.iter_mut() {
                match entry.body {
                    Body::Unseen if entry.exchange.awaits_body() => {
                        entry.body = Body::UnseenAt(now);
                    }
                    Body::UnseenAt(since)
                        if now.since(since) >= patience && entry.exchange.awaits_body() =>
                    {
                        unseen.push((since, *context));
                    }
                    Body::Shown | Body::Unseen | Body::UnseenAt(_) => {}
                }
            }
            order::sort(&mut unseen);
            unseen.truncate(most);
            for (_, context) in &unseen {
                if let Some(entry) = entries.get_mut(context) {
                    entry.body = Body::UnseenAt(now);
                }
            }
            unseen.into_iter().map(|(_, context)| context).collect()
        });
        unseen.unwrap_or_default()
    }
}
