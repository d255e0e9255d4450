//! What the driver must now do: effects in order, then the gate.

use crate::call::{Call, CallId};
use crate::denial::Denial;
use crate::local_reply::LocalReply;
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
        call: Call,
    },
    /// Remove every occurrence of a request header.
    RemoveRequestHeader(String),
    /// Set a request header, replacing any present ones.
    SetRequestHeader {
        /// In lower case.
        name: String,
        /// Possibly a credential.
        value: Secret,
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
    RemoveResponseHeader(String),
    /// Put these bytes in the place of the bytes the event brought.
    ReplaceResponseBody(Vec<u8>),
    /// Hand this line to the access log.
    Audit(String),
    /// Add this much to a metric.
    Measure(Metric, u64),
}

/// Whether the message goes on.
#[derive(Debug)]
pub enum Gate {
    /// Not yet: more events decide. Of a response that is under way, this changes nothing.
    Hold,
    /// It goes on, and nobody needs to see more of it.
    Pass,
    /// It goes on; show each chunk first.
    Watch,
    /// Of a response: not yet, a call decides. What comes of it meanwhile is shown, and waits.
    Suspend,
    /// It ends here. At most once per exchange, and never after [`Gate::Pass`] of the request.
    Refuse(Denial),
    /// The upstream's response is not fit to pass; this takes its place. At most once.
    Replace(Denial),
    /// The gateway answers by itself. At most once, like a refusal.
    Answer(LocalReply),
}

impl Gate {
    /// What holds when another decision follows before this one took effect: a call that fails at once
    /// ends the wait for it; what was let go or ended stays so.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        match (self, later) {
            (Self::Hold, later) => later,
            (Self::Suspend, Self::Hold) => Self::Suspend,
            (Self::Suspend, later) => later,
            (decided, _) => decided,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::CallFailure;

    #[test]
    fn waiting_ends_with_what_follows_and_a_decision_stands() {
        let denial = || Gate::Replace(Denial::NoSession(CallFailure::Refused));
        let after = |first: Gate, later: Gate| first.followed_by(later);
        assert!(matches!(after(Gate::Hold, Gate::Pass), Gate::Pass));
        assert!(matches!(after(Gate::Suspend, denial()), Gate::Replace(_)));
        assert!(matches!(after(Gate::Suspend, Gate::Hold), Gate::Suspend));
        assert!(matches!(after(denial(), Gate::Pass), Gate::Replace(_)));
        assert!(matches!(after(Gate::Pass, Gate::Hold), Gate::Pass));
    }
}
