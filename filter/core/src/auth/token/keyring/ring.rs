//! The keys of one issuer, and how the fetching of them goes.
//!
//! Owns when they may be used, when they are fetched again, and how long nobody asks after a failure.
//! Knows nothing of tokens.

use std::rc::Rc;
use std::time::Duration;

use crate::auth::token::jwks::KeySet;
use crate::driver::call::CallFailure;
use crate::time::UnixTime;

/// How long after a first failed fetch the next may start; doubles up to [`MOST_PATIENCE`].
const PATIENCE: Duration = Duration::from_secs(1);
const MOST_PATIENCE: Duration = Duration::from_secs(60);

/// What is known of an issuer's keys.
#[derive(Debug, Default)]
pub(super) enum Ring {
    /// No fetch has ended yet.
    #[default]
    Untried,
    /// None has brought keys yet.
    Failing(Failing),
    /// Keys came.
    Held(Held),
}

/// Keys that were fetched.
#[derive(Debug)]
pub(super) struct Held {
    keys: Rc<KeySet>,
    /// When these keys came.
    since: UnixTime,
    demand: Demand,
    /// How the fetches after that went, if any did not bring others.
    failing: Option<Failing>,
}

/// Whether anybody wants keys that are newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// No token asked for these keys since they came.
    Unused,
    /// One did.
    Used,
    /// One did, and the driver was told to refresh them and has not said what came of it.
    Refreshing,
}

/// Fetches that failed, one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failing {
    why: CallFailure,
    /// How many, less one.
    before: u32,
    /// When the last one ended.
    ended: UnixTime,
}

/// What may be done about a key that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// To fetch them.
    Fetch,
    /// Nothing now: that failed a moment ago.
    Unavailable(CallFailure),
    /// Nothing now: they came a moment ago.
    Fresh,
}

impl Ring {
    /// The keys, when they are younger than `stale`; somebody has a use for them.
    pub(super) fn used(&mut self, stale: Duration, now: UnixTime) -> Option<Rc<KeySet>> {
        let Self::Held(held) = self else { return None };
        if held.demand == Demand::Unused {
            held.demand = Demand::Used;
        }
        (now.since(held.since) < stale).then(|| held.keys.clone())
    }

    /// Why keys cannot be had now, when a fetch failed a moment ago.
    pub(super) fn wanting(&self, now: UnixTime) -> Option<CallFailure> {
        self.failing().filter(|failing| !failing.is_over(now)).map(|failing| failing.why)
    }

    /// A key is not among them. There may be others by now; asking for those is done once in `rest`,
    /// or names that anybody can make up would have this worker ask without end.
    pub(super) fn lacking(&self, rest: Duration, now: UnixTime) -> Remedy {
        let (ended, meanwhile) = match (self.failing(), self) {
            (Some(failing), _) => (failing.ended, Remedy::Unavailable(failing.why)),
            (None, Self::Held(held)) => (held.since, Remedy::Fresh),
            (None, Self::Untried | Self::Failing(_)) => return Remedy::Fetch,
        };
        if now.since(ended) >= rest { Remedy::Fetch } else { meanwhile }
    }

    /// Whether the keys are to be fetched again in the background, since they are of this age and
    /// somebody uses them. The fetch counts as started.
    pub(super) fn refresh(&mut self, every: Duration, now: UnixTime) -> bool {
        // Whoever needs first keys fetches them.
        let Self::Held(held) = self else { return false };
        let rested = held.failing.is_none_or(|failing| failing.is_over(now));
        let due = held.demand == Demand::Used && now.since(held.since) >= every && rested;
        if due {
            held.demand = Demand::Refreshing;
        }
        due
    }

    /// A fetch brought keys.
    pub(super) fn brought(&mut self, keys: KeySet, now: UnixTime) {
        let keys = Rc::new(keys);
        *self = Self::Held(Held { keys, since: now, demand: Demand::Unused, failing: None });
    }

    /// A fetch failed. Keys that were there before stay.
    pub(super) fn failed(&mut self, why: CallFailure, now: UnixTime) {
        let before = self.failing().map_or(0, |failing| failing.before.saturating_add(1));
        let failing = Failing { why, before, ended: now };
        match self {
            Self::Untried | Self::Failing(_) => *self = Self::Failing(failing),
            Self::Held(held) => {
                held.failing = Some(failing);
                if held.demand == Demand::Refreshing {
                    held.demand = Demand::Used;
                }
            }
        }
    }

    /// Why the last fetch failed; `None` when it did not.
    pub(super) fn failure(&self) -> Option<CallFailure> {
        self.failing().map(|failing| failing.why)
    }

    /// How many keys of the set that was fetched last were left out.
    pub(super) fn left_out(&self) -> usize {
        match self {
            Self::Untried | Self::Failing(_) => 0,
            Self::Held(held) => held.keys.left_out(),
        }
    }

    fn failing(&self) -> Option<Failing> {
        match self {
            Self::Untried => None,
            Self::Failing(failing) => Some(*failing),
            Self::Held(held) => held.failing,
        }
    }
}

impl Failing {
    /// Whether it was long enough ago for another try.
    fn is_over(self, now: UnixTime) -> bool {
        let doubled = 1_u32.checked_shl(self.before).unwrap_or(u32::MAX);
        let patience = PATIENCE.saturating_mul(doubled).min(MOST_PATIENCE);
        now.since(self.ended) >= patience
    }
}
