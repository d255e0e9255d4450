//! A credential in memory.
//!
//! Owns until when it is used. What makes it a header is [`crate::connector_credential`]'s business.

use std::cell::Cell;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::lease::{HeldLease, Lease, LeaseId, Next, between_attempts, parts};
use crate::secret::Secret;
use crate::time::UnixTime;

/// Also where credentials are not kept at all, or end at once, the one just read is used.
const JUST_READ: Duration = Duration::from_secs(1);

/// A credential in memory, and until when it is used.
#[derive(Debug)]
pub struct CachedSecret {
    /// The values, in the order of the reference's fields.
    pub values: Vec<Secret>,
    read: UnixTime,
    expires: UnixTime,
    /// When it is worth nothing any more, if that is known.
    ends: Option<UnixTime>,
    /// What its server said of it.
    accepted: Accepted,
    /// Of one that Vault made.
    lease: Option<HeldLease>,
}

/// What is to be done about a lease whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DueStep {
    /// Vault is asked for more time.
    Renew(LeaseId),
    /// Another secret is made.
    Replace,
    /// No call had it: it is left to end, unless one comes.
    Leave,
}

/// What the server that a credential is for says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepted {
    /// Nothing against it.
    Yes,
    /// It answered 401: another one is asked for.
    No,
}

impl CachedSecret {
    /// Holds `values` for `life` from `now`.
    #[must_use]
    pub fn new(values: Vec<Secret>, now: UnixTime, life: Duration) -> Self {
        let (expires, ends, accepted) = (now.after(life), None, Accepted::Yes);
        Self { values, read: now, expires, ends, accepted, lease: None }
    }

    /// Holds values that Vault made at `now`. It is attended to after half of the lease, and not by all workers at once:
    /// each has values of its own, which choose when. From some 70 % on, calls have another one made themselves.
    #[must_use]
    pub fn leased(values: Vec<Secret>, now: UnixTime, lease: Lease) -> Self {
        let Lease { id, lasts, renewable } = lease;
        let cached = Self::new(values, now, lasts).ending(now, lasts);
        let (due, expires) = parts(now, lasts, cached.jitter());
        let next = if renewable && id.is_some() { Next::Renewal } else { Next::Replacement };
        let lease = HeldLease { id, first: lasts, next, due, used: Cell::new(false) };
        Self { expires, lease: Some(lease), ..cached }
    }

    fn jitter(&self) -> u8 {
        self.digest().first().copied().unwrap_or_default()
    }

    /// A call gets it.
    pub(crate) fn note_use(&self) {
        if let Some(lease) = &self.lease {
            lease.used.set(true);
        }
    }

    /// When its lease is to be attended to, if it has one that has not ended.
    pub(crate) fn due(&self, now: UnixTime) -> Option<UnixTime> {
        self.lease.as_ref().filter(|_| self.is_usable(now, None)).map(|lease| lease.due)
    }

    /// What is to be done about its lease now; from here on it is under way.
    pub(crate) fn step(&mut self, now: UnixTime) -> Option<DueStep> {
        let lease = self.lease.as_mut().filter(|lease| now >= lease.due)?;
        lease.due = now.after(between_attempts(lease.first));
        Some(match (lease.used.replace(false), &lease.id, lease.next) {
            (false, _, _) => DueStep::Leave,
            (true, Some(id), Next::Renewal) => DueStep::Renew(id.clone()),
            (true, _, Next::Replacement) | (true, None, Next::Renewal) => DueStep::Replace,
        })
    }

    /// Vault gave its lease more time. With little of it, the end that no renewal moves is near: another one is made.
    pub(crate) fn renewed(&mut self, now: UnixTime, lease: &Lease) {
        let (due, expires) = parts(now, lease.lasts, self.jitter());
        let Some(held) = &mut self.lease else { return };
        if lease.lasts.saturating_mul(2) < held.first {
            // What Vault says now may be less than before.
            let ends = now.after(lease.lasts);
            self.ends = self.ends.map(|known| known.min(ends));
            self.expires = self.expires.min(ends);
            (held.next, held.due) = (Next::Replacement, now);
            held.used.set(true);
        } else {
            (self.ends, self.expires, held.due) = (Some(now.after(lease.lasts)), expires, due);
        }
    }

    /// Vault could not be asked: it is asked again soon, or calls do.
    pub(crate) fn left(&self) {
        self.note_use();
    }

    /// Vault gives its lease no more time: another one is made at once.
    pub(crate) fn not_renewed(&mut self, now: UnixTime) {
        if let Some(held) = &mut self.lease {
            (held.next, held.due) = (Next::Replacement, now);
            held.used.set(true);
        }
    }

