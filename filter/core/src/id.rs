//! Names that pass through the whole system; each is valid by construction.
//!
//! Owns the alphabets. Knows nothing of a name's origin or permissions. Each request copies several names, so copies
//! share the text.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::hex;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The form of a valid value, for error messages.
            pub const EXPECTED: &'static str = $expected;

            /// `None` when `text` is not a valid value.
            #[must_use]
            pub fn new(text: &str) -> Option<Self> {
                let valid: fn(&str) -> bool = $valid;
                valid(text).then(|| Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).ok_or_else(|| {
                    serde::de::Error::custom(format_args!("found {text:?}, expected {}", $expected))
                })
            }
        }
    };
}

name!(
    /// An organisation: the tenant that keys, counters and audit entries belong to.
    OrgId,
    "1 to 32 lower-case letters, digits or hyphens, starting with a letter or digit",
    |text| {
        (1..=32).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    }
);

name!(
    /// The public part of an API key, which identifies it in the audit log and in the CLI.
    KeyId,
    "4 to 32 letters or digits",
    |text| (4..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
);

name!(
    /// A name chosen by the policy's author: a connector, role, tier or limit.
    PolicyName,
    "1 to 64 letters, digits, `_` or `-`, starting with a letter or digit",
    |text| {
        (1..=64).contains(&text.len())
            && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    }
);

name!(
    /// A policy version: the first 16 hex digits of the SHA-256 of its canonical JSON.
    PolicyVersion,
    "16 lower-case hex digits",
    |text| {
        text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    }
);

name!(
    /// The id that a response, its upstream request and its audit entry have in common.
    RequestId,
    "1 to 64 letters, digits, `_` or `-`",
    |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    }
);

impl RequestId {
    /// The id of the `number`-th request of a VM whose random seed is `seed`: a UUID that an outsider cannot predict or
    /// repeat. Version 8 (RFC 9562, section 5.8): 122 bits of a SHA-256.
    #[must_use]
    pub fn numbered(seed: u64, number: u32) -> Self {
        let digest = Sha256::new()
            .chain_update(b"portcullis request id")
            .chain_update(seed.to_be_bytes())
            .chain_update(number.to_be_bytes())
            .finalize();
        let half = digest.first_chunk().map_or(0, |half| u128::from_be_bytes(*half));
        let bits = half & !(0xf << 76) & !(0x3 << 62) | 0x8 << 76 | 0x2 << 62;
        let hex = hex::lower(&bits.to_be_bytes());
        let mut text = String::with_capacity(36);
        let (mut rest, groups) = (hex.as_str(), [8, 4, 4, 4, 12]);
        for length in groups {
            let (group, behind) = rest.split_at_checked(length).unwrap_or((rest, ""));
            if !text.is_empty() {
                text.push('-');
            }
            text.push_str(group);
            rest = behind;
        }
        Self(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Finding 1.2.
    #[test]
    fn request_ids_are_uuids_and_differ() {
        let id = RequestId::numbered(7, 1);
        assert_eq!(RequestId::new(id.as_str()), Some(id.clone()));
        let groups: Vec<_> = id.as_str().split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert_eq!(&id.as_str()[14..15], "8");
        assert!("89ab".contains(&id.as_str()[19..20]), "{id}");
        let ids: std::collections::BTreeSet<_> = (0..4_u32)
            .flat_map(|number| [RequestId::numbered(7, number), RequestId::numbered(8, number)])
            .collect();
        assert_eq!(ids.len(), 8);
    }

    #[test]
    fn organisation_names_cannot_carry_separators_or_hash_tags() {
        for bad in ["", "Acme", "a_b", "a{b}", "-a", "a:b", "ä", &"a".repeat(33)] {
            assert_eq!(OrgId::new(bad), None, "{bad:?}");
        }
        for good in ["acme", "a", "0-1"] {
            assert_eq!(OrgId::new(good).unwrap().as_str(), good);
        }
    }
}
