//! Slows down whoever guesses: after some failures an address has to wait, and for longer each time.
//!
//! Owns what a worker remembers of addresses and of credentials that it has proven itself. It is
//! advice, not a lock (each worker has its own memory): it keeps a burst of bad credentials from
//! costing a call to Redis each, and a key that was proven here is never in its way, whoever else
//! shares the address (requirement A14). No IO, no clock; every operation takes constant time.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use crate::decode::{Faults, Node};
use crate::time::UnixTime;

const MAX_ADDRESSES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
const MAX_PROVEN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// How long a proof counts without being renewed.
const PROVEN_FOR: Duration = Duration::from_secs(3_600);

/// When to slow down, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowdownConfig {
    /// This many failures from one address are one too many; 0 never slows anybody down.
    pub failures: u32,
    /// Within this time.
    pub window: Duration,
    /// The longest wait, and the quiet time after which an address is forgiven.
    pub longest: Duration,
}

impl Default for SlowdownConfig {
    fn default() -> Self {
        Self { failures: 100, window: Duration::from_secs(60), longest: Duration::from_secs(300) }
    }
}

impl SlowdownConfig {
    /// Reads `auth.slowdown`. A field that is absent or faulty has its default here.
    pub fn read(node: Node<'_>, faults: &mut Faults) -> Self {
        const DAY: u64 = 86_400;
        let Self { failures, window, longest } = Self::default();
        let Some(mut fields) = node.object(faults, "an object") else { return Self::default() };
        let mut number = |name, range, unit: &str, default| {
            let node = fields.optional(name);
            node.and_then(|node| node.integer(faults, range, unit)).unwrap_or(default)
        };
        let failures = number("failures", 0..=1_000_000, "failures", u64::from(failures));
        let window = number("window_seconds", 1..=DAY, "seconds", window.as_secs());
        let longest = number("longest_seconds", 1..=DAY, "seconds", longest.as_secs());
        fields.finish(faults);
        Self {
            failures: u32::try_from(failures).unwrap_or(u32::MAX),
            window: Duration::from_secs(window),
            longest: Duration::from_secs(longest),
        }
    }
}

/// What a credential is remembered by: a SHA-256 of it, or of the certificate.
pub type Proof = [u8; 32];

/// What one worker remembers.
#[derive(Debug)]
pub struct Slowdown {
    config: SlowdownConfig,
    addresses: LruCache<Source, Trouble>,
    proven: LruCache<Proof, UnixTime>,
}

/// Who fails: an IPv4 address, or the /64 that one IPv6 host chooses its addresses from. What is no
/// address (a socket's path) is one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Address(IpAddr),
    Unknown,
}

/// Failures of one source.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Counted since the first of them.
    Counting { since: UnixTime, failures: u32 },
    /// Told to wait until `until`; `wait` is how long that was.
    Waiting { until: UnixTime, wait: Duration },
}

impl Slowdown {
    /// A memory in which nobody has failed.
    #[must_use]
    pub fn new(config: SlowdownConfig) -> Self {
        let (addresses, proven) = (LruCache::new(MAX_ADDRESSES), LruCache::new(MAX_PROVEN));
        Self { config, addresses, proven }
    }

    /// Takes a new configuration; waits that have begun stay as they are.
    pub fn reconfigure(&mut self, config: SlowdownConfig) {
        self.config = config;
    }

    /// Whether a request from `address` is judged now.
    ///
    /// # Errors
    /// How long it has to wait, if its credential was not proven here lately.
    pub fn check(
        &mut self,
        address: &str,
        credential: &Proof,
        now: UnixTime,
    ) -> Result<(), Duration> {
        let wait = match self.addresses.peek(&Source::of(address)) {
            Some(Trouble::Waiting { until, wait }) => remaining(*until, *wait, now),
            Some(Trouble::Counting { .. }) | None => Duration::ZERO,
        };
        if wait.is_zero() || self.is_proven(credential, now) { Ok(()) } else { Err(wait) }
    }

