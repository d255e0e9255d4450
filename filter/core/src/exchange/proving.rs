//! A token waits for the keys that could prove it.
//!
//! Owns that wait. It costs a request nothing while its worker has the keys; when it has not, many
//! requests wait for one fetch. What came of the token's request meanwhile is kept, unread.

use super::admission::held;
use super::intake::{self, Reading};
use super::request::{ArrivedBody, Audience, Caller};
use super::resource::posts_elsewhere;
use super::turn::Turn;
use super::{Next, Stage};
use crate::auth::certificate::PeerCertificate;
use crate::auth::token::issuer::IssuerId;
use crate::auth::token::jws::PresentedToken;
use crate::auth::token::keyring::Verification;
use crate::auth::{AuthFailure, Claimant};
use crate::call::{Call, CallFailure, CallId, Dependency};
use crate::config::Mode;
use crate::denial::Denial;
use crate::event::{Event, Head};
use crate::step::Gate;

/// A fetch or two: a set that was fetched for somebody else may lack what this token needs.
const MOST_FETCHES: u8 = 2;

/// What a token comes to.
pub(crate) enum Outcome {
    /// This claimant, whose token may be meant for another endpoint.
    Proven(Claimant, Audience),
    /// Nothing, until this issuer's keys are here.
    Waits(IssuerId),
}

/// Waits for keys.
#[derive(Debug)]
pub(crate) struct Proving {
    head: Head,
    last: bool,
    token: PresentedToken,
    certificate: Option<PeerCertificate>,
    body: ArrivedBody,
    call: CallId,
    fetches: u8,
}

/// Judges a token by the keys that the worker has.
///
/// # Errors
/// Why it does not hold, or that nobody can tell.
pub(crate) fn judged(
    token: &PresentedToken,
    head: &Head,
    turn: &mut Turn<'_>,
) -> Result<Outcome, Denial> {
    let auth = &turn.worker.config.auth;
    let resource = auth.resource(&head.path());
    let keyring = &mut turn.worker.keyring;
    let verification = keyring.verify(token, &auth.issuers, resource.as_deref(), turn.now);
    if let Verification::Verified(token) | Verification::Refused(_, Some(token)) = &verification
        && !auth.issuer(&token.issuer).is_some_and(|issuer| issuer.serves(&head.path()))
    {
        // What it proves counts elsewhere; here nobody knows its issuer.
        return Err(Denial::Unauthenticated(AuthFailure::UnknownIssuer));
    }
    match verification {
        Verification::Verified(token) => {
            let claimant = Claimant::Proven(token.proven.clone());
            // Its signature holds, whatever Redis says of it next.
            turn.proven();
            Ok(Outcome::Proven(claimant, Audience::Fits))
        }
        // Whether the path belongs to what the token is for is in the policy.
        Verification::Refused(AuthFailure::WrongAudience, Some(token)) if posts_elsewhere(head) => {
            let claimant = Claimant::Proven(token.proven.clone());
            Ok(Outcome::Proven(claimant, Audience::Elsewhere(token)))
        }
        Verification::Refused(failure, owner) => {
            if let Some(owner) = owner.filter(|_| failure.proves_holder()) {
                turn.context.entry.identify(&owner.proven.principal);
            }
            Err(Denial::Unauthenticated(failure))
        }
        Verification::Fetch(issuer) => Ok(Outcome::Waits(issuer)),
        Verification::Unavailable(why) => Err(Denial::Unavailable(Dependency::Issuer, why)),
    }
}

impl Proving {
    /// Asks for the keys of `issuer`.
    pub(crate) fn start(
        (head, last): (Head, bool),
        (token, certificate): (PresentedToken, Option<PeerCertificate>),
        issuer: IssuerId,
        turn: &mut Turn<'_>,
    ) -> Next {
        if !last
            && turn.context.mode == Mode::Split
            && let Err(denial) = intake::reserve_unseen(&head, turn)
        {
            return turn.refuse(denial);
        }
        let call = turn.start(Call::Keys(issuer));
        let stage =
            Self { head, last, token, certificate, body: ArrivedBody::Awaited, call, fetches: 1 };
        (Stage::Proving(Box::new(stage)), Gate::Hold)
    }

    pub(crate) fn on(mut self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> Next {
        match event {
            // Whether keys came or not, the keyring knows.
            Event::CallDone { id, .. } | Event::CallFailed { id, .. } if id == self.call => {
                self.judge(turn)
            }
            Event::Body(body) => {
                self.body = ArrivedBody::Whole(body);
                (Stage::Proving(self), Gate::Hold)
            }
            Event::BodyTooLarge => {
                self.body = ArrivedBody::TooLarge;
                (Stage::Proving(self), Gate::Hold)
            }
            event => held(event, "proving", turn, || Stage::Proving(self)),
        }
    }

    fn judge(mut self: Box<Self>, turn: &mut Turn<'_>) -> Next {
        match judged(&self.token, &self.head, turn) {
            Ok(Outcome::Proven(claimant, audience)) => self.proceed(claimant, audience, turn),
            Ok(Outcome::Waits(issuer)) if self.fetches < MOST_FETCHES => {
                self.fetches = self.fetches.saturating_add(1);
                self.call = turn.start(Call::Keys(issuer));
                (Stage::Proving(self), Gate::Hold)
            }
            Ok(Outcome::Waits(_)) => {
                turn.refuse(Denial::Unavailable(Dependency::Issuer, CallFailure::Unreadable))
            }
            Err(denial) => turn.refuse(denial),
        }
    }

    /// Goes on as if the keys had been here from the start.
    fn proceed(self, claimant: Claimant, audience: Audience, turn: &mut Turn<'_>) -> Next {
        let caller = Caller { claimant, certificate: self.certificate, audience };
        let (stage, gate) = intake::claimed(self.head, self.last, caller, turn);
        match (stage, self.body.event()) {
            (Stage::Reading(reading), Some(event)) => Reading::on(reading, event, turn),
            (stage, _) => (stage, gate),
        }
    }
}
