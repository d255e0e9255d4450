//! Verifies a token with the worker's keys.
//!
//! Owns the verdict on a token. Fetches no keys.

use std::rc::Rc;

use super::protected_resource::posts_elsewhere;
use crate::auth::token::claims::VerifiedToken;
use crate::auth::token::issuer::IssuerId;
use crate::auth::token::jws::PresentedToken;
use crate::auth::token::keyring::Verification;
use crate::auth::{AuthFailure, PresentedIdentity};
use crate::denial::Denial;
use crate::driver::call::Dependency;
use crate::driver::event::Head;
use crate::exchange::request::Audience;
use crate::time::UnixTime;
use crate::worker::Worker;

/// The verdict on a token.
pub(crate) enum TokenVerdict {
    /// The token is valid for this caller, but may be for another endpoint.
    Verified(PresentedIdentity, Audience),
    /// The token cannot be verified before this issuer's keys are fetched.
    KeysMissing(IssuerId),
    /// The token is invalid or cannot be verified; with its content, when its signature is valid.
    Refused(Denial, Option<Rc<VerifiedToken>>),
}

/// Verifies a token with the worker's keys.
pub(crate) fn judge(
    token: &PresentedToken<'_>,
    head: &Head,
    worker: &mut Worker,
    now: UnixTime,
) -> TokenVerdict {
    let auth = &worker.config.auth;
    let resource = auth.resource(head.path());
    let verification = worker.keyring.verify(token, &auth.issuers, resource.as_deref(), now);
    if let Verification::Verified(token) | Verification::Refused(_, Some(token)) = &verification
        && !auth.issuer(&token.issuer).is_some_and(|issuer| issuer.serves(head.path()))
    {
        // The token is valid at another endpoint; this one does not accept its issuer.
        return TokenVerdict::Refused(Denial::Unauthenticated(AuthFailure::UnknownIssuer), None);
    }
    match verification {
        Verification::Verified(token) => TokenVerdict::Verified(
            PresentedIdentity::Verified(token.credential.clone()),
            Audience::Fits,
        ),
        // Only the policy says whether the path belongs to the token's resource.
        Verification::Refused(AuthFailure::WrongAudience, Some(token)) if posts_elsewhere(head) => {
            let identity = PresentedIdentity::Verified(token.credential.clone());
            TokenVerdict::Verified(identity, Audience::Elsewhere(token))
        }
        Verification::Refused(failure, owner) => {
            let owner = owner.filter(|_| failure.proves_holder());
            TokenVerdict::Refused(Denial::Unauthenticated(failure), owner)
        }
        Verification::Fetch(issuer) => TokenVerdict::KeysMissing(issuer),
        Verification::Unavailable(why) => {
            TokenVerdict::Refused(Denial::Unavailable(Dependency::Issuer, why), None)
        }
    }
}
