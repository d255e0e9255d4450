//! From the headers to a message: what was asked for, and with which credential.
//!
//! Owns what can be told without asking anybody. A fault in the message is kept, not answered: only
//! who proves an identity learns what is wrong with a body.

use std::time::Duration;

use super::admission;
use super::authenticating::{Authenticating, SMALL_BODY};
use super::caller::{Claim, caller};
use super::proving::{Outcome, Proving, judged};
use super::request::{ArrivedBody, Audience, Caller, Holds, Leg, Request};
use super::session::{Bound, session_of};
use super::turn::{Answers, Form, Turn};
use super::{Next, Stage, media, origin, resource};
use crate::audit::Entry;
use crate::auth::Claimant;
use crate::config::{Mode, Refusals};
use crate::denial::{Denial, HostFault, LimitCause, Unsupported};
use crate::event::{Event, Head};
use crate::limit;
use crate::local_reply::LocalReply;
use crate::mcp::{Body, Era, Message, Operation, headers};
use crate::request_headers::goes_upstream;
use crate::step::Gate;

/// Answered by the gateway, without credential.
const HEALTH_PATH: &str = "/portcullis/health";

/// Waits for the body.
#[derive(Debug)]
pub(crate) struct Reading {
    head: Head,
    caller: Caller,
    /// What the headers already rule out.
    fault: Option<Denial>,
    leg: Leg,
    authentication: Authentication,
}

/// Whether Redis confirmed the key in this request, before its body is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Authentication {
    Unasked,
    Confirmed,
}

pub(crate) fn on_head(event: Event, turn: &mut Turn<'_>) -> Next {
    let (head, last) = match event {
        Event::Head { head, last } => (head, last),
        // A response before any request header: the proxy refused what it read.
        Event::ResponseHead { .. } | Event::ResponseBody { .. } => {
            return turn.proxy_answers(&event, "proxy.reply");
        }
        Event::CallDone { .. }
        | Event::CallFailed { .. }
        | Event::BodyWithheld
        | Event::Closed(_) => return (Stage::Head, Gate::Hold),
        Event::Body(_) | Event::BodyTooLarge => {
            return turn.refuse(Denial::Internal("body_before_head"));
        }
    };
    turn.context.entry = Entry::of(&head);
    turn.context.mode = turn.worker.config.mode;
    turn.context.form = form(&head, turn.worker.config.refusals);
    if head.path() == HEALTH_PATH {
        return health(turn);
    }
    if let Some(unsupported) = Unsupported::asked_by(&head) {
        return turn.refuse(Denial::Unsupported(unsupported));
    }
    match origin::check(&head, &turn.worker.config) {
        Err(denial) => return turn.refuse(denial),
        Ok(Some(page)) if origin::is_preflight(&head) => {
            return (Stage::Closed, Gate::Answer(origin::preflight(&head, &page)));
        }
        Ok(page) => turn.context.origin = page,
    }
    let page = turn.context.origin.as_deref();
    if let Some(reply) = resource::document(&head, &turn.worker.config.auth, page) {
        return (Stage::Closed, Gate::Answer(reply));
    }
    let (claim, certificate) = match caller(&head, turn) {
        Ok(called) => called,
        Err(denial) => return turn.refuse(denial),
    };
    let token = match claim {
        Claim::Made(claimant) => {
            let audience = Audience::Fits;
            return claimed(head, last, Caller { claimant, certificate, audience }, turn);
        }
        Claim::Token(token) => token,
    };
    match judged(&token, &head, turn) {
        Ok(Outcome::Proven(claimant, audience)) => {
            claimed(head, last, Caller { claimant, certificate, audience }, turn)
        }
        Ok(Outcome::Waits(issuer)) => {
            Proving::start((head, last), (token, certificate), issuer, turn)
        }
        Err(denial) => turn.refuse(denial),
    }
}

/// How a refusal is told.
fn form(head: &Head, refusals: Refusals) -> Form {
    let client = || head.has("mcp-protocol-version") || head.has("mcp-session-id");
    match refusals {
        _ if limit::fields::accepts_problem(&head.values("accept")) => Form::Problem,
        Refusals::Auto if client() => Form::Message,
        Refusals::Message => Form::Message,
        Refusals::Auto | Refusals::Status => Form::JsonRpc,
    }
}

/// Reads the request of somebody whose credential is as good as it can be told without Redis.
pub(crate) fn claimed(head: Head, last: bool, caller: Caller, turn: &mut Turn<'_>) -> Next {
    let fault = fault_of(&head, last);
    let (leg, authentication) = (Leg::Whole, Authentication::Unasked);
    let reading = Reading { head, caller, fault, leg, authentication };
    match (last, turn.context.mode) {
        (true, _) => reading.whole(None, turn),
        (false, Mode::Hold) => (Stage::Reading(Box::new(reading)), Gate::Hold),
        (false, Mode::Split) if reading.is_unproven(turn) => {
            match reserve_unseen(&reading.head, turn) {
                Ok(()) => reading.opening(turn),
                Err(denial) => turn.refuse(denial),
            }
        }
        (false, Mode::Split) => reading.opening(turn),
    }
}