    /// A credential from `address` was not accepted. It no longer counts as proven.
    pub fn failed(&mut self, address: &str, credential: &Proof, now: UnixTime) {
        self.proven.pop(credential);
        if self.config.failures == 0 {
            return;
        }
        let source = Source::of(address);
        let trouble = match self.addresses.get(&source) {
            Some(trouble) => trouble.after_failure(&self.config, now),
            None => Trouble::first(&self.config, now),
        };
        self.addresses.put(source, trouble);
    }

    /// A credential was accepted. Its address's failures stay: a good key is no licence to guess.
    pub fn succeeded(&mut self, credential: Proof, now: UnixTime) {
        self.proven.put(credential, now);
    }

    fn is_proven(&self, credential: &Proof, now: UnixTime) -> bool {
        self.proven.peek(credential).is_some_and(|at| now.since(*at) < PROVEN_FOR)
    }
}

impl Trouble {
    fn first(config: &SlowdownConfig, now: UnixTime) -> Self {
        Self::counted(config, now, 1, now)
    }

    fn counted(config: &SlowdownConfig, since: UnixTime, failures: u32, now: UnixTime) -> Self {
        if failures < config.failures {
            return Self::Counting { since, failures };
        }
        let wait = FIRST.min(config.longest);
        Self::Waiting { until: now.after(wait), wait }
    }

    fn after_failure(self, config: &SlowdownConfig, now: UnixTime) -> Self {
        match self {
            Self::Counting { since, failures } if now.since(since) < config.window => {
                Self::counted(config, since, failures.saturating_add(1), now)
            }
            Self::Counting { .. } => Self::first(config, now),
            // It was on its way before the wait began: one burst is one offence.
            Self::Waiting { until, wait } if !remaining(until, wait, now).is_zero() => self,
            Self::Waiting { until, .. } if now.since(until) >= config.longest => {
                Self::first(config, now)
            }
            Self::Waiting { wait, .. } => {
                let wait = wait.saturating_mul(2).min(config.longest);
                Self::Waiting { until: now.after(wait), wait }
            }
        }
    }
}

/// What is left of a wait: never more than the wait itself, also when the clock was set back.
fn remaining(until: UnixTime, wait: Duration, now: UnixTime) -> Duration {
    let left = until.since(now);
    if left > wait { Duration::ZERO } else { left }
}

