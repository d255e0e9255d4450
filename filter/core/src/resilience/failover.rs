//! Decisions while a dependency is unreachable.
//!
//! Owns the operator's choice, and its limits: the recent confirmations of Redis for this worker, and the worker's own
//! windows. Other modules decide whether a dependency failed.

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
    /// Refuses requests that need it.
    #[default]
    Deny,
    /// Continues with earlier confirmations.
    Degrade(Degraded),
}

/// The limits of operation without a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Degraded {
    /// The oldest confirmation that still counts.
    pub stale: Duration,
    /// The handling of limits.
    pub limits: Limits,
}

/// The handling of limits while no counter is shared by all gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// Each worker admits this share of every limit.
    Local(WorkerShare),
    /// No limit holds.
    Waived,
}

/// After this time without a degraded decision, a confirmed one ends the episode.
const CALM: Duration = Duration::from_secs(1);

/// A worker's confirmations for operation without Redis, and its current episodes.
#[derive(Debug, Default)]
pub struct Failover {
    confirmed: Confirmed,
    windows: LocalWindows,
    episodes: BTreeMap<Dependency, Episode>,
}

/// The time in which decisions were made without a dependency.
#[derive(Clone, Copy, Debug)]
struct Episode {
    since: UnixTime,
    last: UnixTime,
}

/// The decision without Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutRedis {
    /// The verdict holds.
    Stands,
    /// The verdict would hold, but a window of this worker is full.
    Limited(LocalLimit),
    /// A part of its basis was not confirmed, or too long ago.
    Unconfirmed,
}

impl Failover {
    /// Records what Redis confirmed in an admission.
    pub fn confirm(&mut self, now: UnixTime, admit: &Admit, reply: &AdmitReply) {
        self.confirmed.note(now, admit, reply);
    }

    /// Decides on an admission of a caller of `org` that Redis did not answer. A request whose verdict holds draws from
    /// the windows.
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

    /// Records a decision without `dependency`; returns whether that starts an episode.
    pub fn degraded(&mut self, dependency: Dependency, now: UnixTime) -> Option<Entered> {
        let before = self.episodes.get(&dependency).copied();
        let since = before.map_or(now, |episode| episode.since);
        self.episodes.insert(dependency, Episode { since, last: now });
        before.is_none().then_some(Entered)
    }

    /// Records that a dependency answered; returns the length of the episode that ends, if one does.
    pub fn recovered(&mut self, dependency: Dependency, now: UnixTime) -> Option<Duration> {
        let episode = *self.episodes.get(&dependency)?;
        if now.since(episode.last) < CALM {
            return None;
        }
        self.episodes.remove(&dependency);
        Some(now.since(episode.since))
    }
}

/// A worker started to operate without a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered;

#[cfg(test)]
mod tests;
