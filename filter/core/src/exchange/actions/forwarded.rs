//! A request that was sent upstream.
//!
//! Owns the facts that its response needs: the caller, the operation, and the parts of the response that the caller may
//! see.

use super::charge_rows::RowCharge;
use super::recheck::Recheck;
use super::watch_drift::Watch;
use crate::authz::View;
use crate::exchange::checks::response_form::{Expected, Shape};
use crate::exchange::grant::{CallerCredential, Grant};
use crate::exchange::session::{Owner, SessionRef};
use crate::exchange::turn::{Answers, Turn};
use crate::id::PolicyName;
use crate::mcp::{Operation, Sender};

/// The operation, its caller, and the parts of the response that the caller may see.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) operation: Operation,
    pub(crate) view: View,
    pub(crate) watch: Watch,
    pub(crate) owner: Owner,
    /// The sessions that end if the server agrees.
    pub(crate) ends: Vec<SessionRef>,
    /// Its session, with which a client can resume a stream.
    pub(crate) session: Option<String>,
    pub(crate) connector: PolicyName,
    /// The path of the request.
    pub(crate) path: String,
    /// The path to which a client of HTTP+SSE posts.
    pub(crate) messages: Option<String>,
    /// Response headers that pass in addition to those that every response may have.
    pub(crate) response_headers: Vec<String>,
    /// The request was refused, and another message was sent instead: its audit entry is complete.
    pub(crate) refused: bool,
    /// The credential that the upstream received.
    pub(crate) credential: Option<CallerCredential>,
    pub(crate) row_charge: RowCharge,
    /// The recheck of its response while that is open.
    pub(crate) recheck: Option<Box<Recheck>>,
}

impl Forwarded {
    /// The facts of `operation` and its grant.
    pub(crate) fn new(operation: Operation, path: String, grant: &Grant) -> Self {
        let connector = grant.policy.connectors.get(&grant.connector);
        let principal = &grant.principal;
        let row_charge = RowCharge::of(grant, &operation);
        let watch = Watch::new(&grant.policy, &principal.org, &grant.connector, &operation);
        Self {
            operation,
            view: View::new(&grant.policy, &grant.principal, &grant.connector),
            watch,
            owner: grant.owner(),
            ends: Vec::new(),
            session: None,
            connector: grant.connector.clone(),
            path,
            refused: grant.relayed.is_some(),
            messages: connector.and_then(|connector| connector.messages.clone()),
            response_headers: connector
                .map(|connector| connector.response_headers.clone())
                .unwrap_or_default(),
            credential: grant.credential.clone(),
            row_charge,
            recheck: None,
        }
    }

    /// The same, for a request that refers to these sessions; a request that ends a session ends them.
    pub(crate) fn ending(mut self, bound: Vec<SessionRef>) -> Self {
        if self.operation == Operation::EndSession {
            self.ends.clone_from(&bound);
        }
        self.session = bound.into_iter().find_map(|bound| match bound {
            SessionRef::Session(id) => Some(id),
            SessionRef::Task(_) => None,
        });
        self
    }

    /// Whether the response may name this session: a new one only where it is bound, which is where sessions begin; else
    /// that of the request, which servers repeat.
    pub(crate) fn may_name(&self, session: &[u8]) -> bool {
        let own = self.session.as_ref().map_or(&[][..], |own| own.as_bytes());
        session.is_empty() || self.operation == Operation::Initialize || session == own
    }

    /// The form of response that its client expects.
    pub(crate) fn expected(&self, turn: &Turn<'_>) -> Expected {
        match (&turn.context.sender, turn.context.answers, &self.operation) {
            (_, _, Operation::Listen | Operation::Subscriptions { .. }) => Expected::Messages,
            (Sender::Request(_), Answers::Here, _) => Expected::Answer,
            (Sender::Request(_) | Sender::NoReplyExpected | Sender::Unknown, ..) => {
                Expected::Status
            }
        }
    }
}

/// The start of a response.
pub(crate) struct ResponseStart {
    pub(crate) status: u16,
    pub(crate) session_id: Vec<u8>,
    pub(crate) shape: Shape,
}
