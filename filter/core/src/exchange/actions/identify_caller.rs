//! Who calls, as far as the headers and the connection tell.
//!
//! Owns which credential counts when there are several kinds, and that guessing is slowed down before
//! Redis is asked. Whether a key holds is for Redis to say.

use std::rc::Rc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::auth::certificate::mapping::{CertificateMode, Peer};
use crate::auth::certificate::{CertificateFailure, PeerCertificate};
use crate::auth::credential::{self, Presented};
use crate::auth::denied::Deniable;
use crate::auth::slowdown::{Proof, Trial};
use crate::auth::token::jws::PresentedToken;
use crate::auth::{AuthFailure, Claimant, IdentityKind, Narrowing, Principal, Proven, Scopes};
use crate::config::AuthConfig;
use crate::denial::{Denial, LimitCause};
use crate::event::Head;
use crate::exchange::checks::protected_resource;
use crate::exchange::turn::Turn;

/// A header in which a proxy speaks of its client's certificate. It ends here: it is no upstream's.
const FORWARDED: &str = "x-forwarded-client-cert";

/// What a credential that cannot be read is remembered by: nothing, so it is never proven.
const UNREADABLE: Proof = [0; 32];

/// Who somebody claims to be.
#[derive(Debug)]
pub(crate) enum Claim {
    /// This one, as far as it can be told without Redis.
    Made(Claimant),
    /// The subject of this token, which is not judged yet.
    Token(PresentedToken),
}

/// The claim of a request and the certificate beside it, unless they have to wait.
pub(crate) fn caller(
    head: &Head,
    turn: &mut Turn<'_>,
) -> Result<(Claim, Option<PeerCertificate>), Denial> {
    let auth = &turn.worker.config.auth;
    let certificate = certificate(head, auth);
    let presented = credential::extract(head, auth.token_max_bytes);
    turn.context.hint = match &presented {
        // Whoever has a key is not to look for a token.
        Ok(Presented::Key(_)) | Err(AuthFailure::Malformed | AuthFailure::CheckDigits) => None,
        Ok(Presented::Token(_)) | Err(_) => protected_resource::hint(head, auth),
    };
    if let Ok(Some(certificate)) = &certificate {
        turn.context.entry.certificate_sha256 = Some(certificate.sha256.to_string());
    }
    turn.context.proof = proof(&presented, &certificate);
    let auth = &turn.worker.config.auth;
    let claim = certificate.map_err(AuthFailure::Certificate).and_then(|certificate| {
        let claim = claim(presented, certificate.as_ref(), auth)?;
        Ok((claim, certificate))
    });
    turn.context.trial = trial(&claim, turn).map_err(|retry_after| Denial::Limited {
        limit: SLOWDOWN.into(),
        cause: Box::new(LimitCause::Slowdown),
        retry_after,
    })?;
    claim.map_err(Denial::Unauthenticated)
}

/// Whether the claim is looked into now, and what that is paid with.
fn trial(
    claim: &Result<(Claim, Option<PeerCertificate>), AuthFailure>,
    turn: &mut Turn<'_>,
) -> Result<Trial, Duration> {
    let Some(proof) = &turn.context.proof else { return Ok(Trial::Free) };
    let (address, slowdown) = (&turn.context.entry.client_address, &mut turn.worker.slowdown);
    match claim {
        // The handshake proved the certificate.
        Ok((Claim::Made(Claimant::Proven(_)), _)) => Ok(Trial::Free),
        Ok((Claim::Made(Claimant::Key(_)) | Claim::Token(_), _)) => {
            slowdown.check(address, proof, turn.now)
        }
        Err(_) => slowdown.hopeless(address, turn.now).map(|()| Trial::Free),
    }
}

/// Limits of a policy have names that begin with `tiers.` or `limits.`.
const SLOWDOWN: &str = "auth.slowdown";

/// The certificate that counts.
fn certificate(
    head: &Head,
    auth: &AuthConfig,
) -> Result<Option<PeerCertificate>, CertificateFailure> {
    if auth.certificates.mode == CertificateMode::Off {
        return Ok(None);
    }
    let own = head.certificate.clone().transpose()?;
    let peer = Peer { certificate: own.as_ref(), address: &head.client_address };
    auth.certificates.presented(peer, &head.values(FORWARDED))
}

/// What the credential is remembered by; `None` when there is none. A certificate beside a key is part
/// of it: the key alone does not hold.
fn proof(
    presented: &Result<Presented, AuthFailure>,
    certificate: &Result<Option<PeerCertificate>, CertificateFailure>,
) -> Option<Proof> {
    let credential = match presented {
        Ok(Presented::Key(key)) => *key.digest.bytes(),
        Ok(Presented::Token(token)) => *token.digest.bytes(),
        Err(AuthFailure::NoCredential) => match certificate {
            Ok(certificate) => return certificate.as_ref().map(|found| *found.sha256.bytes()),
            Err(_) => return Some(UNREADABLE),
        },
        Err(_) => return Some(UNREADABLE),
    };
    Some(match certificate {
        Ok(None) => credential,
        Ok(Some(certificate)) => Sha256::new()
            .chain_update(credential)
            .chain_update(certificate.sha256.bytes())
            .finalize()
            .into(),
        Err(_) => UNREADABLE,
    })
}

/// A key or a token is who calls; without one, the certificate is.
fn claim(
    presented: Result<Presented, AuthFailure>,
    certificate: Option<&PeerCertificate>,
    auth: &AuthConfig,
) -> Result<Claim, AuthFailure> {
    let missing = certificate.is_none() && auth.certificates.mode == CertificateMode::Required;
    match (presented, certificate) {
        (Ok(_) | Err(AuthFailure::NoCredential), None) if missing => {
            Err(AuthFailure::Certificate(CertificateFailure::Missing))
        }
        (Ok(Presented::Key(key)), _) => Ok(Claim::Made(Claimant::Key(key))),
        (Ok(Presented::Token(token)), _) => Ok(Claim::Token(token)),
        (Err(AuthFailure::NoCredential), Some(certificate)) => {
            identified(certificate, auth).map(Claim::Made)
        }
        (Err(failure), _) => Err(failure),
    }
}

/// Whoever the certificate was issued to.
fn identified(certificate: &PeerCertificate, auth: &AuthConfig) -> Result<Claimant, AuthFailure> {
    let identity = auth.certificates.identify(certificate).map_err(AuthFailure::Certificate)?;
    let principal = Principal {
        org: identity.org,
        identity: IdentityKind::Certificate(identity.name.clone()).into(),
        name: identity.name,
        role: identity.role,
        tier: identity.tier,
        scopes: Scopes::Unknown,
        narrowing: Narrowing::default(),
    };
    let deniable = Deniable::Certificate(certificate.sha256.to_string());
    Ok(Claimant::Proven(Rc::new(Proven::new(principal, &[deniable], None, None))))
}
