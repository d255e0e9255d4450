//! What is decided when a dependency cannot be asked.
//!
//! Owns the choice that an operator made, and how far it carries: what Redis confirmed to this
//! worker not long ago, and windows of the worker's own. Whether a dependency failed, others say.

mod confirmed;
mod local_window;

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_redis_lua::{Admit, AdmitReply, Window};

use crate::driver::call::Dependency;
use crate::id::OrgId;
use crate::time::UnixTime;
use confirmed::Confirmed;
use local_window::LocalWindows;
pub use local_window::{LocalLimit, WorkerShare};

/// What a worker does when a dependency fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Refuses what needs it.
    #[default]
    Deny,
    /// Goes on with what was confirmed before.
    Degrade(Degraded),
}

/// How far a worker goes on without a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Degraded {
    /// The oldest confirmation that still counts.
    pub stale: Duration,
    /// What becomes of limits.
    pub limits: Limits,
}

/// What becomes of limits while nobody counts for all gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// Each worker admits this share of every limit.
    Local(WorkerShare),
    /// None holds.
    Waived,
}

/// Without a degraded decision for so long, confirmed ones mean that it is over.
const CALM: Duration = Duration::from_secs(1);

/// What a worker needs to go on without Redis, and what it goes on without.
#[derive(Debug, Default)]
pub struct Failover {
    confirmed: Confirmed,
    windows: LocalWindows,
    episodes: BTreeMap<Dependency, Episode>,
}

/// The time during which something was decided without a dependency.
#[derive(Clone, Copy, Debug)]
struct Episode {
    since: UnixTime,
    last: UnixTime,
}

/// What is decided without Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutRedis {
    /// The verdict stands.
    Stands,
    /// It would, but a window of this worker is full.
    Limited(LocalLimit),
    /// Something that it rests on was not confirmed, or too long ago.
    Unconfirmed,
}

impl Failover {
    /// Takes note of what Redis just said about an admission.
    pub fn confirm(&mut self, now: UnixTime, admit: &Admit, reply: &AdmitReply) {
        self.confirmed.note(now, admit, reply);
    }

    /// What becomes of an admission of a caller of `org` that Redis did not answer. A request that stands
    /// draws from the windows.
    pub fn decide(
        &mut self,
        (org, now): (&OrgId, UnixTime),
        admit: &Admit,
        degraded: Degraded,
    ) -> WithoutRedis {
        if !self.confirmed.covers(now, &admit.guards, degraded.stale) {
            return WithoutRedis::Unconfirmed;
        }
        match degraded.limits {
            Limits::Waived => WithoutRedis::Stands,
            Limits::Local(share) => self.draw((org, now), &admit.windows, share),
        }
    }

    fn draw(
        &mut self,
        by: (&OrgId, UnixTime),
        windows: &[Window],
        share: WorkerShare,
    ) -> WithoutRedis {
        match self.windows.draw(by, windows, share) {
            Ok(()) => WithoutRedis::Stands,
            Err(limit) => WithoutRedis::Limited(limit),
        }
    }

    /// Something was decided without `dependency`; whether that is news.
    pub fn degraded(&mut self, dependency: Dependency, now: UnixTime) -> Option<Entered> {
        let before = self.episodes.get(&dependency).copied();
        let since = before.map_or(now, |episode| episode.since);
        self.episodes.insert(dependency, Episode { since, last: now });
        before.is_none().then_some(Entered)
    }

    /// A dependency answered; whether that ends an episode, and how long that was.
    pub fn recovered(&mut self, dependency: Dependency, now: UnixTime) -> Option<Duration> {
        let episode = *self.episodes.get(&dependency)?;
        if now.since(episode.last) < CALM {
            return None;
        }
        self.episodes.remove(&dependency);
        Some(now.since(episode.since))
    }
}

/// A worker went on without a dependency for the first time since it had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered;

#[cfg(test)]
mod tests;
