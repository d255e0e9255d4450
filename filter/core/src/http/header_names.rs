//! Names of headers that a policy lets through: lists of an operator, and what no such list may have.
//!
//! Owns the form of a name. Which names are reserved, and why, is in `request_headers` and `response_headers`.

use crate::decode::{Faults, Node};

/// What a list may not have, and how to say so.
pub(crate) struct Reserved {
    /// Names, in lower case.
    pub(crate) names: &'static [&'static str],
    /// Families of names.
    pub(crate) prefixes: &'static [&'static str],
    /// What is expected of a list.
    pub(crate) list: &'static str,
    /// What is expected of one name.
    pub(crate) name: &'static str,
}

impl Reserved {
    /// Reads a list of names, in lower case.
    pub(crate) fn others(&self, node: Node<'_>, faults: &mut Faults) -> Option<Vec<String>> {
        let items = node.items(faults, self.list)?;
        items
            .into_iter()
            .map(|item| item.text(faults, self.name, |text| self.other(text)))
            .collect()
    }

    /// A name in lower case, if it is one that is not reserved.
    pub(crate) fn other(&self, text: &str) -> Option<String> {
        let name = text.to_ascii_lowercase();
        let is_token = !name.is_empty()
            && name.len() <= 128
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let reserved = self.names.contains(&name.as_str())
            || self.prefixes.iter().any(|prefix| name.starts_with(prefix));
        (is_token && !reserved).then_some(name)
    }
}
