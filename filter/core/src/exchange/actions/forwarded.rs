//! What went upstream.
//!
//! Owns what has to be known of a request when its response comes: who asked, for what, and what of the answer they may
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

/// What was asked for, by whom, and what of the answer they may see.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) operation: Operation,
    pub(crate) view: View,
    pub(crate) watch: Watch,
    pub(crate) owner: Owner,
    /// The sessions that end if the server agrees.
    pub(crate) ends: Vec<SessionRef>,
    pub(crate) connector: PolicyName,
    /// Where the request went.
    pub(crate) path: String,
    /// Where a client of HTTP+SSE posts to.
    pub(crate) messages: Option<String>,
    /// Response headers that pass besides those that every answer may have.
    pub(crate) response_headers: Vec<String>,
    /// The request was refused, and something else went up in its place: its entry is settled.
    pub(crate) refused: bool,
    /// The credential that the upstream was given.
    pub(crate) credential: Option<CallerCredential>,
    pub(crate) row_charge: RowCharge,
    /// What its response rests on, as long as it is open.
    pub(crate) recheck: Option<Box<Recheck>>,
}

impl Forwarded {
    /// What `operation` asked for, by what it was granted.
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

    /// The same, of a request that refers to these; one that ends a session ends them.
    pub(crate) fn ending(mut self, bound: Vec<SessionRef>) -> Self {
        if self.operation == Operation::EndSession {
            self.ends = bound;
        }
        self
    }

    /// What its client waits for.
    pub(crate) fn expected(&self, turn: &Turn<'_>) -> Expected {
        match (&turn.context.sender, turn.context.answers, &self.operation) {
            (Sender::Request(_), Answers::Here, _) | (_, _, Operation::Listen) => {
                Expected::Messages
            }
            (Sender::Request(_) | Sender::NoReplyExpected | Sender::Unknown, ..) => {
                Expected::Status
            }
        }
    }
}

/// How a response begins.
pub(crate) struct ResponseStart {
    pub(crate) status: u16,
    pub(crate) session_id: Vec<u8>,
    pub(crate) shape: Shape,
}
