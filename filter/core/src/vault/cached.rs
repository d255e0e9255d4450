//! A credential in memory.
//!
//! Owns until when it is used. What makes it a header is [`crate::connector_credential`]'s business.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::secret::Secret;
use crate::time::UnixTime;

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
        Self { values, read: now, expires, ends, accepted }
    }

    /// Holds values that Vault made for `lease` from `now`. Another one is made before the end, and not by all workers at
    /// once: each has values of its own, which choose when.
    #[must_use]
    pub fn leased(values: Vec<Secret>, now: UnixTime, lease: Duration) -> Self {
        let cached = Self::new(values, now, lease);
        let jitter = u32::from(cached.digest().first().copied().unwrap_or_default());
        let tenth = lease.checked_div(10).unwrap_or_default();
        let jitter = tenth.saturating_mul(jitter).checked_div(256).unwrap_or_default();
        let spare = tenth.saturating_mul(2).saturating_add(jitter);
        Self { expires: now.after(lease.saturating_sub(spare)), ..cached }.ending(now, lease)
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
        self.accepted == Accepted::Yes && now < self.expires
    }

    /// Its server refused it: nobody gets it any more, unless another one cannot be had.
    pub fn refuse(&mut self) {
        self.accepted = Accepted::No;
    }

    /// Nobody can say that there is another one: it is used on.
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

    // Proves: X12
    #[test]
    fn a_leased_secret_is_made_anew_before_its_end_and_never_used_after_it() {
        let leased = |value: &str| {
            let values = vec![Secret::new(value.to_owned())];
            CachedSecret::leased(values, at(0), Duration::from_secs(100))
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
