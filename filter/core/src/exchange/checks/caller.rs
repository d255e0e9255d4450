//! Whom a client claims to be, as far as headers and connection show it.
//!
//! Owns which credential counts when there are several kinds, and what it is remembered by. Whether a key holds is for
//! Redis to say, whether a token does for [`super::token`].

use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use super::protected_resource::{self, Hint};
use crate::auth::certificate::mapping::{CertificateMode, Peer};
use crate::auth::certificate::{CertificateFailure, PeerCertificate};
use crate::auth::credential::{self, Presented};
use crate::auth::deny_list::Deniable;
use crate::auth::throttle::CredentialDigest;
use crate::auth::token::jws::PresentedToken;
use crate::auth::{
    AuthFailure, IdentityKind, PresentedIdentity, Principal, Restrictions, Scopes,
    VerifiedCredential,
};
use crate::config::AuthConfig;
use crate::driver::event::Head;

/// A header in which a proxy speaks of its client's certificate. It ends here: it is no upstream's.
const FORWARDED: &str = "x-forwarded-client-cert";

/// What a credential that cannot be read is remembered by: nothing, so it is never proven.
const UNREADABLE: CredentialDigest = [0; 32];

/// Whom a client claims to be.
#[derive(Debug)]
pub(crate) enum Claim<'h> {
    /// This one, as far as it is known without Redis.
    Made(PresentedIdentity),
    /// The subject of this token, which is not judged yet.
    Token(PresentedToken<'h>),
}

/// What came with a request to tell who calls.
pub(crate) struct Credentials<'h> {
    presented: Result<Presented<'h>, AuthFailure>,
    certificate: Result<Option<PeerCertificate>, CertificateFailure>,
}

impl<'h> Credentials<'h> {
    pub(crate) fn of(head: &'h Head, auth: &AuthConfig) -> Self {
        let presented = credential::extract(head, auth.token_max_bytes);
        Self { presented, certificate: certificate(head, auth) }
    }

    /// Where a client that has no token learns how to get one. Whoever has a key is not to look for a token.
    pub(crate) fn hint(&self, head: &Head, auth: &AuthConfig) -> Option<Hint> {
        match &self.presented {
            Ok(Presented::Key(_)) | Err(AuthFailure::Malformed | AuthFailure::CheckDigits) => None,
            Ok(Presented::Token(_)) | Err(_) => protected_resource::hint(head, auth),
        }
    }

    /// The certificate that counts.
    pub(crate) fn certificate(&self) -> Option<&PeerCertificate> {
        self.certificate.as_ref().ok()?.as_ref()
    }

    /// What the credential is remembered by; `None` when there is none. A certificate beside a key is part
    /// of it: the key alone does not hold.
    pub(crate) fn proof(&self) -> Option<CredentialDigest> {
        let credential = match &self.presented {
            Ok(Presented::Key(key)) => *key.digest.bytes(),
            Ok(Presented::Token(token)) => token.digest.bytes(),
            Err(AuthFailure::NoCredential) => match &self.certificate {
                Ok(certificate) => return certificate.as_ref().map(|found| *found.sha256.bytes()),
                Err(_) => return Some(UNREADABLE),
            },
            Err(_) => return Some(UNREADABLE),
        };
        Some(match &self.certificate {
            Ok(None) => credential,
            Ok(Some(certificate)) => Sha256::new()
                .chain_update(credential)
                .chain_update(certificate.sha256.bytes())
                .finalize()
                .into(),
            Err(_) => UNREADABLE,
        })
    }

    /// The claim, and the certificate beside it. A key or a token is who calls; without one, the certificate is.
    ///
    /// # Errors
    /// The request does not say whom.
    pub(crate) fn claim(
        self,
        auth: &AuthConfig,
    ) -> Result<(Claim<'h>, Option<PeerCertificate>), AuthFailure> {
        let certificate = self.certificate.map_err(AuthFailure::Certificate)?;
        let missing = certificate.is_none() && auth.certificates.mode == CertificateMode::Required;
        let claim = match (self.presented, &certificate) {
            (Ok(_) | Err(AuthFailure::NoCredential), None) if missing => {
                return Err(AuthFailure::Certificate(CertificateFailure::Missing));
            }
            (Ok(Presented::Key(key)), _) => Claim::Made(PresentedIdentity::Key(key)),
            (Ok(Presented::Token(token)), _) => Claim::Token(token),
            (Err(AuthFailure::NoCredential), Some(certificate)) => {
                Claim::Made(identified(certificate, auth)?)
            }
            (Err(failure), _) => return Err(failure),
        };
        Ok((claim, certificate))
    }
}

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

/// Whoever the certificate was issued to.
fn identified(
    certificate: &PeerCertificate,
    auth: &AuthConfig,
) -> Result<PresentedIdentity, AuthFailure> {
    let identity = auth.certificates.identify(certificate).map_err(AuthFailure::Certificate)?;
    let principal = Principal {
        org: identity.org,
        identity: IdentityKind::Certificate(identity.name.clone()).into(),
        name: identity.name,
        role: identity.role,
        tier: identity.tier,
        scopes: Scopes::Unknown,
        agent: None,
        restrictions: Restrictions::default(),
    };
    let deniable = Deniable::Certificate(certificate.sha256.to_string());
    Ok(PresentedIdentity::Verified(Rc::new(VerifiedCredential::new(
        principal,
        &[deniable],
        None,
        None,
    ))))
}
