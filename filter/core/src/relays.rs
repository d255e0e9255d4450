//! Bounds how many refusals of one caller are relayed to its stream.
//!
//! Owns that bound. Each relayed refusal costs the upstream a request; a limit that is reached must continue to protect
//! it.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use crate::id::OrgId;
use crate::time::UnixTime;

const MAX_CALLERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4_095);
/// The most in one second, on one worker. Further refusals are statuses.
const MOST: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// The callers of one worker with the most recent relayed refusals.
#[derive(Debug)]
pub struct Relays(LruCache<(OrgId, String), (UnixTime, u32)>);

impl Default for Relays {
    fn default() -> Self {
        Self(LruCache::new(MAX_CALLERS))
    }
}

impl Relays {
    /// Counts a refusal of a caller; returns whether it may be relayed.
    pub fn lets_pass(&mut self, org: &OrgId, caller: &str, now: UnixTime) -> bool {
        let key = (org.clone(), caller.to_owned());
        let (since, count) = self.0.get_or_insert_mut(key, || (now, 0));
        if now.since(*since) >= SECOND {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_ten_a_second_of_its_own() {
        let (mut relays, org) = (Relays::default(), OrgId::new("acme").unwrap());
        let at = |micros: u64| UnixTime::from_micros(5_000_000 + micros);
        for n in 0..10 {
            assert!(relays.lets_pass(&org, "k", at(n)));
        }
        assert!(!relays.lets_pass(&org, "k", at(999_999)));
        assert!(relays.lets_pass(&org, "other", at(999_999)));
        assert!(relays.lets_pass(&org, "k", at(1_000_000)));
    }
}
