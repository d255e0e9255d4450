//! Operation without a dependency, where the operator allows it.
//!
//! Owns which verdicts are valid without the dependency, and marks every such audit entry.
//! [`crate::resilience::failover`] decides how far a worker may go.

use portcullis_redis_lua::Admit;

use crate::connector_credential::Injected;
use crate::denial::{Denial, LimitCause};
use crate::driver::call::{CallFailure, Dependency};
use crate::exchange::checks::verdict::Verdict;
use crate::exchange::grant::{CallerCredential, Grant};
use crate::exchange::turn::{CallerIdentity, Turn};
use crate::id::OrgId;
use crate::resilience::failover::WithoutRedis;
use crate::vault::CachedSecret;

/// The outcome of a verdict that Redis did not confirm; `None` where Redis must confirm it.
pub(crate) fn without_redis(
    (org, admit): (&OrgId, &Admit),
    verdict: Verdict,
    turn: &mut Turn<'_>,
) -> Option<Result<Box<Grant>, Denial>> {
    let degraded = turn.degraded_redis()?;
    let decided = match verdict {
        Verdict::Open | Verdict::NeedsPolicy(_) => return None,
        // The record may have been replaced since with one that accepts the caller.
        Verdict::Refused(Denial::Unauthenticated(failure)) if !failure.proves_holder() => {
            return None;
        }
        Verdict::Refused(denial) => Err(denial),
        // An approval is used once, and only Redis knows whether it was used.
        Verdict::Allowed(grant) if grant.required_approval.is_some() => return None,
        Verdict::Allowed(grant) => Ok(grant),
    };
    // The call's own windows: Redis was asked for whole leases, and not for units that the worker holds.
    let windows = match &decided {
        Ok(grant) => grant.quotas.iter().map(|quota| quota.window.clone()).collect(),
        Err(_) => Vec::new(),
    };
    let admit = Admit { windows, guards: admit.guards.clone(), used: None, intent: None };
    let (now, failover) = (turn.now, &mut turn.worker.failover);
    let decided = match (failover.decide((org, now), &admit, degraded), decided) {
        (WithoutRedis::Unconfirmed, _) => return None,
        (WithoutRedis::Limited(full), Ok(grant)) => {
            let quota = grant.quotas.get(full.window)?;
            // When the share is so small that the call never fits, there is no time to wait for.
            let (limit, retry_after) = (quota.name.as_str().into(), full.retry_after?);
            let cause = Box::new(LimitCause::window(quota, now.after(retry_after)));
            Err(Denial::Limited { limit, cause, retry_after })
        }
        (WithoutRedis::Stands | WithoutRedis::Limited(_), decided) => decided,
    };
    turn.context.identity = CallerIdentity::Confirmed;
    turn.note_degraded(Dependency::Redis);
    Some(decided)
}

/// The credential that could not be renewed, if it may still be used.
pub(crate) fn without_vault(
    credential: &CallerCredential,
    why: CallFailure,
    turn: &mut Turn<'_>,
) -> Option<Injected> {
    // Otherwise Vault is available and refuses the credential: it is no longer valid.
    if !why.leaves_credential_open() {
        return None;
    }
    let configured = turn.worker.config.vault.as_ref().and_then(|vault| vault.stale);
    let stale = credential.stated.stale.time(configured);
    let now = turn.now;
    let usable = |cached: &&CachedSecret| cached.is_usable(now, stale);
    let reference = credential.reference.clone().ok()?;
    let cached = turn.worker.cached_secret(&reference).filter(usable)?;
    let injected = credential.stated.render(cached);
    turn.note_degraded(Dependency::of(&reference));
    Some(injected)
}
