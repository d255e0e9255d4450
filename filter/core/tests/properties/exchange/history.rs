//! The common history of the exchanges of a worker under test.
//!
//! Owns the answers of Redis and Vault so far. Judges no single exchange.

use std::collections::BTreeSet;

use portcullis_core::audit::{Start, Verifier};

use crate::fixtures;

/// The history of all exchanges of a worker.
pub(super) struct History {
    pub(super) audit: Verifier,
    /// Every credential from Vault, by its field.
    pub(super) credentials: BTreeSet<(String, String)>,
    /// How many reads of a credential failed.
    pub(super) failed_reads: usize,
    /// Versions whose correct document arrived, and those for which another answer arrived.
    pub(super) read: BTreeSet<String>,
    pub(super) spoilt: BTreeSet<String>,
}

impl History {
    /// The policies that may decide when `version` should: while that one is unusable, the last good one.
    pub(super) fn deciding(&self, version: &str) -> Vec<&'static str> {
        let others = self.read.iter().filter(|_| self.spoilt.contains(version));
        let versions = std::iter::once(version).chain(others.map(String::as_str));
        versions.filter_map(fixtures::policy_of).collect()
    }
}

impl Default for History {
    fn default() -> Self {
        Self {
            audit: Verifier::new(Start::Genesis),
            credentials: BTreeSet::new(),
            failed_reads: 0,
            read: BTreeSet::new(),
            spoilt: BTreeSet::new(),
        }
    }
}
