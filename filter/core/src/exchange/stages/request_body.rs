//! Waits for the request's body, which contains the message.
//!
//! Owns the checks without a dependency. A fault in the message is kept, not answered: Portcullis reports body errors
//! only to authenticated callers.

use crate::auth::PresentedIdentity;
use crate::config::Mode;
use crate::denial::{Denial, HostFault};
use crate::driver::event::{Event, Head};
use crate::driver::step::Gate;
use crate::exchange::actions::hold_body::{hold, keep, reserve_unseen};
use crate::exchange::checks::media_type;
use crate::exchange::handover::{Handover, Outcome, refuse};
use crate::exchange::request::{
    ArrivedBody, Authentication, Caller, Holds, PendingBody, Request, RequestPart,
};
use crate::exchange::session::{SessionRef, session_of};
use crate::exchange::turn::{Answers, Turn};
use crate::http::request_headers::goes_upstream;
use crate::mcp::{Body, Era, Message, Operation, headers};

/// Up to this size a body is parsed for any client: that costs no more than asking Redis first.
const SMALL_BODY: usize = 16 << 10;

/// Reads the request of a caller whose credential is verified as far as possible without Redis.
pub(crate) fn enter(
    mut pending: Box<PendingBody>,
    last: bool,
    body: ArrivedBody,
    turn: &mut Turn<'_>,
) -> Outcome<Box<PendingBody>> {
    pending.fault = fault_of(&pending.head, last);
    match (last, turn.context.mode) {
        (true, _) => pending.whole(None, turn),
        (false, Mode::Hold) => resume(pending, body, turn),
        (false, Mode::Split) if pending.is_unproven(turn) => {
            match reserve_unseen(&pending.head, turn) {
                Ok(()) => pending.opening(turn),
                Err(denial) => refuse(denial, turn),
            }
        }
        (false, Mode::Split) => pending.opening(turn),
    }
}

/// Continues with the part of the body that has arrived meanwhile.
pub(crate) fn resume(
    pending: Box<PendingBody>,
    body: ArrivedBody,
    turn: &mut Turn<'_>,
) -> Outcome<Box<PendingBody>> {
    match body.event() {
        Some(event) => on(pending, event, turn),
        None => Outcome::Wait(pending, Gate::Hold),
    }
}

/// Handles further bytes of a body. The body of a caller whose token or certificate is verified, or whose key this
/// worker verified recently, may arrive slowly. Any other client has a share of the memory, and is authenticated while
/// the rest of a large body arrives.
pub(crate) fn receive(
    pending: Box<PendingBody>,
    bytes: usize,
    turn: &mut Turn<'_>,
) -> Outcome<Box<PendingBody>> {
    let held = match pending.holds_headers() {
        false => keep(bytes, turn),
        true if pending.is_unproven(turn) => hold(bytes, turn),
        true => return Outcome::Wait(pending, Gate::Hold),
    };
    match held {
        Ok(()) if pending.holds_headers() && pending.awaits_authentication(bytes, turn) => {
            Outcome::Next(Handover::KeyUnverified(pending, ArrivedBody::Awaited))
        }
        Ok(()) => Outcome::Wait(pending, Gate::Hold),
        Err(denial) => refuse(denial, turn),
    }
}

fn fault_of(head: &Head, last: bool) -> Option<Denial> {
    match (head.method(), last) {
        (b"POST", false) if is_plain_json(head) => None,
        (b"POST", false) => Some(Denial::ContentType),
        (b"POST", true) => Some(Denial::NotOneMessage("The body is empty")),
        // Whether an announced body is empty is known only when it has arrived.
        (b"GET" | b"DELETE", _) => None,
        _ => Some(Denial::MethodNotAllowed),
    }
}

/// Requires one `content-type` of JSON in UTF-8, and no content coding: the upstream may read any other body
/// differently.
fn is_plain_json(head: &Head) -> bool {
    let plain = head.values("content-encoding").iter().all(|coding| *coding == b"identity");
    plain && head.single("content-type").is_some_and(media_type::is_json)
}

/// Handles one event while the body is awaited.
pub(crate) fn on(
    pending: Box<PendingBody>,
    event: Event,
    turn: &mut Turn<'_>,
) -> Outcome<Box<PendingBody>> {
    match event {
        Event::Body(body) if pending.awaits_authentication(body.len(), turn) => {
            Outcome::Next(Handover::KeyUnverified(pending, ArrivedBody::Whole(body)))
        }
        Event::Body(body) => pending.whole(Some(body), turn),
        Event::BodyTooLarge => {
            let limit = turn.worker.config.max_body_bytes;
            refuse(Denial::BodyTooLarge(limit), turn)
        }
        Event::BodyWithheld => refuse(Denial::Host(HostFault::CannotHold), turn),
        Event::ResponseHead(_) | Event::ResponseBody { .. } => {
            Outcome::End(turn.proxy_answers(&event, "proxy.reply"))
        }
        Event::CallDone { .. } | Event::CallFailed { .. } | Event::Closed(_) => {
            Outcome::Wait(pending, Gate::Hold)
        }
        Event::Head { .. } => refuse(Denial::Internal("second_head"), turn),
    }
}

