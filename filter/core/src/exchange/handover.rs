//! The results that one stage hands to the next.
//!
//! Owns how an event ends for a stage, and its result. A stage names its result, never the next stage: the transition
//! table (`flow.rs`) has that.

use super::actions::forwarded::{Forwarded, ResponseStart};
use super::checks::snapshot::Snapshot;
use super::grant::{CallerCredential, Credential, Grant, RequiredApproval};
use super::request::{ArrivedBody, PendingBody, Request};
use super::turn::Turn;
use crate::auth::certificate::PeerCertificate;
use crate::auth::token::issuer::IssuerId;
use crate::auth::token::jws::KeptToken;
use crate::denial::Denial;
use crate::driver::event::{Event, Head};
use crate::driver::step::Gate;
use crate::id::{PolicyName, PolicyVersion};

/// How an event ends for a stage.
///
/// Moved several times within one step, so what it hands over is small or in a box.
pub(crate) enum Outcome<S> {
    /// The stage continues to wait, and the message is at this gate.
    Wait(S, Gate),
    /// The stage is done; another stage continues with its result.
    Next(Handover),
    /// The client got its response; only the end of the stream is awaited.
    End(Gate),
    /// The same, without an audit entry.
    Close(Gate),
}

impl<S> Outcome<S> {
    /// The same outcome, with the stage wrapped in the enum of all stages.
    pub(crate) fn map<T>(self, stage: impl FnOnce(S) -> T) -> Outcome<T> {
        match self {
            Self::Wait(waiting, gate) => Outcome::Wait(stage(waiting), gate),
            Self::Next(handover) => Outcome::Next(handover),
            Self::End(gate) => Outcome::End(gate),
            Self::Close(gate) => Outcome::Close(gate),
        }
    }
}

/// The result of a stage.
pub(crate) enum Handover {
    /// A token that this issuer's keys could verify, with its request.
    TokenPresented(Box<TokenRequest>, IssuerId),
    /// A caller whose credential is verified as far as possible without Redis, and the part of the body that has
    /// arrived.
    CallerKnown { pending: Box<PendingBody>, last: bool, body: ArrivedBody },
    /// A large body of a caller whose key is not confirmed.
    KeyUnverified(Box<PendingBody>, ArrivedBody),
    /// The same, after Redis confirmed the key.
    KeyVerified(Box<PendingBody>, ArrivedBody),
    /// A request, or the part of it that is judged now.
    Understood(Box<Request>),
    /// A request on which this version of a policy decides.
    PolicyMissing(Box<Judged>, PolicyVersion),
    /// The same, after the worker got the policy.
    PolicyLoaded(Box<Judged>),
    /// An admitted call that waits for an approval.
    ApprovalMissing(Box<Request>, Box<Grant>),
    /// An admitted call with an approval.
    ApprovalGranted(Box<Request>, Box<Grant>, Credential, RequiredApproval),
    /// A request that passes once its credential is available.
    Granted(Box<Request>, Box<Grant>, Credential),
    /// The headers went upstream (`split` mode).
    HeadersForwarded(Box<PendingBody>),
    /// The request went upstream.
    Forwarded(Box<Forwarded>),
    /// The connector's server refused this credential.
    CredentialRefused(PolicyName, CallerCredential),
    /// A response that may pass began.
    ResponseBegan(Box<Forwarded>, ResponseStart),
}

/// The headers of a request and its unverified token.
#[derive(Debug)]
pub(crate) struct TokenRequest {
    pub(crate) head: Head,
    pub(crate) last: bool,
    pub(crate) token: KeptToken,
    pub(crate) certificate: Option<PeerCertificate>,
}

/// A request, the basis of its verdict, and how often it was judged.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) request: Box<Request>,
    pub(crate) snapshot: Snapshot,
    pub(crate) rounds: u8,
}

/// Ends the request with a refusal.
pub(crate) fn refuse<S>(denial: Denial, turn: &mut Turn<'_>) -> Outcome<S> {
    Outcome::End(turn.refuse(denial))
}

/// Refuses a request that its verdict had allowed: on the caller's stream, where it has one.
pub(crate) fn refuse_granted<S>(
    request: Box<Request>,
    grant: Box<Grant>,
    denial: Denial,
    credential: Credential,
    turn: &mut Turn<'_>,
) -> Outcome<S> {
    match grant.refused(&denial, &request, &turn.context.entry) {
        Some(grant) => Outcome::Next(Handover::Granted(request, Box::new(grant), credential)),
        None => refuse(denial, turn),
    }
}

/// Handles an event that has no effect while a call is pending.
pub(crate) fn held<S>(
    event: Event,
    place: &'static str,
    turn: &mut Turn<'_>,
    stage: impl FnOnce() -> S,
) -> Outcome<S> {
    match event {
        Event::CallDone { .. }
        | Event::CallFailed { .. }
        | Event::BodyWithheld
        | Event::Closed(_) => Outcome::Wait(stage(), Gate::Hold),
        Event::ResponseHead(_) | Event::ResponseBody { .. } => {
            Outcome::End(turn.proxy_answers(&event, "proxy.reply"))
        }
        Event::Head { .. } | Event::Body(_) | Event::BodyTooLarge => {
            refuse(Denial::Internal(place), turn)
        }
    }
}
