//! Waits for the headers of the upstream's response.
//!
//! Owns which responses pass, and which of their headers.

use crate::denial::{AuditStatus, Denial, HostFault, UpstreamFault};
use crate::driver::event::{Closing, End, Event, Origin, ResponseHead};
use crate::driver::step::{Effect, Gate, RequestGate};
use crate::exchange::actions::forwarded::{Forwarded, ResponseStart};
use crate::exchange::checks::response_form::Shape;
use crate::exchange::handover::{Handover, Outcome};
use crate::exchange::turn::Turn;

/// Waits for the response headers.
#[derive(Debug)]
pub(crate) struct ResponseHeaders {
    asked: Box<Forwarded>,
}

impl ResponseHeaders {
    /// The request was sent upstream.
    pub(crate) fn enter(asked: Box<Forwarded>) -> Outcome<Self> {
        Outcome::Wait(Self { asked }, Gate::Request(RequestGate::Pass))
    }

    pub(crate) fn on(self, event: Event, turn: &mut Turn<'_>) -> Outcome<Self> {
        match event {
            // A response of a filter after this one goes to the client: that filter may refuse as well.
            Event::ResponseHead(ref head) if head.origin == Origin::Filter => {
                Outcome::End(turn.passes_by(&event, "proxy.reply"))
            }
            Event::ResponseHead(head) => match refused(&head) {
                Some(denial) => match (&denial, self.asked.credential) {
                    (Denial::UpstreamRefused, Some(credential)) => {
                        Outcome::Next(Handover::CredentialRefused(self.asked.connector, credential))
                    }
                    _ => Outcome::End(turn.replace(denial)),
                },
                None => self.answer(&head, turn),
            },
            // The request has passed: a late event about it has no effect.
            Event::Head { .. }
            | Event::Body(_)
            | Event::BodyTooLarge
            | Event::BodyWithheld
            | Event::CallDone { .. }
            | Event::CallFailed { .. }
            | Event::ResponseBody { .. }
            | Event::Closed(_) => Outcome::Wait(self, Gate::Hold),
        }
    }

    fn answer(self, head: &ResponseHead, turn: &mut Turn<'_>) -> Outcome<Self> {
        let Self { mut asked } = self;
        let shape = match Shape::of(head, asked.expected(turn)) {
            Ok(shape) => shape,
            Err(fault) => {
                if fault == UpstreamFault::NoAnswer {
                    // It may be read on another stream.
                    asked.row_charge.charge_unseen(turn);
                }
                return Outcome::End(turn.replace(Denial::UpstreamAnswer(fault)));
            }
        };
        for name in head.others.iter().filter(|name| !asked.response_headers.contains(*name)) {
            turn.effects.push(Effect::RemoveResponseHeader(name.clone().into()));
        }
        let (status, session_id) = (head.status, head.session_id.clone());
        if !asked.may_name(&session_id) {
            turn.effects.push(Effect::RemoveResponseHeader("mcp-session-id".into()));
        }
        Outcome::Next(Handover::ResponseBegan(asked, ResponseStart { status, session_id, shape }))
    }

    /// The end of a request without response headers: its response may arrive on another stream. Envoy gives no reason
    /// when an HTTP/2 client resets its stream with `NO_ERROR`; every answer has response headers.
    pub(crate) fn close(mut self, closing: &Closing, turn: &mut Turn<'_>) -> AuditStatus {
        match closing.end {
            End::ClientGone | End::Complete => {
                self.asked.row_charge.charge_unseen(turn);
                AuditStatus::Aborted
            }
            End::UpstreamGone => AuditStatus::Error,
        }
    }
}

/// The reason to refuse a response to any request.
fn refused(head: &ResponseHead) -> Option<Denial> {
    let challenges = head
        .others
        .iter()
        .any(|name| matches!(name.as_str(), "www-authenticate" | "proxy-authenticate"));
    match (head.origin, head.status) {
        (Origin::Upstream, 401 | 407) => Some(Denial::UpstreamRefused),
        // The client's credential was not sent to the server, and another one would not be sent either.
        (Origin::Upstream, 403) if challenges => Some(Denial::UpstreamRefused),
        (Origin::Upstream | Origin::Filter, _) => None,
        (Origin::Proxy, 413) => Some(Denial::Host(HostFault::BufferLimit)),
        (Origin::Proxy, 504) => Some(Denial::UpstreamTimedOut),
        (Origin::Proxy, _) => Some(Denial::UpstreamUnavailable),
        (Origin::Disconnected, _) => Some(Denial::UpstreamGone),
    }
}