    /// The name of its lease, if it has one that has not ended.
    pub(crate) fn lease_id(&self, now: UnixTime) -> Option<&LeaseId> {
        self.any_lease_id().filter(|_| self.is_usable(now, None))
    }

    /// The name of its lease, also of one that has ended.
    pub(crate) fn any_lease_id(&self) -> Option<&LeaseId> {
        self.lease.as_ref()?.id.as_ref()
    }

    /// When it is worth nothing any more, if that is known.
    pub(crate) fn end(&self) -> Option<UnixTime> {
        self.ends
    }

    /// Whether its server refused it.
    pub(crate) fn is_refused(&self) -> bool {
        self.accepted == Accepted::No
    }

    /// Whether Vault made it.
    pub(crate) fn is_leased(&self) -> bool {
        self.lease.is_some()
    }

    /// How many bytes its values have.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.values.iter().map(|value| value.expose().len()).sum()
    }

    /// The same, of what is worth nothing after `life` from `now`.
    #[must_use]
    pub fn ending(self, now: UnixTime, life: Duration) -> Self {
        Self { ends: Some(now.after(life)), ..self }
    }

    /// What tells its values from others.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        // A value is one line.
        let values: Vec<_> = self.values.iter().map(Secret::expose).collect();
        Sha256::digest(Secret::new(values.join("\n")).expose()).into()
    }

    /// When it was read.
    #[must_use]
    pub fn read_at(&self) -> UnixTime {
        self.read
    }

    /// Whether it may still be used.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        let ended = self.ends.is_some_and(|ends| now >= ends);
        self.accepted == Accepted::Yes && now < self.expires && !ended
    }

    /// Whether it was read a moment ago.
    pub(crate) fn was_just_read(&self, now: UnixTime) -> bool {
        now.since(self.read) < JUST_READ
    }

    /// Whether the request that read it may use it, also if it may not be kept at all. A token that ends at once serves for
    /// a moment, so that a request asks for one once. The end of a lease holds for all.
    pub(crate) fn serves_its_reader(&self, now: UnixTime) -> bool {
        let has_time = self.ends.is_none_or(|end| now < end);
        let is_there = has_time || (self.lease.is_none() && self.was_just_read(now));
        self.accepted == Accepted::Yes && is_there
    }

    /// Its server refused it: no call gets it any more, unless another one cannot be had.
    pub fn refuse(&mut self) {
        self.accepted = Accepted::No;
    }

    /// Whether there is another one is unknown: it is used on.
    pub fn accept(&mut self) {
        self.accepted = Accepted::Yes;
    }

    /// Whether it may be used when it cannot be read again, also after its server refused it: to its end, if that is
    /// known, or else to the end of its life and for `stale` beyond it.
    #[must_use]
    pub fn is_usable(&self, now: UnixTime, stale: Option<Duration>) -> bool {
        match (self.ends, stale) {
            (Some(ends), _) => now < ends,
            (None, Some(stale)) => now < self.expires.after(stale),
            (None, None) => now < self.expires,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_micros(seconds * 1_000_000)
    }

    fn lease(seconds: u64, renewable: bool) -> Lease {
        let (id, lasts) = (LeaseId::new("database/creds/crm/x"), Duration::from_secs(seconds));
        Lease { id, lasts, renewable }
    }

    // Proves: X12
    #[test]
    fn a_lease_in_use_is_renewed_until_its_last_end_is_near_and_then_replaced() {
        let values = vec![Secret::new("a".to_owned())];
        let mut cached = CachedSecret::leased(values, at(0), lease(100, true));
        let id = LeaseId::new("database/creds/crm/x").unwrap();
        cached.note_use();
        assert_eq!(cached.step(at(49)), None, "not yet");
        assert_eq!(cached.step(at(60)), Some(DueStep::Renew(id.clone())));
        assert_eq!(cached.step(at(61)), None, "it is under way");
        cached.renewed(at(61), &lease(100, true));
        assert!(cached.is_live(at(130)) && cached.is_usable(at(160), None));
        assert!(!cached.is_live(at(141)) && !cached.is_usable(at(161), None));
        cached.note_use();
        assert_eq!(cached.step(at(121)), Some(DueStep::Renew(id.clone())));
        // No answer: it is asked again, and a call that has it meanwhile changes nothing.
        cached.left();
        assert_eq!(cached.step(at(126)), Some(DueStep::Renew(id)));
        // The end that no renewal moves.
        cached.renewed(at(126), &lease(30, true));
        assert_eq!(cached.step(at(126)), Some(DueStep::Replace));
        assert!(cached.is_usable(at(155), None) && !cached.is_usable(at(156), None));
    }

    // A renewal that gave little moved the end before the time until which calls trusted the lease.
    // Proves: X12
    #[test]
    fn no_call_has_a_leased_secret_after_an_end_that_came_nearer() {
        let values = vec![Secret::new("a".to_owned())];
        let mut cached = CachedSecret::leased(values, at(0), lease(100, true));
        cached.renewed(at(55), &lease(5, true));
        assert!(cached.is_live(at(59)) && !cached.is_live(at(60)));
        assert!(!cached.is_usable(at(60), Some(Duration::from_secs(600))));
    }

    #[test]
    fn a_lease_that_no_call_used_is_left_alone() {
        for renewable in [true, false] {
            let values = vec![Secret::new("a".to_owned())];
            let mut cached = CachedSecret::leased(values, at(0), lease(100, renewable));
            assert_eq!(cached.step(at(60)), Some(DueStep::Leave));
            let values = vec![Secret::new("a".to_owned())];
            let mut cached = CachedSecret::leased(values, at(0), lease(100, renewable));
            cached.note_use();
            let step = cached.step(at(60));
            assert_eq!(step == Some(DueStep::Replace), !renewable, "{step:?}");
            cached.not_renewed(at(61));
            assert_eq!(cached.step(at(61)), Some(DueStep::Replace));
        }
        let mut stored = CachedSecret::new(Vec::new(), at(0), Duration::from_secs(1));
        assert_eq!((stored.step(at(9)), stored.due(at(0))), (None, None));
    }

    // Proves: X12
    #[test]
    fn a_leased_secret_is_made_anew_before_its_end_and_never_used_after_it() {
        let leased = |value: &str| {
            let values = vec![Secret::new(value.to_owned())];
            CachedSecret::leased(values, at(0), lease(100, true))
        };
        let mut ends = std::collections::BTreeSet::new();
        for value in ["a", "b", "c", "d", "e", "f"] {
            let mut cached = leased(value);
            assert!(cached.is_live(at(69)) && !cached.is_live(at(80)));
            ends.extend((70..=80).find(|end| !cached.is_live(at(*end))));
            for stale in [None, Some(Duration::from_secs(600))] {
                assert!(cached.is_usable(at(99), stale) && !cached.is_usable(at(100), stale));
            }
            cached.refuse();
            assert!(!cached.is_live(at(1)));
            cached.accept();
            assert!(cached.is_live(at(1)));
        }
        assert!(ends.len() > 2, "all at once: {ends:?}");
    }

    // A call that waited for an approval sent a token that had ended long before.
    // Proves: X21
    #[test]
    fn the_request_that_read_a_token_has_it_to_its_end_and_for_one_second_at_least() {
        let token = |seconds: u64| {
            let values = vec![Secret::new("a".to_owned())];
            let cached = CachedSecret::new(values, at(10), Duration::ZERO);
            cached.ending(at(10), Duration::from_secs(seconds))
        };
        let just_before = UnixTime::from_micros(10_999_999);
        for (life, last, first_without) in [
            (0, just_before, at(11)),
            (1, just_before, at(11)),
            (3, UnixTime::from_micros(12_999_999), at(13)),
        ] {
            let mut cached = token(life);
            assert!(cached.serves_its_reader(last), "{life}");
            assert!(!cached.serves_its_reader(first_without), "{life}");
            cached.refuse();
            assert!(!cached.serves_its_reader(at(10)), "{life}");
        }
        // A stored secret has no end that is known, and the end of a lease may come nearer.
        let values = vec![Secret::new("a".to_owned())];
        let stored = CachedSecret::new(values, at(10), Duration::ZERO);
        assert!(stored.serves_its_reader(at(600)) && !stored.is_live(at(10)));
        let values = vec![Secret::new("a".to_owned())];
        let leased = CachedSecret::leased(values, at(10), lease(1, true));
        assert!(leased.serves_its_reader(just_before) && !leased.serves_its_reader(at(11)));
    }

    #[test]
    fn a_stored_secret_is_used_beyond_its_life_as_stated() {
        let values = vec![Secret::new("a".to_owned())];
        let mut cached = CachedSecret::new(values, at(0), Duration::from_secs(60));
        cached.refuse();
        assert!(!cached.is_live(at(1)), "another one is read");
        assert!(cached.is_usable(at(59), None) && !cached.is_usable(at(60), None));
        let stale = Some(Duration::from_secs(30));
        assert!(cached.is_usable(at(89), stale) && !cached.is_usable(at(90), stale));
    }
}
