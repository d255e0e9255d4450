//! Slows down guessing: limits the work for unverified credentials, and decides which callers wait.
//!
//! Owns a worker's memory of addresses and credentials. The budget limits work, not callers. A credential that was
//! verified here never waits. A credential that this worker sees for the first time does not wait while budget is left.
//! A credential that failed before waits with its address. The limit is best effort: each worker has its own memory
//! (requirement A14). No IO, no clock; every operation takes constant time.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use super::AuthFailure;
use crate::decode::{Faults, Node};
use crate::time::UnixTime;

const MAX_ADDRESSES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
const MAX_PROVEN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
const MAX_FAILED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// How long a verification counts without being renewed.
const PROVEN_FOR: Duration = Duration::from_secs(3_600);
/// The share of a waiting address for credentials that were never seen: this many trials at once, and one more after
/// each time of this length.
const SHARE: Rate = Rate { burst: 10, each: Duration::from_millis(100) };

/// When to slow down, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleConfig {
    /// The number of failures from one address at which slowing down starts; 0 turns it off.
    pub failures: u32,
    /// The time in which they are counted.
    pub window: Duration,
    /// The longest wait, and the quiet time after which the failures of an address are forgotten.
    pub longest: Duration,
    /// The most unverified credentials that one worker tries per second, for all addresses together. A valid one costs
    /// nothing.
    pub trials: u32,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        Self {
            failures: 100,
            window: Duration::from_secs(60),
            longest: Duration::from_secs(300),
            trials: 500,
        }
    }
}

impl ThrottleConfig {
    /// Reads `auth.slowdown`. A field that is absent or faulty has its default here.
    pub fn read(node: Node<'_>, faults: &mut Faults) -> Self {
        const DAY: u64 = 86_400;
        let Self { failures, window, longest, trials } = Self::default();
        let Some(mut fields) = node.object(faults, "an object") else { return Self::default() };
        let mut number = |name, range, unit: &str, default| {
            let node = fields.optional(name);
            node.and_then(|node| node.integer(faults, range, unit)).unwrap_or(default)
        };
        let failures = number("failures", 0..=1_000_000, "failures", u64::from(failures));
        let window = number("window_seconds", 1..=DAY, "seconds", window.as_secs());
        let longest = number("longest_seconds", 1..=DAY, "seconds", longest.as_secs());
        let trials = number("trials_per_second", 1..=1_000_000, "trials", u64::from(trials));
        fields.finish(faults);
        Self {
            failures: u32::try_from(failures).unwrap_or(u32::MAX),
            window: Duration::from_secs(window),
            longest: Duration::from_secs(longest),
            trials: u32::try_from(trials).unwrap_or(u32::MAX),
        }
    }

    fn rate(&self) -> Rate {
        let each = Duration::from_secs(1).checked_div(self.trials).unwrap_or_default();
        Rate { burst: self.trials, each: each.max(Duration::from_micros(1)) }
    }
}

/// The key of a credential in this memory: a SHA-256 of it, or of the certificate.
pub type CredentialDigest = [u8; 32];

/// The memory of one worker.
#[derive(Debug)]
pub struct Throttle {
    config: ThrottleConfig,
    addresses: LruCache<Source, Address>,
    proven: LruCache<CredentialDigest, UnixTime>,
    /// Credentials that failed when they were last tried.
    failed: LruCache<CredentialDigest, ()>,
    /// The rest of this worker's budget for unverified credentials.
    budget: Bucket,
}

/// What paid for an attempt to verify a credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub enum Attempt {
    /// Nothing: it is verified, or slowing down is off.
    #[default]
    Free,
    /// The worker's budget.
    Budget,
    /// The worker's budget, and the share of its address.
    Share,
}

/// The source of failures: an IPv4 address, or the /64 of an IPv6 host. A peer without an address (a socket's path) is
/// one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    Address(IpAddr),
    Unknown,
}

/// The state of a source.
#[derive(Clone, Copy, Debug)]
struct Address {
    trouble: Trouble,
    share: Bucket,
}

