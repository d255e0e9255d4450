//! Whether it is worth while to ask, by the part of Redis that would have to answer.
//!
//! Owns what counts as one part: everything with one hash tag is in one place, in a Cluster too. Of
//! a Cluster one node may hang while the others answer; through Envoy each command to it would wait
//! for its time to run out, and hold up the replies behind it. After some failures in a row nobody
//! waits any more; now and then a single command tries, after waits that grow, with jitter.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use super::backoff::Backoff;
use crate::time::UnixTime;

/// So many failures in a row, and the part counts as dead.
const FAILURES: u32 = 3;
/// Only parts that failed lately are kept in mind.
const MAX_PARTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(999);

#[derive(Debug)]
pub(super) struct Breakers {
    parts: LruCache<String, Part>,
    backoff: Backoff,
    /// How long a trial may be out.
    trial: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    failures: u32,
    /// When the next trial may go; of interest once there are enough failures.
    until: UnixTime,
}

impl Breakers {
    pub(super) fn new(trial: Duration, seed: u64) -> Self {
        Self { parts: LruCache::new(MAX_PARTS), backoff: Backoff::new(seed), trial }
    }

    /// Whether a command for the key `key` may go. If it is a trial, no other one goes beside it.
    pub(super) fn lets_pass(&mut self, now: UnixTime, key: &str) -> bool {
        let Some(part) = self.parts.get_mut(part_of(key)) else { return true };
        if part.failures < FAILURES {
            return true;
        }
        let due = now >= part.until;
        if due {
            part.until = now.after(self.trial);
        }
        due
    }

    /// A command for `key` was answered.
    pub(super) fn answered(&mut self, key: &str) {
        // Nearly always there is nothing to forget.
        if !self.parts.is_empty() {
            self.parts.pop(part_of(key));
        }
    }

    /// A command for `key` was not answered in time, or with nothing but a failure.
    pub(super) fn failed(&mut self, now: UnixTime, key: &str) {
        let before = self.parts.get(part_of(key)).map_or(0, |part| part.failures);
        let failures = before.saturating_add(1);
        let over = failures.saturating_sub(FAILURES.saturating_sub(1)).max(1);
        let until = now.after(self.backoff.wait(over));
        self.parts.put(part_of(key).to_owned(), Part { failures, until });
    }
}

/// What Redis Cluster hashes of a key: its tag if it has one (the text in the first braces), else all.
fn part_of(key: &str) -> &str {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty()).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: &str = "portcullis:{acme}:key:k1";
    const TRIAL: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> UnixTime {
        UnixTime::from_micros(millis * 1_000)
    }

    fn dead() -> Breakers {
        let mut breakers = Breakers::new(TRIAL, 7);
        (0..FAILURES).for_each(|_| breakers.failed(at(0), ACME));
        breakers
    }

    #[test]
    fn a_part_is_what_a_cluster_keeps_in_one_place() {
        assert_eq!(part_of("portcullis:{acme}:window:{x}"), "acme");
        assert_eq!(part_of("portcullis:policy:doc:v1"), "portcullis:policy:doc:v1");
        assert_eq!(part_of("a{}b"), "a{}b", "an empty tag is none");
        assert_eq!(part_of("a{b"), "a{b");
    }

    #[test]
    fn a_dead_part_is_left_alone_and_no_other_is() {
        let mut breakers = Breakers::new(TRIAL, 7);
        for _ in 1..FAILURES {
            breakers.failed(at(0), ACME);
            assert!(breakers.lets_pass(at(0), ACME), "it may be chance");
        }
        breakers.failed(at(0), ACME);
        assert!(!breakers.lets_pass(at(1), ACME));
        assert!(!breakers.lets_pass(at(1), "portcullis:{acme}:policy"), "in the same place");
        assert!(breakers.lets_pass(at(1), "portcullis:{globex}:policy"));
    }

    #[test]
    fn one_command_at_a_time_tries_until_one_is_answered() {
        let mut breakers = dead();
        assert!(breakers.lets_pass(at(50), ACME), "a trial");
        assert!(!breakers.lets_pass(at(51), ACME), "while it is out");
        breakers.failed(at(90), ACME);
        assert!(!breakers.lets_pass(at(139), ACME), "the wait is longer now");
        assert!(breakers.lets_pass(at(190), ACME));
        // Of a trial that is never heard of again (its stream was lost) the time runs out.
        assert!(breakers.lets_pass(at(290), ACME));
        breakers.answered(ACME);
        assert!(breakers.lets_pass(at(291), ACME));
        breakers.failed(at(292), ACME);
        assert!(breakers.lets_pass(at(292), ACME), "it starts anew");
    }

    #[test]
    fn a_trial_is_never_far_away() {
        let mut breakers = dead();
        (0..1_000).for_each(|_| breakers.failed(at(0), ACME));
        assert!(breakers.lets_pass(at(1_000), ACME));
    }

    #[test]
    fn success_between_failures_means_alive() {
        let mut breakers = Breakers::new(TRIAL, 7);
        for _ in 0..10 {
            breakers.failed(at(0), ACME);
            breakers.failed(at(0), ACME);
            breakers.answered(ACME);
        }
        assert!(breakers.lets_pass(at(0), ACME));
    }
}
