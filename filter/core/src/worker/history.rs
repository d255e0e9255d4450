//! The generations of Redis that this worker saw, and the clock of Redis.
//!
//! Owns the memory that distinguishes a restored backup, an emptied Redis or a stale replica from the later state.
//! Without it, keys that were revoked since would work again. Decides on no request.

use std::collections::HashMap;
use std::time::Duration;

use portcullis_redis_lua::{Generation, Stamp};

use super::Worker;
use crate::id::OrgId;
use crate::time::{UnixTime, micros};

/// The highest generation of each organisation: only of organisations with one in Redis, so no caller adds an entry.
#[derive(Debug, Default)]
pub(super) struct Histories(HashMap<OrgId, Seen>);

#[derive(Debug, Default)]
struct Seen {
    highest: Generation,
    /// Redis is behind that, and the log has it.
    reported: bool,
    /// Its calls are refused because of that, according to this worker.
    refused: bool,
    /// The clock of its Redis in microseconds, and when it was read: in a Redis Cluster each master has its own.
    clock: Option<(u64, UnixTime)>,
}

/// The comparison of a generation with the previous ones.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// It is the same or later.
    Onward,
    /// It is later, and an operator accepted a restored copy in between.
    Restored,
    /// It is older than this one.
    Behind(Generation),
}

impl Histories {
    /// Redis reported this generation for `org`.
    pub(super) fn see(&mut self, org: &OrgId, generation: Generation) -> Course {
        let Some(seen) = self.0.get_mut(org) else {
            if generation > Generation::default() {
                self.0.insert(org.clone(), Seen { highest: generation, ..Seen::default() });
            }
            return Course::Onward;
        };
        if generation < seen.highest {
            return Course::Behind(seen.highest);
        }
        if generation == seen.highest {
            seen.refused = false;
            return Course::Onward;
        }
        let restored = generation.is_restored_since(seen.highest);
        *seen = Seen { highest: generation, clock: seen.clock, ..Seen::default() };
        if restored { Course::Restored } else { Course::Onward }
    }

    /// Whether the report that `org` went back is still due. It counts as made from now on.
    pub(super) fn report(&mut self, org: &OrgId) -> bool {
        let seen = self.0.entry(org.clone()).or_default();
        seen.refused = true;
        !std::mem::replace(&mut seen.reported, true)
    }

    /// Takes the clock of the Redis of `org` from a reply that arrived now.
    pub(super) fn set_clock(&mut self, org: &OrgId, now: UnixTime, redis: Duration) {
        if let Some(seen) = self.0.get_mut(org) {
            seen.clock = Some((micros(redis), now));
        }
    }

    /// That clock at `now`, continued with the monotonic clock; the wall clock if it is unknown.
    pub(super) fn by_redis(&self, org: &OrgId, now: UnixTime) -> u64 {
        match self.0.get(org).and_then(|seen| seen.clock) {
            Some((redis, at)) => {
                redis.saturating_add(micros(now.since(at))).saturating_sub(micros(at.since(now)))
            }
            None => now.wall(),
        }
    }

    /// Organisations whose calls are refused because Redis is behind what this worker saw.
    pub(super) fn refused(&self) -> impl Iterator<Item = &OrgId> {
        self.0.iter().filter(|(_, seen)| seen.refused).map(|(org, _)| org)
    }
}

/// The comparison of this gateway's clock and Redis's.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    apart: bool,
    measured: Option<UnixTime>,
}

/// The report about two clocks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) apart: Duration,
    /// Whether they started or stopped to differ.
    pub(super) changed: bool,
}

/// The largest allowed difference. A token may be used longer by it than its issuer intended.
pub(super) const MOST_APART: Duration = Duration::from_secs(30);
/// How often the difference is measured.
const MEASURED_EVERY: Duration = Duration::from_secs(10);

impl Clocks {
    /// Takes Redis's clock from a reply that arrived now; usually there is nothing to report.
    pub(super) fn compare(&mut self, now: UnixTime, redis: Duration) -> Option<Compared> {
        // Uses the wall clock: tokens and certificates are checked with it, and operators set it.
        let apart = now.apart_from(redis);
        let changed = (apart > MOST_APART) != self.apart;
        let passed = |at: UnixTime| now.since(at).saturating_add(at.since(now));
        if !changed && self.measured.is_some_and(|at| passed(at) < MEASURED_EVERY) {
            return None;
        }
        (self.apart, self.measured) = (apart > MOST_APART, Some(now));
        Some(Compared { apart, changed })
    }
}