/// The worker answers, so it lives; dependencies are not looked into. Probes come every few seconds
/// and are no MCP exchange: they leave no audit entry.
fn health(turn: &Turn<'_>) -> Next {
    let reply = LocalReply {
        status: 200,
        headers: vec![
            ("content-type", "application/json".to_owned()),
            ("x-portcullis-request-id", turn.context.entry.request_id.clone()),
        ],
        body: br#"{"status":"healthy"}"#.to_vec(),
    };
    (Stage::Closed, Gate::Answer(reply))
}

/// Before a full worker takes more of a body that nobody vouches for.
const FULL_FOR: Duration = Duration::from_secs(1);

/// More of a body came. A caller whose token or certificate was verified, or whose key this worker proved lately, may take its
/// time; anybody else has a share of what is held, and is authenticated while the rest of a large one arrives.
pub(crate) fn receive(stage: Stage, bytes: usize, turn: &mut Turn<'_>) -> Next {
    let unproven = match &stage {
        Stage::Reading(reading) if !reading.holds_headers() => {
            return match keep(bytes, turn) {
                Ok(()) => (stage, Gate::Hold),
                Err(denial) => turn.refuse(denial),
            };
        }
        Stage::Reading(reading) => reading.is_unproven(turn),
        Stage::Proving(_) | Stage::Authenticating(_) => true,
        Stage::Head
        | Stage::Admitting(_)
        | Stage::Loading(_)
        | Stage::Approving(_)
        | Stage::Crediting(_)
        | Stage::Upstream(_)
        | Stage::Answering(_)
        | Stage::Ended
        | Stage::Closed => false,
    };
    if !unproven {
        return (stage, Gate::Hold);
    }
    match (hold(bytes, turn), stage) {
        (Ok(()), Stage::Reading(reading)) if reading.awaits_authentication(bytes, turn) => {
            Authenticating::start(reading, ArrivedBody::Awaited, turn)
        }
        (Ok(()), stage) => (stage, Gate::Hold),
        (Err(denial), _) => turn.refuse(denial),
    }
}

/// In `split` mode the headers wait for an answer and Envoy holds what comes of the body meanwhile, unseen by the
/// filter. It has its share beforehand: what the request announces, or all that a body may be.
///
/// # Errors
/// There is no room.
pub(crate) fn reserve_unseen(head: &Head, turn: &mut Turn<'_>) -> Result<(), Denial> {
    let announced = head
        .single("content-length")
        .and_then(|value| std::str::from_utf8(value).ok()?.parse::<usize>().ok());
    let config = &turn.worker.config;
    let bytes = announced.unwrap_or(config.max_body_bytes);
    // One body always has room.
    hold(bytes.min(config.unproven.per_source).min(config.unproven.total), turn)
}

/// How many bytes of unfinished bodies a worker keeps in its own memory, which never shrinks and is 1 GiB at most. Their
/// callers are confirmed (`split` mode).
const MOST_KEPT: usize = 256 << 20;

/// In `split` mode the filter keeps the body, of which there are `bytes` now.
fn keep(bytes: usize, turn: &mut Turn<'_>) -> Result<(), Denial> {
    let more = bytes.saturating_sub(turn.context.kept);
    let kept = turn.worker.kept_bytes.saturating_add(more);
    if kept > MOST_KEPT {
        let (limit, cause) = ("request.unfinished_bytes".into(), Box::new(LimitCause::Bodies));
        return Err(Denial::Limited { limit, cause, retry_after: FULL_FOR });
    }
    turn.worker.kept_bytes = kept;
    turn.context.kept = turn.context.kept.saturating_add(more);
    Ok(())
}

fn hold(bytes: usize, turn: &mut Turn<'_>) -> Result<(), Denial> {
    let (config, address) = (turn.worker.config.unproven, &turn.context.entry.client_address);
    turn.worker.unproven.hold(config, address, &mut turn.context.share, bytes).map_err(|full| {
        let (limit, cause) = (full.name().into(), Box::new(LimitCause::Unproven));
        Denial::Limited { limit, cause, retry_after: FULL_FOR }
    })
}

fn fault_of(head: &Head, last: bool) -> Option<Denial> {
    match (head.method(), last) {
        (b"POST", false) if is_plain_json(head) => None,
        (b"POST", false) => Some(Denial::ContentType),
        (b"POST", true) => Some(Denial::NotOneMessage("The body is empty")),
        // Whether a body that is announced has anything in it shows when it is there.
        (b"GET" | b"DELETE", _) => None,
        _ => Some(Denial::MethodNotAllowed),
    }
}

/// One `content-type` of JSON in UTF-8, and no content coding: anything else may be read by the
/// upstream in another way than here.
fn is_plain_json(head: &Head) -> bool {
    let plain = head.values("content-encoding").iter().all(|coding| *coding == b"identity");
    plain && head.single("content-type").is_some_and(media::is_json)
}

