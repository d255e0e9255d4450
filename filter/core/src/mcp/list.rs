//! Lists (tools, prompts, resources, templates) of which a caller sees a part.
//!
//! Owns which members are lists, the requirements for an item, and how long and for which clients a list may be cached.
//! [`super::filter`] owns how a message passes.

use serde::de::DeserializeSeed as _;
use serde_json::Value;

use super::Listing;
use crate::json::{Reading, Strict, folded};
use crate::order;

/// The longest cache lifetime of a filtered list in milliseconds: it must not outlive the policy by more.
const LONGEST_TTL_MS: u64 = 10_000;
/// A deeper item is not shown; schemas of 60 levels are.
const MAX_ITEM_DEPTH: usize = 120;
/// Members of an item that decide whether it is shown, or that its pin contains. None of them may occur twice with
/// different case, because some readers ignore case.
const JUDGED: [&str; 8] = [
    "name",
    "uri",
    "uritemplate",
    "title",
    "description",
    "inputschema",
    "outputschema",
    "annotations",
];

/// The list in a member of a result, by the member's name in lower case.
#[must_use]
pub fn listing(name: &str) -> Option<Listing> {
    match name {
        "tools" => Some(Listing::Tools),
        "prompts" => Some(Listing::Prompts),
        "resources" => Some(Listing::Resources),
        "resourcetemplates" => Some(Listing::Templates),
        _ => None,
    }
}

/// An item of a list; `None` when it is not an object with a single meaning.
#[must_use]
pub fn item(bytes: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut reading = Reading::of_any_size();
    let strict = Strict { depth: MAX_ITEM_DEPTH, reading: &mut reading };
    let item = strict.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    let mut names: Vec<_> = item.as_object()?.keys().map(|name| folded(name)).collect();
    names.retain(|name| JUDGED.contains(&name.as_str()));
    order::sort(&mut names);
    let twins = names.windows(2).any(|pair| matches!(pair, [one, other] if one == other));
    (!twins).then_some(item)
}

/// The cache settings of a result with a list. One principal's list must not be served to another, nor for long (MCP
/// 2026-07-28 caching).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `cacheScope`.
    Scope,
    /// `ttlMs`.
    Ttl,
}

impl Setting {
    /// The setting in a member of a result, by the member's name in lower case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "cachescope" => Some(Self::Scope),
            "ttlms" => Some(Self::Ttl),
            _ => None,
        }
    }

    /// Whether a value, as written, is allowed for a filtered list.
    #[must_use]
    pub fn allows(self, value: &[u8]) -> bool {
        match self {
            Self::Scope => value == b"\"private\"",
            Self::Ttl => {
                serde_json::from_slice::<u64>(value).is_ok_and(|ttl| ttl <= LONGEST_TTL_MS)
            }
        }
    }

    /// The value that replaces any other.
    #[must_use]
    pub fn required(self) -> &'static str {
        match self {
            Self::Scope => "\"private\"",
            Self::Ttl => "10000",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_has_one_meaning() {
        let deep = |levels: usize| {
            format!(r#"{{"name":"a","x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
        };
        for good in [r#"{"name":"a","X":1,"x":2}"#, r#" {"uri":"a:b"} "#, &deep(110)] {
            assert!(item(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            r#"{"name":"a","name":"b"}"#,
            r#"{"name":"a","Name":"b"}"#,
            r#"{"name":"a","de\u017fcription":"b","description":""}"#,
            r#"{"name":"\ud800"}"#,
            "[]",
            "7",
            &deep(121),
        ] {
            assert!(item(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
