//! Whether it is worth while to ask, by the part of a dependency that would have to answer.
//!
//! Owns when a part counts as dead, and when it is tried. After some failures in a row no request waits any
//! more; now and then a single call tries, after waits that grow, with jitter. What one part is, and what
//! counts as a failure, is the business of those who ask: of a Redis Cluster the keys of one
//! organisation, of Vault one secret.

use std::borrow::Borrow;
use std::fmt::Debug;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use crate::resilience::backoff::Backoff;
use crate::time::UnixTime;

/// So many failures in a row, and the part counts as dead.
const FAILURES: u32 = 3;
/// Only parts that failed lately are kept in mind.
const MAX_PARTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(999);

/// What is known of the parts of one dependency.
#[derive(Debug)]
pub struct Breakers<K: Debug + Hash + Eq> {
    parts: LruCache<K, Breaker>,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug)]
struct Breaker {
    failures: u32,
    /// When the next probe may go; of interest once there are enough failures.
    until: UnixTime,
}

impl<K: Debug + Hash + Eq> Breakers<K> {
    /// All is well, for all that is known. `seed` is for the jitter.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { parts: LruCache::new(MAX_PARTS), backoff: Backoff::new(seed) }
    }

    /// Whether `part` may be asked. If it is a probe, no other one goes beside it for as long as `probe`.
    #[must_use]
    pub fn lets_pass<Q>(&mut self, now: UnixTime, part: &Q, probe: Duration) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let Some(part) = self.parts.get_mut(part) else { return true };
        if part.failures < FAILURES {
            return true;
        }
        let due = now >= part.until;
        if due {
            part.until = now.after(probe);
        }
        due
    }

    /// Whether no question to `part` is under way. Another than this question is no probe.
    #[must_use]
    pub fn is_open<Q>(&self, now: UnixTime, part: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let part = self.parts.peek(part);
        part.is_some_and(|part| part.failures >= FAILURES && now < part.until)
    }

    /// `part` answered.
    pub fn answered<Q>(&mut self, part: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        // Nearly always there is nothing to forget.
        if !self.parts.is_empty() {
            self.parts.pop(part);
        }
    }

    /// `part` did not answer in time, or with nothing but a failure.
    pub fn failed<Q>(&mut self, now: UnixTime, part: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let before = self.parts.get(part).map_or(0, |part| part.failures);
        let failures = before.saturating_add(1);
        let over = failures.saturating_sub(FAILURES.saturating_sub(1)).max(1);
        let until = now.after(self.backoff.wait(over));
        self.parts.put(part.to_owned(), Breaker { failures, until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: &str = "acme";
    const PROBE: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> UnixTime {
        UnixTime::from_micros(millis * 1_000)
    }

    fn dead() -> Breakers<String> {
        let mut breakers = Breakers::<String>::new(7);
        (0..FAILURES).for_each(|_| breakers.failed(at(0), ACME));
        breakers
    }

    #[test]
    fn a_dead_part_is_left_alone_and_no_other_is() {
        let mut breakers = Breakers::<String>::new(7);
        for _ in 1..FAILURES {
            breakers.failed(at(0), ACME);
            assert!(breakers.lets_pass(at(0), ACME, PROBE), "it may be chance");
        }
        breakers.failed(at(0), ACME);
        assert!(!breakers.lets_pass(at(1), ACME, PROBE));
        assert!(breakers.lets_pass(at(1), "globex", PROBE));
    }

    #[test]
    fn one_command_at_a_time_tries_until_one_is_answered() {
        let mut breakers = dead();
        assert!(breakers.lets_pass(at(50), ACME, PROBE), "a probe");
        assert!(!breakers.lets_pass(at(51), ACME, PROBE), "while it is out");
        assert!(breakers.is_open(at(51), ACME) && !breakers.is_open(at(51), "globex"));
        breakers.failed(at(90), ACME);
        assert!(!breakers.lets_pass(at(139), ACME, PROBE), "the wait is longer now");
        assert!(breakers.lets_pass(at(190), ACME, PROBE));
        // Of a probe that is never heard of again (its stream was lost) the time runs out.
        assert!(breakers.lets_pass(at(290), ACME, PROBE));
        breakers.answered(ACME);
        assert!(breakers.lets_pass(at(291), ACME, PROBE));
        breakers.failed(at(292), ACME);
        assert!(breakers.lets_pass(at(292), ACME, PROBE), "it starts anew");
    }

    #[test]
    fn a_trial_is_never_far_away() {
        let mut breakers = dead();
        (0..1_000).for_each(|_| breakers.failed(at(0), ACME));
        assert!(breakers.lets_pass(at(1_000), ACME, PROBE));
    }

    #[test]
    fn success_between_failures_means_alive() {
        let mut breakers = Breakers::<String>::new(7);
        for _ in 0..10 {
            breakers.failed(at(0), ACME);
            breakers.failed(at(0), ACME);
            breakers.answered(ACME);
        }
        assert!(breakers.lets_pass(at(0), ACME, PROBE));
    }
}
