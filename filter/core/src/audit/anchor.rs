//! An anchor: an entry that is known to exist, kept outside the log. The log must contain it.
//!
//! Owns the detection of a chain that was cut off, replaced or restored from an older copy. Does not know where anchors
//! are kept, or who protects them.

use std::collections::BTreeMap;

use super::link::Link;

/// Names one entry of a chain by its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The chain.
    pub chain: String,
    /// The sequence number in it.
    pub seq: u64,
    /// The hash of the entry.
    pub hash: String,
    /// A time at which the entry existed: RFC 3339, if known.
    pub at: Option<String>,
    found: Found,
}

/// The entry that a log has at the anchor's position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// None so far.
    Nothing,
    /// The entry itself.
    Same,
    /// Another entry, with this hash.
    Other(String),
}

impl Anchor {
    /// The form of a valid anchor.
    pub const EXPECTED: &'static str = "CHAIN:SEQ:HASH as `audit verify` shows them, such as admin:acme:12:9f86d081… (64 hex digits)";

    /// An anchor, if the arguments can be the position and the hash of an entry.
    #[must_use]
    pub fn new(chain: &str, seq: u64, hash: &str, at: Option<String>) -> Option<Self> {
        let hash = hash.to_ascii_lowercase();
        let hex = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        let chain = chain.to_owned();
        (hex && seq > 0 && !chain.is_empty()).then_some(Self {
            chain,
            seq,
            hash,
            at,
            found: Found::Nothing,
        })
    }

    /// Reads an anchor; a chain's name may contain colons.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, hash) = text.rsplit_once(':')?;
        let (chain, seq) = rest.rsplit_once(':')?;
        Self::new(chain, seq.parse().ok()?, hash, None)
    }

    /// The result of all lines so far.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }
}

/// Many anchors, looked up by position.
#[derive(Clone, Debug, Default)]
pub struct Anchors {
    /// By chain; then by number, and by hash for anchors that contradict each other.
    chains: BTreeMap<String, BTreeMap<(u64, String), Anchor>>,
}

impl Anchors {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// All of them, by chain and number.
    pub fn iter(&self) -> impl Iterator<Item = &Anchor> {
        self.chains.values().flat_map(BTreeMap::values)
    }

    /// Compares the next entry of a log with the anchors. The entry itself counts at any position in the log.
    pub(super) fn look(&mut self, link: &Link) {
        let Some(chain) = self.chains.get_mut(&link.chain) else { return };
        let here = (link.seq, String::new())..(link.seq.saturating_add(1), String::new());
        for (_, anchor) in chain.range_mut(here).filter(|(_, it)| it.found != Found::Same) {
            // The hash that the entry names does not count: its content must have that hash.
            anchor.found = match link.computed == anchor.hash {
                true => Found::Same,
                false => Found::Other(link.computed.clone()),
            };
        }
    }
}

impl Extend<Anchor> for Anchors {
    fn extend<I: IntoIterator<Item = Anchor>>(&mut self, anchors: I) {
        for anchor in anchors {
            let chain = self.chains.entry(anchor.chain.clone()).or_default();
            chain.entry((anchor.seq, anchor.hash.clone())).or_insert(anchor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Chain, Entry};
    use super::*;

    fn log(length: u64) -> (Vec<String>, String) {
        let mut chain = Chain::new("admin:acme".into());
        let entry = |latency_ms| Entry { latency_ms, ..Entry::default() };
        let lines: Vec<String> = (0..length).map(|n| chain.append(&entry(n))).collect();
        let head = Link::read(lines.last().unwrap()).unwrap().hash;
        (lines, head)
    }

    // Finding 9.5: a restored copy of the admin chain was intact, only shorter. Proves: A17
    #[test]
    fn an_older_copy_and_a_replaced_chain_are_not_what_was_expected() {
        let (lines, head) = log(5);
        let anchor = Anchor::parse(&format!("admin:acme:5:{}", head.to_uppercase())).unwrap();
        let look = |lines: &[String]| {
            let mut anchors = Anchors::default();
            anchors.extend([anchor.clone()]);
            lines.iter().for_each(|line| anchors.look(&Link::read(line).unwrap()));
            anchors.iter().next().unwrap().found.clone()
        };
        assert_eq!(look(&lines), Found::Same);
        assert_eq!(look(&lines[..4]), Found::Nothing);
        let mut other = Chain::after(&lines[3]).unwrap();
        let other = other.append(&Entry { latency_ms: 99, ..Entry::default() });
        assert!(matches!(look(&[&lines[..4], &[other]].concat()), Found::Other(_)));
        let lying = lines[4].replace("\"latency_ms\":4", "\"latency_ms\":5");
        assert!(matches!(look(&[lying]), Found::Other(_)), "the hash it names is not enough");
    }

    #[test]
    fn anchors_are_read_or_refused() {
        let hash = "a".repeat(64);
        assert!(Anchor::parse(&format!("9f86:1:{hash}")).is_some());
        for bad in ["", "a", "a:1", &format!(":1:{hash}"), &format!("a:0:{hash}"), "a:1:abc"] {
            assert_eq!(Anchor::parse(bad), None, "{bad}");
        }
    }
}
