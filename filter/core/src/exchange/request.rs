//! A request, as far as its headers and its body tell what it is.
//!
//! Owns the facts that the stages hand on: who calls, what is asked for, which part of it is there. Decides nothing.

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

/// A request as far as it can be understood without asking anybody.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// Without its question mark.
    pub(crate) query: Vec<u8>,
    /// Where the router would take it.
    pub(crate) selected: Selected,
    /// Headers that it has and the upstream sees only if the policy names them.
    pub(crate) strip: Vec<String>,
    pub(crate) identity: PresentedIdentity,
    /// The client certificate that came with the claim, when certificates count.
    pub(crate) certificate: Option<PeerCertificate>,
    /// Whether the credential is meant for this endpoint.
    pub(crate) audience: Audience,
    pub(crate) message: Result<Message, Denial>,
    /// The body that it came in; empty if there is none.
    pub(crate) body: Body,
    /// What headers say of single arguments, where the era has such headers.
    pub(crate) parameters: Parameters,
    /// A header that the era asks for and that is missing; HTTP+SSE needs none.
    pub(crate) unmirrored: Option<Denial>,
    /// Sessions and tasks that it refers to.
    pub(crate) bound: Vec<SessionRef>,
    pub(crate) holds: Holds,
    /// The tool that it calls, where it hangs on what lists showed of that.
    pub(crate) watched: Option<Watched>,
    /// Of what Redis said in this request what they showed: another policy may pin another definition.
    pub(crate) observed: Option<Key>,
    pub(crate) part: RequestPart,
}

impl Request {
    /// Whether nothing that it refers to is left to ask for.
    pub(crate) fn holds_all(&self) -> bool {
        let bound = self.bound.is_empty() || self.holds == Holds::Confirmed;
        bound && self.watched.as_ref().is_none_or(|it| self.observed.as_ref() == Some(it.key()))
    }
}

/// Whether Redis confirmed in this request that the caller holds what the request refers to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Redis was not asked.
    #[default]
    Unasked,
    /// It confirmed all of it.
    Confirmed,
}

/// By header name; `None` where a header says nothing that can be read.
pub(crate) type Parameters = Option<BTreeMap<String, Option<Vec<u8>>>>;

/// Which part of a request is judged.
#[derive(Debug)]
pub(crate) enum RequestPart {
    /// All of it.
    Whole,
    /// The headers (`split` mode); the body is read once they went upstream.
    Head(Box<PendingBody>),
    /// The body, whose headers went upstream before.
    Body,
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) identity: PresentedIdentity,
    /// The certificate that came with the claim, when certificates count.
    pub(crate) certificate: Option<PeerCertificate>,
    pub(crate) audience: Audience,
}

/// Whether a credential is meant for the endpoint.
#[derive(Clone, Debug)]
pub(crate) enum Audience {
    /// It is, or its kind names none.
    Fits,
    /// This token is not meant for the path of the request. A client of HTTP+SSE posts to another path than the one
    /// that its token is for; the policy says which two belong together.
    Elsewhere(Rc<VerifiedToken>),
}

/// The body of a request whose sender is not proven yet, as far as it is here.
pub(crate) enum ArrivedBody {
    Awaited,
    Whole(Vec<u8>),
    TooLarge,
}

impl ArrivedBody {
    /// What the next stage is told of it.
    pub(crate) fn event(self) -> Option<Event> {
        match self {
            Self::Awaited => None,
            Self::Whole(body) => Some(Event::Body(body)),
            Self::TooLarge => Some(Event::BodyTooLarge),
        }
    }
}

impl fmt::Debug for ArrivedBody {
    /// Its length, and nothing of what a client wrote in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Awaited => f.write_str("Awaited"),
            Self::Whole(body) => write!(f, "Whole({} bytes)", body.len()),
            Self::TooLarge => f.write_str("TooLarge"),
        }
    }
}

/// A request whose body is awaited.
#[derive(Debug)]
pub(crate) struct PendingBody {
    pub(crate) head: Head,
    pub(crate) caller: Caller,
    /// What the headers already rule out.
    pub(crate) fault: Option<Denial>,
    pub(crate) part: RequestPart,
    pub(crate) authentication: Authentication,
}

/// Whether Redis confirmed the key in this request, before its body is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Authentication {
    Unasked,
    Confirmed,
}

impl PendingBody {
    /// Of a request with these headers; what is wrong with them is not known yet.
    pub(crate) fn new(head: Head, caller: Caller) -> Self {
        let (part, authentication) = (RequestPart::Whole, Authentication::Unasked);
        Self { head, caller, fault: None, part, authentication }
    }

    /// Whether Redis vouched for the caller in this request: by the headers in `split` mode, or before a large body.
    pub(crate) fn is_admitted(&self) -> bool {
        matches!(self.part, RequestPart::Body) || self.authentication == Authentication::Confirmed
    }

    /// The same, of a caller whose key Redis confirmed.
    pub(crate) fn authenticated(mut self: Box<Self>) -> Box<Self> {
        self.authentication = Authentication::Confirmed;
        self
    }

    /// Whether nothing has gone upstream.
    pub(crate) fn holds_headers(&self) -> bool {
        match self.part {
            RequestPart::Whole => true,
            RequestPart::Head(_) | RequestPart::Body => false,
        }
    }
}
