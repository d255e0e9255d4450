//! Waits for a policy that this worker has not loaded.
//!
//! Owns that wait; the request is judged again with the loaded policy.

use crate::audit::AuditEvent;
use crate::denial::Denial;
use crate::driver::call::{CallId, Dependency, DependencyCall, Reply};
use crate::driver::event::Event;
use crate::driver::step::Gate;
use crate::exchange::handover::{Handover, Judged, Outcome, held, refuse};
use crate::exchange::turn::Turn;
use crate::id::PolicyVersion;

/// Waits for a policy document.
#[derive(Debug)]
pub(crate) struct LoadPolicy {
    judged: Box<Judged>,
    version: PolicyVersion,
    call: CallId,
}

impl LoadPolicy {
    /// Asks for the document of `version`.
    pub(crate) fn enter(
        judged: Box<Judged>,
        version: PolicyVersion,
        turn: &mut Turn<'_>,
    ) -> Outcome<Box<Self>> {
        let call = turn.start(DependencyCall::Policy(version.clone()));
        Outcome::Wait(Box::new(Self { judged, version, call }), Gate::Hold)
    }

    pub(crate) fn on(self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> Outcome<Box<Self>> {
        match event {
            // The worker has the policy, or knows that it cannot be used; otherwise it is requested again.
            Event::CallDone { id, reply: Reply::Policy } if id == self.call => {
                if turn.worker.audits_unusable(&self.version) {
                    let version = self.version.to_string();
                    turn.context.entry.events.push(AuditEvent::PolicyUnusable { version });
                }
                Outcome::Next(Handover::PolicyLoaded(self.judged))
            }
            Event::CallDone { id, reply: Reply::Redis(_) | Reply::Vault { .. } | Reply::Keys }
                if id == self.call =>
            {
                refuse(Denial::PolicyUnusable, turn)
            }
            Event::CallFailed { id, why } if id == self.call => {
                refuse(Denial::Unavailable(Dependency::Redis, why), turn)
            }
            event => held(event, "loading", turn, || self),
        }
    }
}
