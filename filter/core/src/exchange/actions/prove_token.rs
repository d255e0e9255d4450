//! Verifies a token and records the result.
//!
//! Owns the record: the subject of a refused token, and a valid signature. `checks::token` verifies the token.

use crate::audit::AuditEvent;
use crate::auth::token::claims::{caller, named};
use crate::auth::token::issuer::IssuerId;
use crate::auth::token::jws::{Jws, PresentedToken};
use crate::auth::token::keyring::by_id;
use crate::auth::{AuthFailure, PresentedIdentity, Unmapped};
use crate::denial::Denial;
use crate::driver::event::Head;
use crate::exchange::checks::token::{TokenVerdict, judge};
use crate::exchange::request::Audience;
use crate::exchange::turn::Turn;

/// The result of verifying a token.
pub(crate) enum TokenProof {
    /// This identity; the token may be for another endpoint.
    Proven(PresentedIdentity, Audience),
    /// No result before this issuer's keys are fetched.
    Waits(IssuerId),
}

/// Verifies a token with the worker's keys.
///
/// # Errors
/// The token is invalid, or cannot be verified.
pub(crate) fn judged(
    token: &PresentedToken<'_>,
    head: &Head,
    turn: &mut Turn<'_>,
) -> Result<TokenProof, Denial> {
    match judge(token, head, turn.worker, turn.now) {
        TokenVerdict::Verified(identity, audience) => {
            // The signature is valid, whatever Redis answers next. A token for another endpoint is not verified yet.
            if let Audience::Fits = audience {
                turn.proven();
            }
            Ok(TokenProof::Proven(identity, audience))
        }
        TokenVerdict::KeysMissing(issuer) => Ok(TokenProof::Waits(issuer)),
        TokenVerdict::Refused(denial, owner) => {
            match (&denial, owner) {
                (_, Some(owner)) => turn.context.entry.identify(&owner.credential.principal),
                (Denial::Unauthenticated(AuthFailure::TokenUnmapped(not_mapped)), None) => {
                    note_unmapped(token, *not_mapped, turn);
                }
                (Denial::Unauthenticated(failure), None) if failure.proves_holder() => {
                    note_holder(token, turn);
                }
                (_, None) => {}
            }
            Err(denial)
        }
    }
}

/// Records the subject of a token with a valid signature that is refused at its first use: it expired, is not valid yet,
/// or is issued for too long.
fn note_holder(token: &PresentedToken<'_>, turn: &mut Turn<'_>) {
    let Ok(jws) = Jws::read(token) else { return };
    let issuers = &turn.worker.config.auth.issuers;
    let Some(issuer) = jws.issuer().and_then(|id| by_id(issuers, id)) else { return };
    let entry = &mut turn.context.entry;
    match caller(&jws.claims, issuer) {
        Ok(principal) => entry.identify(&principal),
        Err(_) => {
            let (subject, org) = named(&jws.claims, issuer);
            entry.name_holder(org.as_ref(), subject.as_deref());
        }
    }
}

/// Records the subject of a token whose claims do not map it to a caller. The signature is valid, so the issuer vouches
/// for the subject; the client does not see this.
fn note_unmapped(token: &PresentedToken<'_>, not_mapped: Unmapped, turn: &mut Turn<'_>) {
    let Ok(jws) = Jws::read(token) else { return };
    let issuer = jws.issuer().unwrap_or_default();
    let known = by_id(&turn.worker.config.auth.issuers, issuer);
    let claim = known.and_then(|known| known.mapping.claim(not_mapped)).map(str::to_owned);
    let (subject, org) = known.map(|known| named(&jws.claims, known)).unwrap_or_default();
    let entry = &mut turn.context.entry;
    entry.name_holder(org.as_ref(), subject.as_deref());
    let (not_mapped, issuer) = (not_mapped.name(), issuer.to_owned());
    let event = AuditEvent::TokenNotMapped { not_mapped, claim, issuer, subject };
    entry.events.push(event);
}
