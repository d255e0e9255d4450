//! How often the host calls back by itself.
//!
//! Owns the period of ticks. Deadlines, the opening of the Redis stream and the fetching of keys hang
//! on them; while nothing is outstanding, and always on Envoy's main thread, they are hardly needed
//! and cost an idle proxy about a hundredth of a processor. Does not know what a tick does.

use std::cell::Cell;
use std::time::Duration;

use portcullis_core::time::UnixTime;

use crate::host;

/// While nothing waits. Idle probes of Redis and the refreshing of keys are late by at most as much.
const SLOW: Duration = Duration::from_secs(1);
/// How often deadlines are looked at and streams are opened.
const FAST: Duration = Duration::from_millis(10);
/// Until the first tick of those: a stream opens in the root context only, and somebody waits for it.
const SOON: Duration = Duration::from_millis(1);
/// So many fast ticks in which nobody asked for anything are followed by slow ones: to change the period
/// costs more than a tick.
const CALM: u8 = 50;

/// Later than this, a tick says that the worker was busy, and not only that timers are coarse.
const LATE: Duration = Duration::from_millis(5);

/// The ticks of one worker.
pub(crate) struct Ticker {
    pace: Cell<Pace>,
    /// When the next tick is due.
    due: Cell<UnixTime>,
}

/// The ticks that were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pace {
    /// Every [`SLOW`].
    #[default]
    Slow,
    /// The next after [`SOON`].
    Soon,
    /// Every [`FAST`]; for so many nothing waited.
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

    /// Something waits for a tick, and may only have begun to.
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

    /// A tick begins: for how long the worker was too busy to hear Redis is how late it is.
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
