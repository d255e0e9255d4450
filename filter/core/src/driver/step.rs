//! What the driver must now do: effects in order, then the gate.

use std::borrow::Cow;

use crate::denial::Denial;
use crate::driver::call::{CallId, DependencyCall};
use crate::http::local_reply::LocalReply;
use crate::mcp::Body;
use crate::metric::Metric;
use crate::secret::Secret;

/// The answer to one event. Dropping it loses a verdict.
#[derive(Debug)]
#[must_use]
pub struct Step {
    /// To be carried out first, in this order.
    pub effects: Vec<Effect>,
    /// Then this.
    pub gate: Gate,
}

/// One thing to do.
#[derive(Debug)]
pub enum Effect {
    /// Start a call; its outcome comes back as an event, also when it cannot be started.
    Start {
        /// The name under which it comes back.
        id: CallId,
        /// What to ask.
        call: DependencyCall,
    },
    /// Remove every occurrence of a request header.
    RemoveRequestHeader(Cow<'static, str>),
    /// Set a request header, replacing any present ones.
    SetRequestHeader {
        /// In lower case.
        name: Cow<'static, str>,
        /// Its value.
        value: HeaderValue,
    },
    /// Put these bytes in the place of the whole request body, which is held.
    ReplaceRequestBody(Body),
    /// Set a response header, replacing any present one.
    SetResponseHeader {
        /// In lower case.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Remove a response header.
    RemoveResponseHeader(Cow<'static, str>),
    /// Put these bytes in the place of the bytes the event brought.
    ReplaceResponseBody(Vec<u8>),
    /// Hand this line to the access log, after those before it: a request that ends has one, or one more before it, of a
    /// response that is open.
    Audit(String),
    /// Add this much to a metric.
    Measure(Metric, u64),
}

/// The value of a request header.
#[derive(Debug)]
pub enum HeaderValue {
    /// One that is no secret.
    Plain(Cow<'static, str>),
    /// A credential, or what a route matches on.
    Secret(Secret),
}

impl HeaderValue {
    /// The value itself. Every caller is a place to review.
    #[must_use]
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(value) => value,
            Self::Secret(value) => value.expose(),
        }
    }
}

/// What becomes of a message: the request that is judged, or the response to one that passed.
#[derive(Debug)]
pub enum Gate {
    /// Nothing changes: later events decide.
    Hold,
    /// This, of the request.
    Request(RequestGate),
    /// This, of the response.
    Response(ResponseGate),
}

/// Whether a request goes on.
#[derive(Debug)]
pub enum RequestGate {
    /// It goes on, and no more of it has to be seen.
    Pass,
    /// It ends here. At most once per exchange, and never after [`RequestGate::Pass`].
    Refuse(Denial),
    /// The gateway answers by itself. At most once, like a refusal.
    LocalReply(LocalReply),
}

/// Whether a response goes on.
#[derive(Debug)]
pub enum ResponseGate {
    /// Not yet, a call decides. What comes of it meanwhile is shown, and waits.
    Pause,
    /// It goes on; show each chunk first.
    Observe,
    /// It goes on, and no more of it has to be seen.
    Pass,
    /// It is not fit to pass; this takes its place. At most once.
    Replace(Denial),
}

impl Gate {
    /// What the callback of a request acts on; `None` where the request waits.
    #[must_use]
    pub fn of_request(self) -> Option<RequestGate> {
        match self {
            Self::Request(gate) => Some(gate),
            Self::Hold | Self::Response(_) => None,
        }
    }

    /// What the callback of a response acts on; `None` where the response waits.
    #[must_use]
    pub fn of_response(self) -> Option<ResponseGate> {
        match self {
            Self::Response(gate) => Some(gate),
            Self::Hold | Self::Request(_) => None,
        }
    }

    /// The same, where an effect of it could not be carried out: then nothing goes on.
    #[must_use]
    pub fn failed(self, denial: Denial) -> Self {
        match self {
            Self::Hold | Self::Request(_) => Self::Request(RequestGate::Refuse(denial)),
            Self::Response(_) => Self::Response(ResponseGate::Replace(denial)),
        }
    }

    /// What holds when another decision follows before this one took effect: a call that fails at once
    /// ends the wait for it; what was let go or ended stays so.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        match (self, later) {
            (Self::Hold, later) => later,
            (paused @ Self::Response(ResponseGate::Pause), Self::Hold) => paused,
            (Self::Response(ResponseGate::Pause), later) => later,
            (decided, _) => decided,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::call::CallFailure;

    #[test]
    fn waiting_ends_with_what_follows_and_a_decision_stands() {
        let denial =
            || Gate::Response(ResponseGate::Replace(Denial::NoSession(CallFailure::Refused)));
        let pass = || Gate::Request(RequestGate::Pass);
        let pause = || Gate::Response(ResponseGate::Pause);
        let after = |first: Gate, later: Gate| first.followed_by(later);
        assert!(matches!(after(Gate::Hold, pass()), Gate::Request(RequestGate::Pass)));
        assert!(matches!(after(pause(), denial()), Gate::Response(ResponseGate::Replace(_))));
        assert!(matches!(after(pause(), Gate::Hold), Gate::Response(ResponseGate::Pause)));
        assert!(matches!(after(denial(), pass()), Gate::Response(ResponseGate::Replace(_))));
        assert!(matches!(after(pass(), Gate::Hold), Gate::Request(RequestGate::Pass)));
    }

    #[test]
    fn a_gate_of_the_other_direction_lets_nothing_go() {
        let of_response = Gate::Response(ResponseGate::Pass).of_request();
        assert!(of_response.is_none());
        assert!(Gate::Request(RequestGate::Pass).of_response().is_none());
    }
}
