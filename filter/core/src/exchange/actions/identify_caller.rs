//! The identity of the caller from the headers and the connection.
//!
//! Owns how a claimed identity is recorded, and that guessing is slowed down before Redis is asked. `checks::caller`
//! decides which credential counts.

use std::time::Duration;

use crate::auth::certificate::PeerCertificate;
use crate::auth::throttle::Attempt;
use crate::auth::{AuthFailure, PresentedIdentity};
use crate::denial::{Denial, LimitCause};
use crate::driver::event::Head;
use crate::exchange::checks::caller::{Claim, Credentials};
use crate::exchange::turn::Turn;

/// The claimed identity of a request and its certificate, unless they have to wait.
pub(crate) fn caller<'h>(
    head: &'h Head,
    turn: &mut Turn<'_>,
) -> Result<(Claim<'h>, Option<PeerCertificate>), Denial> {
    let auth = &turn.worker.config.auth;
    let credentials = Credentials::of(head, auth);
    turn.context.hint = credentials.hint(head, auth);
    turn.context.proof = credentials.proof();
    if let Some(certificate) = credentials.certificate() {
        turn.context.entry.certificate_sha256 = Some(certificate.sha256.to_string());
    }
    let claim = credentials.claim(auth);
    turn.context.attempt = attempt(&claim, turn).map_err(|retry_after| Denial::Limited {
        limit: THROTTLE.into(),
        cause: Box::new(LimitCause::Throttle),
        retry_after,
    })?;
    claim.map_err(Denial::Unauthenticated)
}

/// Whether the claim is verified now, and what pays for it.
fn attempt(
    claim: &Result<(Claim<'_>, Option<PeerCertificate>), AuthFailure>,
    turn: &mut Turn<'_>,
) -> Result<Attempt, Duration> {
    let Some(proof) = &turn.context.proof else { return Ok(Attempt::Free) };
    let (address, throttle) = (&turn.context.entry.client_address, &mut turn.worker.throttle);
    match claim {
        // The handshake proved the certificate.
        Ok((Claim::Made(PresentedIdentity::Verified(_)), _)) => Ok(Attempt::Free),
        Ok((Claim::Made(PresentedIdentity::Key(_)) | Claim::Token(_), _)) => {
            throttle.check(address, proof, turn.now)
        }
        Err(_) => throttle.hopeless(address, turn.now).map(|()| Attempt::Free),
    }
}

/// Limits of a policy have names that begin with `tiers.` or `limits.`.
const THROTTLE: &str = "auth.slowdown";
