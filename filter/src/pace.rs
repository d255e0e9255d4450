//! How often the host calls back by itself.
//!
//! Owns the period of ticks. Deadlines, the opening of the Redis stream and the fetching of keys hang
//! on them; while nothing is outstanding, and always on Envoy's main thread, they are hardly needed
//! and cost an idle proxy about a hundredth of a processor. Does not know what a tick does.

use std::time::Duration;

use portcullis_core::time::UnixTime;

use crate::gateway::{Gateway, State};
use crate::host;
use crate::keys::Fetch;

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

/// The ticks that were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pace {
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

impl State {
    /// Whether anything hangs on the next tick: a deadline or an opening of Redis, a stream to reset,
    /// mail that nobody was woken for, a document, or keys that somebody wants and nobody fetches yet.
    fn is_waiting(&self) -> bool {
        self.redis.is_waiting()
            || !self.given_up.is_empty()
            || !self.mail.is_empty()
            || self.documents.is_waiting()
            || self.fetches.values().any(Fetch::is_waiting)
    }

    fn tick_every(&mut self, period: Duration) {
        self.tick_due = host::now().after(period);
        host::tick_every(period);
    }
}

impl Gateway {
    /// Asks for the first ticks of the current root context.
    pub(crate) fn start_ticking(&self) {
        self.with(|state| state.tick_every(SLOW));
    }

    /// Something may have begun to wait.
    pub(crate) fn hurry(&self) {
        let period = self.with(|state| match (state.is_waiting(), state.pace) {
            (true, Pace::Slow) => {
                state.pace = Pace::Soon;
                Some(SOON)
            }
            (true, Pace::Fast { .. }) => {
                state.pace = Pace::Fast { calm: 0 };
                None
            }
            (true, Pace::Soon) | (false, _) => None,
        });
        self.with(|state| period.flatten().into_iter().for_each(|period| state.tick_every(period)));
    }

    /// A tick is over.
    pub(crate) fn slow_down(&self, now: UnixTime) {
        self.with(|state| {
            let (pace, period) = match (state.is_waiting(), state.pace) {
                (_, Pace::Soon) => (Pace::Fast { calm: 0 }, Some(FAST)),
                (true, Pace::Fast { .. }) => (Pace::Fast { calm: 0 }, None),
                (false, Pace::Fast { calm }) if calm < CALM => {
                    (Pace::Fast { calm: calm.saturating_add(1) }, None)
                }
                (false, Pace::Fast { .. }) => (Pace::Slow, Some(SLOW)),
                (_, Pace::Slow) => (Pace::Slow, None),
            };
            state.pace = pace;
            match period {
                Some(period) => state.tick_every(period),
                None => state.tick_due = now.after(pace.period()),
            }
        });
    }

    /// A tick begins: how late it is is how long the worker was too busy to hear Redis.
    pub(crate) fn measure_lateness(&self, now: UnixTime) {
        self.with(|state| {
            let busy = now.since(state.tick_due);
            if busy >= LATE {
                state.redis.excuse(now, busy);
            }
        });
    }
}
