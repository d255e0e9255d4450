//! What a token proves, written down.
//!
//! Owns the notes of it: whose token was refused, and that a signature holds. What a token comes to is for
//! `checks::token` to say.

use crate::audit::AuditEvent;
use crate::auth::token::claims::named;
use crate::auth::token::issuer::IssuerId;
use crate::auth::token::jws::{Jws, PresentedToken};
use crate::auth::{AuthFailure, PresentedIdentity, Unmapped};
use crate::denial::Denial;
use crate::driver::event::Head;
use crate::exchange::checks::token::{TokenVerdict, judge};
use crate::exchange::request::Audience;
use crate::exchange::turn::Turn;

/// What a token proves.
pub(crate) enum TokenProof {
    /// This identity, whose token may be meant for another endpoint.
    Proven(PresentedIdentity, Audience),
    /// Nothing, until this issuer's keys are here.
    Waits(IssuerId),
}

/// Judges a token by the keys that the worker has.
///
/// # Errors
/// Why it does not hold, or that nobody can tell.
pub(crate) fn judged(
    token: &PresentedToken,
    head: &Head,
    turn: &mut Turn<'_>,
) -> Result<TokenProof, Denial> {
    match judge(token, head, turn.worker, turn.now) {
        TokenVerdict::Verified(identity, audience) => {
            // Its signature holds, whatever Redis says of it next. One for elsewhere is not proven yet.
            if let Audience::Fits = audience {
                turn.proven();
            }
            Ok(TokenProof::Proven(identity, audience))
        }
        TokenVerdict::KeysMissing(issuer) => Ok(TokenProof::Waits(issuer)),
        TokenVerdict::Refused(denial, owner) => {
            if let Some(owner) = owner {
                turn.context.entry.identify(&owner.credential.principal);
            }
            if let Denial::Unauthenticated(AuthFailure::TokenUnmapped(not_mapped)) = &denial {
                note_unmapped(token, *not_mapped, turn);
            }
            Err(denial)
        }
    }
}

/// Notes whom a token names that makes no caller of its holder. Its signature holds, so the issuer vouches for it; the
/// client reads none of that.
fn note_unmapped(token: &PresentedToken, not_mapped: Unmapped, turn: &mut Turn<'_>) {
    let Ok(jws) = Jws::read(token) else { return };
    let issuer = jws.issuer().unwrap_or_default();
    let known = turn.worker.config.auth.issuers.iter().find(|it| it.id.as_str() == issuer);
    let claim = known.and_then(|known| known.mapping.claim(not_mapped)).map(str::to_owned);
    let (subject, org) = known.map(|known| named(&jws.claims, known)).unwrap_or_default();
    let entry = &mut turn.context.entry;
    entry.name_holder(org.as_ref(), subject.as_deref());
    let (not_mapped, issuer) = (not_mapped.name(), issuer.to_owned());
    let event = AuditEvent::TokenNotMapped { not_mapped, claim, issuer, subject };
    entry.events.push(event);
}
