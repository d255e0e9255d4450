//! What is known across the exchanges of a worker on trial.
//!
//! Owns what Redis and Vault said so far. Judges no single exchange.

use std::collections::BTreeSet;

use portcullis_core::audit::{Start, Verifier};

use crate::fixtures;

/// What concerns all exchanges of a worker.
pub(super) struct History {
    pub(super) audit: Verifier,
    /// Every credential that Vault gave, by the field it was read from.
    pub(super) credentials: BTreeSet<(String, String)>,
    /// How many reads of a credential brought none.
    pub(super) failed_reads: usize,
    /// Versions whose document came as asked for, and those of which something else came.
    pub(super) read: BTreeSet<String>,
    pub(super) spoilt: BTreeSet<String>,
}

impl History {
    /// The policies that may decide when `version` should: the last good one does while that one is unusable.
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
