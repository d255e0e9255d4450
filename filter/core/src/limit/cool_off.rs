//! Callers that do not back off: they call again before the announced time, or repeat one call again and again.
//!
//! Owns when a caller must cool off, and for how long: each time longer, until it has behaved for a while. Knows
//! callers by name only; permissions are checked before.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use crate::id::OrgId;
use crate::policy::CoolOff;
use crate::time::UnixTime;

const MAX_CALLERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
/// The most different calls of one caller that are counted at a time: an agent's loop is short.
const MAX_CALLS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// The reason for a cool-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The caller came back too early several times.
    Refusals,
    /// The caller made the same call too often.
    Repeats,
}

impl Reason {
    /// The rule's name in refusals, audit entries and metrics.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Refusals => "cool_off.refusals",
            Self::Repeats => "cool_off.repeats",
        }
    }
}

/// A running cool-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooling {
    /// The reason.
    pub reason: Reason,
    /// The remaining time.
    pub rest: Duration,
}

/// A call that a window refuses.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// When the call came.
    pub arrived: UnixTime,
    /// When it is refused.
    pub now: UnixTime,
    /// How long its caller has to wait.
    pub wait: Duration,
}

/// The callers that one worker remembers: the most recent ones.
#[derive(Debug)]
pub struct Callers(LruCache<(OrgId, String), Caller>);

#[derive(Debug)]
struct Caller {
    /// The time in which a refused caller must not come back: since it was refused first, until the announced time.
    wait: Option<(UnixTime, UnixTime)>,
    /// Refusals of calls before that time, without an admitted call between them.
    early: u32,
    /// Its latest different calls: the start of the count, and the count.
    calls: LruCache<String, (UnixTime, u32)>,
    episode: Option<Episode>,
    /// Episodes without a calm time between them.
    episodes: u32,
}

#[derive(Clone, Copy, Debug)]
struct Episode {
    reason: Reason,
    until: UnixTime,
    refused: u64,
    over: bool,
}

impl Default for Callers {
    fn default() -> Self {
        Self(LruCache::new(MAX_CALLERS))
    }
}

impl Default for Caller {
    fn default() -> Self {
        Self { wait: None, early: 0, calls: LruCache::new(MAX_CALLS), episode: None, episodes: 0 }
    }
}

impl Callers {
    /// The caller's running cool-off, if any; counts the refusal.
    pub fn refuse(&mut self, org: &OrgId, caller: &str, now: UnixTime) -> Option<Cooling> {
        let episode = self.0.get_mut(&(org.clone(), caller.to_owned()))?.episode.as_mut()?;
        let rest = episode.until.since(now);
        if rest.is_zero() {
            return None;
        }
        episode.refused = episode.refused.saturating_add(1);
        Some(Cooling { reason: episode.reason, rest })
    }

    /// The number of refused calls in an ended episode; reported once.
    pub fn ended(&mut self, org: &OrgId, caller: &str, now: UnixTime) -> Option<u64> {
        let episode = self.0.get_mut(&(org.clone(), caller.to_owned()))?.episode.as_mut()?;
        if episode.over || now < episode.until {
            return None;
        }
        episode.over = true;
        Some(episode.refused)
    }

    /// Counts `call`, a tool with its arguments; starts a cool-off when it was made too often.
    pub fn called(
        &mut self,
        rule: &CoolOff,
        (org, caller): (&OrgId, &str),
        call: &str,
        now: UnixTime,
    ) -> Option<Cooling> {
        let most = rule.repeats?;
        let caller = self.caller(org, caller);
        if caller.is_cooling(now) {
            return None;
        }
        let (since, count) = caller.calls.get_or_insert_mut(call.to_owned(), || (now, 0));
        if now.since(*since) >= rule.within {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        if *count <= most {
            return None;
        }
        Some(caller.cool_off(rule, Reason::Repeats, now))
    }

    /// Counts a refusal because a window is used up; starts a cool-off after too many early returns. Calls that came
    /// before their caller was refused, or that a running cool-off did not catch, did not ignore anything.
    pub fn limited(
        &mut self,
        rule: &CoolOff,
        (org, caller): (&OrgId, &str),
        refused: &Refused,
    ) -> Option<Cooling> {
        let most = rule.refusals?;
        let caller = self.caller(org, caller);
        if caller.is_cooling(refused.now) {
            return None;
        }
        let announced = refused.now.after(refused.wait);
        let since = match caller.wait {
            Some((since, until)) if refused.arrived < until => {
                if refused.arrived >= since {
                    caller.early = caller.early.saturating_add(1);
                }
                since
            }
            Some(_) | None => {
                caller.early = 0;
                refused.now
            }
        };
        caller.wait = Some((since, announced));
        (caller.early >= most).then(|| caller.cool_off(rule, Reason::Refusals, refused.now))
    }

    /// A call of the caller is admitted: its next early return is the first one in a row.
    pub fn admitted(&mut self, org: &OrgId, caller: &str) {
        if let Some(caller) = self.0.get_mut(&(org.clone(), caller.to_owned())) {
            caller.early = 0;
        }
    }

    fn caller(&mut self, org: &OrgId, caller: &str) -> &mut Caller {
        self.0.get_or_insert_mut((org.clone(), caller.to_owned()), Caller::default)
    }
}

impl Caller {
    fn is_cooling(&self, now: UnixTime) -> bool {
        self.episode.is_some_and(|episode| now < episode.until)
    }

