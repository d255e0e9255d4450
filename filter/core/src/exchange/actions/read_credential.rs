//! The read of a connector's credential, which runs beside the admission.
//!
//! Owns when Vault or an authorization server is asked, and what is remembered of the answer. A token takes the gateway's
//! own secret at the authorization server, so that is read first.

use std::rc::Rc;

use crate::audit::AuditEvent;
use crate::connector_credential::CredentialRef;
use crate::driver::call::{Asker, CallFailure, CallId, Dependency, DependencyCall, Reply};
use crate::driver::event::Event;
use crate::driver::step::Effect;
use crate::exchange::grant::{CallerCredential, Credential};
use crate::exchange::turn::Turn;
use crate::id::OrgId;
use crate::metric::Metric;
use crate::secret::Secret;
use crate::token_exchange::{AuthorizationServer, NotIssued, TokenRef, TokenRequest, issued};
use crate::vault::CachedSecret;

/// A call that is on its way: what it asks for, and its id.
pub(crate) type Asked = (CredentialRef, CallId);
/// What was not to be had, and why.
pub(crate) type NotHad = (CredentialRef, CallFailure);

/// Starts the read of a credential that is not in memory.
pub(crate) fn fetch(credential: &CallerCredential, turn: &mut Turn<'_>) -> Credential {
    // Of a caller without one, the stage that needs it says so.
    let Ok(reference) = &credential.reference else { return Credential::Settled };
    if turn.worker.cached_secret(reference).is_some_and(|cached| cached.is_live(turn.now)) {
        return Credential::Settled;
    }
    match read(credential, reference, turn) {
        Ok((asked, call)) => Credential::Waiting(asked, call),
        Err((asked, why)) => Credential::Failed(asked, why),
    }
}

/// Starts the read of a credential, or of what it takes to ask for it.
pub(crate) fn read(
    credential: &CallerCredential,
    reference: &CredentialRef,
    turn: &mut Turn<'_>,
) -> Result<Asked, NotHad> {
    let is_remembered = match reference {
        CredentialRef::Secret(_) => credential.stated.missing.is_some(),
        CredentialRef::Token(_) => true,
    };
    if is_remembered && turn.worker.is_known_missing(reference, turn.now) {
        let why = match reference {
            CredentialRef::Secret(_) => CallFailure::Status(404),
            CredentialRef::Token(_) => CallFailure::NotGranted,
        };
        return Err((reference.clone(), why));
    }
    match reference {
        CredentialRef::Secret(_) => ask_vault(reference, turn),
        CredentialRef::Token(token) => {
            let assertion =
                token.assertion().map(|assertion| CredentialRef::Token(Rc::new(assertion)));
            match assertion {
                Some(assertion) => redeem((reference, token), &assertion, turn),
                None => exchange(reference, token, None, turn),
            }
        }
    }
}

/// Asks for a token with an ID-JAG, or before that for what it takes.
fn redeem(
    (reference, token): (&CredentialRef, &Rc<TokenRef>),
    assertion: &CredentialRef,
    turn: &mut Turn<'_>,
) -> Result<Asked, NotHad> {
    let CredentialRef::Token(first) = assertion else {
        return Err((reference.clone(), CallFailure::Refused));
    };
    let now = turn.now;
    // One that lives for no time at all is tried, too, and once.
    let usable = |cached: &CachedSecret| cached.is_live(now) || cached.was_just_read(now);
    match turn.worker.cached_secret(assertion).is_some_and(usable) {
        true => exchange(reference, token, Some(assertion), turn),
        false if turn.worker.is_known_missing(assertion, now) => {
            Err((assertion.clone(), CallFailure::NotGranted))
        }
        false => exchange(assertion, first, None, turn),
    }
}

/// The server that a token comes from, if policies of the organisation may name it.
fn server<'a>(token: &TokenRef, turn: &'a Turn<'_>) -> Option<&'a AuthorizationServer> {
    let servers = &turn.worker.config.authorization_servers;
    servers.get(token.server()).filter(|server| server.serves(&token.org))
}

