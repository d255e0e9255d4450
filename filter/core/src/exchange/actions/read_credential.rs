//! The read of a connector's credential, which runs beside the admission.
//!
//! Owns when Vault is asked, and what is remembered of its answer.

use crate::audit::AuditEvent;
use crate::call::{CallFailure, CallId, Dependency, DependencyCall, Reply};
use crate::event::Event;
use crate::exchange::grant::{CallerCredential, Credential};
use crate::exchange::turn::Turn;
use crate::metric::Metric;
use crate::step::Effect;
use crate::vault::{CachedSecret, CredentialRef, SecretFault};

/// Starts the read of a credential that is not in memory.
pub(crate) fn fetch(credential: &CallerCredential, turn: &mut Turn<'_>) -> Credential {
    // Of a caller without one, the stage that needs it says so.
    let Ok(reference) = &credential.reference else { return Credential::Settled };
    if turn.worker.cached_secret(reference).is_some_and(|cached| cached.is_live(turn.now)) {
        return Credential::Settled;
    }
    match read(credential, reference, turn) {
        Ok(call) => Credential::Waiting(reference.clone(), call),
        Err(why) => Credential::Failed(reference.clone(), why),
    }
}

/// Starts the read of a credential, unless the last ones failed: of a Vault that hangs, not every caller
/// is to wait for the end of its time.
pub(crate) fn read(
    credential: &CallerCredential,
    reference: &CredentialRef,
    turn: &mut Turn<'_>,
) -> Result<CallId, CallFailure> {
    if credential.stated.missing.is_some() && turn.worker.is_known_missing(reference, turn.now) {
        return Err(CallFailure::Status(404));
    }
    let timeout = turn.worker.config.vault.as_ref().map(|vault| vault.timeout).unwrap_or_default();
    // A probe that is never heard of again (its client left) is not waited for much longer.
    let probe = timeout.saturating_mul(2);
    if turn.worker.vault.lets_pass(turn.now, &reference.breaker(), probe) {
        let request_id = turn.context.entry.request_id.clone();
        return Ok(turn.start(DependencyCall::Credential(reference.clone(), request_id)));
    }
    turn.effects.push(Effect::Measure(Metric::NotAsked(Dependency::Vault), 1));
    Err(CallFailure::NotAsked)
}

/// The same credential, once `event` is about its read.
pub(crate) fn settled(credential: &Credential, event: Event, turn: &mut Turn<'_>) -> Credential {
    let Credential::Waiting(reference, call) = credential else { return credential.clone() };
    match secret_outcome(event, *call, reference, turn) {
        Some(Ok(())) => Credential::Settled,
        Some(Err(why)) => Credential::Failed(reference.clone(), why),
        None => credential.clone(),
    }
}

/// What became of the read of `reference`, once the event is about it; a value is remembered.
pub(crate) fn secret_outcome(
    event: Event,
    call: CallId,
    reference: &CredentialRef,
    turn: &mut Turn<'_>,
) -> Option<Result<(), CallFailure>> {
    let outcome = match event {
        Event::CallDone { id, reply: Reply::Vault { body } } if id == call => {
            let CredentialRef::Secret(secret) = reference;
            secret.read(&body).map_err(|fault| unusable(reference, fault, turn))
        }
        Event::CallDone { id, reply: Reply::Redis(_) | Reply::Keys | Reply::Policy }
            if id == call =>
        {
            Err(CallFailure::Unreadable)
        }
        Event::CallFailed { id, why } if id == call => Err(why),
        _ => return None,
    };
    let breaker = reference.breaker();
    match &outcome {
        Err(why) if why.leaves_credential_open() => turn.worker.vault.failed(turn.now, &breaker),
        Ok(_) | Err(_) => turn.worker.vault.answered(&breaker),
    }
    if outcome.as_ref().is_err_and(|why| why.says_there_is_none()) {
        // What was there was taken away.
        turn.worker.secret_is_missing(reference.clone(), turn.now);
    }
    Some(outcome.map(|values| {
        let vault = turn.worker.config.vault.as_ref();
        let cache = vault.map(|vault| vault.cache).unwrap_or_default();
        let cached = CachedSecret::new(values, turn.now, cache);
        turn.worker.cache_secret(reference.clone(), cached);
        turn.note_recovered(Dependency::Vault);
    }))
}

/// Tells of a value that no header can carry: the audit log each time, Envoy's log once.
fn unusable(reference: &CredentialRef, fault: SecretFault, turn: &mut Turn<'_>) -> CallFailure {
    let (secret, reason) = (reference.to_string(), fault.name());
    turn.context.entry.events.push(AuditEvent::SecretUnusable { secret, reason });
    turn.worker.secret_is_unusable(reference, fault);
    match fault {
        SecretFault::NotJson | SecretFault::NotKv => CallFailure::Unreadable,
        SecretFault::NoSuchField => CallFailure::NoSuchField,
        SecretFault::NotText
        | SecretFault::Empty
        | SecretFault::TooLong
        | SecretFault::NotAscii => CallFailure::Unusable,
    }
}
