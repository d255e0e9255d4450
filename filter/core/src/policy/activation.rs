//! The active policy of an organisation, and the callers that use a canary instead.
//!
//! Owns the choice, which is the same on every worker of every Envoy. Reads no policy.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::PolicyVersion;

/// The activation record of one organisation in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// The revision of the record: the version and, for a canary, `+` and a digest.
    pub rev: String,
    /// The policy of all callers outside the canary.
    pub version: PolicyVersion,
    /// Another policy for some of them.
    pub canary: Option<Canary>,
}

/// A policy for some callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Its version.
    pub version: PolicyVersion,
    /// The percentage of callers. A caller in the canary stays in it when the share grows.
    #[serde(default)]
    pub percent: u8,
    /// Further callers: key ids, or names of callers as in bindings.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub callers: BTreeSet<String>,
}

/// The part of an activation record that decides; the rest is information for operators.
#[derive(Deserialize)]
struct Document {
    canary: Option<Canary>,
}

impl Activation {
    /// Reads an activation record; `None` when it has no single meaning.
    #[must_use]
    pub fn parse(rev: &str, doc: &[u8]) -> Option<Self> {
        let (version, canary) = match rev.split_once('+') {
            None => (PolicyVersion::new(rev)?, None),
            Some((version, _)) => {
                let document: Document = serde_json::from_slice(doc).ok()?;
                (PolicyVersion::new(version)?, Some(document.canary?))
            }
        };
        Some(Self { rev: rev.to_owned(), version, canary })
    }

    /// The unique revision of a record for `version` with `canary`.
    #[must_use]
    pub fn revision(version: &PolicyVersion, canary: Option<&Canary>) -> String {
        let Some(canary) = canary.and_then(|canary| serde_json::to_vec(canary).ok()) else {
            return version.to_string();
        };
        let digest = base16ct::lower::encode_string(&Sha256::digest(&canary));
        format!("{version}+{}", digest.get(..16).unwrap_or_default())
    }

    /// The policy that decides about `caller`.
    #[must_use]
    pub fn version_for(&self, caller: &str) -> &PolicyVersion {
        match &self.canary {
            Some(canary) if canary.takes(caller) => &canary.version,
            Some(_) | None => &self.version,
        }
    }
}

impl Canary {
    /// Whether `caller` uses it.
    #[must_use]
    pub fn takes(&self, caller: &str) -> bool {
        let mut hasher = Sha256::new();
        // Another canary selects other callers first.
        hasher.update(self.version.as_str());
        hasher.update([0]);
        hasher.update(caller);
        let [a, b, ..] = <[u8; 32]>::from(hasher.finalize());
        let place = u32::from(u16::from_be_bytes([a, b]));
        self.callers.contains(caller)
            || place < u32::from(self.percent).saturating_mul(65_536) / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(digit: &str) -> PolicyVersion {
        PolicyVersion::new(&digit.repeat(16)).unwrap()
    }

    fn canary(percent: u8) -> Canary {
        Canary { version: version("b"), percent, callers: BTreeSet::from(["k1a2".to_owned()]) }
    }

    #[test]
    fn a_canary_takes_its_share_and_those_it_names_and_keeps_them() {
        let takes = |percent, caller: &str| canary(percent).takes(caller);
        let callers: Vec<_> = (0..2_000).map(|number| format!("caller{number}")).collect();
        let share = |percent| callers.iter().filter(|caller| takes(percent, caller)).count();
        assert_eq!((share(0), share(100)), (0, 2_000));
        assert!((400..600).contains(&share(25)), "{}", share(25));
        assert!(callers.iter().all(|caller| !takes(25, caller) || takes(30, caller)));
        assert!(takes(0, "k1a2"));
    }

    #[test]
    fn records_read_back_and_no_two_canaries_share_a_revision() {
        let plain = Activation::parse("aaaaaaaaaaaaaaaa", b"not even JSON").unwrap();
        assert_eq!((plain.version_for("k1a2"), &plain.canary), (&version("a"), &None));
        let rev = Activation::revision(&version("a"), Some(&canary(10)));
        assert_ne!(rev, Activation::revision(&version("a"), Some(&canary(11))));
        let doc = serde_json::json!({"canary": canary(10), "by": "ops"}).to_string();
        let tried = Activation::parse(&rev, doc.as_bytes()).unwrap();
        assert_eq!(tried.version_for("k1a2"), &version("b"));
        assert_eq!(tried.canary, Some(canary(10)));
        assert_eq!(Activation::parse(&rev, b"{}"), None, "its canary is missing");
        assert_eq!(Activation::parse("x", b"{}"), None);
    }
}
