//! Explains whether a call would be allowed: the same decision as in the data path, with every step.
//!
//! Owns the form of the explanation. Decides nothing itself, draws from no window, and requests no approval.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::auth::{AuthFailure, Principal};
use crate::authz::approval;
use crate::authz::{self, Case, Consideration, ConsideredRule, Seen, Shadowed, Trail, amended};
use crate::denial::{Denial, Requested};
use crate::id::PolicyName;
use crate::limit::{CALL, Called, Quota};
use crate::mcp::{Era, Message, Operation, ToolCall};
use crate::observed::{self, Observed};
use crate::pin::Action;
use crate::policy::{Check, Connector, Policy, Unverified};
use crate::reviewed::Reviewed;
use crate::time::UnixTime;

/// A hypothetical call.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The caller.
    pub principal: &'a Principal,
    /// The claims of the caller's token.
    pub claims: &'a Map<String, Value>,
    /// The connector.
    pub connector: &'a PolicyName,
    /// The tool.
    pub tool: &'a str,
    /// The arguments.
    pub arguments: &'a Map<String, Value>,
    /// The time.
    pub now: UnixTime,
    /// The source address, without port.
    pub source: &'a str,
    /// The tool as lists showed it; used where the policy requires it.
    pub observed: Observed,
}

/// The explanation of a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// The decision.
    pub decision: Decision,
    /// The deciding rule; absent when no rule refuses the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The client's response, when the call is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// Everything that was considered, in order.
    pub steps: Vec<ConsideredRule>,
    /// The forwarded arguments, when a rule changes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amended: Option<Map<String, Value>>,
    /// The digest of the approval that it needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
    /// Rules in shadow mode that would have refused it.
    pub shadowed: Vec<String>,
    /// The windows that it would draw from, by name.
    pub windows: Vec<String>,
    /// The same, with what it would draw from each.
    #[serde(skip)]
    pub quotas: Vec<Quota>,
    /// Its cost in credits, without the rows of its result.
    pub credits: u64,
    /// The cost of each row of its result.
    pub credits_per_row: u64,
}

/// The decision on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The call is forwarded, unless a window is used up.
    Allow,
    /// The call is forwarded, although a rule in shadow mode would refuse it.
    ShadowDeny,
    /// The call waits for an approval.
    NeedsApproval,
    /// The call is refused.
    Deny,
}

impl Decision {
    /// Whether the call would be forwarded now.
    #[must_use]
    pub const fn lets_pass(self) -> bool {
        match self {
            Self::Allow | Self::ShadowDeny => true,
            Self::NeedsApproval | Self::Deny => false,
        }
    }

    /// The name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::ShadowDeny => "shadow_deny",
            Self::NeedsApproval => "needs_approval",
            Self::Deny => "deny",
        }
    }
}

/// The response of a refused call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The error message.
    pub message: String,
}

