//! The guards that Redis confirmed to this worker, with the time.
//!
//! Owns the bounded memory of them. A guard is confirmed at its expected revision, or as absent. A verdict is valid
//! without Redis exactly when every guard of its basis (of the identity, the policy, a session) was confirmed like that
//! recently.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use portcullis_redis_lua::{Admit, AdmitReply, Expected, Guard, GuardState, Key};

use crate::time::UnixTime;

const MAX_GUARDS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(29_999);

#[derive(Debug)]
pub(super) struct Confirmed(LruCache<Key, (Expected, UnixTime)>);

impl Default for Confirmed {
    fn default() -> Self {
        Self(LruCache::new(MAX_GUARDS))
    }
}

impl Confirmed {
    pub(super) fn note(&mut self, now: UnixTime, admit: &Admit, reply: &AdmitReply) {
        let current = |guard: &Guard| (guard.key.clone(), guard.expected.clone());
        let found: Vec<_> = match reply {
            AdmitReply::Admitted(_) | AdmitReply::Limited { .. } => {
                admit.guards.iter().map(current).collect()
            }
            AdmitReply::Stale(states) => {
                let pairs = admit.guards.iter().zip(states);
                let now = pairs.map(|(guard, state)| match state {
                    GuardState::Current => current(guard),
                    GuardState::Absent => (guard.key.clone(), Expected::Absent),
                    GuardState::Present { rev, .. } => {
                        (guard.key.clone(), Expected::Revision(rev.clone()))
                    }
                });
                now.collect()
            }
        };
        for (key, state) in found {
            self.0.put(key, (state, now));
        }
    }

    /// Whether all of them were confirmed as expected, each at most `stale` ago.
    pub(super) fn covers(&mut self, now: UnixTime, guards: &[Guard], stale: Duration) -> bool {
        guards.iter().all(|guard| {
            let found = self.0.get(&guard.key);
            found.is_some_and(|(state, at)| *state == guard.expected && now.since(*at) <= stale)
        })
    }
}
