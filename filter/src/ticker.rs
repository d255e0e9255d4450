//! The period of the host's ticks.
//!
//! Owns that period. Deadlines, the opening of the Redis stream and the fetching of keys need ticks. While nothing is
//! pending, and always on Envoy's main thread, frequent ticks are unnecessary and cost an idle Envoy about a hundredth
//! of a processor. Does not know what a tick does.

use std::cell::Cell;
use std::time::Duration;

use portcullis_core::time::UnixTime;

use crate::host;

/// The period while nothing waits. It delays idle probes of Redis and the refresh of keys by at most this time.
const SLOW: Duration = Duration::from_secs(1);
/// The period for deadlines and the opening of streams.
const FAST: Duration = Duration::from_millis(10);
/// The time to the first fast tick: a stream opens only in the root context, and a request waits for it.
const SOON: Duration = Duration::from_millis(1);
/// After this many fast ticks without a request for one, slow ones follow: changing the period costs more than a tick.
const CALM: u8 = 50;

/// A tick later than this means that the worker was busy, not only that timers are coarse.
const LATE: Duration = Duration::from_millis(5);

/// The ticks of one worker.
pub(crate) struct Ticker {
    pace: Cell<Pace>,
    /// When the next tick is due.
    due: Cell<UnixTime>,
}

/// The current period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pace {
    /// Every [`SLOW`].
    #[default]
    Slow,
    /// The next after [`SOON`].
    Soon,
    /// Every [`FAST`]; nothing waited for this many.
    Fast { calm: u8 },
}

impl Pace {
    const fn period(self) -> Duration {
        match self {
            Self::Slow => SLOW,
            Self::Soon => SOON,
            Self::Fast { .. } => FAST,
        }
    }
}

impl Ticker {
    /// No ticks yet.
    pub(crate) fn new() -> Self {
        Self { pace: Cell::default(), due: Cell::new(host::now()) }
    }

    /// Asks for the first ticks of the current root context.
    pub(crate) fn start(&self) {
        self.tick_every(SLOW);
    }

    /// Something waits for a tick, perhaps only since now.
    pub(crate) fn wake(&self) {
        match self.pace.get() {
            Pace::Slow => {
                self.pace.set(Pace::Soon);
                self.tick_every(SOON);
            }
            Pace::Fast { .. } => self.pace.set(Pace::Fast { calm: 0 }),
            Pace::Soon => {}
        }
    }

    /// A tick is over, and something waits for the next.
    pub(crate) fn go_on(&self, now: UnixTime) {
        match self.pace.get() {
            Pace::Soon => self.change(Pace::Fast { calm: 0 }),
            Pace::Fast { .. } => self.keep(Pace::Fast { calm: 0 }, now),
            Pace::Slow => self.keep(Pace::Slow, now),
        }
    }

    /// A tick is over, and nothing waits.
    pub(crate) fn slow_down(&self, now: UnixTime) {
        match self.pace.get() {
            Pace::Soon => self.change(Pace::Fast { calm: 0 }),
            Pace::Fast { calm } if calm < CALM => {
                self.keep(Pace::Fast { calm: calm.saturating_add(1) }, now);
            }
            Pace::Fast { .. } => self.change(Pace::Slow),
            Pace::Slow => self.keep(Pace::Slow, now),
        }
    }

    /// A tick begins: it is late by the time for which the worker was too busy to receive replies.
    pub(crate) fn lateness(&self, now: UnixTime) -> Option<Duration> {
        let busy = now.since(self.due.get());
        (busy >= LATE).then_some(busy)
    }

    fn change(&self, pace: Pace) {
        self.pace.set(pace);
        self.tick_every(pace.period());
    }

    fn keep(&self, pace: Pace, now: UnixTime) {
        self.pace.set(pace);
        self.due.set(now.after(pace.period()));
    }

    fn tick_every(&self, period: Duration) {
        self.due.set(host::now().after(period));
        host::tick_every(period);
    }
}
