//! The read of a connector's credential, which runs beside the admission.
//!
//! Owns when Vault is asked, and what is remembered of its answer.

use crate::audit::AuditEvent;
use crate::call::{CallFailure, CallId, Dependency, DependencyCall, Reply};
use crate::event::Event;
use crate::exchange::grant::Credential;
use crate::exchange::turn::Turn;
use crate::metric::Metric;
use crate::step::Effect;
use crate::vault::{CachedSecret, CredentialTemplate, SecretRef};

/// Starts the read of a credential that is not in memory.
pub(crate) fn fetch(template: &CredentialTemplate, turn: &mut Turn<'_>) -> Credential {
    let secret = template.secret();
    if turn.worker.cached_secret(secret).is_some_and(|cached| cached.is_live(turn.now)) {
        return Credential::Settled;
    }
    match read(secret, turn) {
        Ok(call) => Credential::Waiting(secret.clone(), call),
        Err(why) => Credential::Failed(secret.clone(), why),
    }
}

/// Starts the read of a credential, unless the last ones failed: of a Vault that hangs, not every caller
/// is to wait for the end of its time.
pub(crate) fn read(secret: &SecretRef, turn: &mut Turn<'_>) -> Result<CallId, CallFailure> {
    let timeout = turn.worker.config.vault.as_ref().map(|vault| vault.timeout).unwrap_or_default();
    // A probe that is never heard of again (its client left) is not waited for much longer.
    let probe = timeout.saturating_mul(2);
    if turn.worker.vault.lets_pass(turn.now, secret, probe) {
        return Ok(turn.start(DependencyCall::Secret(secret.clone())));
    }
    turn.effects.push(Effect::Measure(Metric::NotAsked(Dependency::Vault), 1));
    Err(CallFailure::NotAsked)
}

/// The same credential, once `event` is about its read.
pub(crate) fn settled(credential: &Credential, event: Event, turn: &mut Turn<'_>) -> Credential {
    let Credential::Waiting(secret, call) = credential else { return credential.clone() };
    match secret_outcome(event, *call, secret, turn) {
        Some(Ok(())) => Credential::Settled,
        Some(Err(why)) => Credential::Failed(secret.clone(), why),
        None => credential.clone(),
    }
}

/// What became of the read of `secret`, once the event is about it; a value is remembered.
pub(crate) fn secret_outcome(
    event: Event,
    call: CallId,
    secret: &SecretRef,
    turn: &mut Turn<'_>,
) -> Option<Result<(), CallFailure>> {
    let outcome = match event {
        Event::CallDone { id, reply: Reply::Vault { body } } if id == call => {
            secret.read(&body).map_err(|fault| {
                let (secret, reason) = (secret.to_string(), fault.name());
                let event = AuditEvent::SecretUnusable { secret, reason };
                turn.context.entry.events.push(event);
                CallFailure::Unreadable
            })
        }
        Event::CallDone { id, reply: Reply::Redis(_) | Reply::Keys | Reply::Policy }
            if id == call =>
        {
            Err(CallFailure::Unreadable)
        }
        Event::CallFailed { id, why } if id == call => Err(why),
        _ => return None,
    };
    match &outcome {
        Err(why) if why.is_outage() => turn.worker.vault.failed(turn.now, secret),
        Ok(_) | Err(_) => turn.worker.vault.answered(secret),
    }
    Some(outcome.map(|value| {
        let vault = turn.worker.config.vault.as_ref();
        let cache = vault.map(|vault| vault.cache).unwrap_or_default();
        turn.worker.cache_secret(secret.clone(), CachedSecret::new(value, turn.now, cache));
        turn.note_recovered(Dependency::Vault);
    }))
}
