//! Names that travel through the system, each valid by construction.
//!
//! Owns the alphabets. Knows nothing of where a name came from or what it may do.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $type(String);

        impl $type {
            /// What a valid value looks like, for messages to people.
            pub const EXPECTED: &'static str = $expected;

            /// `None` when `text` is not a valid value.
            #[must_use]
            pub fn new(text: &str) -> Option<Self> {
                let valid: fn(&str) -> bool = $valid;
                valid(text).then(|| Self(text.to_owned()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
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
    /// The public part of an API key; names it in the audit log and to the CLI.
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
    /// What ties a response, its upstream request and its audit entry together.
    RequestId,
    "1 to 64 letters, digits, `_` or `-`",
    |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    }
);

impl RequestId {
    /// An id for a request that came without one: the `number`-th of whatever `prefix` names.
    #[must_use]
    pub fn numbered(prefix: u64, number: u32) -> Self {
        Self(format!("{prefix:016x}-{number}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
