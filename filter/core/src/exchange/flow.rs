//! Which stage comes after which.
//!
//! Owns the transition table. What a stage does is the stage's own business; a new one is a variant of [`Stage`], a line
//! in [`Stage::on`], a line for what it takes over in [`enter`], and a file.

use portcullis_redis_lua::Complete;

use super::actions::hold_body::hold;
use super::handover::{Handover, Outcome, refuse};
use super::request::PendingBody;
use super::stages::admission::{self, Admission};
use super::stages::approval::{self, Approval};
use super::stages::credential::{self, AwaitCredential};
use super::stages::load_policy::LoadPolicy;
use super::stages::read_again::{self, ReadAgain};
use super::stages::request_body;
use super::stages::request_headers;
use super::stages::response_body::ResponseBody;
use super::stages::response_headers::ResponseHeaders;
use super::stages::verify_key::VerifyKey;
use super::stages::verify_token::VerifyToken;
use super::turn::{Context, Turn, after_end};
use crate::audit::AuditEvent;
use crate::denial::AuditStatus;
use crate::driver::call::DependencyCall;
use crate::driver::event::{Closing, Event};
use crate::driver::step::{Effect, Gate, RequestGate};
use crate::metric::Metric;
use crate::worker::Worker;

/// What the exchange waits for, and what is known by then.
#[derive(Debug)]
pub(crate) enum Stage {
    /// The request's headers.
    RequestHeaders,
    /// The request's body.
    RequestBody(Box<PendingBody>),
    /// Redis's word on the key of a request with a large body.
    VerifyKey(Box<VerifyKey>),
    /// The keys that could prove the request's token.
    VerifyToken(Box<VerifyToken>),
    /// Redis's word on the verdict.
    Admission(Box<Admission>),
    /// A policy that this worker has not seen.
    LoadPolicy(Box<LoadPolicy>),
    /// Redis's word on a call that a person has to agree to.
    Approval(Box<Approval>),
    /// The connector's credential.
    Credential(Box<AwaitCredential>),
    /// The upstream's response headers.
    ResponseHeaders(ResponseHeaders),
    /// Another credential, after the upstream refused one.
    ReadAgain(Box<ReadAgain>),
    /// The rest of the upstream's response.
    ResponseBody(Box<ResponseBody>),
    /// The gateway or the proxy answered; only the end is awaited.
    Ended,
    /// Nothing: the audit entry is written, or none is due.
    Closed,
}

impl Stage {
    /// Takes one event; the stage that waits then.
    pub(crate) fn on(self, event: Event, turn: &mut Turn<'_>) -> (Self, Gate) {
        let outcome = match self {
            Self::RequestHeaders => request_headers::on(event, turn).map(|()| Self::RequestHeaders),
            Self::VerifyToken(stage) => stage.on(event, turn).map(Self::VerifyToken),
            Self::RequestBody(pending) => {
                request_body::on(pending, event, turn).map(Self::RequestBody)
            }
            Self::VerifyKey(stage) => stage.on(event, turn).map(Self::VerifyKey),
            Self::Admission(stage) => stage.on(event, turn).map(Self::Admission),
            Self::LoadPolicy(stage) => stage.on(event, turn).map(Self::LoadPolicy),
            Self::Approval(stage) => stage.on(event, turn).map(Self::Approval),
            Self::Credential(stage) => stage.on(event, turn).map(Self::Credential),
            Self::ResponseHeaders(stage) => stage.on(event, turn).map(Self::ResponseHeaders),
            Self::ReadAgain(stage) => stage.on(event, turn).map(Self::ReadAgain),
            Self::ResponseBody(stage) => stage.on(event, turn).map(Self::ResponseBody),
            // The refusal itself comes by as a response on its way to the client.
            Self::Ended => Outcome::Wait(Self::Ended, after_end(&event)),
            Self::Closed => Outcome::Wait(Self::Closed, after_end(&event)),
        };
        settle(outcome, turn)
    }

