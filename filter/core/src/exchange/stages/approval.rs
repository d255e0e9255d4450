//! Waits for Redis's answer on a call that needs an approval.
//!
//! Owns the two calls to Redis for this. A call without a granted approval draws from its windows, is recorded, and
//! refused. A call with one is admitted, and then uses the approval, so that it is made once. When a parallel call used
//! the approval first, the units that were drawn stay drawn.

use portcullis_redis_lua::{ApprovalKey, ApprovalReply};

use crate::audit::{AuditEvent, Redaction, redact};
use crate::authz::approval::{self, Waiting};
use crate::denial::{ApprovalState, Denial};
use crate::driver::call::{CallFailure, CallId, Dependency, DependencyCall, Reply};
use crate::driver::event::Event;
use crate::driver::step::Gate;
use crate::exchange::actions::read_credential::settled;
use crate::exchange::grant::{Credential, Grant, RequiredApproval};
use crate::exchange::handover::{Handover, Outcome, held, refuse, refuse_granted};
use crate::exchange::request::Request;
use crate::exchange::turn::Turn;
use crate::mcp::{Operation, ToolCall};

/// Waits for Redis's answer on an approval.
#[derive(Debug)]
pub(crate) struct Approval {
    request: Box<Request>,
    grant: Box<Grant>,
    credential: Credential,
    required_approval: RequiredApproval,
    call: CallId,
    asked: ApprovalCall,
}

/// The pending call to Redis.
#[derive(Clone, Copy, Debug)]
enum ApprovalCall {
    /// Records that the call waits for an approval.
    Note,
    /// Uses the granted approval for this call.
    Take,
}

/// No approval is granted: records that the call waits.
pub(crate) fn ask(
    request: Box<Request>,
    grant: Box<Grant>,
    turn: &mut Turn<'_>,
) -> Outcome<Box<Approval>> {
    let operation = request.message.as_ref().map(|message| &message.operation);
    let (Ok(Operation::CallTool(call)), Some(required_approval)) =
        (operation, grant.required_approval.clone())
    else {
        return refuse(Denial::Internal("approval"), turn);
    };
    let document = serde_json::to_string(&waiting(&required_approval, &grant, call, turn));
    let Ok(document) = document else {
        return refuse(Denial::Internal("approval"), turn);
    };
    let script = required_approval.key.ask(&document, required_approval.expires);
    let call = turn.start(DependencyCall::Approval(script));
    let (credential, asked) = (Credential::Settled, ApprovalCall::Note);
    let stage = Approval { request, grant, credential, required_approval, call, asked };
    Outcome::Wait(Box::new(stage), Gate::Hold)
}

fn waiting(
    required_approval: &RequiredApproval,
    grant: &Grant,
    call: &ToolCall,
    turn: &Turn<'_>,
) -> Waiting {
    let entry = &turn.context.entry;
    let max_bytes = turn.worker.config.audit_input_max_bytes;
    let paths = grant.policy.secret_places(&grant.connector, &call.name);
    let redaction = Redaction { names: &grant.policy.redact, paths, max_bytes };
    let shown = redact(&call.arguments, redaction);
    let client_id = entry.api_key_id.as_ref().or(entry.client_id.as_ref());
    Waiting {
        digest: required_approval.key.digest().to_owned(),
        org: grant.principal.org.clone(),
        client_id: client_id.cloned().unwrap_or_default(),
        principal: grant.principal.name.clone(),
        role: grant.principal.role.clone(),
        connector: grant.connector.clone(),
        tool: call.name.clone(),
        arguments: shown.value(),
        rule: required_approval.rule.clone(),
        request_id: entry.request_id.clone(),
        asked_at: turn.now.rfc3339(),
    }
}

/// The admission found a granted approval: uses it.
pub(crate) fn take(
    request: Box<Request>,
    grant: Box<Grant>,
    credential: Credential,
    required_approval: RequiredApproval,
    turn: &mut Turn<'_>,
) -> Outcome<Box<Approval>> {
    let call = turn.start(DependencyCall::Approval(required_approval.key.take()));
    let stage =
        Approval { request, grant, credential, required_approval, call, asked: ApprovalCall::Take };
    Outcome::Wait(Box::new(stage), Gate::Hold)
}

impl Approval {
    pub(crate) fn on(
        mut self: Box<Self>,
        event: Event,
        turn: &mut Turn<'_>,
    ) -> Outcome<Box<Approval>> {
        match event {
            Event::CallDone { id, reply } if id == self.call => self.answered(reply, turn),
            Event::CallFailed { id, why } if id == self.call => {
                refuse(Denial::Unavailable(Dependency::Redis, why), turn)
            }
            Event::CallDone { .. } | Event::CallFailed { .. } => {
                self.credential = settled(&self.credential, event, turn);
                Outcome::Wait(self, Gate::Hold)
            }
            event => held(event, "approving", turn, || self),
        }
    }

    fn answered(self, reply: Reply, turn: &mut Turn<'_>) -> Outcome<Box<Approval>> {
        let unreadable = Denial::Unavailable(Dependency::Redis, CallFailure::Unreadable);
        let Reply::Redis(value) = reply else {
            return refuse(unreadable, turn);
        };
        let id = approval::id(self.required_approval.key.digest()).to_owned();
        let events = &mut turn.context.entry.events;
        match self.asked {
            ApprovalCall::Note => match ApprovalKey::asked(value) {
                Ok(ApprovalReply::Asked) => {
                    events.push(AuditEvent::ApprovalRequested { id });
                    self.refused(ApprovalState::Pending, turn)
                }
                // The approval was granted a moment ago: the next call finds it.
                Ok(ApprovalReply::Pending | ApprovalReply::Granted) => {
                    self.refused(ApprovalState::Pending, turn)
                }
                Ok(ApprovalReply::Denied) => self.refused(ApprovalState::Denied, turn),
                Ok(ApprovalReply::Full) => self.refused(ApprovalState::Full, turn),
                Ok(ApprovalReply::CallerFull) => self.refused(ApprovalState::CallerFull, turn),
                Err(_) => refuse(unreadable, turn),
            },
            ApprovalCall::Take => match ApprovalKey::taken(value) {
                Ok(Some(document)) => {
                    let request_id = approval::asked_by(&document);
                    events.push(AuditEvent::ApprovalUsed { id, request_id });
                    Outcome::Next(Handover::Granted(self.request, self.grant, self.credential))
                }
                Ok(None) => self.refused(ApprovalState::Pending, turn),
                Err(_) => refuse(unreadable, turn),
            },
        }
    }

    fn refused(self, state: ApprovalState, turn: &mut Turn<'_>) -> Outcome<Box<Approval>> {
        let denial = self.required_approval.refusal(state);
        refuse_granted(self.request, self.grant, denial, self.credential, turn)
    }
}
