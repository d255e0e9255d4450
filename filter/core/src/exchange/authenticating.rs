//! A key is authenticated before a large body is parsed.
//!
//! Owns that wait. Parsing takes time in proportion to the body, on the thread that serves everybody, so it is not done
//! for a key that Redis did not confirm. The wait begins while the body still arrives; what came of it meanwhile is
//! kept, unread.

use portcullis_redis_lua::{Admit, AdmitReply};

use super::admission::held;
use super::basis::{Basis, Unlearned};
use super::intake::Reading;
use super::request::ArrivedBody;
use super::turn::{CallerIdentity, Turn};
use super::verdict::authenticate;
use super::{Next, Stage};
use crate::call::{Call, CallFailure, CallId, Dependency, Reply};
use crate::denial::Denial;
use crate::event::Event;
use crate::step::Gate;

/// Up to this size a body is parsed for everybody: that costs no more than asking Redis first.
pub(crate) const SMALL_BODY: usize = 16 << 10;

/// Waits for Redis.
#[derive(Debug)]
pub(crate) struct Authenticating {
    reading: Box<Reading>,
    basis: Basis,
    admit: Admit,
    call: CallId,
    body: ArrivedBody,
}

impl Authenticating {
    /// Asks Redis about the key of `reading`, and draws from nothing.
    pub(crate) fn start(reading: Box<Reading>, body: ArrivedBody, turn: &mut Turn<'_>) -> Next {
        let claimant = &reading.caller().claimant;
        let basis = Basis::remembered(claimant, turn.worker, turn.now);
        let guards = basis.guards(claimant);
        let admit = Admit { guards, windows: Vec::new(), used: None };
        let call = turn.start(Call::Admit(admit.call()));
        let stage = Self { reading, basis, admit, call, body };
        (Stage::Authenticating(Box::new(stage)), Gate::Hold)
    }

    pub(crate) fn on(mut self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> Next {
        match event {
            Event::CallDone { id, reply } if id == self.call => self.answered(reply, turn),
            Event::CallFailed { id, why } if id == self.call => self.unanswered(why, turn),
            Event::Body(body) => {
                self.body = ArrivedBody::Whole(body);
                (Stage::Authenticating(self), Gate::Hold)
            }
            Event::BodyTooLarge => {
                self.body = ArrivedBody::TooLarge;
                (Stage::Authenticating(self), Gate::Hold)
            }
            event => held(event, "authenticating", turn, || Stage::Authenticating(self)),
        }
    }

    fn answered(mut self, reply: Reply, turn: &mut Turn<'_>) -> Next {
        let unreadable = Denial::Unavailable(Dependency::Redis, CallFailure::Unreadable);
        let Reply::Redis(value) = reply else { return turn.refuse(unreadable) };
        let Ok((reply, stamp)) = self.admit.decode_stamped(value) else {
            return turn.refuse(unreadable);
        };
        let claimant = &self.reading.caller().claimant;
        if let Err(why) = turn.witness(claimant.org(), stamp.as_ref()) {
            return turn.went_back(claimant.org(), why);
        }
        turn.context.identity = CallerIdentity::Confirmed;
        turn.confirm(&self.admit, &reply);
        match reply {
            AdmitReply::Admitted(_) => {}
            AdmitReply::Moved(states) => {
                match self.basis.learn(claimant, &mut states.into_iter(), turn.worker) {
                    Ok(()) => {}
                    Err(Unlearned::Missing) => return turn.refuse(unreadable),
                    Err(Unlearned::WentBack(why)) => return turn.went_back(claimant.org(), why),
                }
            }
            // It draws from nothing.
            AdmitReply::Limited { .. } => return turn.refuse(unreadable),
        }
        match self.vouched(turn) {
            Some(Ok(())) => {
                turn.proven();
                self.proceed(turn)
            }
            Some(Err(denial)) => turn.refuse(denial),
            None => turn.refuse(unreadable),
        }
    }

    /// Where the operator would rather go on without Redis, the admission decides how far: for a key that this worker
    /// knows.
    fn unanswered(self, why: CallFailure, turn: &mut Turn<'_>) -> Next {
        match (turn.degraded_redis(), self.vouched(turn)) {
            (Some(_), Some(Ok(()))) => self.proceed(turn),
            (Some(_), _) | (None, _) => turn.refuse(Denial::Unavailable(Dependency::Redis, why)),
        }
    }

    /// Whether the key holds, as far as the worker knows.
    fn vouched(&self, turn: &mut Turn<'_>) -> Option<Result<(), Denial>> {
        let (caller, standing) = (self.reading.caller(), &self.basis.standing);
        let caller = (&caller.claimant, caller.certificate.as_ref());
        let entry = &mut turn.context.entry;
        authenticate(caller, standing, turn.worker, turn.now, entry)
            .map(|principal| principal.map(drop))
    }

    /// Goes on as if the key had been known from the start.
    fn proceed(self, turn: &mut Turn<'_>) -> Next {
        let Self { reading, body, .. } = self;
        let reading = Box::new(reading.authenticated());
        match body.event() {
            Some(event) => reading.on(event, turn),
            None => (Stage::Reading(reading), Gate::Hold),
        }
    }
}
