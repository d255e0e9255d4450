//! Who a request claims to be, as far as that is known before Redis has spoken.
//!
//! Owns which records in Redis have a say about a credential: an API key is proven by its record, a
//! token or a certificate by itself, unless somebody denied it since. Reads none of them.

use std::rc::Rc;

use portcullis_redis_lua::Key;
use serde_json::{Map, Value};

use super::Principal;
use super::api_key::PresentedKey;
use super::certificate::Fingerprint;
use super::deny_list::{Deniable, DenyListEntry};
use super::token::jws::TokenDigest;
use crate::id::OrgId;

/// Who a request claims to be.
#[derive(Clone, Debug)]
pub enum PresentedIdentity {
    /// The holder of an API key, if its record says so.
    Key(PresentedKey),
    /// Somebody verified by signature or handshake.
    Verified(Rc<VerifiedCredential>),
}

/// A credential verified without Redis, which may still hold an entry of the deny list.
#[derive(Clone, Debug)]
pub struct VerifiedCredential {
    /// Who it is.
    pub principal: Rc<Principal>,
    /// When the credential was issued, in seconds since the Unix epoch, if it says so.
    pub issued_at: Option<u64>,
    /// The SHA-256 of the client certificate that it is bound to (RFC 8705 §3.1).
    pub cnf_thumbprint: Option<Fingerprint>,
    /// What a token says of its holder, for the conditions of policies; empty for a certificate.
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

    /// What its token says of its holder, if it is one.
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
    /// Somebody whose credential may be denied as all of `deniable`; the rest as in the fields.
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

    /// The same, of whom a token says this.
    #[must_use]
    pub fn with_claims(self, claims: Map<String, Value>, token: TokenDigest) -> Self {
        Self { claims, token: Some(token), ..self }
    }

    /// Where entries of the deny list about this credential would be.
    #[must_use]
    pub fn deny_list_keys(&self) -> &[Key] {
        &self.deny_list_keys
    }

    /// Whether `record` is about this credential.
    #[must_use]
    pub fn is_denied_by(&self, record: &DenyListEntry) -> bool {
        record.covers(self.issued_at)
    }
}