impl Source {
    fn of(address: &str) -> Self {
        match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                Self::Address(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            Ok(address) => Self::Address(address),
            Err(_) => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GOOD: Proof = [1; 32];
    const BAD: Proof = [2; 32];
    const HOST: &str = "192.0.2.7";

    fn at(second: u64) -> UnixTime {
        UnixTime::from_micros(second * 1_000_000)
    }

    fn three_a_minute() -> Slowdown {
        Slowdown::new(SlowdownConfig {
            failures: 3,
            window: Duration::from_secs(60),
            longest: Duration::from_secs(5),
        })
    }

    fn wait(slowdown: &mut Slowdown, address: &str, second: u64) -> u64 {
        slowdown.check(address, &BAD, at(second)).err().map_or(0, |wait| wait.as_secs())
    }

    #[test]
    fn waits_grow_up_to_the_longest_and_end() {
        let mut slowdown = three_a_minute();
        for second in 0..3 {
            assert_eq!(wait(&mut slowdown, HOST, second), 0);
            slowdown.failed(HOST, &BAD, at(second));
        }
        let mut now = 2;
        for expected in [1, 2, 4, 5, 5] {
            assert_eq!(wait(&mut slowdown, HOST, now), expected);
            now += expected;
            assert_eq!(wait(&mut slowdown, HOST, now), 0, "a try after each wait");
            slowdown.failed(HOST, &BAD, at(now));
        }
        // Forgiven after as long a quiet time as the longest wait.
        now += 5 + 5;
        slowdown.failed(HOST, &BAD, at(now));
        assert_eq!(wait(&mut slowdown, HOST, now), 0);
    }

    #[test]
    fn failures_far_apart_are_nobodys_guessing() {
        let mut slowdown = three_a_minute();
        for minute in 0..20 {
            slowdown.failed(HOST, &BAD, at(minute * 60));
            assert_eq!(wait(&mut slowdown, HOST, minute * 60), 0);
        }
    }

    #[test]
    fn one_burst_is_one_offence() {
        let mut slowdown = three_a_minute();
        for _ in 0..100 {
            slowdown.failed(HOST, &BAD, at(0));
        }
        assert_eq!(wait(&mut slowdown, HOST, 0), 1);
    }

    // Proves: A14
    #[test]
    fn a_proven_credential_does_not_pay_for_its_neighbours() {
        let mut slowdown = three_a_minute();
        slowdown.succeeded(GOOD, at(0));
        for _ in 0..3 {
            slowdown.failed(HOST, &BAD, at(0));
        }
        assert!(slowdown.check(HOST, &GOOD, at(0)).is_ok());
        assert!(slowdown.check(HOST, &BAD, at(0)).is_err());
        assert!(slowdown.check("192.0.2.8", &BAD, at(0)).is_ok());
        // Once it fails it is proven no longer.
        slowdown.failed(HOST, &GOOD, at(0));
        assert!(slowdown.check(HOST, &GOOD, at(0)).is_err());
    }

    #[test]
    fn a_proof_does_not_last_for_ever() {
        let mut slowdown = three_a_minute();
        slowdown.succeeded(GOOD, at(0));
        for _ in 0..3 {
            slowdown.failed(HOST, &BAD, at(3_600));
        }
        assert!(slowdown.check(HOST, &GOOD, at(3_600)).is_err());
    }

    #[test]
    fn one_host_is_one_source_however_it_writes_its_address() {
        let mut slowdown = three_a_minute();
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:3"] {
            slowdown.failed(address, &BAD, at(0));
        }
        assert_eq!(wait(&mut slowdown, "2001:db8::4", 0), 1);
        assert_eq!(wait(&mut slowdown, "2001:db8:0:1::4", 0), 0);
        for address in ["192.0.2.9", "::ffff:192.0.2.9", "192.0.2.9"] {
            slowdown.failed(address, &BAD, at(0));
        }
        assert_eq!(wait(&mut slowdown, "192.0.2.9", 0), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let mut slowdown = three_a_minute();
        for _ in 0..3 {
            slowdown.failed(HOST, &BAD, at(1_000_000));
        }
        assert_eq!(wait(&mut slowdown, HOST, 1_000_000), 1);
        assert_eq!(wait(&mut slowdown, HOST, 10), 0);
    }

    #[test]
    fn zero_failures_switch_it_off() {
        let mut slowdown =
            Slowdown::new(SlowdownConfig { failures: 0, ..SlowdownConfig::default() });
        for _ in 0..1_000 {
            slowdown.failed(HOST, &BAD, at(0));
        }
        assert_eq!(wait(&mut slowdown, HOST, 0), 0);
    }

    #[test]
    fn the_form_has_defaults_and_bounds() {
        let read = |document: serde_json::Value| {
            let mut faults = Faults::default();
            let config = SlowdownConfig::read(Node::root(&document), &mut faults);
            (config, faults.to_string())
        };
        let (config, faults) = read(json!({"failures": 5}));
        assert_eq!((config.failures, config.longest.as_secs(), faults.as_str()), (5, 300, ""));
        let (_, faults) = read(json!({"window_seconds": 0, "burst": 1}));
        assert_eq!(
            faults,
            "window_seconds: found 0, expected a whole number of seconds from 1 to 86400\n\
             burst: found an unknown field, expected one of failures, window_seconds, longest_seconds"
        );
    }
}
