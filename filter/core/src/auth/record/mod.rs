//! The stored record of an API key, and whether it vouches for a presented one.
//!
//! Owns the record's form in Redis and the order in which it is judged. An unknown field makes a
//! record unreadable: an older filter must not ignore a restriction that a newer CLI wrote. A field
//! that is absent restricts nothing, so that records of older CLIs are read as they were meant.

mod names;
mod rotation;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::api_key::{KeyDigest, PresentedKey};
use super::certificate::{CertificateFailure, Fingerprint};
use super::source::SourceRanges;
use super::{AuthFailure, IdentityKind, Principal, Restrictions, Scopes, Writes};
use crate::id::{KeyId, OrgId, PolicyName};
use crate::time::UnixTime;

pub use names::NameList;
pub use rotation::{Insistence, MOST_SECRETS, Rotation, RotationRefused};

/// What Redis holds of a key, as JSON. Times are seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// The public id.
    pub id: KeyId,
    /// The organisation.
    pub org: OrgId,
    /// What the key is for, in its owner's words.
    pub name: String,
    /// The role of its holder.
    pub role: PolicyName,
    /// The tier whose limits hold.
    pub tier: PolicyName,
    /// Of what the role may use, only these connectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connectors: Option<NameList>,
    /// Of what the role may call, only these tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<NameList>,
    /// Of what the role may call, only tools that the policy states to be read-only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Only from these addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<SourceRanges>,
    /// Only together with this client certificate (as RFC 8705 §3 binds a token).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Fingerprint>,
    /// Digests that prove it: the current one first, then replaced ones, newest first.
    pub secrets: Vec<StoredSecret>,
    /// When it was issued.
    pub created_at: u64,
    /// Who issued it.
    pub created_by: String,
    /// The first second at which it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// The first second at which it is no longer valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The last time that its secret was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Rotation>,
    /// Set once it is revoked, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
}

/// One digest that proves a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSecret {
    /// 64 lower-case hex digits: SHA-256 of the whole key.
    pub sha256: String,
    /// When it was made; with the key itself when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<u64>,
    /// The first second at which this digest no longer proves the key (rotation overlap); 0 when it
    /// ended with its rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<u64>,
}

/// Who revoked a key, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// When.
    pub at: u64,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Who presents a key, as far as the connection tells.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// The client's address, without a port.
    pub address: &'a str,
    /// The client certificate, verified; none where certificates do not count.
    pub certificate: Option<&'a Fingerprint>,
}

impl StoredSecret {
    /// Names it to people, in Redis and in the audit log: the first 12 hex digits of its SHA-256.
    #[must_use]
    pub fn label(&self) -> &str {
        self.sha256.get(..12).unwrap_or(&self.sha256)
    }

    /// Whether it proves the key at the second `now`.
    #[must_use]
    pub fn holds(&self, now: u64) -> bool {
        self.not_after.is_none_or(|end| now < end)
    }
}

impl KeyRecord {
    /// Reads a record.
    ///
    /// # Errors
    /// What `serde_json` says of it.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Whether `key`, presented at `now` by `peer`, is this record's.
    ///
    /// The secret is compared before anything else is answered, so only the holder of a key learns
    /// that it expired or was revoked. Its lifetime comes next, then with what and from where it is
    /// presented.
    ///
    /// # Errors
    /// Why not.
    pub fn authenticate(
        &self,
        key: &PresentedKey,
        now: UnixTime,
        peer: Peer<'_>,
    ) -> Result<Principal, AuthFailure> {
        let now = now.seconds();
        let mut proven = Err(AuthFailure::WrongSecret);
        // Every digest is compared, so timing does not tell which one matched.
        for secret in &self.secrets {
            let matches = KeyDigest::from_hex(&secret.sha256)
                .is_some_and(|digest| digest.matches(&key.digest));
            if matches {
                proven = if secret.holds(now) { Ok(()) } else { Err(AuthFailure::RotatedOut) };
            }
        }
        proven?;
        // A record stored under another's name vouches for no caller.
        if self.org != key.org || self.id != key.id {
            return Err(AuthFailure::UnknownKey);
        }
        self.is_alive(now)?;
        if self.certificate.as_ref().is_some_and(|bound| peer.certificate != Some(bound)) {
            return Err(AuthFailure::Certificate(CertificateFailure::OtherCertificate));
        }
        if self.sources.as_ref().is_some_and(|sources| !sources.contains(peer.address)) {
            return Err(AuthFailure::SourceNotAllowed);
        }
        Ok(self.principal())
    }

    /// The name of the secret that `key` was presented with ([`StoredSecret::label`]), where the key has had several.
    /// Asked once it is proven.
    #[must_use]
    pub fn secret_of(&self, key: &PresentedKey) -> Option<String> {
        (self.secrets.len() > 1).then(|| key.digest.name())
    }

    /// Whether the key can be used at all at the second `now`.
    ///
    /// # Errors
    /// Why not: revoked, not valid yet, or expired.
    pub fn is_alive(&self, now: u64) -> Result<(), AuthFailure> {
        if self.revoked.is_some() {
            return Err(AuthFailure::Revoked);
        }
        if self.not_before.is_some_and(|start| now < start) {
            return Err(AuthFailure::NotYetValid);
        }
        if self.expires_at.is_some_and(|end| now >= end) {
            return Err(AuthFailure::Expired);
        }
        Ok(())
    }

    /// Whose record this is. Proves nothing: see [`KeyRecord::authenticate`].
    #[must_use]
    pub fn principal(&self) -> Principal {
        Principal {
            org: self.org.clone(),
            identity: IdentityKind::Key(self.id.clone()).into(),
            name: self.name.clone(),
            role: self.role.clone(),
            tier: self.tier.clone(),
            scopes: Scopes::Unknown,
            agent: None,
            restrictions: Restrictions {
                connectors: self.connectors.as_ref().map(|list| list.globs().clone()),
                tools: self.tools.as_ref().map(|list| list.globs().clone()),
                writes: if self.read_only { Writes::Closed } else { Writes::Open },
            },
        }
    }
}
