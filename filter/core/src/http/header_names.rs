//! Names of headers that a policy lets through: the operator's lists, and the reserved names.
//!
//! Owns the form of a name. `request_headers` and `response_headers` own the reserved names and the reasons.

use crate::decode::{Faults, Node};

/// The reserved names, and the error messages for them.
pub(crate) struct Reserved {
    /// Names, in lower case.
    pub(crate) names: &'static [&'static str],
    /// Families of names.
    pub(crate) prefixes: &'static [&'static str],
    /// The expected form of a list.
    pub(crate) list: &'static str,
    /// The expected form of one name.
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

    /// A name in lower case, unless it is invalid or reserved.
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