/// The gateway's own secret at the server that this comes from.
pub(crate) fn client_secret(reference: &CredentialRef, turn: &Turn<'_>) -> Option<CredentialRef> {
    let CredentialRef::Token(token) = reference else { return None };
    let secret = server(token, turn)?.client_secret.clone();
    Some(CredentialRef::Secret(Rc::new(secret)))
}

/// What is asked for before `reference`: the gateway's own secrets, and the ID-JAG.
pub(crate) fn takes(reference: &CredentialRef, turn: &Turn<'_>) -> Vec<CredentialRef> {
    let CredentialRef::Token(token) = reference else { return Vec::new() };
    let assertion = token.assertion().map(|assertion| CredentialRef::Token(Rc::new(assertion)));
    let of_assertion = assertion.as_ref().and_then(|assertion| client_secret(assertion, turn));
    let own = client_secret(reference, turn);
    own.into_iter().chain(of_assertion).chain(assertion).collect()
}

/// Asks for a token, or before that for the gateway's own secret.
fn exchange(
    reference: &CredentialRef,
    token: &Rc<TokenRef>,
    assertion: Option<&CredentialRef>,
    turn: &mut Turn<'_>,
) -> Result<Asked, NotHad> {
    let not_had = |why| (reference.clone(), why);
    let secret = client_secret(reference, turn).ok_or_else(|| not_had(CallFailure::Refused))?;
    let now = turn.now;
    let usable = |cached: &&CachedSecret| cached.is_live(now) || cached.was_just_read(now);
    let held = turn.worker.cached_secret(&secret).filter(usable).is_some();
    if !held {
        return ask_vault(&secret, turn);
    }
    let request =
        request(token, (&secret, assertion), turn).ok_or_else(|| not_had(CallFailure::Refused))?;
    let probe = request.timeout.saturating_mul(2);
    if !turn.worker.vault.lets_pass(now, &reference.breaker(), probe) {
        turn.effects.push(Effect::Measure(Metric::NotAsked(Dependency::AuthorizationServer), 1));
        return Err(not_had(CallFailure::NotAsked));
    }
    let call = DependencyCall::Token(token.clone(), Box::new(request), asker(turn));
    Ok((reference.clone(), turn.start(call)))
}

fn request(
    token: &TokenRef,
    (secret, assertion): (&CredentialRef, Option<&CredentialRef>),
    turn: &mut Turn<'_>,
) -> Option<TokenRequest> {
    let server = server(token, turn)?.clone();
    let subject = turn.context.token.clone();
    let subject = subject.filter(|subject| token.subject == Some(subject.digest.bytes()));
    let subject = match assertion {
        None => subject.map(|subject| Secret::new(subject.text().to_owned())),
        Some(assertion) => {
            let held = turn.worker.cached_secret(assertion)?.values.first()?;
            Some(Secret::new(held.expose().to_owned()))
        }
    };
    let secret = turn.worker.cached_secret(secret)?;
    secret.note_use();
    let what = (&token.exchange, token.kind);
    server.request(what, secret.values.first()?, subject.as_ref().map(Secret::expose))
}

/// Starts the read of a secret, unless the last ones failed: of a Vault that hangs, not every caller
/// is to wait for the end of its time.
fn ask_vault(reference: &CredentialRef, turn: &mut Turn<'_>) -> Result<Asked, NotHad> {
    let timeout = turn.worker.config.vault.as_ref().map(|vault| vault.timeout).unwrap_or_default();
    // A probe that is never heard of again (its client left) is not waited for much longer.
    let probe = timeout.saturating_mul(2);
    if turn.worker.vault.lets_pass(turn.now, &reference.breaker(), probe) {
        let call = DependencyCall::Credential(reference.clone(), asker(turn));
        return Ok((reference.clone(), turn.start(call)));
    }
    turn.effects.push(Effect::Measure(Metric::NotAsked(Dependency::Vault), 1));
    Err((reference.clone(), CallFailure::NotAsked))
}

