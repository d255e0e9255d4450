//! Deny-list entries for verified credentials: a token, a subject, a certificate.
//!
//! Owns the form of an entry of the deny list in Redis, and the credentials that it covers. The admission script checks
//! it, so a denial holds from the next request on and checking it costs no round trip.

use portcullis_redis_lua::Key;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::OrgId;

/// A property of a credential that can be denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deniable {
    /// One token: `jti` (RFC 7519 §4.1.7), with its issuer.
    Token {
        /// `iss`.
        issuer: String,
        /// `jti`.
        id: String,
    },
    /// Every token of a subject, with its issuer.
    Subject {
        /// `iss`.
        issuer: String,
        /// `sub`.
        subject: String,
    },
    /// One certificate, by the SHA-256 of its DER form in lower-case hex.
    Certificate(String),
}

impl Deniable {
    /// The Redis key of its entry.
    #[must_use]
    pub fn key(&self, org: &OrgId) -> Key {
        let (kind, parts) = match self {
            Self::Token { issuer, id } => ("token", [issuer.as_str(), id.as_str()]),
            Self::Subject { issuer, subject } => ("subject", [issuer.as_str(), subject.as_str()]),
            Self::Certificate(sha256) => ("certificate", [sha256.as_str(), ""]),
        };
        Key::denied(org.as_str(), kind, &digest_of(parts))
    }
}

/// A digest of several names, unambiguous at their boundaries. The filter and the CLI must get the same digest,
/// although their `usize` differs.
pub(crate) fn digest_of<const N: usize>(parts: [&str; N]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(part);
    }
    base16ct::lower::encode_string(&hasher.finalize())
}

/// A deny-list entry in Redis, as JSON. Times are seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyListEntry {
    /// The denied value, as the operator typed it: a `jti`, a subject, a fingerprint.
    pub what: String,
    /// The time of the denial.
    pub at: u64,
    /// The operator who denied it.
    pub by: String,
    /// The operator's reason.
    pub reason: String,
    /// Only credentials issued before this second; all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<u64>,
}

impl DenyListEntry {
    /// Reads a deny-list entry.
    ///
    /// # Errors
    /// The error of `serde_json`.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Whether a credential issued at `issued_at` is denied. A credential without an issue time counts as old.
    #[must_use]
    pub fn covers(&self, issued_at: Option<u64>) -> bool {
        match (self.issued_before, issued_at) {
            (None, _) | (Some(_), None) => true,
            (Some(before), Some(issued)) => issued < before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key is the same on every machine: the CLI writes it, and the filter reads it.
    #[test]
    fn a_denial_is_kept_where_it_always_was() {
        let denied = Deniable::Token { issuer: "https://idp.example".into(), id: "t-1".into() };
        let key = denied.key(&OrgId::new("acme").unwrap());
        assert_eq!(
            key.as_str(),
            "portcullis:{acme}:denied:token:b770101a67914272c461b64d4cfab628f52b9732c40c8fe13ed71cc01831e30b"
        );
    }

    #[test]
    fn a_denial_with_a_date_spares_what_was_issued_later() {
        let mut record = DenyListEntry {
            what: "agent-1".into(),
            at: 100,
            by: "ops".into(),
            reason: "laptop lost".into(),
            issued_before: Some(100),
        };
        assert!(record.covers(Some(99)) && record.covers(None));
        assert!(!record.covers(Some(100)));
        record.issued_before = None;
        assert!(record.covers(Some(100)));
    }
}
