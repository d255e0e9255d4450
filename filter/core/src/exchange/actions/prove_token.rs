//! A token against the keys that the worker has.
//!
//! Owns what a token comes to. Fetches no keys.

use crate::auth::token::issuer::IssuerId;
use crate::auth::token::jws::PresentedToken;
use crate::auth::token::keyring::Verification;
use crate::auth::{AuthFailure, Claimant};
use crate::call::Dependency;
use crate::denial::Denial;
use crate::event::Head;
use crate::exchange::checks::protected_resource::posts_elsewhere;
use crate::exchange::request::Audience;
use crate::exchange::turn::Turn;

/// What a token comes to.
pub(crate) enum TokenProof {
    /// This claimant, whose token may be meant for another endpoint.
    Proven(Claimant, Audience),
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
    let auth = &turn.worker.config.auth;
    let resource = auth.resource(&head.path());
    let keyring = &mut turn.worker.keyring;
    let verification = keyring.verify(token, &auth.issuers, resource.as_deref(), turn.now);
    if let Verification::Verified(token) | Verification::Refused(_, Some(token)) = &verification
        && !auth.issuer(&token.issuer).is_some_and(|issuer| issuer.serves(&head.path()))
    {
        // What it proves counts elsewhere; here nobody knows its issuer.
        return Err(Denial::Unauthenticated(AuthFailure::UnknownIssuer));
    }
    match verification {
        Verification::Verified(token) => {
            let claimant = Claimant::Proven(token.proven.clone());
            // Its signature holds, whatever Redis says of it next.
            turn.proven();
            Ok(TokenProof::Proven(claimant, Audience::Fits))
        }
        // Whether the path belongs to what the token is for is in the policy.
        Verification::Refused(AuthFailure::WrongAudience, Some(token)) if posts_elsewhere(head) => {
            let claimant = Claimant::Proven(token.proven.clone());
            Ok(TokenProof::Proven(claimant, Audience::Elsewhere(token)))
        }
        Verification::Refused(failure, owner) => {
            if let Some(owner) = owner.filter(|_| failure.proves_holder()) {
                turn.context.entry.identify(&owner.proven.principal);
            }
            Err(Denial::Unauthenticated(failure))
        }
        Verification::Fetch(issuer) => Ok(TokenProof::Waits(issuer)),
        Verification::Unavailable(why) => Err(Denial::Unavailable(Dependency::Issuer, why)),
    }
}