    /// Of the request's body there are `bytes` now, and more follow.
    pub(crate) fn receive(self, bytes: usize, turn: &mut Turn<'_>) -> (Self, Gate) {
        let outcome = match self {
            Self::RequestBody(pending) => {
                request_body::receive(pending, bytes, turn).map(Self::RequestBody)
            }
            stage @ (Self::VerifyToken(_) | Self::VerifyKey(_)) => match hold(bytes, turn) {
                Ok(()) => Outcome::Wait(stage, Gate::Hold),
                Err(denial) => refuse(denial, turn),
            },
            stage @ (Self::RequestHeaders
            | Self::Admission(_)
            | Self::LoadPolicy(_)
            | Self::Approval(_)
            | Self::Credential(_)
            | Self::ResponseHeaders(_)
            | Self::ReadAgain(_)
            | Self::ResponseBody(_)
            | Self::Ended
            | Self::Closed) => Outcome::Wait(stage, Gate::Hold),
        };
        settle(outcome, turn)
    }

    /// Whether the headers are held until there is a body.
    pub(crate) fn awaits_body(&self) -> bool {
        match self {
            Self::RequestBody(pending) => pending.holds_headers(),
            Self::RequestHeaders
            | Self::VerifyToken(_)
            | Self::VerifyKey(_)
            | Self::Admission(_)
            | Self::LoadPolicy(_)
            | Self::Approval(_)
            | Self::Credential(_)
            | Self::ResponseHeaders(_)
            | Self::ReadAgain(_)
            | Self::ResponseBody(_)
            | Self::Ended
            | Self::Closed => false,
        }
    }

    /// A body that is judged, or gone, is no longer held.
    pub(crate) fn give_back(&self, worker: &mut Worker, context: &mut Context) {
        match self {
            Self::RequestBody(pending) if pending.is_admitted() => {
                worker.unproven.release(&mut context.share);
            }
            Self::RequestHeaders
            | Self::RequestBody(_)
            | Self::VerifyKey(_)
            | Self::VerifyToken(_)
            | Self::Admission(_)
            | Self::LoadPolicy(_) => {}
            Self::Approval(_)
            | Self::Credential(_)
            | Self::ResponseHeaders(_)
            | Self::ReadAgain(_)
            | Self::ResponseBody(_)
            | Self::Ended
            | Self::Closed => {
                worker.unproven.release(&mut context.share);
                let kept = std::mem::take(&mut context.kept);
                worker.kept_bytes = worker.kept_bytes.saturating_sub(kept);
            }
        }
    }
}

/// Goes from stage to stage until one waits.
fn settle(mut outcome: Outcome<Stage>, turn: &mut Turn<'_>) -> (Stage, Gate) {
    loop {
        match outcome {
            Outcome::Wait(stage, gate) => return (stage, gate),
            Outcome::Next(handover) => outcome = enter(handover, turn),
            Outcome::End(gate) => return (Stage::Ended, gate),
            Outcome::Close(gate) => return (Stage::Closed, gate),
        }
    }
}

/// Who takes what a stage hands over.
fn enter(handover: Handover, turn: &mut Turn<'_>) -> Outcome<Stage> {
    match handover {
        Handover::TokenPresented(presented, issuer) => {
            VerifyToken::enter(presented, issuer, turn).map(Stage::VerifyToken)
        }
        Handover::CallerKnown { pending, last, body } => {
            request_body::enter(pending, last, body, turn).map(Stage::RequestBody)
        }
        Handover::KeyUnverified(pending, body) => {
            VerifyKey::enter(pending, body, turn).map(Stage::VerifyKey)
        }
        Handover::KeyVerified(pending, body) => {
            request_body::resume(pending, body, turn).map(Stage::RequestBody)
        }
        Handover::Understood(request) => admission::enter(request, turn).map(Stage::Admission),
        Handover::PolicyMissing(judged, version) => {
            LoadPolicy::enter(judged, version, turn).map(Stage::LoadPolicy)
        }
        Handover::PolicyLoaded(judged) => admission::resume(*judged, turn).map(Stage::Admission),
        Handover::ApprovalMissing(request, grant) => {
            approval::ask(request, grant, turn).map(Stage::Approval)
        }
        Handover::ApprovalGranted(request, grant, credential, required_approval) => {
            approval::take(request, grant, credential, required_approval, turn).map(Stage::Approval)
        }
        Handover::Granted(request, grant, credential) => {
            credential::enter(request, grant, credential, turn).map(Stage::Credential)
        }
        Handover::HeadersForwarded(pending) => {
            Outcome::Wait(Stage::RequestBody(pending), Gate::Request(RequestGate::Pass))
        }
        Handover::Forwarded(forwarded) => {
            ResponseHeaders::enter(forwarded).map(Stage::ResponseHeaders)
        }
        Handover::CredentialRefused(connector, credential) => {
            read_again::enter(connector, credential, turn).map(Stage::ReadAgain)
        }
        Handover::ResponseBegan(forwarded, start) => {
            ResponseBody::enter(forwarded, start, turn).map(Stage::ResponseBody)
        }
    }
}