/// Failures of one source.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Counted since the first of them; and the previous wait, if any.
    Counting { since: UnixTime, failures: u32, before: Option<Wait> },
    /// It has to wait.
    Waiting(Wait),
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    until: UnixTime,
    length: Duration,
}

/// So many at once, and one more after each time of this length.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    each: Duration,
}

/// A token bucket, by the time at which it will be full again.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_at: UnixTime,
}

impl Throttle {
    /// A memory without failures.
    #[must_use]
    pub fn new(config: ThrottleConfig) -> Self {
        Self {
            config,
            addresses: LruCache::new(MAX_ADDRESSES),
            proven: LruCache::new(MAX_PROVEN),
            failed: LruCache::new(MAX_FAILED),
            budget: Bucket::FULL,
        }
    }

    /// Takes a new configuration; waits that have begun continue unchanged.
    pub fn reconfigure(&mut self, config: ThrottleConfig) {
        self.config = config;
    }

    /// Whether an obviously invalid credential is answered now: it costs no budget, and it waits with its address.
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn hopeless(&self, address: &str, now: UnixTime) -> Result<(), Duration> {
        let wait = self.wait(&Source::of(address), now);
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// Whether `credential` from `address` is tried now, and what pays for it.
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn check(
        &mut self,
        address: &str,
        credential: &CredentialDigest,
        now: UnixTime,
    ) -> Result<Attempt, Duration> {
        if self.config.failures == 0 || self.is_proven(credential, now) {
            return Ok(Attempt::Free);
        }
        let source = Source::of(address);
        let wait = self.wait(&source, now);
        if wait.is_zero() {
            return self.budget.take(self.config.rate(), now).map(|()| Attempt::Budget);
        }
        // A credential that failed before fails again; a new one may share its address with an attacker.
        if self.failed.contains(credential) {
            return Err(wait);
        }
        if let Some(known) = self.addresses.get_mut(&source) {
            known.share.take(SHARE, now)?;
        }
        match self.budget.take(self.config.rate(), now) {
            Ok(()) => Ok(Attempt::Share),
            Err(wait) => {
                self.give_back(&source, Attempt::Share);
                Err(wait)
            }
        }
    }

    /// Records that a credential from `address` failed. It no longer counts as verified.
    pub fn failed(&mut self, address: &str, credential: &CredentialDigest, now: UnixTime) {
        self.proven.pop(credential);
        if self.config.failures == 0 {
            return;
        }
        self.failed.put(*credential, ());
        let source = Source::of(address);
        match self.addresses.get_mut(&source) {
            Some(known) => known.trouble = known.trouble.after_failure(&self.config, now),
            None => {
                let trouble = Trouble::counted(&self.config, now, 1, None, now);
                _ = self.addresses.put(source, Address { trouble, share: Bucket::FULL });
            }
        }
    }

    /// Records that a credential was accepted, which costs nothing. The failures of its address stay: a valid key does
    /// not allow guessing.
    pub fn succeeded(
        &mut self,
        address: &str,
        credential: CredentialDigest,
        attempt: Attempt,
        now: UnixTime,
    ) {
        self.unattempted(address, attempt);
        self.failed.pop(&credential);
        self.proven.put(credential, now);
    }

    /// Returns what [`Throttle::check`] took, because no work was done.
    pub fn unattempted(&mut self, address: &str, attempt: Attempt) {
        match attempt {
            Attempt::Free => {}
            Attempt::Budget => self.budget.give_back(self.config.rate()),
            Attempt::Share => {
                self.budget.give_back(self.config.rate());
                self.give_back(&Source::of(address), attempt);
            }
        }
    }

    fn give_back(&mut self, source: &Source, attempt: Attempt) {
        if let (Attempt::Share, Some(known)) = (attempt, self.addresses.peek_mut(source)) {
            known.share.give_back(SHARE);
        }
    }

    fn wait(&self, source: &Source, now: UnixTime) -> Duration {
        match self.addresses.peek(source).map(|known| known.trouble) {
            Some(Trouble::Waiting(wait)) => wait.rest(now),
            Some(Trouble::Counting { .. }) | None => Duration::ZERO,
        }
    }

    /// Whether a credential was verified here recently.
    #[must_use]
    pub fn is_proven(&self, credential: &CredentialDigest, now: UnixTime) -> bool {
        self.proven.peek(credential).is_some_and(|at| now.since(*at) < PROVEN_FOR)
    }
}

/// Whether a failure is found without work, so without Redis and without a signature check.
#[must_use]
pub const fn costs_nothing(failure: AuthFailure) -> bool {
    match failure {
        AuthFailure::NoCredential
        | AuthFailure::SeveralCredentials
        | AuthFailure::InQuery
        | AuthFailure::UnsupportedScheme
        | AuthFailure::EmptyCredential
        | AuthFailure::Malformed
        | AuthFailure::CheckDigits
        | AuthFailure::Certificate(_)
        | AuthFailure::TokenMalformed
        | AuthFailure::TokenTooLarge
        | AuthFailure::TokenAlgorithm
        | AuthFailure::TokenHeader
        | AuthFailure::UnknownIssuer
        | AuthFailure::UnknownSigner => true,
        AuthFailure::UnknownKey
        | AuthFailure::WrongSecret
        | AuthFailure::RotatedOut
        | AuthFailure::Revoked
        | AuthFailure::Expired
        | AuthFailure::NotYetValid
        | AuthFailure::Denied
        | AuthFailure::SourceNotAllowed
        | AuthFailure::BadSignature
        | AuthFailure::TokenClaims
        | AuthFailure::TokenLifetime
        | AuthFailure::WrongAudience
        | AuthFailure::TokenUnmapped(_) => false,
    }
}

impl Trouble {
    fn counted(
        config: &ThrottleConfig,
        since: UnixTime,
        failures: u32,
        before: Option<Wait>,
        now: UnixTime,
    ) -> Self {
        if failures < config.failures {
            return Self::Counting { since, failures, before };
        }
        let length = before.map_or(FIRST, |wait| wait.length.saturating_mul(2));
        let length = length.min(config.longest);
        Self::Waiting(Wait { until: now.after(length), length })
    }

