//! API keys: `pck_<org>_<id>_<secret><check>`.
//!
//! Owns the text form, the check digits and the digest. The secret is 256 random bits in base62; the check is the
//! CRC-32 of everything before it, so Portcullis refuses a typo or a scanner's guess without a look-up. The check is no
//! protection; the digest is.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::AuthFailure;
use crate::id::{KeyId, OrgId};
use crate::secret::Secret;

/// Base62 characters of a secret: 62^43 > 2^256.
pub const SECRET_LENGTH: usize = 43;
/// Base62 characters of the check: 62^6 > 2^32.
const CHECK_LENGTH: usize = 6;
const PREFIX: &str = "pck_";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The SHA-256 of a whole key: Portcullis stores nothing else of it.
#[derive(Clone, Debug)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest of a key's text.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Reads 64 lower-case hex digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let decoded = base16ct::lower::decode(text, &mut bytes).ok()?;
        (decoded.len() == 32).then_some(Self(bytes))
    }

    /// 64 lower-case hex digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        base16ct::lower::encode_string(&self.0)
    }

    /// The name of the secret in the record of its last use: the first 12 hex digits, which prove nothing.
    #[must_use]
    pub fn name(&self) -> String {
        base16ct::lower::encode_string(self.0.first_chunk::<6>().map_or(&[], |begin| begin))
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Equality in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// A key from a request: well-formed, not yet verified.
#[derive(Clone, Debug)]
pub struct PresentedKey {
    /// The organisation it claims.
    pub org: OrgId,
    /// The record it claims.
    pub id: KeyId,
    /// The digest that proves the claim.
    pub digest: KeyDigest,
}

impl PresentedKey {
    /// Reads a key.
    ///
    /// # Errors
    /// [`AuthFailure::Malformed`] and [`AuthFailure::CheckDigits`].
    pub fn parse(text: &[u8]) -> Result<Self, AuthFailure> {
        let key = std::str::from_utf8(text).map_err(|_| AuthFailure::Malformed)?;
        let parts = key.strip_prefix(PREFIX).map(|rest| rest.split('_').collect::<Vec<_>>());
        let Some([org, id, tail]) = parts.as_deref() else {
            return Err(AuthFailure::Malformed);
        };
        let (Some(org), Some(id)) = (OrgId::new(org), KeyId::new(id)) else {
            return Err(AuthFailure::Malformed);
        };
        let shaped = tail.len() == SECRET_LENGTH.saturating_add(CHECK_LENGTH)
            && tail.bytes().all(|b| b.is_ascii_alphanumeric());
        let (true, Some((body, check))) =
            (shaped, key.len().checked_sub(CHECK_LENGTH).and_then(|at| key.split_at_checked(at)))
        else {
            return Err(AuthFailure::Malformed);
        };
        if check_digits(body) != check {
            return Err(AuthFailure::CheckDigits);
        }
        Ok(Self { org, id, digest: KeyDigest::of(text) })
    }
}

/// Makes the text of a new key from `secret`, which must be [`SECRET_LENGTH`] base62 characters
/// drawn uniformly; `None` when it is not of that form.
#[must_use]
pub fn mint(org: &OrgId, id: &KeyId, secret: &str) -> Option<Secret> {
    let shaped = secret.len() == SECRET_LENGTH && secret.bytes().all(|b| b.is_ascii_alphanumeric());
    let body = format!("{PREFIX}{org}_{id}_{secret}");
    let check = check_digits(&body);
    shaped.then(|| Secret::new(body + &check))
}

fn check_digits(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = [b'0'; CHECK_LENGTH];
    for digit in digits.iter_mut().rev() {
        let index = usize::try_from(rest % 62).unwrap_or_default();
        *digit = BASE62.get(index).copied().unwrap_or(b'0');
        rest /= 62;
    }
    digits.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> String {
        let (org, id) = (OrgId::new("acme").unwrap(), KeyId::new("k1a2b3c4d5").unwrap());
        mint(&org, &id, &"s".repeat(SECRET_LENGTH)).unwrap().expose().to_owned()
    }

    // Proves: A1
    #[test]
    fn a_minted_key_reads_back() {
        let presented = PresentedKey::parse(key().as_bytes()).unwrap();
        assert_eq!(presented.org.as_str(), "acme");
        assert_eq!(presented.id.as_str(), "k1a2b3c4d5");
        assert!(presented.digest.matches(&KeyDigest::of(key().as_bytes())));
        let hex = presented.digest.to_hex();
        assert!(KeyDigest::from_hex(&hex).unwrap().matches(&presented.digest));
    }

    // Proves: A1
    #[test]
    fn every_single_typo_is_caught_without_a_lookup() {
        let key = key();
        for at in 4..key.len() {
            let mut typo = key.clone().into_bytes();
            typo[at] = if typo[at] == b'x' { b'y' } else { b'x' };
            assert!(PresentedKey::parse(&typo).is_err(), "position {at}");
        }
        for cut in 0..key.len() {
            assert!(PresentedKey::parse(&key.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        assert!(PresentedKey::parse(b"pck_\xff").is_err());
    }
}
