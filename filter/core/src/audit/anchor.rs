//! An entry that is known to have been written, kept somewhere else: what a log has to contain.
//!
//! Owns what a chain that was cut off, replaced or restored from an older copy cannot hide.

use super::link::Link;

/// Names one entry of a chain by its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The chain.
    pub chain: String,
    /// The sequence number in it.
    pub seq: u64,
    hash: String,
    found: Found,
}

/// What a log has in the place of an anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing so far.
    Nothing,
    /// The entry itself.
    Same,
    /// Another entry, with this hash.
    Other(String),
}

impl Anchor {
    /// What a valid anchor looks like.
    pub const EXPECTED: &'static str = "CHAIN:SEQ:HASH as `audit verify` shows them, such as admin:acme:12:9f86d081… (64 hex digits)";

    /// Reads an anchor; names of chains may have colons in them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, hash) = text.rsplit_once(':')?;
        let (chain, seq) = rest.rsplit_once(':')?;
        let hash = hash.to_ascii_lowercase();
        let hex = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        let seq = seq.parse().ok().filter(|seq| *seq > 0)?;
        (hex && !chain.is_empty()).then(|| Self {
            chain: chain.to_owned(),
            seq,
            hash,
            found: Found::Nothing,
        })
    }

    /// Looks at the next line of a log. The entry itself counts wherever it stands.
    pub fn look(&mut self, line: &str) {
        let seq = format!("\"seq\":{}", self.seq);
        if self.found == Found::Same || !line.contains(&seq) || !line.contains(&self.chain) {
            return;
        }
        let Ok(link) = Link::read(line) else {
            return;
        };
        if link.chain != self.chain || link.seq != self.seq {
            return;
        }
        // What an entry says of itself does not count: its content has to have that hash.
        self.found =
            if link.computed == self.hash { Found::Same } else { Found::Other(link.computed) };
    }

    /// What was found in all lines so far.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
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
            let mut anchor = anchor.clone();
            lines.iter().for_each(|line| anchor.look(line));
            anchor.found
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
