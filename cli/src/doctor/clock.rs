//! Compares other machines' clocks with this one.
//!
//! Owns the allowed differences. Tokens and keys expire by the clock of each Envoy, windows use that of Redis, and a
//! new key starts by ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Finding;

/// Above this, a key that was issued here may not be valid there yet.
const NOTICEABLE: Duration = Duration::from_secs(2);
/// Above this, Envoy refuses tokens of most issuers, or accepts expired ones.
const HARMFUL: Duration = Duration::from_secs(30);

pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `theirs` was read between `before` and now, with the precision `grain`.
pub(super) fn finding(check: &str, theirs: Duration, before: Duration, grain: Duration) -> Finding {
    let skew = if theirs.saturating_add(grain) < before {
        before.saturating_sub(theirs.saturating_add(grain))
    } else {
        theirs.saturating_sub(now())
    };
    let found = format!("{} ms from this machine's", skew.as_millis());
    if skew > HARMFUL {
        Finding::bad(check, found, "let NTP set the clocks of both machines")
    } else if skew > NOTICEABLE {
        Finding::warning(check, found, "let NTP set the clocks of both machines")
    } else {
        Finding::good(check, found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_clock_is_judged_in_both_directions() {
        let before = now();
        let second = Duration::from_secs(1);
        let state = |theirs| finding("clock", theirs, before, second).state;
        assert_eq!(state(before), State::Good);
        assert_eq!(state(before - second), State::Good, "a whole second says no more");
        for (seconds, expected) in [(10, State::Warning), (120, State::Bad)] {
            let skew = Duration::from_secs(seconds);
            assert_eq!((state(before + skew), state(before - skew)), (expected, expected));
        }
    }
}