impl PendingBody {
    /// Whether the caller is not verified yet. In `split` mode Redis confirmed it before the headers were forwarded.
    fn is_unproven(&self, turn: &Turn<'_>) -> bool {
        match (&self.part, &self.caller.identity, self.authentication) {
            (RequestPart::Body, ..)
            | (_, PresentedIdentity::Verified(_), _)
            | (.., Authentication::Confirmed) => false,
            (
                RequestPart::Whole | RequestPart::Head(_),
                PresentedIdentity::Key(_),
                Authentication::Unasked,
            ) => {
                let throttle = &turn.worker.throttle;
                !turn.context.proof.is_some_and(|proof| throttle.is_proven(&proof, turn.now))
            }
        }
    }

    /// Whether Redis is asked about the key before `bytes` of a body are parsed.
    fn awaits_authentication(&self, bytes: usize, turn: &Turn<'_>) -> bool {
        bytes > SMALL_BODY && self.is_unproven(turn) && turn.worker.config.redis.is_some()
    }

    /// `split` mode: judges the headers first, as far as possible, and the body after them.
    fn opening(mut self: Box<Self>, turn: &mut Turn<'_>) -> Outcome<Box<Self>> {
        let message = match self.fault.take() {
            Some(fault) => Err(fault),
            None => match self.head.method() {
                b"POST" => Ok(headers::announced(&self.head)),
                _ => Ok(bodiless(&self.head)),
            },
        };
        if let Ok(announced) = &message {
            turn.context.entry.note_names(announced);
        }
        let (path, strip) = (self.head.path().to_owned(), withheld(&self.head));
        let query = self.head.query().to_vec();
        let selected = self.head.selected();
        let (message, bound) = referring(&self.head, message);
        let Caller { identity, certificate, audience } = self.caller.clone();
        self.part = RequestPart::Body;
        let part = RequestPart::Head(self);
        let (body, parameters) = (Body::default(), None);
        let (holds, unmirrored) = (Holds::Unasked, None);
        let request = Request {
            path,
            query,
            selected,
            bound,
            holds,
            watched: None,
            observed: None,
            strip,
            identity,
            certificate,
            audience,
            message,
            parameters,
            unmirrored,
            body,
            part,
        };
        Outcome::Next(Handover::Understood(Box::new(request)))
    }

    /// Handles the complete request.
    fn whole(self: Box<Self>, body: Option<Vec<u8>>, turn: &mut Turn<'_>) -> Outcome<Box<Self>> {
        let posts = self.head.method() == b"POST";
        if matches!(self.part, RequestPart::Body) {
            turn.context.entry.forget_names();
        }
        // An empty chunked body, or an empty HTTP/2 frame, is no body.
        let body = body.filter(|body| posts || !body.is_empty());
        let message = match (self.fault, &body) {
            (Some(fault), _) => Err(fault),
            (None, Some(_)) if !posts => Err(Denial::NotOneMessage("This method has no body")),
            (None, Some(body)) => Message::parse(body).map_err(|malformed| {
                turn.context.sender = malformed.sender;
                malformed.fault.into()
            }),
            (None, None) => Ok(bodiless(&self.head)),
        };
        let mut unmirrored = None;
        let message = message.and_then(|message| {
            turn.context.sender = message.sender.clone();
            turn.context.entry.note_message(&message);
            turn.context.era = message.claimed_era();
            if !matches!(session_of(self.head.query()), Ok(None)) {
                turn.context.answers = Answers::Elsewhere;
            }
            let agreed = headers::agreement(&self.head, &message)?;
            turn.context.era = agreed.era;
            unmirrored = agreed.missing;
            match (turn.context.answers, &unmirrored) {
                (Answers::Here, Some(missing)) => Err(missing.clone()),
                (Answers::Here | Answers::Elsewhere, _) => Ok(message),
            }
        });
        let (message, bound) = referring(&self.head, message);
        let request = Request {
            path: self.head.path().to_owned(),
            query: self.head.query().to_vec(),
            selected: self.head.selected(),
            bound,
            holds: Holds::Unasked,
            watched: None,
            observed: None,
            strip: match self.part {
                RequestPart::Whole | RequestPart::Head(_) => withheld(&self.head),
                // They were forwarded before.
                RequestPart::Body => Vec::new(),
            },
            identity: self.caller.identity,
            certificate: self.caller.certificate,
            audience: self.caller.audience,
            message,
            body: body.map(Body::new).unwrap_or_default(),
            parameters: headers::parameters(&self.head),
            unmirrored,
            part: self.part,
        };
        Outcome::Next(Handover::Understood(Box::new(request)))
    }
}

/// The message of a request without a body.
fn bodiless(head: &Head) -> Message {
    Message::bodiless(match head.method() {
        b"GET" => Operation::Listen,
        _ => Operation::EndSession,
    })
}

/// Headers of this request that are forwarded only where the policy names them for the connector. An event id is a
/// position in the stream of a session, so it is forwarded together with a session id, whose owner the admission
/// checks, and never alone.
fn withheld(head: &Head) -> Vec<String> {
    let era = if headers::is_modern(head) { Era::Modern } else { Era::Legacy };
    let in_session = head.has("mcp-session-id") || !matches!(session_of(head.query()), Ok(None));
    let resumes = era == Era::Legacy && in_session;
    head.names_where(|name| !goes_upstream(name, era) || (name == b"last-event-id" && !resumes))
}

/// The message, and the sessions and tasks that it refers to.
fn referring(
    head: &Head,
    message: Result<Message, Denial>,
) -> (Result<Message, Denial>, Vec<SessionRef>) {
    let referred = message.and_then(|message| {
        let bound = SessionRef::named_by(head, &message)?;
        Ok((message, bound))
    });
    match referred {
        Ok((message, bound)) => (Ok(message), bound),
        Err(denial) => (Err(denial), Vec::new()),
    }
}
