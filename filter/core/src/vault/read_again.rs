//! Repeated reads of credentials that servers refused.
//!
//! Owns how often they happen: a server decides when it answers 401, so this module bounds the cost for Vault.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use crate::time::UnixTime;

/// The shortest time between two reads of a refused credential.
pub(crate) const BETWEEN_READS: Duration = Duration::from_secs(1);
/// The most reads in [`BETWEEN_READS`] of all secrets below one path, for example those of single callers.
const MOST: u32 = 10;
/// The most paths in memory.
const MAX_PATHS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(999);

/// The reaction to a server's refusal of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another credential is in memory by now.
    Replaced,
    /// The credential is read again.
    ReadAgain,
    /// None: it was read a moment ago, or too many others were.
    TooSoon,
}

/// The times of repeated reads, by the name of their circuit breaker.
#[derive(Debug)]
pub struct ReadsAgain {
    paths: LruCache<String, Reads>,
}

#[derive(Clone, Copy, Debug)]
struct Reads {
    since: UnixTime,
    reads: u32,
}

impl Default for ReadsAgain {
    fn default() -> Self {
        Self { paths: LruCache::new(MAX_PATHS) }
    }
}

impl ReadsAgain {
    /// Whether one more read is allowed; counts it.
    pub fn lets_pass(&mut self, path: &str, now: UnixTime) -> bool {
        let fresh = |reads: &&mut Reads| now.since(reads.since) < BETWEEN_READS;
        match self.paths.get_mut(path).filter(fresh) {
            Some(reads) if reads.reads >= MOST => false,
            Some(reads) => {
                reads.reads = reads.reads.saturating_add(1);
                true
            }
            None => {
                self.paths.put(path.to_owned(), Reads { since: now, reads: 1 });
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_many_callers_cost_vault_few_reads() {
        let mut reads = ReadsAgain::default();
        let at = |millis: u64| UnixTime::from_micros(millis * 1_000);
        let mut passed = |path, now| (0..100).filter(|_| reads.lets_pass(path, now)).count();
        assert_eq!(passed("users", at(0)), 10);
        assert_eq!(passed("users", at(999)), 0);
        assert_eq!(passed("others", at(999)), 10);
        assert_eq!(passed("users", at(1_000)), 10);
    }
}
