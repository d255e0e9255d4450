//! What a reply says of the state of Redis: whether it is the latest, and what time it is there.
//!
//! Owns what becomes of a request when Redis holds an older state than this worker saw: a restored
//! backup, a replica without the last writes, an emptied server. Nothing is decided on it.

use portcullis_redis_lua::Stamp;

use super::{Next, Turn};
use crate::audit::AuditEvent;
use crate::call::{CallFailure, Dependency};
use crate::denial::Denial;
use crate::id::OrgId;
use crate::metric::Metric;
use crate::step::Effect;
use crate::worker::WentBack;

impl Turn<'_> {
    /// Takes note of the state that a reply was made of.
    ///
    /// # Errors
    /// Nothing may be decided on it.
    pub(super) fn witness(&mut self, org: &OrgId, stamp: Option<&Stamp>) -> Result<(), WentBack> {
        if let Some(apart) = stamp.and_then(|stamp| self.worker.compare_clocks(self.now, stamp)) {
            let apart = u64::try_from(apart.as_millis()).unwrap_or(u64::MAX);
            self.effects.push(Effect::Measure(Metric::ClockSkew, apart));
        }
        self.worker.witness(org, stamp)
    }

    /// Refuses, and says so to who can do something about it.
    pub(super) fn note_went_back(&mut self, org: &OrgId, why: WentBack) -> Denial {
        if self.worker.reports(org, &why) {
            let (what, seen, now) = match why {
                WentBack::Organisation { seen, now } => {
                    ("organisation", seen.to_string(), now.to_string())
                }
                WentBack::Record { seen, now } => ("key", seen.to_string(), now.to_string()),
            };
            let org = org.to_string();
            self.context.entry.events.push(AuditEvent::StateWentBack { org, what, seen, now });
        }
        Denial::Unavailable(Dependency::Redis, CallFailure::WentBack)
    }

    /// Refuses a request because of it.
    pub(super) fn went_back(&mut self, org: &OrgId, why: WentBack) -> Next {
        let denial = self.note_went_back(org, why);
        self.refuse(denial)
    }
}