    fn after_failure(self, config: &ThrottleConfig, now: UnixTime) -> Self {
        // A wait is longer than the previous one only if as many failures follow it as led to it.
        let lately = |wait: &Wait| now.since(wait.until) < config.longest;
        match self {
            Self::Counting { since, failures, before } => {
                let before = before.filter(lately);
                match now.since(since) < config.window {
                    true => Self::counted(config, since, failures.saturating_add(1), before, now),
                    false => Self::counted(config, now, 1, before, now),
                }
            }
            // The request arrived before the wait began: one burst counts once.
            Self::Waiting(wait) if !wait.rest(now).is_zero() => self,
            Self::Waiting(wait) => Self::counted(config, now, 1, Some(wait).filter(lately), now),
        }
    }
}

impl Wait {
    /// The rest of the wait: never more than the whole wait, even when the clock was set back.
    fn rest(self, now: UnixTime) -> Duration {
        let left = self.until.since(now);
        if left > self.length { Duration::ZERO } else { left }
    }
}

impl Bucket {
    const FULL: Self = Self { full_at: UnixTime::from_micros(0) };

    /// Takes one.
    ///
    /// # Errors
    /// How long until there is one.
    fn take(&mut self, rate: Rate, now: UnixTime) -> Result<(), Duration> {
        let all = rate.each.saturating_mul(rate.burst);
        // The debt is never more than the whole burst, unless the clock was set back.
        if self.full_at > now.after(all) {
            self.full_at = now;
        }
        let owed = self.full_at.since(now).saturating_add(rate.each);
        match owed.checked_sub(all) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                self.full_at = now.after(owed);
                Ok(())
            }
        }
    }

    fn give_back(&mut self, rate: Rate) {
        self.full_at = self.full_at.before(rate.each);
    }
}