/// Writes the entry of a response that has been open for long, of this exchange or of another one. Its own entry must follow:
/// without one, no logger writes this line.
fn write_open(turn: &mut Turn<'_>) {
    let Some(after) = turn.worker.config.open_after else { return };
    let ended = turn.context.open_response.take();
    if let Some(entry) = turn.worker.open_responses.due(ended, turn.now, after) {
        let line = turn.worker.chain.append(&entry);
        turn.effects.push(Effect::Audit(line));
        turn.effects.push(Effect::Measure(Metric::AuditEntries, 1));
    }
}

/// Writes the audit entry, once.
pub(crate) fn close(stage: Stage, closing: &Closing, turn: &mut Turn<'_>) -> (Stage, Gate) {
    if let Some(slot) = turn.context.slot.take() {
        turn.worker.streams.close(slot);
    }
    match stage {
        // Closed before, or no MCP exchange at all: there is nothing to tell.
        Stage::Closed | Stage::RequestHeaders => return (Stage::Closed, Gate::Hold),
        Stage::VerifyToken(_)
        | Stage::RequestBody(_)
        | Stage::VerifyKey(_)
        | Stage::Admission(_)
        | Stage::LoadPolicy(_)
        | Stage::Approval(_)
        | Stage::Credential(_) => {
            let entry = &mut turn.context.entry;
            entry.status = AuditStatus::Aborted.name();
            entry.decision.effect = "deny";
            "request.aborted".clone_into(&mut entry.decision.rule);
        }
        Stage::ResponseHeaders(stage) => {
            turn.context.entry.status = stage.close(closing, turn).name();
        }
        Stage::ReadAgain(_) => read_again::close(closing, turn),
        Stage::ResponseBody(stage) => stage.close(closing, turn),
        Stage::Ended => {}
    }
    write_open(turn);
    let entry = &mut turn.context.entry;
    entry.note_success();
    if let (Some(connector), Some(attempts @ 2..)) = (&entry.connector, closing.attempts) {
        let connector = connector.clone();
        entry.events.push(AuditEvent::Retried { connector, attempts });
    }
    entry.timestamp = turn.now.rfc3339();
    entry.http_status = closing.http_status;
    entry.latency_ms = closing.latency_ms;
    entry.upstream_ms = closing.upstream_ms;
    let line = turn.worker.chain.append(entry);
    turn.effects.push(Effect::Audit(line));
    if let Some(key) = turn.context.intents.take() {
        let chain = &turn.worker.chain;
        let (request_id, name) = (turn.context.entry.request_id.clone(), chain.name().to_owned());
        let complete = Complete { key, request_id, chain: name, entry: chain.end() };
        turn.start(DependencyCall::Complete(complete.call()));
    }
    let entry = &turn.context.entry;
    turn.worker.health.request_ended(entry, turn.now);
    let measures = turn.worker.labels.measures(entry).into_iter();
    turn.effects.extend(measures.map(|(metric, value)| Effect::Measure(metric, value)));
    (Stage::Closed, Gate::Hold)
}
