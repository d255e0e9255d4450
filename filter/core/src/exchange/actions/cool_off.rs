//! Refusals of calls of callers that do not back off, without Redis.
//!
//! Owns which of these calls get an audit entry: the call that starts an episode and the first one after it, which has
//! the number of refusals between. All of them are counted. [`crate::limit::cool_off`] decides which callers do not
//! back off.

use std::time::Duration;

use crate::audit::AuditEvent;
use crate::denial::{Denial, LimitCause, ceil_ms};
use crate::driver::step::Effect;
use crate::exchange::grant::Grant;
use crate::exchange::request::{Request, RequestPart};
use crate::exchange::turn::{Sent, Turn};
use crate::limit::Quota;
use crate::limit::cool_off::{Cooling, Refused};
use crate::mcp::Operation;
use crate::metric::Metric;

/// A call of a caller that has to cool off is refused.
pub(crate) enum CoolOff {
    /// With an audit entry.
    Audited(Denial),
    /// Without one; it is counted.
    Counted(Denial),
}

/// The refusal of a call that would be allowed, if its caller has to cool off.
pub(crate) fn refusal(request: &Request, grant: &Grant, turn: &mut Turn<'_>) -> Option<CoolOff> {
    let rule = grant.policy.cool_off.as_ref().filter(|_| !grant.limits_are_shadowed())?;
    let Ok(Operation::CallTool(call)) = request.message.as_ref().map(|message| &message.operation)
    else {
        return None;
    };
    let (org, holder, now) = (request.identity.org(), request.identity.holder(), turn.now);
    if let Some(refused) = turn.worker.callers.ended(org, holder, now) {
        turn.context.entry.events.push(AuditEvent::CoolOffEnded { refused });
    }
    if let Some(cooling) = turn.worker.callers.refuse(org, holder, now) {
        return Some(refuse_unwritten(&cooling, turn));
    }
    if matches!(request.part, RequestPart::Head(_)) {
        return None;
    }
    let digest = turn.context.entry.input_sha256.clone().unwrap_or_default();
    let call = format!("{} {} {digest}", grant.connector, call.name);
    let cooling = turn.worker.callers.called(rule, (org, holder), &call, now)?;
    Some(CoolOff::Audited(start(&cooling, turn)))
}

/// The refusal of a call that found a window used up.
pub(crate) fn limited(
    request: &Request,
    grant: &Grant,
    quota: &Quota,
    retry_after: Duration,
    turn: &mut Turn<'_>,
) -> Denial {
    let (org, holder) = (request.identity.org(), request.identity.holder());
    let refused = Refused { arrived: turn.context.arrived, now: turn.now, wait: retry_after };
    let rule = grant.policy.cool_off.as_ref();
    let cooling = rule.and_then(|rule| turn.worker.callers.limited(rule, (org, holder), &refused));
    match cooling {
        Some(cooling) => start(&cooling, turn),
        None => {
            let until = turn.now.after(retry_after);
            let (limit, cause) = (quota.name.as_str().into(), LimitCause::window(quota, until));
            let cause = Box::new(cause);
            Denial::Limited { limit, cause, retry_after }
        }
    }
}

/// A call that is admitted: its caller's early returns are no row any more.
pub(crate) fn admitted(request: &Request, grant: &Grant, turn: &mut Turn<'_>) {
    let operation = request.message.as_ref().map(|message| &message.operation);
    if grant.policy.cool_off.is_some() && matches!(operation, Ok(Operation::CallTool(_))) {
        turn.worker.callers.admitted(request.identity.org(), request.identity.holder());
    }
}

/// Starts an episode. The refusal names the time of the pause, also where the window stays full for longer: calls that
/// draw from other windows are admitted after it.
fn start(cooling: &Cooling, turn: &mut Turn<'_>) -> Denial {
    let rule = cooling.reason.rule();
    let for_ms = ceil_ms(cooling.rest);
    turn.context.entry.events.push(AuditEvent::CoolOffStarted { rule, for_ms });
    let (limit, cause) = (rule.into(), Box::new(LimitCause::CoolOff));
    Denial::Limited { limit, cause, retry_after: cooling.rest }
}

/// Refuses without an audit entry, unless a part of the request was sent upstream before.
fn refuse_unwritten(cooling: &Cooling, turn: &mut Turn<'_>) -> CoolOff {
    let limit = cooling.reason.rule().into();
    let denial =
        Denial::Limited { limit, cause: Box::new(LimitCause::CoolOff), retry_after: cooling.rest };
    if turn.context.sent != Sent::Nothing {
        return CoolOff::Audited(denial);
    }
    turn.note(&denial);
    let measures = turn.worker.labels.measures(&turn.context.entry);
    let counted = measures.into_iter().filter(|(metric, _)| *metric != Metric::AuditEntries);
    turn.effects.extend(counted.map(|(metric, value)| Effect::Measure(metric, value)));
    CoolOff::Counted(denial)
}
