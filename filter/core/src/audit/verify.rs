//! Verification of audit logs, offline: no key, no server, only the lines.
//!
//! Owns the definition of an intact chain: sequence numbers without gaps, each entry with the hash of the previous one,
//! each hash right. Lines of several chains may be mixed; the lines of one chain are in order, because one worker
//! writes them.

use std::collections::BTreeMap;
use std::fmt;

use super::anchor::Anchors;
use super::link::{GENESIS, Link};

/// Whether a chain may start in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Every chain starts with its first entry.
    Genesis,
    /// The log was rotated: the first entry of each chain is accepted without its predecessor.
    Anywhere,
}

/// A fault of a line. The first fault of a log is the first bad entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// Not a JSON object with `chain`, `seq`, `prev_hash` and `hash`.
    Unreadable(String),
    /// The entry was changed: its content does not have the hash that it names.
    Edited {
        /// The chain.
        chain: String,
        /// The entry.
        seq: u64,
    },
    /// Entries are missing, repeated, or in another order.
    OutOfSequence {
        /// The chain.
        chain: String,
        /// The expected sequence number.
        expected: u64,
        /// The sequence number of the line.
        found: u64,
    },
    /// The previous entry was replaced: the hashes are right, the link is not.
    BrokenLink {
        /// The chain.
        chain: String,
        /// The entry.
        seq: u64,
    },
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(detail) => write!(f, "not an audit entry: {detail}"),
            Self::Edited { chain, seq } => {
                write!(f, "entry {seq} of chain {chain} was changed after it was written")
            }
            Self::OutOfSequence { chain, expected, found } if found > expected => write!(
                f,
                "chain {chain}: found entry {found}, expected {expected}: entries are missing"
            ),
            Self::OutOfSequence { chain, expected, found } => write!(
                f,
                "chain {chain}: found entry {found}, expected {expected}: repeated or moved"
            ),
            Self::BrokenLink { chain, seq } => write!(
                f,
                "entry {seq} of chain {chain} does not follow the entry that stands before it"
            ),
        }
    }
}

/// One chain of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSummary {
    /// Its name.
    pub chain: String,
    /// The sequence number of the first entry seen.
    pub first: u64,
    /// The sequence number of the last.
    pub last: u64,
    /// The hash of the last entry, which is compared with an anchor kept elsewhere.
    pub head: String,
}

/// Reads a log line by line.
#[derive(Clone, Debug)]
pub struct Verifier {
    start: Start,
    anchors: Anchors,
    /// The time of the oldest entry.
    oldest: Option<String>,
    chains: BTreeMap<String, ChainSummary>,
}

impl Verifier {
    /// A verifier that has read no line.
    #[must_use]
    pub fn new(start: Start) -> Self {
        Self::expecting(start, Anchors::default())
    }

    /// As [`Verifier::new`], for a log that must contain `anchors`.
    #[must_use]
    pub fn expecting(start: Start, anchors: Anchors) -> Self {
        Self { start, anchors, oldest: None, chains: BTreeMap::new() }
    }

    /// The anchors, each with the entry found at its position.
    #[must_use]
    pub fn anchors(&self) -> &Anchors {
        &self.anchors
    }

    /// The timestamp of the oldest entry.
    #[must_use]
    pub fn oldest(&self) -> Option<&str> {
        self.oldest.as_deref()
    }

    /// Reads the next line.
    ///
    /// # Errors
    /// The line's fault. Reading can continue: the line then counts as the chain's last.
    pub fn line(&mut self, line: &str) -> Result<(), LineFault> {
        let link = Link::read(line).map_err(LineFault::Unreadable)?;
        self.anchors.look(&link);
        // RFC 3339 in UTC: the order of the texts is the order of the times.
        if let Some(time) = &link.timestamp
            && self.oldest.as_ref().is_none_or(|oldest| time < oldest)
        {
            self.oldest = Some(time.clone());
        }
        let fault = self.judge(&link);
        let summary = self.chains.entry(link.chain.clone()).or_insert_with(|| ChainSummary {
            chain: link.chain,
            first: link.seq,
            last: link.seq,
            head: String::new(),
        });
        summary.last = link.seq;
        summary.head = link.hash;
        fault.map_or(Ok(()), Err)
    }

    /// The chains seen, by name.
    pub fn chains(&self) -> impl Iterator<Item = &ChainSummary> {
        self.chains.values()
    }

