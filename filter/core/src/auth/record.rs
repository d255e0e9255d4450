//! The stored record of an API key, and whether it vouches for a presented one.
//!
//! Owns the record's form in Redis and the order in which it is judged. An unknown field makes a
//! record unreadable: an older filter must not ignore a restriction that a newer CLI wrote.

use serde::{Deserialize, Serialize};

use super::api_key::{KeyDigest, PresentedKey};
use super::{AuthFailure, Identity, Narrowing, Principal, Scopes};
use crate::id::{KeyId, OrgId, PolicyName};
use crate::time::UnixTime;

/// What Redis holds of a key, as JSON. Times are seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Digests that prove it: the current one first.
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
    /// The first second at which this digest no longer proves the key (rotation overlap).
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

impl KeyRecord {
    /// Reads a record.
    ///
    /// # Errors
    /// What `serde_json` says of it.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Whether `key`, presented at `now`, is this record's.
    ///
    /// The secret is compared before anything else is told, so only the holder of a key learns
    /// that it expired or was revoked.
    ///
    /// # Errors
    /// Why not.
    pub fn authenticate(
        &self,
        key: &PresentedKey,
        now: UnixTime,
    ) -> Result<Principal, AuthFailure> {
        let now = now.seconds();
        let mut proven = Err(AuthFailure::WrongSecret);
        // Every digest is compared, so timing does not tell which one matched.
        for secret in &self.secrets {
            let matches = KeyDigest::from_hex(&secret.sha256)
                .is_some_and(|digest| digest.matches(&key.digest));
            if matches {
                let over = secret.not_after.is_some_and(|end| now >= end);
                proven = if over { Err(AuthFailure::RotatedOut) } else { Ok(()) };
            }
        }
        proven?;
        // A record stored under another's name vouches for nobody.
        if self.org != key.org || self.id != key.id {
            return Err(AuthFailure::UnknownKey);
        }
        if self.revoked.is_some() {
            return Err(AuthFailure::Revoked);
        }
        if self.not_before.is_some_and(|start| now < start) {
            return Err(AuthFailure::NotYetValid);
        }
        if self.expires_at.is_some_and(|end| now >= end) {
            return Err(AuthFailure::Expired);
        }
        Ok(self.principal())
    }

    /// Whose record this is. Proves nothing: see [`KeyRecord::authenticate`].
    #[must_use]
    pub fn principal(&self) -> Principal {
        Principal {
            org: self.org.clone(),
            identity: Identity::Key(self.id.clone()),
            name: self.name.clone(),
            role: self.role.clone(),
            tier: self.tier.clone(),
            scopes: Scopes::Unknown,
            narrowing: Narrowing::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::api_key::{SECRET_LENGTH, mint};
    use super::*;

    fn presented(secret: &str) -> PresentedKey {
        let (org, id) = (OrgId::new("acme").unwrap(), KeyId::new("k1a2").unwrap());
        let key = mint(&org, &id, &secret.repeat(SECRET_LENGTH)).unwrap();
        PresentedKey::parse(key.expose().as_bytes()).unwrap()
    }

    fn record() -> KeyRecord {
        let stored = |secret, not_after| StoredSecret {
            sha256: presented(secret).digest.to_hex(),
            not_after,
        };
        KeyRecord {
            id: KeyId::new("k1a2").unwrap(),
            org: OrgId::new("acme").unwrap(),
            name: "cursor".into(),
            role: PolicyName::new("analyst").unwrap(),
            tier: PolicyName::new("free").unwrap(),
            secrets: vec![stored("n", None), stored("o", Some(150))],
            created_at: 1,
            created_by: "ops".into(),
            not_before: Some(100),
            expires_at: Some(200),
            revoked: None,
        }
    }

    fn at(second: u64) -> UnixTime {
        UnixTime::from_micros(second * 1_000_000)
    }

    // Proves: A1, A2, A22, B7
    #[test]
    fn each_reason_to_refuse_is_its_own() {
        let record = record();
        let (new, old, foreign) = (presented("n"), presented("o"), presented("f"));
        assert_eq!(record.authenticate(&new, at(100)).unwrap().role.as_str(), "analyst");
        assert!(record.authenticate(&old, at(149)).is_ok());
        assert_eq!(record.authenticate(&old, at(150)), Err(AuthFailure::RotatedOut));
        assert_eq!(record.authenticate(&new, at(99)), Err(AuthFailure::NotYetValid));
        assert_eq!(record.authenticate(&new, at(200)), Err(AuthFailure::Expired));
        assert_eq!(record.authenticate(&foreign, at(100)), Err(AuthFailure::WrongSecret));
        assert_eq!(record.authenticate(&foreign, at(999)), Err(AuthFailure::WrongSecret));
        let revoked = KeyRecord {
            revoked: Some(Revocation { at: 1, by: "ops".into(), reason: "leak".into() }),
            ..record
        };
        assert_eq!(revoked.authenticate(&new, at(100)), Err(AuthFailure::Revoked));
    }

    #[test]
    fn a_record_with_a_field_this_filter_does_not_know_is_unreadable() {
        let mut json = serde_json::to_value(record()).unwrap();
        json["cidrs"] = serde_json::json!(["10.0.0.0/8"]);
        assert!(KeyRecord::parse(json.to_string().as_bytes()).is_err());
    }
}