impl Worker {
    /// Compares the clocks; returns the difference when a measurement is due.
    pub fn compare_clocks(&mut self, now: UnixTime, stamp: &Stamp) -> Option<Duration> {
        let compared = self.clocks.compare(now, stamp.time)?;
        if compared.changed {
            let seconds = compared.apart.as_secs();
            let most = MOST_APART.as_secs();
            self.alarm(match compared.apart > MOST_APART {
                true => format!(
                    "this gateway's clock and that of Redis are {seconds} s apart, expected at most {most} s: tokens and \
                     certificates are judged by a wrong time if it is this one; check NTP on both"
                ),
                false => format!("this gateway's clock and that of Redis agree again ({seconds} s)"),
            });
        }
        Some(compared.apart)
    }

    /// Takes the clock of the Redis that has the state of `org`.
    pub fn set_redis_clock(&mut self, org: &OrgId, now: UnixTime, stamp: &Stamp) {
        self.histories.set_clock(org, now, stamp.time);
    }

    /// Microseconds since the epoch by the clock of the Redis that has the state of `org`, which all gateways share; by
    /// the wall clock until Redis has reported its own.
    #[must_use]
    pub fn by_redis_clock(&self, org: &OrgId, now: UnixTime) -> u64 {
        self.histories.by_redis(org, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn org(name: &str) -> OrgId {
        OrgId::new(name).unwrap()
    }

    #[test]
    fn an_older_state_is_told_from_a_later_one() {
        let (mut histories, acme) = (Histories::default(), org("acme"));
        let number = Generation::new;
        assert_eq!(histories.see(&acme, number(7)), Course::Onward);
        assert_eq!(histories.see(&acme, number(7)), Course::Onward);
        assert_eq!(histories.see(&acme, number(9)), Course::Onward);
        for older in [0, 1, 8] {
            assert_eq!(histories.see(&acme, number(older)), Course::Behind(number(9)));
        }
        assert_eq!([histories.report(&acme), histories.report(&acme)], [true, false]);
        assert_eq!(histories.see(&acme, number(10)), Course::Onward);
        assert!(histories.report(&acme), "it is another time");
        let accepted = number((1_795_212_000 << 20) + 3);
        assert_eq!(histories.see(&acme, accepted), Course::Restored);
        assert_eq!(histories.see(&acme, number(11)), Course::Behind(accepted));
    }

    #[test]
    fn organisations_that_redis_does_not_know_are_not_remembered() {
        let mut histories = Histories::default();
        for number in 0..1_000 {
            histories.see(&org(&format!("made-up{number}")), Generation::default());
        }
        assert!(histories.0.is_empty());
    }

    // The steady clock was compared: a wall clock that was set after the start showed in no metric and no log.
    // Proves: B2
    #[test]
    fn a_wall_clock_that_is_set_later_is_apart() {
        let mut clocks = Clocks::default();
        let at = |steady: u64, wall: u64| {
            UnixTime::from_micros(steady * 1_000_000).with_wall_clock(wall * 1_000_000)
        };
        let mut compare = |steady, wall, redis| {
            let compared = clocks.compare(at(steady, wall), Duration::from_secs(redis));
            compared.map(|it| (it.apart.as_secs(), it.changed))
        };
        assert_eq!(compare(1_000, 1_000, 1_000), Some((0, false)));
        assert_eq!(compare(1_020, 1_080, 1_020), Some((60, true)), "set a minute ahead");
        assert_eq!(compare(1_040, 1_040, 1_040), Some((0, true)), "and back");
    }

    /// Finding 10.9: a gateway that was five minutes behind accepted expired tokens, and nothing said so.
    #[test]
    fn clocks_that_differ_are_reported_once_and_when_they_agree_again() {
        let mut clocks = Clocks::default();
        let at = |second: u64| UnixTime::from_micros(second * 1_000_000);
        let mut compare = |now, redis| clocks.compare(at(now), Duration::from_secs(redis));
        let seconds = Duration::from_secs;
        let said = |apart, changed| Some(Compared { apart: seconds(apart), changed });
        assert_eq!(compare(1_000, 1_001), said(1, false));
        assert_eq!(compare(1_001, 1_002), None);
        assert_eq!(compare(1_002, 1_302), said(300, true));
        assert_eq!(compare(1_003, 1_303), None);
        assert_eq!(compare(1_013, 1_313), said(300, false));
        assert_eq!(compare(1_313, 1_313), said(0, true));
        assert_eq!(compare(1_314, 1_244), said(70, true));
    }
}