    fn cool_off(&mut self, rule: &CoolOff, reason: Reason, now: UnixTime) -> Cooling {
        let before = self.episode.map(|episode| episode.until);
        let calm = before.is_none_or(|until| now.since(until) > rule.longest);
        self.episodes = if calm { 0 } else { self.episodes.saturating_add(1) };
        let factor = 2_u32.saturating_pow(self.episodes);
        let rest = rule.first.saturating_mul(factor).min(rule.longest);
        self.episode = Some(Episode { reason, until: now.after(rest), refused: 0, over: false });
        (self.wait, self.early) = (None, 0);
        self.calls.clear();
        Cooling { reason, rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: CoolOff = CoolOff {
        refusals: Some(3),
        repeats: Some(5),
        within: Duration::from_secs(60),
        first: Duration::from_secs(2),
        longest: Duration::from_secs(10),
    };

    fn at(millis: u64) -> UnixTime {
        UnixTime::from_micros(1_000_000_000 + millis * 1_000)
    }

    fn org() -> OrgId {
        OrgId::new("acme").unwrap()
    }

    /// A call that is refused as soon as it comes.
    fn refused(wait: Duration, now: UnixTime) -> Refused {
        Refused { arrived: now, now, wait }
    }

    fn seconds(cooling: Option<Cooling>) -> Option<u64> {
        cooling.map(|cooling| cooling.rest.as_secs())
    }

    // Proves: A13
    #[test]
    fn whoever_ignores_the_told_time_cools_off_longer_each_time() {
        let (mut callers, org) = (Callers::default(), org());
        let second = Duration::from_secs(1);
        let mut clock = 0;
        for rest in [2, 4, 8, 10, 10] {
            for early in 0..3 {
                assert_eq!(
                    callers.limited(&RULE, (&org, "k"), &refused(second, at(clock + early))),
                    None
                );
            }
            let cooling = callers.limited(&RULE, (&org, "k"), &refused(second, at(clock + 3)));
            assert_eq!(seconds(cooling), Some(rest));
            let inside = callers.refuse(&org, "k", at(clock + 4)).unwrap();
            assert_eq!(inside.reason.rule(), "cool_off.refusals");
            assert_eq!(callers.ended(&org, "k", at(clock + 4)), None);
            assert_eq!(callers.refuse(&org, "other", at(clock + 4)), None, "of its own");
            clock += 3 + rest * 1_000;
            assert_eq!(callers.refuse(&org, "k", at(clock)), None, "ends by itself");
            assert_eq!(callers.ended(&org, "k", at(clock)), Some(1));
            assert_eq!(callers.ended(&org, "k", at(clock)), None, "told once");
        }
        // After a calm time the count starts again.
        clock += 10_001;
        for early in 0..3 {
            assert_eq!(
                callers.limited(&RULE, (&org, "k"), &refused(second, at(clock + early))),
                None
            );
        }
        assert_eq!(
            seconds(callers.limited(&RULE, (&org, "k"), &refused(second, at(clock + 3)))),
            Some(2)
        );
    }

    // Proves: A13
    #[test]
    fn calls_that_were_under_way_when_their_caller_was_refused_ignored_nothing() {
        let (mut callers, org) = (Callers::default(), org());
        let wait = Duration::from_secs(1);
        let mut limited = |arrived, now| {
            let refused = Refused { arrived: at(arrived), now: at(now), wait };
            callers.limited(&RULE, (&org, "k"), &refused)
        };
        for now in 1..100 {
            assert_eq!(limited(0, now), None, "one burst");
        }
        // The first refusal was at 1 ms.
        for arrived in 2..4 {
            assert_eq!(limited(arrived, 100), None);
        }
        assert_eq!(seconds(limited(4, 101)), Some(2));
        // What was admitted before the pause does not make it longer.
        for now in 102..2_101 {
            assert_eq!(limited(101, now), None);
        }
        assert_eq!(callers.refuse(&org, "k", at(2_100)).unwrap().rest.as_millis(), 1);
        assert_eq!(callers.refuse(&org, "k", at(2_101)), None);
    }

    #[test]
    fn an_admitted_call_ends_a_row_of_early_returns() {
        let (mut callers, org) = (Callers::default(), org());
        let hour = Duration::from_secs(3_600);
        let limited = |callers: &mut Callers, now| {
            callers.limited(&RULE, (&org, "k"), &refused(hour, at(now)))
        };
        for now in 0..20 {
            assert_eq!(limited(&mut callers, now * 10), None);
            callers.admitted(&org, "k");
        }
        callers.admitted(&org, "other");
        for early in 1..3 {
            assert_eq!(limited(&mut callers, 200 + early), None);
        }
        // The pause is the rule's, however long the window is full.
        assert_eq!(seconds(limited(&mut callers, 203)), Some(2));
    }

    // Proves: A13
    #[test]
    fn whoever_waits_as_told_never_cools_off() {
        let (mut callers, org) = (Callers::default(), org());
        let wait = Duration::from_millis(50);
        for turn in 0..100 {
            assert_eq!(callers.limited(&RULE, (&org, "k"), &refused(wait, at(turn * 50))), None);
        }
    }

    // Proves: X10
    #[test]
    fn the_same_call_again_and_again_is_a_loop_also_with_others_between() {
        let (mut callers, org) = (Callers::default(), org());
        for turn in 0..5 {
            for call in ["a", "b", "c"] {
                assert_eq!(callers.called(&RULE, (&org, "k"), call, at(turn)), None);
            }
        }
        let cooling = callers.called(&RULE, (&org, "k"), "b", at(9)).unwrap();
        assert_eq!(cooling.reason.rule(), "cool_off.repeats");
        // Repeats spread over time cause no cool-off.
        for turn in 0..50 {
            assert_eq!(callers.called(&RULE, (&org, "slow"), "a", at(turn * 15_000)), None);
        }
        // Many different calls cause none either.
        for turn in 0..50 {
            assert_eq!(callers.called(&RULE, (&org, "busy"), &turn.to_string(), at(turn)), None);
        }
    }
}