/// Whose question it is.
fn asker(turn: &Turn<'_>) -> Asker {
    let entry = &turn.context.entry;
    let org = entry.org_id.as_deref().and_then(OrgId::new);
    Asker { request_id: entry.request_id.clone(), org }
}

/// The same credential, once `event` is about its read.
pub(crate) fn settled(credential: &Credential, event: Event, turn: &mut Turn<'_>) -> Credential {
    let Credential::Waiting(reference, call) = credential else { return credential.clone() };
    match secret_outcome(event, *call, reference, turn) {
        Some(Ok(())) => Credential::Read(reference.clone()),
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
    let outcome = match (event, reference) {
        (Event::CallDone { id, reply: Reply::Vault { body } }, CredentialRef::Secret(_))
            if id == call =>
        {
            return Some(secret_read(reference, &body, turn));
        }
        (
            Event::CallDone { id, reply: Reply::Token { status, body } },
            CredentialRef::Token(token),
        ) if id == call => match issued(token.kind, status, &body) {
            Ok(issued) => {
                let cached = CachedSecret::new(vec![issued.token], turn.now, issued.used_for);
                Ok(cached.ending(turn.now, issued.valid_for))
            }
            Err((why, error)) => {
                let why = match why {
                    NotIssued::NotGranted => CallFailure::NotGranted,
                    // Of a secret, Vault says so that there is none; of a token endpoint, that it is not there.
                    NotIssued::Status(404) => CallFailure::Unreadable,
                    NotIssued::Status(status) => CallFailure::Status(status),
                    NotIssued::Unreadable => CallFailure::Unreadable,
                    NotIssued::Unfit => CallFailure::Unusable,
                };
                if error.as_deref() == Some("invalid_client")
                    && let Some(secret) = client_secret(reference, turn)
                {
                    // It may have been rotated.
                    turn.worker.forget_secret(&secret, turn.now);
                }
                let server = token.server().to_string();
                let error = error.unwrap_or_else(|| why.to_string());
                let event = AuditEvent::TokenRefused { server, error };
                turn.context.entry.events.push(event);
                Err(why)
            }
        },
        (
            Event::CallDone {
                id,
                reply:
                    Reply::Redis(_)
                    | Reply::Vault { .. }
                    | Reply::Token { .. }
                    | Reply::Keys
                    | Reply::Policy,
            },
            _,
        ) if id == call => Err(CallFailure::Unreadable),
        (Event::CallFailed { id, why }, _) if id == call => Err(why),
        _ => return None,
    };
    if let CredentialRef::Token(token) = reference
        && let Some(assertion) = token.assertion()
    {
        // Whatever came of it: a server may take it once.
        turn.worker.spend(&CredentialRef::Token(Rc::new(assertion)));
    }
    turn.worker.credential_answered(
        reference,
        outcome.as_ref().map(|_| ()).map_err(|why| *why),
        turn.now,
    );
    Some(outcome.map(|cached| {
        turn.worker.cache_secret(reference.clone(), cached, turn.now);
        turn.note_recovered(Dependency::of(reference));
    }))
}

/// Takes what Vault answered. A value that no header can carry is logged: in the audit log each time, in Envoy's once.
fn secret_read(
    reference: &CredentialRef,
    body: &[u8],
    turn: &mut Turn<'_>,
) -> Result<(), CallFailure> {
    match turn.worker.secret_read(reference, Ok(body), turn.now) {
        Ok(()) => {
            turn.note_recovered(Dependency::of(reference));
            Ok(())
        }
        Err((why, fault)) => {
            if let Some(fault) = fault {
                let (secret, reason) = (reference.to_string(), fault.name());
                turn.context.entry.events.push(AuditEvent::SecretUnusable { secret, reason });
            }
            Err(why)
        }
    }
}