/// Explains `question`; `None` when the policy has no such connector.
#[must_use]
pub fn explain(question: &Question<'_>) -> Option<Answer> {
    let Question { policy, principal, connector: name, .. } = *question;
    let connector = policy.connectors.get(name)?;
    let call = ToolCall {
        name: question.tool.to_owned(),
        arguments: question.arguments.clone(),
        as_task: false,
    };
    let message =
        Message { method: "tools/call".to_owned(), ..Message::bodiless(Operation::CallTool(call)) };
    let case = Case {
        policy,
        principal,
        claims: question.claims,
        name,
        connector,
        message: &message,
        seen: Seen::Whole,
        now: question.now,
        source: question.source,
    };
    let mut trail = Trail::kept();
    let judged = authz::judge(&case, &mut trail).and_then(|ruling| {
        fits(question, connector, &mut trail)?;
        Ok(ruling)
    });
    let shadowed: Vec<_> =
        trail.shadowed.iter().map(|Shadowed { rule, .. }| rule.clone()).collect();
    let steps = trail.steps().to_vec();
    Some(match judged {
        Err(denial) => refused(&denial, question.tool, steps, shadowed),
        Ok(ruling) => {
            let arguments = amended(question.arguments, &ruling.amendments);
            let waits = ruling.approval.map(|needed| {
                let key = approval::key(principal, name, question.tool, &arguments);
                (needed.rule, key.digest().to_owned())
            });
            let called = Called {
                connector: name,
                method: CALL,
                tool: question.tool,
                opens: false,
                bytes: length(question),
            };
            let quotas = called.quotas(policy, principal);
            let price = called.price(policy);
            let decision = match (&waits, shadowed.is_empty()) {
                (Some(_), _) => Decision::NeedsApproval,
                (None, false) => Decision::ShadowDeny,
                (None, true) => Decision::Allow,
            };
            let (waits_by, approval) = waits.unzip();
            Answer {
                decision,
                rule: waits_by.or_else(|| shadowed.first().cloned()),
                refusal: None,
                steps,
                amended: (!ruling.amendments.is_empty()).then(|| arguments.into_owned()),
                approval,
                shadowed,
                windows: quotas.iter().map(|quota| quota.name.clone()).collect(),
                quotas,
                credits: price.call,
                credits_per_row: price.row,
            }
        }
    })
}

/// The length of the call's body in its shortest form.
fn length(question: &Question<'_>) -> u64 {
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": CALL,
        "params": {"name": question.tool, "arguments": question.arguments},
    });
    u64::try_from(call.to_string().len()).unwrap_or(u64::MAX)
}

impl Answer {
    /// The explanation for a call of `tool` whose credential fails.
    #[must_use]
    pub fn unauthenticated(failure: AuthFailure, tool: &str) -> Self {
        refused(&Denial::Unauthenticated(failure), tool, Vec::new(), Vec::new())
    }
}

fn refused(
    denial: &Denial,
    tool: &str,
    steps: Vec<ConsideredRule>,
    shadowed: Vec<String>,
) -> Answer {
    let refusal = Refusal {
        status: denial.status(Era::Legacy),
        message: denial.client_message(Requested::Tool(tool)),
    };
    // The rule of the policy, which the client of a hidden tool does not see.
    let rule = steps.last().map(|step| step.rule.clone()).or_else(|| Some(denial.rule()));
    Answer {
        decision: Decision::Deny,
        rule,
        refusal: Some(refusal),
        steps,
        amended: None,
        approval: None,
        shadowed,
        windows: Vec::new(),
        quotas: Vec::new(),
        credits: 0,
        credits_per_row: 0,
    }
}

/// Compares the tool and the arguments with the pin, as for each real call.
fn fits(question: &Question<'_>, connector: &Connector, trail: &mut Trail) -> Result<(), Denial> {
    let Some(pin) = connector.tools.get(question.tool).and_then(|tool| tool.pin.as_ref()) else {
        return Ok(());
    };
    let name = question.connector;
    let refusal = match (question.observed, connector.pins.unverified) {
        (Observed::Drifted(drift), _) if connector.pins.action(drift) == Action::Block => {
            let rule = format!("connectors.{name}.on_drift.{}", drift.name());
            Some(Denial::Forbidden { rule })
        }
        (Observed::Nothing, Unverified::Block) => {
            Some(Denial::unverified(observed::unverified(name)))
        }
        (Observed::Nothing | Observed::Same | Observed::Drifted(_), _) => None,
    };
    if let Some(refusal) = refusal {
        trail.considered(Consideration::Refused, refusal.rule());
        return Err(refusal);
    }
    let reviewed = Reviewed::of(pin).ok_or(Denial::PolicyUnusable)?;
    match reviewed.fits(question.tool, question.arguments) {
        Ok(()) => {
            trail
                .considered(Consideration::Passed, format!("tools.{}.input_schema", question.tool));
            Ok(())
        }
        Err(denial) => trail.judged(question.policy, Check::Schema, denial),
    }
}
