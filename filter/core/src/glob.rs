//! Sets of names: exact ones and patterns with `*` and `?`.
//!
//! Owns matching. Names are matched byte for byte, never normalised: two tools that look alike are
//! two tools.

use std::collections::HashSet;

use wildmatch::WildMatch;

/// Names and patterns, of which any may match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Globs {
    exact: HashSet<String>,
    patterns: Vec<WildMatch>,
}

impl Globs {
    /// Adds a name or a pattern.
    pub fn insert(&mut self, glob: &str) {
        if glob.contains(['*', '?']) {
            self.patterns.push(WildMatch::new(glob));
        } else {
            self.exact.insert(glob.to_owned());
        }
    }

    /// Whether any of them matches `name`.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.exact.contains(name) || self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether `name` itself is one of them, and no pattern.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        self.exact.contains(name)
    }

    /// Whether nothing can match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.patterns.is_empty()
    }

    /// What matches by its whole name, in order.
    #[must_use]
    pub fn exact(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.exact.iter().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// What has wildcards, as it was written but for repeated ones.
    #[must_use]
    pub fn patterns(&self) -> Vec<String> {
        self.patterns.iter().map(WildMatch::pattern).collect()
    }
}
