//! Everything that passing a request takes.
//!
//! Owns the facts of a verdict that lets a request pass. Decides nothing.

use std::rc::Rc;
use std::time::Duration;

use portcullis_redis_lua::{ApprovalKey, Expected, GRANTED, Guard};

use super::request::{Request, RequestPart};
use super::session::Owner;
use crate::audit::Entry;
use crate::auth::Principal;
use crate::authz::approval;
use crate::authz::{Ruling, Shadowed, amended};
use crate::connector_credential::{CallerFacts, ConnectorCredential, CredentialRef, Unresolved};
use crate::denial::{ApprovalState, Denial, Relayed, Requested};
use crate::driver::call::{CallFailure, CallId};
use crate::id::PolicyName;
use crate::limit::Quota;
use crate::mcp::Operation;
use crate::policy::{Check, Enforcement, Policy, Price};

/// Everything that passing a request takes.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) principal: Rc<Principal>,
    pub(crate) policy: Rc<Policy>,
    pub(crate) connector: PolicyName,
    pub(crate) credential: Option<CallerCredential>,
    /// What it draws from, in the order of the admission call.
    pub(crate) quotas: Vec<Quota>,
    /// What it costs, if it is a call.
    pub(crate) price: Option<Price>,
    /// How it goes on.
    pub(crate) ruling: Ruling,
    /// The approval that it hangs on.
    pub(crate) required_approval: Option<RequiredApproval>,
    /// What would have been refused, were it not in shadow mode.
    pub(crate) shadowed: Vec<Shadowed>,
    /// A refusal that goes to the caller's stream: what goes on carries nothing of the request.
    pub(crate) relayed: Option<RelayedRefusal>,
}

impl Grant {
    /// The same for a request that is refused: nothing of it goes on, and nothing is drawn. `None` where the refusal
    /// cannot go to a stream.
    pub(crate) fn refused(self, denial: &Denial, request: &Request, entry: &Entry) -> Option<Self> {
        let message = request.message.as_ref().ok()?;
        let connector = self.policy.connectors.get(&self.connector)?;
        if !connector.relays_refusals(&request.path) || matches!(request.part, RequestPart::Head(_))
        {
            return None;
        }
        let era = message.claimed_era();
        let relayed = Relayed::of(denial, &message.sender, era, requested(entry))?;
        let relayed = RelayedRefusal { denial: denial.clone(), message: relayed.request()? };
        Some(Self {
            quotas: Vec::new(),
            price: None,
            ruling: Ruling::default(),
            required_approval: None,
            shadowed: Vec::new(),
            relayed: Some(relayed),
            ..self
        })
    }

    /// Who it lets pass, as the owner of what a server hands out.
    pub(crate) fn owner(&self) -> Owner {
        Owner {
            org: self.principal.org.clone(),
            name: self.principal.identity.holder().to_owned(),
            idle: self.policy.sessions.idle,
        }
    }

    /// Whether a window that is used up refuses nothing.
    pub(crate) fn limits_are_shadowed(&self) -> bool {
        match self.policy.enforcement(Check::Limits, Enforcement::Enforce) {
            Enforcement::Enforce => false,
            Enforcement::Shadow => true,
        }
    }
}

/// A refusal, and the message that goes upstream so that its answer can become it.
#[derive(Debug)]
pub(crate) struct RelayedRefusal {
    pub(crate) denial: Denial,
    pub(crate) message: Vec<u8>,
}

/// The approval that a call needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequiredApproval {
    pub(crate) key: ApprovalKey,
    pub(crate) rule: String,
    pub(crate) expires: Duration,
}

impl RequiredApproval {
    /// What `call` needs, as it would go on.
    pub(crate) fn of(
        ruling: &Ruling,
        principal: &Principal,
        connector: &PolicyName,
        operation: &Operation,
    ) -> Option<Self> {
        let (Some(needed), Operation::CallTool(call)) = (&ruling.approval, operation) else {
            return None;
        };
        let arguments = amended(&call.arguments, &ruling.amendments);
        let key = approval::key(principal, connector, &call.name, &arguments);
        Some(Self { key, rule: needed.rule.clone(), expires: needed.expires })
    }

    /// What the admission must find.
    pub(crate) fn guard(&self) -> Guard {
        let expected = Expected::Revision(GRANTED.to_owned());
        Guard { key: self.key.key().clone(), expected }
    }

    pub(crate) fn refusal(&self, state: ApprovalState) -> Denial {
        let id = approval::id(self.key.digest()).into();
        Denial::Approval { rule: self.rule.as_str().into(), id, state }
    }
}

/// What the server gets for this caller.
#[derive(Clone, Debug)]
pub(crate) struct CallerCredential {
    pub(crate) stated: Rc<ConnectorCredential>,
    /// Where it is, if this caller has one.
    pub(crate) reference: Result<CredentialRef, Unresolved>,
}

impl CallerCredential {
    pub(crate) fn of(stated: &Rc<ConnectorCredential>, facts: CallerFacts<'_>) -> Self {
        Self { stated: stated.clone(), reference: stated.of(facts) }
    }
}

/// The credential's read, which runs beside the admission.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// Not asked for, or in memory.
    Settled,
    /// Asked for.
    Waiting(CredentialRef, CallId),
    /// Read by this request a moment ago: it is used, also where no other request may use it.
    Read(CredentialRef),
    /// Not to be had.
    Failed(CredentialRef, CallFailure),
}

/// What a message to the client calls the request.
pub(crate) fn requested(entry: &Entry) -> Requested<'_> {
    match (entry.tool_name.as_deref(), entry.mcp_method.as_deref()) {
        (Some(tool), _) => Requested::Tool(tool),
        (None, Some(method)) => Requested::Method(method),
        (None, None) => Requested::Unread,
    }
}
