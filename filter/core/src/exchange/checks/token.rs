//! A token against the keys that the worker has.
//!
//! Owns what a token comes to. Fetches no keys.

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

/// What a token comes to.
pub(crate) enum TokenVerdict {
    /// It is this caller's, and may be meant for another endpoint.
    Verified(PresentedIdentity, Audience),
    /// Nobody can tell, until this issuer's keys are here.
    KeysMissing(IssuerId),
    /// It does not hold, or nobody can tell; whose it is, where its signature proves that.
    Refused(Denial, Option<Rc<VerifiedToken>>),
}

/// Judges a token by the keys that the worker has.
pub(crate) fn judge(
    token: &PresentedToken,
    head: &Head,
    worker: &mut Worker,
    now: UnixTime,
) -> TokenVerdict {
    let auth = &worker.config.auth;
    let resource = auth.resource(&head.path());
    let verification = worker.keyring.verify(token, &auth.issuers, resource.as_deref(), now);
    if let Verification::Verified(token) | Verification::Refused(_, Some(token)) = &verification
        && !auth.issuer(&token.issuer).is_some_and(|issuer| issuer.serves(&head.path()))
    {
        // What it proves counts elsewhere; here nobody knows its issuer.
        return TokenVerdict::Refused(Denial::Unauthenticated(AuthFailure::UnknownIssuer), None);
    }
    match verification {
        Verification::Verified(token) => TokenVerdict::Verified(
            PresentedIdentity::Verified(token.credential.clone()),
            Audience::Fits,
        ),
        // Whether the path belongs to what the token is for is in the policy.
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
