//! What a token proves, written down.
//!
//! Owns the notes of it: whose token was refused, and that a signature holds. What a token comes to is for
//! `checks::token` to say.

use crate::auth::PresentedIdentity;
use crate::auth::token::issuer::IssuerId;
use crate::auth::token::jws::PresentedToken;
use crate::denial::Denial;
use crate::event::Head;
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
            Err(denial)
        }
    }
}