impl Reading {
    /// Whether nobody has vouched for the caller yet. In `split` mode Redis did, before the headers went.
    fn is_unproven(&self, turn: &Turn<'_>) -> bool {
        match (&self.leg, &self.caller.claimant, self.authentication) {
            (Leg::Body, ..) | (_, Claimant::Proven(_), _) | (.., Authentication::Confirmed) => {
                false
            }
            (Leg::Whole | Leg::Head(_), Claimant::Key(_), Authentication::Unasked) => {
                let slowdown = &turn.worker.slowdown;
                !turn.context.proof.is_some_and(|proof| slowdown.is_proven(&proof, turn.now))
            }
        }
    }

    /// Whether Redis vouched for the caller in this request: by the headers in `split` mode, or before a large body.
    pub(crate) fn is_admitted(&self) -> bool {
        matches!(self.leg, Leg::Body) || self.authentication == Authentication::Confirmed
    }

    /// Whether Redis is asked about the key before `bytes` of a body are parsed.
    fn awaits_authentication(&self, bytes: usize, turn: &Turn<'_>) -> bool {
        bytes > SMALL_BODY && self.is_unproven(turn) && turn.worker.config.redis.is_some()
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The same, of a caller whose key Redis confirmed.
    pub(crate) fn authenticated(self) -> Self {
        Self { authentication: Authentication::Confirmed, ..self }
    }

    /// Whether nothing has gone upstream.
    pub(crate) fn holds_headers(&self) -> bool {
        match self.leg {
            Leg::Whole => true,
            Leg::Head(_) | Leg::Body => false,
        }
    }

    pub(crate) fn on(self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> Next {
        match event {
            Event::Body(body) if self.awaits_authentication(body.len(), turn) => {
                Authenticating::start(self, ArrivedBody::Whole(body), turn)
            }
            Event::Body(body) => self.whole(Some(body), turn),
            Event::BodyTooLarge => {
                let limit = turn.worker.config.max_body_bytes;
                turn.refuse(Denial::BodyTooLarge(limit))
            }
            Event::BodyWithheld => turn.refuse(Denial::Host(HostFault::CannotHold)),
            Event::ResponseHead(_) | Event::ResponseBody { .. } => {
                turn.proxy_answers(&event, "proxy.reply")
            }
            Event::CallDone { .. } | Event::CallFailed { .. } | Event::Closed(_) => {
                (Stage::Reading(self), Gate::Hold)
            }
            Event::Head { .. } => turn.refuse(Denial::Internal("second_head")),
        }
    }

    /// `split` mode: the headers are judged first, as far as they go, and the body after them.
    fn opening(mut self, turn: &mut Turn<'_>) -> Next {
        let message = match self.fault.take() {
            Some(fault) => Err(fault),
            None => match self.head.method() {
                b"POST" => Ok(headers::announced(&self.head)),
                _ => Ok(bodiless(&self.head)),
            },
        };
        let (path, strip) = (self.head.path(), withheld(&self.head));
        let selected = self.head.selected();
        let (message, bound) = referring(&self.head, message);
        let Caller { claimant, certificate, audience } = self.caller.clone();
        self.leg = Leg::Body;
        let leg = Leg::Head(Box::new(self));
        let (body, parameters) = (Body::default(), None);
        let (holds, unmirrored) = (Holds::Unasked, None);
        let request = Request {
            path,
            selected,
            bound,
            holds,
            strip,
            claimant,
            certificate,
            audience,
            message,
            parameters,
            unmirrored,
            body,
            leg,
        };
        admission::admit(Box::new(request), turn)
    }

    /// The request is here as a whole.
    fn whole(self, body: Option<Vec<u8>>, turn: &mut Turn<'_>) -> Next {
        let posts = self.head.method() == b"POST";
        // An empty chunked body, or an empty frame of HTTP/2, is none.
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
            path: self.head.path(),
            selected: self.head.selected(),
            bound,
            holds: Holds::Unasked,
            strip: withheld(&self.head),
            claimant: self.caller.claimant,
            certificate: self.caller.certificate,
            audience: self.caller.audience,
            message,
            body: body.map(Body::new).unwrap_or_default(),
            parameters: headers::parameters(&self.head),
            unmirrored,
            leg: self.leg,
        };
        admission::admit(Box::new(request), turn)
    }
}

/// What a request without a body asks for.
fn bodiless(head: &Head) -> Message {
    Message::bodiless(match head.method() {
        b"GET" => Operation::Listen,
        _ => Operation::EndSession,
    })
}

/// Headers of this request that go upstream only where the policy names them for the connector. An event id means a
/// place in the stream of a session, so it goes on with one, whose owner the admission checks, and not by itself.
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
) -> (Result<Message, Denial>, Vec<Bound>) {
    let referred = message.and_then(|message| {
        let bound = Bound::named_by(head, &message)?;
        Ok((message, bound))
    });
    match referred {
        Ok((message, bound)) => (Ok(message), bound),
        Err(denial) => (Err(denial), Vec::new()),
    }
}