impl Source {
    pub(crate) fn of(address: &str) -> Self {
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

    const GOOD: CredentialDigest = [1; 32];
    const BAD: CredentialDigest = [2; 32];
    const HOST: &str = "192.0.2.7";

    fn at(second: u64) -> UnixTime {
        UnixTime::from_micros(second * 1_000_000)
    }

    fn three_a_minute() -> Throttle {
        Throttle::new(ThrottleConfig {
            failures: 3,
            window: Duration::from_secs(60),
            longest: Duration::from_secs(5),
            trials: 50,
        })
    }

    /// How long a credential that failed before has to wait.
    fn wait(throttle: &mut Throttle, address: &str, second: u64) -> u64 {
        throttle.check(address, &BAD, at(second)).err().map_or(0, |wait| wait.as_secs())
    }

    fn fail(throttle: &mut Throttle, times: u32, second: u64) {
        for _ in 0..times {
            throttle.failed(HOST, &BAD, at(second));
        }
    }

    fn numbered(number: u32) -> CredentialDigest {
        let mut proof = [9; 32];
        proof[..4].copy_from_slice(&number.to_be_bytes());
        proof
    }

    // Finding 2.6: one bad request after each wait doubled it.
    #[test]
    fn waits_grow_with_each_further_burst_up_to_the_longest_and_end() {
        let mut throttle = three_a_minute();
        fail(&mut throttle, 2, 0);
        assert_eq!(wait(&mut throttle, HOST, 0), 0);
        fail(&mut throttle, 1, 0);
        let mut now = 0;
        for expected in [1, 2, 4, 5, 5] {
            assert_eq!(wait(&mut throttle, HOST, now), expected);
            assert_eq!(throttle.hopeless(HOST, at(now)), Err(Duration::from_secs(expected)));
            now += expected;
            assert_eq!(wait(&mut throttle, HOST, now), 0, "a try after each wait");
            fail(&mut throttle, 2, now);
            assert_eq!(wait(&mut throttle, HOST, now), 0, "two bad requests are no burst");
            fail(&mut throttle, 1, now);
        }
        // The address is forgiven after a quiet time as long as the longest wait.
        now += 5 + 5;
        fail(&mut throttle, 3, now);
        assert_eq!(wait(&mut throttle, HOST, now), 1);
    }

    #[test]
    fn failures_far_apart_are_nobodys_guessing() {
        let mut throttle = three_a_minute();
        for minute in 0..20 {
            throttle.failed(HOST, &BAD, at(minute * 60));
            assert_eq!(wait(&mut throttle, HOST, minute * 60), 0);
        }
    }

    #[test]
    fn one_burst_is_one_offence() {
        let mut throttle = three_a_minute();
        fail(&mut throttle, 100, 0);
        assert_eq!(wait(&mut throttle, HOST, 0), 1);
    }

    // Proves: A14
    #[test]
    fn a_proven_credential_does_not_pay_for_its_neighbours() {
        let mut throttle = three_a_minute();
        throttle.succeeded(HOST, GOOD, Attempt::Free, at(0));
        fail(&mut throttle, 3, 0);
        assert_eq!(throttle.check(HOST, &GOOD, at(0)), Ok(Attempt::Free));
        assert!(throttle.check(HOST, &BAD, at(0)).is_err());
        assert!(throttle.check("192.0.2.8", &BAD, at(0)).is_ok());
        // After a failure it no longer counts as verified.
        throttle.failed(HOST, &GOOD, at(0));
        assert!(throttle.check(HOST, &GOOD, at(0)).is_err());
    }

    // Proves: A14
    // Finding 2.6: behind a NAT with a guesser, a good key that the worker had not seen waited for minutes.
    #[test]
    fn a_credential_that_is_new_here_is_tried_although_its_address_waits() {
        let mut throttle = three_a_minute();
        fail(&mut throttle, 3, 0);
        assert_eq!(throttle.check(HOST, &GOOD, at(0)), Ok(Attempt::Share));
        // Each is tried once; then it waits like the others.
        for number in 1..SHARE.burst {
            assert!(throttle.check(HOST, &numbered(number), at(0)).is_ok(), "{number}");
            throttle.failed(HOST, &numbered(number), at(0));
            assert_eq!(wait(&mut throttle, HOST, 0), 1);
        }
        // A client that makes up new ones has its share, and no more, only for a moment.
        let later = throttle.check(HOST, &numbered(99), at(0)).unwrap_err();
        assert_eq!(later, SHARE.each);
        // A valid one costs nothing.
        throttle.succeeded(HOST, GOOD, Attempt::Share, at(0));
        assert!(throttle.check(HOST, &numbered(100), at(0)).is_ok());
        assert!(throttle.check(HOST, &numbered(101), at(0)).is_err());
    }

    // Proves: A14
    #[test]
    fn all_addresses_together_spend_no_more_than_the_budget() {
        let mut throttle = three_a_minute();
        let mut tried = 0;
        for number in 0..200_u32 {
            let address = format!("198.51.100.{number}");
            tried += u32::from(throttle.check(&address, &numbered(number), at(5)).is_ok());
        }
        assert_eq!(tried, 50);
        assert!(throttle.check(HOST, &GOOD, at(5)).unwrap_err() <= Duration::from_millis(20));
        assert!(throttle.check(HOST, &GOOD, at(6)).is_ok(), "it fills up again");
        // Budget for which no work was done is returned.
        for _ in 0..200 {
            let attempt = throttle.check(HOST, &GOOD, at(8)).unwrap();
            throttle.unattempted(HOST, attempt);
        }
    }

    #[test]
    fn a_proof_does_not_last_for_ever() {
        let mut throttle = three_a_minute();
        throttle.succeeded(HOST, GOOD, Attempt::Free, at(0));
        assert_eq!(throttle.check(HOST, &GOOD, at(3_599)), Ok(Attempt::Free));
        assert_eq!(throttle.check(HOST, &GOOD, at(3_600)), Ok(Attempt::Budget));
    }

    #[test]
    fn one_host_is_one_source_however_it_writes_its_address() {
        let mut throttle = three_a_minute();
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:3"] {
            throttle.failed(address, &BAD, at(0));
        }
        assert_eq!(wait(&mut throttle, "2001:db8::4", 0), 1);
        assert_eq!(wait(&mut throttle, "2001:db8:0:1::4", 0), 0);
        for address in ["192.0.2.9", "::ffff:192.0.2.9", "192.0.2.9"] {
            throttle.failed(address, &BAD, at(0));
        }
        assert_eq!(wait(&mut throttle, "192.0.2.9", 0), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let mut throttle = three_a_minute();
        fail(&mut throttle, 3, 1_000_000);
        assert_eq!(wait(&mut throttle, HOST, 1_000_000), 1);
        assert_eq!(wait(&mut throttle, HOST, 10), 0);
        for number in 0..500 {
            _ = throttle.check(HOST, &numbered(number), at(1_000_001));
        }
        assert!(throttle.check(HOST, &GOOD, at(1_000_001)).is_err());
        assert!(throttle.check(HOST, &GOOD, at(20)).is_ok());
    }

    #[test]
    fn zero_failures_switch_it_off() {
        let mut throttle =
            Throttle::new(ThrottleConfig { failures: 0, trials: 1, ..ThrottleConfig::default() });
        for _ in 0..1_000 {
            throttle.failed(HOST, &BAD, at(0));
            assert_eq!(throttle.check(HOST, &BAD, at(0)), Ok(Attempt::Free));
        }
    }

    #[test]
    fn the_form_has_defaults_and_bounds() {
        let read = |document: serde_json::Value| {
            let mut faults = Faults::default();
            let config = ThrottleConfig::read(Node::root(&document), &mut faults);
            (config, faults.to_string())
        };
        let (config, faults) = read(json!({"failures": 5}));
        assert_eq!((config.failures, config.longest.as_secs(), faults.as_str()), (5, 300, ""));
        let (_, faults) = read(json!({"window_seconds": 0, "burst": 1}));
        assert_eq!(
            faults,
            "window_seconds: found 0, expected a whole number of seconds from 1 to 86400\n\
             burst: found an unknown field, expected one of failures, window_seconds, longest_seconds, trials_per_second"
        );
    }
}
