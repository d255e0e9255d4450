//! How often the host calls back by itself.
//!
//! Owns the period of ticks. Deadlines, the opening of the Redis stream and the fetching of keys hang
//! on them; while nothing is outstanding, and always on Envoy's main thread, they are hardly needed
//! and cost an idle proxy about a hundredth of a processor. Does not know what a tick does.

use std::time::Duration;

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

impl State {
    /// Whether anything hangs on the next tick: a deadline or an opening of Redis, or keys that somebody
    /// wants and nobody fetches yet.
    fn is_waiting(&self) -> bool {
        self.redis.is_waiting() || self.fetches.values().any(Fetch::is_waiting)
    }
}

impl Gateway {
    /// Asks for the first ticks of the current root context.
    pub(crate) fn start_ticking(&self) {
        host::tick_every(SLOW);
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
        period.flatten().into_iter().for_each(host::tick_every);
    }

    /// A tick is over.
    pub(crate) fn slow_down(&self) {
        let period = self.with(|state| {
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
            period
        });
        period.flatten().into_iter().for_each(host::tick_every);
    }
}
