//! Waits for Redis's answer on a key, before a large body is parsed.
//!
//! Owns that wait. Parsing takes time in proportion to the body, on the worker's only thread, so Portcullis does not
//! parse for a key that Redis did not confirm. The wait begins while the body still arrives; the arrived part is kept,
//! unparsed.

use portcullis_redis_lua::{Admit, AdmitReply};

use crate::denial::Denial;
use crate::driver::call::{CallFailure, CallId, Dependency, DependencyCall, Reply};
use crate::driver::event::Event;
use crate::driver::step::Gate;
use crate::exchange::checks::snapshot::{Snapshot, Unlearned};
use crate::exchange::checks::verdict::authenticate;
use crate::exchange::handover::{Handover, Outcome, held, refuse};
use crate::exchange::request::{ArrivedBody, PendingBody};
use crate::exchange::turn::{CallerIdentity, Turn};

/// Waits for Redis.
#[derive(Debug)]
pub(crate) struct VerifyKey {
    reading: Box<PendingBody>,
    snapshot: Snapshot,
    admit: Admit,
    call: CallId,
    body: ArrivedBody,
}

impl VerifyKey {
    /// Asks Redis about the key of `reading`, without drawing units.
    pub(crate) fn enter(
        reading: Box<PendingBody>,
        body: ArrivedBody,
        turn: &mut Turn<'_>,
    ) -> Outcome<Box<Self>> {
        let identity = &reading.caller.identity;
        let snapshot = Snapshot::remembered(identity, turn.worker, turn.now);
        let guards = snapshot.guards(identity);
        let admit = Admit { guards, windows: Vec::new(), used: None, intent: None };
        let call = turn.start(DependencyCall::Admit(admit.call()));
        let stage = Self { reading, snapshot, admit, call, body };
        Outcome::Wait(Box::new(stage), Gate::Hold)
    }

    pub(crate) fn on(mut self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> Outcome<Box<Self>> {
        match event {
            Event::CallDone { id, reply } if id == self.call => self.answered(reply, turn),
            Event::CallFailed { id, why } if id == self.call => self.unanswered(why, turn),
            // A complete body does not change.
            Event::Body(_) | Event::BodyTooLarge if !self.awaits_body() => {
                Outcome::Wait(self, Gate::Hold)
            }
            Event::Body(body) => {
                self.body = ArrivedBody::Whole(body);
                Outcome::Wait(self, Gate::Hold)
            }
            Event::BodyTooLarge => {
                self.body = ArrivedBody::TooLarge;
                Outcome::Wait(self, Gate::Hold)
            }
            event => held(event, "authenticating", turn, || self),
        }
    }

    fn awaits_body(&self) -> bool {
        match self.body {
            ArrivedBody::Awaited => true,
            ArrivedBody::Whole(_) | ArrivedBody::TooLarge => false,
        }
    }

    fn answered(mut self, reply: Reply, turn: &mut Turn<'_>) -> Outcome<Box<Self>> {
        let unreadable = Denial::Unavailable(Dependency::Redis, CallFailure::Unreadable);
        let Reply::Redis(value) = reply else { return refuse(unreadable, turn) };
        let Ok((reply, stamp)) = self.admit.decode_stamped(value) else {
            return refuse(unreadable, turn);
        };
        let identity = &self.reading.caller.identity;
        if let Err(why) = turn.witness(identity.org(), stamp.as_ref()) {
            return refuse(turn.note_went_back(identity.org(), why), turn);
        }
        turn.context.identity = CallerIdentity::Confirmed;
        turn.confirm(&self.admit, &reply);
        match reply {
            AdmitReply::Admitted(_) => {}
            AdmitReply::Stale(states) => {
                match self.snapshot.learn(identity, &mut states.into_iter(), turn.worker) {
                    Ok(()) => {}
                    Err(Unlearned::Missing) => return refuse(unreadable, turn),
                    Err(Unlearned::WentBack(why)) => {
                        return refuse(turn.note_went_back(identity.org(), why), turn);
                    }
                }
            }
            // The call draws from no window.
            AdmitReply::Limited { .. } => return refuse(unreadable, turn),
        }
        match self.vouched(turn) {
            Some(Ok(())) => {
                turn.proven();
                self.proceed()
            }
            Some(Err(denial)) => refuse(denial, turn),
            None => refuse(unreadable, turn),
        }
    }

    /// When the operator allows operation without Redis, the admission decides how far: for a key that this worker
    /// knows.
    fn unanswered(self, why: CallFailure, turn: &mut Turn<'_>) -> Outcome<Box<Self>> {
        match (turn.degraded_redis(), self.vouched(turn)) {
            (Some(_), Some(Ok(()))) => self.proceed(),
            (Some(_), _) | (None, _) => refuse(Denial::Unavailable(Dependency::Redis, why), turn),
        }
    }

    /// Whether the key is valid, according to the worker's cache.
    fn vouched(&self, turn: &mut Turn<'_>) -> Option<Result<(), Denial>> {
        let (caller, credential) = (&self.reading.caller, &self.snapshot.credential);
        let caller = (&caller.identity, caller.certificate.as_ref());
        let entry = &mut turn.context.entry;
        authenticate(caller, credential, turn.worker, turn.now, entry)
            .map(|principal| principal.map(drop))
    }

    /// Continues as if the key had been known from the start.
    fn proceed(self) -> Outcome<Box<Self>> {
        let Self { reading, body, .. } = self;
        Outcome::Next(Handover::KeyVerified(reading.authenticated(), body))
    }
}
