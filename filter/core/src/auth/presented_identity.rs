//! The identity that a request claims, before Redis has answered.
//!
//! Owns which Redis records decide on a credential. A record proves an API key. A token or a certificate proves itself,
//! unless the deny list has an entry for it. Reads none of them.

use std::rc::Rc;

use portcullis_redis_lua::Key;
use serde_json::{Map, Value};

use super::Principal;
use super::api_key::PresentedKey;
use super::certificate::Fingerprint;
use super::deny_list::{Deniable, DenyListEntry};
use super::token::jws::TokenDigest;
use crate::id::OrgId;

/// The identity that a request claims.
#[derive(Clone, Debug)]
pub enum PresentedIdentity {
    /// The holder of an API key, once its record confirms it.
    Key(PresentedKey),
    /// A caller verified by signature or handshake.
    Verified(Rc<VerifiedCredential>),
}

/// A credential verified without Redis. Redis may still hold a deny-list entry for it.
#[derive(Clone, Debug)]
pub struct VerifiedCredential {
    /// The caller.
    pub principal: Rc<Principal>,
    /// When the credential was issued, in seconds since the Unix epoch, if it says so.
    pub issued_at: Option<u64>,
    /// The SHA-256 of the client certificate that it is bound to (RFC 8705 §3.1).
    pub cnf_thumbprint: Option<Fingerprint>,
    /// The token's claims, for the conditions of policies; empty for a certificate.
    pub claims: Map<String, Value>,
    /// The token, if it is one.
    pub token: Option<TokenDigest>,
    deny_list_keys: Vec<Key>,
}

impl PresentedIdentity {
    /// The organisation it claims to belong to.
    #[must_use]
    pub fn org(&self) -> &OrgId {
        match self {
            Self::Key(key) => &key.org,
            Self::Verified(verified) => &verified.principal.org,
        }
    }

    /// The token's claims, if there is a token.
    #[must_use]
    pub fn claims(&self) -> Option<&Map<String, Value>> {
        match self {
            Self::Key(_) => None,
            Self::Verified(verified) => Some(&verified.claims),
        }
    }

    /// Its token, if it is one.
    #[must_use]
    pub fn token(&self) -> Option<TokenDigest> {
        match self {
            Self::Key(_) => None,
            Self::Verified(verified) => verified.token,
        }
    }

    /// Names it in bindings and counters.
    #[must_use]
    pub fn holder(&self) -> &str {
        match self {
            Self::Key(key) => key.id.as_str(),
            Self::Verified(verified) => verified.principal.identity.holder(),
        }
    }
}

impl VerifiedCredential {
    /// A caller whose credential may be denied by each of `deniable`; the other arguments are the fields.
    #[must_use]
    pub fn new(
        principal: Principal,
        deniable: &[Deniable],
        issued_at: Option<u64>,
        cnf_thumbprint: Option<Fingerprint>,
    ) -> Self {
        let deny_list_keys = deniable.iter().map(|deniable| deniable.key(&principal.org)).collect();
        let principal = Rc::new(principal);
        let claims = Map::new();
        Self { principal, issued_at, cnf_thumbprint, claims, token: None, deny_list_keys }
    }

    /// The same caller, with the claims and the digest of its token.
    #[must_use]
    pub fn with_claims(self, claims: Map<String, Value>, token: TokenDigest) -> Self {
        Self { claims, token: Some(token), ..self }
    }

    /// The Redis keys of the deny-list entries that would cover this credential.
    #[must_use]
    pub fn deny_list_keys(&self) -> &[Key] {
        &self.deny_list_keys
    }

    /// Whether `record` denies this credential.
    #[must_use]
    pub fn is_denied_by(&self, record: &DenyListEntry) -> bool {
        record.covers(self.issued_at)
    }
}
