//! Sets of names: exact ones and patterns with `*` and `?`.
//!
//! Owns matching. Names are compared byte for byte, never normalised: two tools with similar names are two tools.

use std::collections::HashSet;

use wildmatch::WildMatch;

use crate::order;

/// Names and patterns; a name matches if any of them matches it.
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

    /// Whether `name` is one of the exact names.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        self.exact.contains(name)
    }

    /// All names and patterns, in order.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let exact = self.exact().into_iter().map(str::to_owned);
        exact.chain(self.patterns()).collect()
    }

    /// The first of them that matches all that `glob`, a name or a pattern, matches.
    #[must_use]
    pub fn covering(&self, glob: &str) -> Option<String> {
        self.all().into_iter().find(|own| covers(own, glob))
    }

    /// Whether a name exists that one of them and `glob`, a name or a pattern, both match.
    #[must_use]
    pub fn meets(&self, glob: &str) -> bool {
        let wild = glob.contains(['*', '?']);
        match wild {
            false => self.matches(glob),
            true => self.all().iter().any(|own| overlap(own, glob)),
        }
    }

    /// Whether nothing can match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.patterns.is_empty()
    }

    /// The exact names, in order.
    #[must_use]
    pub fn exact(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.exact.iter().map(String::as_str).collect();
        order::sort(&mut names);
        names
    }

    /// The patterns, as written except for repeated wildcards.
    #[must_use]
    pub fn patterns(&self) -> Vec<String> {
        self.patterns.iter().map(WildMatch::pattern).collect()
    }
}

/// Whether `wide` matches every name that `narrow` matches; each is a name or a pattern.
#[must_use]
pub fn covers(wide: &str, narrow: &str) -> bool {
    let (wide, narrow): (Vec<char>, Vec<char>) = (wide.chars().collect(), narrow.chars().collect());
    // For each length: whether the part of `wide` that was read covers that many first letters of `narrow`.
    let mut reached = vec![false; narrow.len().saturating_add(1)];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    for letter in wide {
        let before = std::mem::take(&mut reached);
        let mut any = false;
        for (at, was) in before.iter().enumerate() {
            let now = match (letter, at.checked_sub(1).and_then(|last| narrow.get(last))) {
                ('*', _) => {
                    any |= *was;
                    any
                }
                (_, None | Some('*')) => false,
                ('?', Some(_)) => before.get(at.saturating_sub(1)).is_some_and(|was| *was),
                (letter, Some(own)) => {
                    letter == *own && before.get(at.saturating_sub(1)).is_some_and(|was| *was)
                }
            };
            reached.push(now);
        }
    }
    reached.last().is_some_and(|reached| *reached)
}

/// Whether a name exists that both match; each is a name or a pattern.
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // For each length: whether the part of `one` that was read and that many first letters of `other` have a name in
    // common.
    let mut before: Vec<bool> = vec![true];
    for letter in &other {
        before.push(*letter == '*' && before.last().is_some_and(|was| *was));
    }
    for letter in one {
        let mut now: Vec<bool> = Vec::with_capacity(before.len());
        now.push(letter == '*' && before.first().is_some_and(|was| *was));
        for (at, own) in other.iter().enumerate() {
            let was = |at: usize| before.get(at).is_some_and(|was| *was);
            let left = now.last().is_some_and(|was| *was);
            let (above, both) = (was(at.saturating_add(1)), was(at));
            now.push(match (letter, *own) {
                ('*', _) | (_, '*') => above || left,
                ('?', _) | (_, '?') => both,
                (one, other) => one == other && both,
            });
        }
        before = now;
    }
    before.last().is_some_and(|met| *met)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_overlap_where_some_name_matches_both() {
        for (one, other) in [
            ("*", "*"),
            ("*", ""),
            ("a*", "*a"),
            ("query_*", "*_users"),
            ("?", "a"),
            ("?*", "ab"),
            ("a?c", "ab*"),
            ("a*c", "abc"),
            ("query_users", "query_users"),
            ("*a*", "*b*"),
        ] {
            assert!(overlap(one, other) && overlap(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("query_*", "delete_*"),
            ("a", "b"),
            ("?", ""),
            ("?", "ab"),
            ("a*b", "a*c"),
            ("", "a"),
            ("?a", "b*b"),
        ] {
            assert!(!overlap(one, other) && !overlap(other, one), "{one} {other}");
        }
    }

    #[test]
    fn a_pattern_covers_what_it_matches_whatever_stands_for_the_wildcards() {
        for (wide, narrow) in [
            ("*", ""),
            ("*", "*"),
            ("*", "query_users"),
            ("query_*", "query_users"),
            ("query_*", "query_*"),
            ("query_*", "query_user_*"),
            ("*_*", "query_*"),
            ("?*", "a*"),
            ("?uery", "query"),
            ("?", "?"),
            ("a*c", "abc"),
        ] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            ("", "*"),
            ("query_users", "query_*"),
            ("query_?", "query_*"),
            ("query_user_*", "query_*"),
            ("?*", "*"),
            ("a", "?"),
            ("a*c", "ab"),
            ("delete_*", "query_*"),
        ] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }
}
