//! Waits for the keys that could verify a token.
//!
//! Owns that wait. It costs a request nothing while the worker has the keys; otherwise many requests wait for one
//! fetch. The part of the request that arrives meanwhile is kept, unparsed.

use crate::auth::PresentedIdentity;
use crate::auth::token::issuer::IssuerId;
use crate::config::Mode;
use crate::denial::Denial;
use crate::driver::call::{CallFailure, CallId, Dependency, DependencyCall};
use crate::driver::event::Event;
use crate::driver::step::Gate;
use crate::exchange::actions::hold_body::reserve_unseen;
use crate::exchange::actions::prove_token::{TokenProof, judged};
use crate::exchange::handover::{Handover, Outcome, TokenRequest, held, refuse};
use crate::exchange::request::{ArrivedBody, Audience, Caller, PendingBody};
use crate::exchange::turn::Turn;

/// One fetch or two: a set that was fetched for another token may lack the key of this one.
const MOST_FETCHES: u8 = 2;

/// Waits for keys.
#[derive(Debug)]
pub(crate) struct VerifyToken {
    presented: Box<TokenRequest>,
    body: ArrivedBody,
    call: CallId,
    fetches: u8,
}

impl VerifyToken {
    /// Asks for the keys of `issuer`.
    pub(crate) fn enter(
        presented: Box<TokenRequest>,
        issuer: IssuerId,
        turn: &mut Turn<'_>,
    ) -> Outcome<Box<Self>> {
        if !presented.last
            && turn.context.mode == Mode::Split
            && let Err(denial) = reserve_unseen(&presented.head, turn)
        {
            return refuse(denial, turn);
        }
        let call = turn.start(DependencyCall::Keys(issuer));
        let stage = Self { presented, body: ArrivedBody::Awaited, call, fetches: 1 };
        Outcome::Wait(Box::new(stage), Gate::Hold)
    }

    pub(crate) fn on(mut self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> Outcome<Box<Self>> {
        match event {
            // The keyring knows whether the fetch brought keys.
            Event::CallDone { id, .. } | Event::CallFailed { id, .. } if id == self.call => {
                self.judge(turn)
            }
            Event::Body(body) => {
                self.body = ArrivedBody::Whole(body);
                Outcome::Wait(self, Gate::Hold)
            }
            Event::BodyTooLarge => {
                self.body = ArrivedBody::TooLarge;
                Outcome::Wait(self, Gate::Hold)
            }
            event => held(event, "proving", turn, || self),
        }
    }

    fn judge(mut self: Box<Self>, turn: &mut Turn<'_>) -> Outcome<Box<Self>> {
        match judged(&self.presented.token.presented(), &self.presented.head, turn) {
            Ok(TokenProof::Proven(identity, audience)) => self.proceed(identity, audience),
            Ok(TokenProof::Waits(issuer)) if self.fetches < MOST_FETCHES => {
                self.fetches = self.fetches.saturating_add(1);
                self.call = turn.start(DependencyCall::Keys(issuer));
                Outcome::Wait(self, Gate::Hold)
            }
            Ok(TokenProof::Waits(_)) => {
                refuse(Denial::Unavailable(Dependency::Issuer, CallFailure::Unreadable), turn)
            }
            Err(denial) => refuse(denial, turn),
        }
    }

    /// Continues as if the keys had been here from the start.
    fn proceed(self, identity: PresentedIdentity, audience: Audience) -> Outcome<Box<Self>> {
        let Self { presented, body, .. } = self;
        let TokenRequest { head, last, certificate, .. } = *presented;
        let pending = PendingBody::new(head, Caller { identity, certificate, audience });
        Outcome::Next(Handover::CallerKnown { pending: Box::new(pending), last, body })
    }
}
