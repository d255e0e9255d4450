//! Policy documents: who waits for one, and handing it to the worker.
//!
//! Owns who asks something of Redis: an exchange, or a read of a document on the worker's own account.
//! How a document is read is the core's to say.

use portcullis_core::call::{CallFailure, Reply};
use portcullis_core::event::Event;
use portcullis_core::id::PolicyVersion;
use portcullis_core::redis::Output;
use portcullis_core::redis::documents::Progress;
use portcullis_core::time::UnixTime;
use portcullis_redis_lua::Value;

use crate::gateway::{Gateway, Waiter};

/// Who asks something of Redis.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    /// An exchange.
    Call(Waiter),
    /// The worker itself, for a part of a document.
    Document {
        /// Which.
        version: PolicyVersion,
        /// When this part was asked for.
        since: UnixTime,
    },
}

impl Asker {
    pub(crate) const fn since(&self) -> UnixTime {
        match self {
            Self::Call(Waiter { since, .. }) | Self::Document { since, .. } => *since,
        }
    }
}

impl Gateway {
    /// `waiter` waits for the document of `version`.
    pub(crate) fn await_document(&self, waiter: Waiter, version: &PolicyVersion) {
        let now = waiter.since;
        let progress = self.with(|state| state.documents.wait(now, version, waiter)).flatten();
        let outputs = self.go_on(now, version, progress);
        self.carry_out(now, outputs);
    }

    pub(crate) fn document_answered(
        &self,
        now: UnixTime,
        version: &PolicyVersion,
        value: Value,
    ) -> Vec<Output<Asker>> {
        let progress = self.with(|state| state.documents.answered(now, version, value)).flatten();
        self.go_on(now, version, progress)
    }

    pub(crate) fn document_failed(
        &self,
        now: UnixTime,
        version: &PolicyVersion,
        why: CallFailure,
    ) -> Vec<Output<Asker>> {
        let progress = self.with(|state| state.documents.failed(now, version, why)).flatten();
        self.go_on(now, version, progress)
    }

    /// Time has passed: whether somebody waited too long for a document.
    pub(crate) fn overdue_for_documents(&self, now: UnixTime) -> bool {
        let overdue = self.with(|state| state.documents.overdue(now)).unwrap_or_default();
        let found = !overdue.is_empty();
        self.document_denied(CallFailure::TimedOut, overdue);
        found
    }

    fn go_on(
        &self,
        now: UnixTime,
        version: &PolicyVersion,
        progress: Option<Progress<Waiter>>,
    ) -> Vec<Output<Asker>> {
        match progress {
            Some(Progress::Ask(command)) => {
                let asker = Asker::Document { version: version.clone(), since: now };
                self.with(|state| state.redis.submit(now, asker, command)).unwrap_or_default()
            }
            Some(Progress::Read { document, waiters }) => {
                self.with(|state| state.worker.policy_read(version, document.as_deref(), now));
                self.measure_load(now);
                let done = |Waiter { context, call: id, .. }| {
                    (context, Event::CallDone { id, reply: Reply::Policy })
                };
                self.queue(waiters.into_iter().map(done).collect::<Vec<_>>());
                Vec::new()
            }
            Some(Progress::Failed(why, waiters)) => {
                self.document_denied(why, waiters);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn document_denied(&self, why: CallFailure, waiters: Vec<Waiter>) {
        let failed = |Waiter { context, call: id, .. }| (context, Event::CallFailed { id, why });
        self.queue(waiters.into_iter().map(failed).collect::<Vec<_>>());
    }
}
