//! What a token proves, written down.
//!
//! Owns the notes of it: whose token was refused, and that a signature holds. What a token comes to is for
//! `checks::token` to say.

use crate::audit::AuditEvent;
use crate::auth::token::issuer::IssuerId;
use crate::auth::token::jws::{Jws, PresentedToken};
use crate::auth::{AuthFailure, PresentedIdentity};
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
                let issuer = Jws::read(token).ok().and_then(|jws| jws.issuer().map(str::to_owned));
                let issuer = issuer.unwrap_or_default();
                let known = turn.worker.config.auth.issuers.iter();
                let mapping =
                    known.map(|it| (it.id.as_str(), &it.mapping)).find(|it| it.0 == issuer);
                let claim = mapping.and_then(|(_, mapping)| mapping.claim(*not_mapped));
                let (claim, not_mapped) = (claim.map(str::to_owned), not_mapped.name());
                let event = AuditEvent::TokenNotMapped { not_mapped, claim, issuer };
                turn.context.entry.events.push(event);
            }
            Err(denial)
        }
    }
}
