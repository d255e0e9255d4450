//! A request, as its headers and its body describe it.
//!
//! Owns the facts that stages pass on: the caller, the operation, and the available part of the request. Decides
//! nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use super::session::SessionRef;
use portcullis_redis_lua::Key;

use crate::auth::PresentedIdentity;
use crate::auth::certificate::PeerCertificate;
use crate::auth::token::claims::VerifiedToken;
use crate::denial::Denial;
use crate::driver::event::{Event, Head};
use crate::mcp::{Body, Message};
use crate::observed::Watched;
use crate::route::Selected;

/// A request, as far as it can be parsed without a dependency.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// Without its question mark.
    pub(crate) query: Vec<u8>,
    /// The destination that the router selected.
    pub(crate) selected: Selected,
    /// Its headers that the upstream gets only if the policy names them.
    pub(crate) strip: Vec<String>,
    pub(crate) identity: PresentedIdentity,
    /// The client certificate of the request, when certificates count.
    pub(crate) certificate: Option<PeerCertificate>,
    /// Whether the credential is for this endpoint.
    pub(crate) audience: Audience,
    pub(crate) message: Result<Message, Denial>,
    /// The body of the request; empty if there is none.
    pub(crate) body: Body,
    /// The values of single arguments in headers, where the era has such headers.
    pub(crate) parameters: Parameters,
    /// The refusal because of a missing header that the era requires; HTTP+SSE needs none.
    pub(crate) unmirrored: Option<Denial>,
    /// Sessions and tasks that it refers to.
    pub(crate) bound: Vec<SessionRef>,
    pub(crate) holds: Holds,
    /// The tool that it calls, when the policy requires that a list showed it.
    pub(crate) watched: Option<Watched>,
    /// The key of the observation that Redis reported in this request. Another policy may pin another definition.
    pub(crate) observed: Option<Key>,
    pub(crate) part: RequestPart,
}

impl Request {
    /// Whether Redis has confirmed every session and task that the request refers to.
    pub(crate) fn holds_all(&self) -> bool {
        let bound = self.bound.is_empty() || self.holds == Holds::Confirmed;
        bound && self.watched.as_ref().is_none_or(|it| self.observed.as_ref() == Some(it.key()))
    }
}

/// Whether Redis confirmed in this request that the request's sessions and tasks belong to the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Redis was not asked.
    #[default]
    Unasked,
    /// It confirmed all of it.
    Confirmed,
}

/// By header name; `None` for a header whose value cannot be read.
pub(crate) type Parameters = Option<BTreeMap<String, Option<Vec<u8>>>>;

/// The part of a request that is judged.
#[derive(Debug)]
pub(crate) enum RequestPart {
    /// All of it.
    Whole,
    /// The headers (`split` mode); the body is read after they were sent upstream.
    Head(Box<PendingBody>),
    /// The body; its headers were sent upstream before.
    Body,
}

/// The caller.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) identity: PresentedIdentity,
    /// The client certificate of the request, when certificates count.
    pub(crate) certificate: Option<PeerCertificate>,
    pub(crate) audience: Audience,
}

/// Whether a credential is for the endpoint.
#[derive(Clone, Debug)]
pub(crate) enum Audience {
    /// It is, or its kind names no endpoint.
    Fits,
    /// The token is for another path. A client of HTTP+SSE posts to another path than its token's; the policy says
    /// which two belong together.
    Elsewhere(Rc<VerifiedToken>),
}

/// The body of an unverified sender's request, as far as it has arrived.
pub(crate) enum ArrivedBody {
    Awaited,
    Whole(Vec<u8>),
    TooLarge,
}

impl ArrivedBody {
    /// The event for the next stage.
    pub(crate) fn event(self) -> Option<Event> {
        match self {
            Self::Awaited => None,
            Self::Whole(body) => Some(Event::Body(body)),
            Self::TooLarge => Some(Event::BodyTooLarge),
        }
    }
}

impl fmt::Debug for ArrivedBody {
    /// Its length, without the client's content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Awaited => f.write_str("Awaited"),
            Self::Whole(body) => write!(f, "Whole({} bytes)", body.len()),
            Self::TooLarge => f.write_str("TooLarge"),
        }
    }
}

/// A request whose body has not arrived completely.
#[derive(Debug)]
pub(crate) struct PendingBody {
    pub(crate) head: Head,
    pub(crate) caller: Caller,
    /// The refusal that the headers already require.
    pub(crate) fault: Option<Denial>,
    pub(crate) part: RequestPart,
    pub(crate) authentication: Authentication,
}

/// Whether Redis confirmed the key in this request, before the body is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Authentication {
    Unasked,
    Confirmed,
}

impl PendingBody {
    /// A request with these headers, before their faults are known.
    pub(crate) fn new(head: Head, caller: Caller) -> Self {
        let (part, authentication) = (RequestPart::Whole, Authentication::Unasked);
        Self { head, caller, fault: None, part, authentication }
    }

    /// Whether Redis confirmed the caller in this request: on the headers in `split` mode, or before a large body.
    pub(crate) fn is_admitted(&self) -> bool {
        matches!(self.part, RequestPart::Body) || self.authentication == Authentication::Confirmed
    }

    /// The same, for a caller whose key Redis confirmed.
    pub(crate) fn authenticated(mut self: Box<Self>) -> Box<Self> {
        self.authentication = Authentication::Confirmed;
        self
    }

    /// Whether no part of the request was sent upstream.
    pub(crate) fn holds_headers(&self) -> bool {
        match self.part {
            RequestPart::Whole => true,
            RequestPart::Head(_) | RequestPart::Body => false,
        }
    }
}