    /// The summary of one chain.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&ChainSummary> {
        self.chains.get(name)
    }

    fn judge(&self, link: &Link) -> Option<LineFault> {
        let (chain, seq) = (link.chain.clone(), link.seq);
        if link.hash != link.computed {
            return Some(LineFault::Edited { chain, seq });
        }
        let (expected, before) = match (self.chains.get(&link.chain), self.start) {
            (Some(summary), _) => (summary.last.saturating_add(1), summary.head.as_str()),
            (None, Start::Genesis) => (1, GENESIS),
            (None, Start::Anywhere) => return None,
        };
        if seq != expected {
            return Some(LineFault::OutOfSequence { chain, expected, found: seq });
        }
        (link.prev_hash != before).then_some(LineFault::BrokenLink { chain, seq })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{Chain, Entry, hash_of};
    use super::*;
    use crate::json;

    fn log() -> Vec<String> {
        let mut chains = [Chain::new("a".into()), Chain::new("b".into())];
        (0..8)
            .map(|index| {
                let entry = Entry { latency_ms: index, ..Entry::default() };
                let [a, b] = &mut chains;
                if index % 3 == 0 { b.append(&entry) } else { a.append(&entry) }
            })
            .collect()
    }

    fn first_fault(lines: &[String]) -> Option<(usize, LineFault)> {
        let mut verifier = Verifier::new(Start::Genesis);
        lines.iter().enumerate().find_map(|(at, line)| Some((at, verifier.line(line).err()?)))
    }

    // Proves: A18
    #[test]
    fn an_untouched_log_verifies_with_its_chains_mixed() {
        assert_eq!(first_fault(&log()), None);
        let rotated: Vec<_> = log().split_off(3);
        let mut verifier = Verifier::new(Start::Anywhere);
        assert!(rotated.iter().all(|line| verifier.line(line).is_ok()));
        assert_eq!(verifier.chains().map(|chain| chain.last).collect::<Vec<_>>(), [5, 3]);
    }

    // Proves: A17, A18
    #[test]
    fn every_single_edit_drop_swap_and_repeat_is_named() {
        for at in 0..log().len() {
            let mut edited = log();
            edited[at] = edited[at].replace("\"latency_ms\":", "\"latency_ms\":1");
            assert_eq!(first_fault(&edited).unwrap().0, at, "edit of {at}");

            let mut repeated = log();
            repeated.insert(at, repeated[at].clone());
            assert_eq!(first_fault(&repeated).unwrap().0, at + 1, "repeat of {at}");

            let mut dropped = log();
            let gone = dropped.remove(at);
            let chain_goes_on = dropped[at..]
                .iter()
                .any(|line| Link::read(line).unwrap().chain == Link::read(&gone).unwrap().chain);
            assert_eq!(first_fault(&dropped).is_some(), chain_goes_on, "drop of {at}");
        }
        let mut swapped = log();
        swapped.swap(1, 2);
        assert_eq!(first_fault(&swapped).unwrap().0, 1);
    }

    // Finding 6.3.
    // Proves: A18
    #[test]
    fn what_a_terminal_acts_upon_is_escaped_and_verifies() {
        let odd = "a\u{2028}b\u{85}c\u{202e}d\u{200b}e\u{feff}f\u{e0041}g\u{7f}é\u{1f600}";
        let entry = Entry { user_agent: Some(odd.to_owned()), ..Entry::default() };
        let line = Chain::new("a".into()).append(&entry);
        assert!(
            line.contains(
                r"a\u2028b\u0085c\u202ed\u200be\ufefff\udb40\udc41g\u007fé\u{1f600}"
                    .replace(r"\u{1f600}", "\u{1f600}")
                    .as_str()
            ),
            "{line}"
        );
        assert_eq!(Verifier::new(Start::Genesis).line(&line), Ok(()));
        assert_eq!(json::parse_strict(line.as_bytes()).unwrap()["user_agent"], odd);
    }

    #[test]
    fn a_replaced_entry_with_a_right_hash_breaks_the_link() {
        let mut lines = log();
        let Value::Object(mut forged) = json::parse_strict(lines[1].as_bytes()).unwrap() else {
            panic!("not an object")
        };
        forged.insert("latency_ms".into(), 99.into());
        forged.insert("hash".into(), hash_of(forged.clone()).into());
        lines[1] = json::canonical(&forged);
        let fault = LineFault::BrokenLink { chain: "a".into(), seq: 2 };
        assert_eq!(first_fault(&lines), Some((2, fault)));
    }
}
