//! The keys of one issuer, and the state of their fetches.
//!
//! Owns when keys may be used, when they are fetched again, and how long the worker waits after a failure. Knows
//! nothing of tokens.

use std::rc::Rc;
use std::time::Duration;

use crate::auth::token::jwks::KeySet;
use crate::driver::call::CallFailure;
use crate::time::UnixTime;

/// How long after a first failed fetch the next may start; doubles up to [`MOST_PATIENCE`].
const PATIENCE: Duration = Duration::from_secs(1);
const MOST_PATIENCE: Duration = Duration::from_secs(60);

/// The state of an issuer's keys.
#[derive(Debug, Default)]
pub(super) enum Ring {
    /// No fetch has ended yet.
    #[default]
    Untried,
    /// Every fetch so far has failed.
    Failing(Failing),
    /// A fetch has succeeded.
    Held(Held),
}

/// Keys that were fetched.
#[derive(Debug)]
pub(super) struct Held {
    keys: Rc<KeySet>,
    /// When these keys arrived.
    since: UnixTime,
    demand: Demand,
    /// The failed fetches since then, if any.
    failing: Option<Failing>,
}

/// Whether newer keys are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// No token has used these keys since they arrived.
    Unused,
    /// A token has used them.
    Used,
    /// A token has used them, and the driver's background fetch has not ended yet.
    Refreshing,
}

/// Consecutive failed fetches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failing {
    why: CallFailure,
    /// Their number, minus one.
    before: u32,
    /// When the last one ended.
    ended: UnixTime,
}

/// What to do about an unknown key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Fetch the keys.
    Fetch,
    /// Nothing now: the fetch failed a moment ago.
    Unavailable(CallFailure),
    /// Nothing now: the keys are new.
    Fresh,
}

impl Ring {
    /// The keys, when they are younger than `stale`; marks them as used.
    pub(super) fn used(&mut self, stale: Duration, now: UnixTime) -> Option<Rc<KeySet>> {
        let Self::Held(held) = self else { return None };
        if held.demand == Demand::Unused {
            held.demand = Demand::Used;
        }
        (now.since(held.since) < stale).then(|| held.keys.clone())
    }

    /// Why there can be no keys now: a fetch failed a moment ago.
    pub(super) fn wanting(&self, now: UnixTime) -> Option<CallFailure> {
        self.failing().filter(|failing| !failing.is_over(now)).map(|failing| failing.why)
    }

    /// The remedy for an unknown key. The issuer may have published new keys; the worker fetches them once in `rest`,
    /// because otherwise made-up key names would cause endless fetches.
    pub(super) fn lacking(&self, rest: Duration, now: UnixTime) -> Remedy {
        let (ended, meanwhile) = match (self.failing(), self) {
            (Some(failing), _) => (failing.ended, Remedy::Unavailable(failing.why)),
            (None, Self::Held(held)) => (held.since, Remedy::Fresh),
            (None, Self::Untried | Self::Failing(_)) => return Remedy::Fetch,
        };
        if now.since(ended) >= rest { Remedy::Fetch } else { meanwhile }
    }

    /// Whether the keys must be fetched again in the background, because they are `every` old and in use. The fetch
    /// counts as started.
    pub(super) fn refresh(&mut self, every: Duration, now: UnixTime) -> bool {
        // The first token that needs keys fetches them.
        let Self::Held(held) = self else { return false };
        let rested = held.failing.is_none_or(|failing| failing.is_over(now));
        let due = held.demand == Demand::Used && now.since(held.since) >= every && rested;
        if due {
            held.demand = Demand::Refreshing;
        }
        due
    }

    /// Records a fetch that brought keys.
    pub(super) fn brought(&mut self, keys: KeySet, now: UnixTime) {
        let keys = Rc::new(keys);
        *self = Self::Held(Held { keys, since: now, demand: Demand::Unused, failing: None });
    }

    /// Records a failed fetch. The keys from before stay.
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

    /// How many keys of the last fetched set were left out.
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
    /// Whether the last failure is long enough ago for another try.
    fn is_over(self, now: UnixTime) -> bool {
        let doubled = 1_u32.checked_shl(self.before).unwrap_or(u32::MAX);
        let patience = PATIENCE.saturating_mul(doubled).min(MOST_PATIENCE);
        now.since(self.ended) >= patience
    }
}
