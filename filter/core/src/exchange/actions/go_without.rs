//! Going on without a dependency, where the operator said so.
//!
//! Owns which verdicts may stand without it, and that every entry decided so says it. How far a
//! worker may go is [`crate::resilience::failover`]'s business.

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

/// What becomes of a verdict that Redis did not confirm; `None` where it must.
pub(crate) fn without_redis(
    (org, admit): (&OrgId, &Admit),
    verdict: Verdict,
    turn: &mut Turn<'_>,
) -> Option<Result<Box<Grant>, Denial>> {
    let degraded = turn.degraded_redis()?;
    let decided = match verdict {
        Verdict::Open | Verdict::NeedsPolicy(_) => return None,
        // The record that does not vouch for the caller may have been replaced since.
        Verdict::Refused(Denial::Unauthenticated(failure)) if !failure.proves_holder() => {
            return None;
        }
        Verdict::Refused(denial) => Err(denial),
        // A person's word is taken once, and only Redis knows whether it was.
        Verdict::Allowed(grant) if grant.required_approval.is_some() => return None,
        Verdict::Allowed(grant) => Ok(grant),
    };
    let (now, failover) = (turn.now, &mut turn.worker.failover);
    let decided = match (failover.decide((org, now), admit, degraded), decided) {
        (WithoutRedis::Unconfirmed, _) => return None,
        (WithoutRedis::Limited(full), Ok(grant)) => {
            let quota = grant.quotas.get(full.window)?;
            // Of a share so small that the call never fits, no time is told.
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

/// The credential that could not be read again, if it may still be used.
pub(crate) fn without_vault(
    credential: &CallerCredential,
    why: CallFailure,
    turn: &mut Turn<'_>,
) -> Option<Injected> {
    // Otherwise Vault is there and does not give it: it was taken away.
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
