//! Lists (tools, prompts, resources, templates) that a caller sees a part of.
//!
//! Owns which members are lists, what an item has to be, and how long and by whom a list may be cached.
//! How a message passes is [`super::filter`]'s business.

use serde::de::DeserializeSeed as _;
use serde_json::Value;

use super::Listing;
use crate::json::{Reading, Strict, folded};
use crate::order;

/// A filtered list must not outlive the policy by more than this (milliseconds).
const LONGEST_TTL_MS: u64 = 10_000;
/// An item nested deeper is not shown: schemas of 60 levels are.
const MAX_ITEM_DEPTH: usize = 120;
/// Members of an item by which it is judged, or compared with its pin: none of them may have a twin that
/// differs by case, since some readers ignore it.
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

/// The list that a member of a result is, by its name in lower case.
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

/// An item of a list; `None` when it is no object with one meaning.
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

/// What a result with a list says of caches. What one principal sees must not be served to another, nor
/// for long (MCP 2026-07-28 caching).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `cacheScope`.
    Scope,
    /// `ttlMs`.
    Ttl,
}

impl Setting {
    /// The setting that a member of a result is, by its name in lower case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "cachescope" => Some(Self::Scope),
            "ttlms" => Some(Self::Ttl),
            _ => None,
        }
    }

    /// Whether a value, as written, may stand beside a filtered list.
    #[must_use]
    pub fn allows(self, value: &[u8]) -> bool {
        match self {
            Self::Scope => value == b"\"private\"",
            Self::Ttl => {
                serde_json::from_slice::<u64>(value).is_ok_and(|ttl| ttl <= LONGEST_TTL_MS)
            }
        }
    }

    /// What stands there otherwise.
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
