//! JSON read without mercy and written canonically.
//!
//! Owns the rules by which a document has exactly one meaning: no duplicate member at any level
//! (after unescaping), bounded depth, valid UTF-8, nothing after the value. Two parsers that
//! disagree about a document are how a gateway is bypassed; such documents are refused here.

mod canonical;
mod fold;
pub mod lexer;
mod number;
mod object;
mod plain_text;

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use canonical::EXACT;
pub(crate) use canonical::{Form, Writer, canonical_exact_members};
pub use canonical::{canonical, canonical_exact};
pub(crate) use fold::{folded, misspelt};
pub(crate) use number::{Decimal, compare, in_double, is_plain_integer, whole_number};
pub(crate) use object::Object;

/// Nesting beyond this is refused; far above what MCP messages need, far below the stack.
pub const MAX_DEPTH: usize = 64;
/// The most members of objects in a request's body.
pub const MAX_MEMBERS: usize = 10_000;
/// The most items of arrays in a request's body without objects; a member counts as ten items.
pub const MAX_ITEMS: usize = MAX_MEMBERS * ITEMS_PER_MEMBER;
const ITEMS_PER_MEMBER: usize = 10;
/// Most objects of a message have no more members: with room for them from the first one on, the map does not grow.
const FEW_MEMBERS: usize = 4;
/// How `serde_json` hands over a number of more than 64 bits or with a fraction: as the only member of an
/// object, under this name.
const NUMBER: &str = "$serde_json::private::Number";

/// Why a document was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonError {
    /// The bytes are not UTF-8.
    NotUtf8,
    /// A byte-order mark; RFC 8259 §8.1 forbids sending one.
    ByteOrderMark,
    /// Not JSON, nested too deeply, or something follows the value.
    Syntax(String),
    /// A member occurs twice in one object.
    DuplicateMember(String),
    /// More members and items than a request may have.
    TooManyParts,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("the body is not valid UTF-8"),
            Self::ByteOrderMark => f.write_str("the body starts with a byte-order mark"),
            Self::Syntax(detail) => write!(f, "the body is not readable JSON: {detail}"),
            Self::DuplicateMember(name) => write!(f, "the member {name:?} occurs twice"),
            Self::TooManyParts => write!(
                f,
                "the body has too many parts: at most {MAX_MEMBERS} members of objects or {MAX_ITEMS} items of arrays"
            ),
        }
    }
}

/// Whether two numbers are equal in every digit, whatever their spelling.
#[must_use]
pub fn is_same_number(one: &Number, other: &Number) -> bool {
    compare(one, other) == Some(std::cmp::Ordering::Equal)
}

/// Parses one JSON text strictly.
///
/// # Errors
/// See [`JsonError`]; never partial.
pub fn parse_strict(bytes: &[u8]) -> Result<Value, JsonError> {
    parse(bytes, Reading::of_any_size())
}

/// Parses a request's body strictly: as [`parse_strict`], with a bound on its parts.
///
/// # Errors
/// See [`JsonError`]; never partial.
pub fn parse_request(bytes: &[u8]) -> Result<Value, JsonError> {
    parse(bytes, Reading { parts_left: MAX_ITEMS, fault: None })
}

/// Parses what Vault or an authorization server answered: with the same bound, for each part costs many times its bytes.
///
/// # Errors
/// See [`JsonError`]; never partial.
pub(crate) fn parse_reply(bytes: &[u8]) -> Result<Value, JsonError> {
    parse_request(bytes)
}

fn parse(bytes: &[u8], mut reading: Reading) -> Result<Value, JsonError> {
    if bytes.starts_with(&[0xef, 0xbb, 0xbf]) {
        return Err(JsonError::ByteOrderMark);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::NotUtf8)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: MAX_DEPTH, reading: &mut reading }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    match (value, reading.fault) {
        (_, Some(fault)) => Err(fault),
        (Ok(value), None) => Ok(value),
        (Err(error), None) => Err(JsonError::Syntax(error.to_string())),
    }
}

/// One value, read strictly, as a part of something that is read otherwise.
pub(crate) struct Strict<'a> {
    /// How many levels may still open.
    pub(crate) depth: usize,
    /// What is known of the whole document so far.
    pub(crate) reading: &'a mut Reading,
}

/// What is known of a document while it is read.
pub(crate) struct Reading {
    parts_left: usize,
    fault: Option<JsonError>,
}

impl Reading {
    /// Of a document whose size is bounded elsewhere.
    pub(crate) fn of_any_size() -> Self {
        Self { parts_left: usize::MAX, fault: None }
    }

    fn fail<E: de::Error>(&mut self, fault: JsonError) -> E {
        self.fault = Some(fault);
        E::custom("see the fault")
    }

    fn spend<E: de::Error>(&mut self, parts: usize) -> Result<(), E> {
        match self.parts_left.checked_sub(parts) {
            Some(left) => {
                self.parts_left = left;
                Ok(())
            }
            None => Err(self.fail(JsonError::TooManyParts)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Strict<'_> {
    fn inner<E: de::Error>(&mut self) -> Result<Strict<'_>, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Strict { depth, reading: self.reading })
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner()?)? {
            self.reading.spend(1)?;
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = members.next_key_seed(Key)? {
            let name = match key {
                Member::Number => {
                    let number = members.next_value_seed(Digits)?;
                    let readable = number::is_readable(number.as_str());
                    let number = readable.then_some(Value::Number(number));
                    return number.ok_or_else(|| de::Error::custom("number out of range"));
                }
                Member::Named(name) => name,
            };
            self.reading.spend(ITEMS_PER_MEMBER)?;
            if map.is_empty() {
                map = Map::with_capacity(FEW_MEMBERS);
            }
            let value = members.next_value_seed(self.inner()?)?;
            match map.entry(name) {
                Entry::Vacant(vacant) => _ = vacant.insert(value),
                Entry::Occupied(first) => {
                    let name = first.key().clone();
                    return Err(self.reading.fail(JsonError::DuplicateMember(name)));
                }
            }
        }
        Ok(Value::Object(map))
    }
}

/// The name of a member, or the mark of a number.
struct Key;

enum Member {
    Number,
    Named(String),
}

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Member;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Member, E> {
        Ok(if is_number(name) { Member::Number } else { Member::Named(name.to_owned()) })
    }
}

/// Whether `name` marks a number, whose [`Digits`] follow.
pub(crate) fn is_number(name: &str) -> bool {
    name == NUMBER
}

/// The digits behind the mark of a number. Only `serde_json` itself hands over an owned text; a document that has the
/// mark written in it hands over another one, and is refused.
pub(crate) struct Digits;

impl<'de> DeserializeSeed<'de> for Digits {
    type Value = Number;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Number, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Digits {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member with another name: this one is reserved")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Number, E> {
        Err(E::invalid_value(de::Unexpected::Str(value), &self))
    }

    fn visit_string<E: de::Error>(self, digits: String) -> Result<Number, E> {
        digits.parse().map_err(E::custom)
    }
}

/// The member at a dotted path. A name that itself has dots, such as `https://acme.example/org`, is looked for whole first.
pub(crate) fn lookup<'a>(members: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = members.get(path) {
        return Some(value);
    }
    let mut names = path.split('.');
    let first = members.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: B2
    #[test]
    fn duplicate_members_are_refused_at_every_level_after_unescaping() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"x":{"a":1,"b":{"a":1,"\u0061":2}}}"#,
            r#"[{"name":1,"n\u0061me":2}]"#,
        ] {
            let error = parse_strict(text.as_bytes()).unwrap_err();
            assert!(matches!(error, JsonError::DuplicateMember(_)), "{text}: {error}");
        }
    }

    // Proves: B2
    #[test]
    fn unreadable_bodies_are_named_for_what_is_wrong() {
        assert_eq!(parse_strict(b"\xef\xbb\xbf{}"), Err(JsonError::ByteOrderMark));
        assert_eq!(parse_strict(b"{\"a\":\"\xff\"}"), Err(JsonError::NotUtf8));
        for text in [
            "",
            "{",
            "{} x",
            "{}{}",
            "nul",
            "\"\\ud800\"",
            "1e999",
            "-1e999",
            "1e-999",
            "0e99999999999999999999",
            "{\"a\":1,}",
            "NaN",
            "{\"$serde_json::private::Number\":\"1\"}",
            "{\"\\u0024serde_json::private::Number\":\"1\"}",
            "{\"$serde_json::private::Number\":{\"$serde_json::private::Number\":\"1\"}}",
        ] {
            let error = parse_strict(text.as_bytes());
            assert!(matches!(error, Err(JsonError::Syntax(_))), "{text}: {error:?}");
        }
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
        assert!(matches!(parse_strict(deep.as_bytes()), Err(JsonError::Syntax(_))));
        let fits = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(parse_strict(fits.as_bytes()).is_ok());
    }

    // Finding 3.1: a call with 95,000 members took longer than Redis is given.
    #[test]
    fn a_request_has_a_bounded_number_of_parts() {
        let object = |count: usize| {
            let members: Vec<_> = (0..count).map(|n| format!("\"{n}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        let list = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert!(parse_request(object(MAX_MEMBERS).as_bytes()).is_ok());
        assert!(parse_request(list(MAX_ITEMS).as_bytes()).is_ok());
        for text in [
            object(MAX_MEMBERS + 1),
            list(MAX_ITEMS + 1),
            format!("[{},{}]", object(9_999), list(10)),
        ] {
            assert_eq!(parse_request(text.as_bytes()), Err(JsonError::TooManyParts));
            assert!(parse_strict(text.as_bytes()).is_ok());
        }
    }

    // Finding 4.3.
    #[test]
    fn numbers_stay_as_they_are_written() {
        let text = r#"[100000000000000000000001,9223372036854775807,1.10,1e2,-0,0.10000000000000000001,1E-7]"#;
        let value = parse_strict(text.as_bytes()).unwrap();
        assert_eq!(value.to_string().replace("e-7", "E-7").replace("e+2", "e2"), text);
        assert_eq!(
            canonical_exact(&value),
            "[100000000000000000000001,9223372036854775807,1.1,100,0,0.10000000000000000001,1e-7]"
        );
        assert_eq!(
            canonical(&value),
            "[1.0000000000000001e+23,9223372036854776000,1.1,100,0,0.1,1e-7]"
        );
    }

    #[test]
    fn canonical_form_follows_rfc_8785() {
        let value = parse_strict(br#"{"b":1.0,"a":[1e2,"\u00e9\n"],"\ud83d\ude00":0,"\ufb33":0}"#);
        assert_eq!(
            canonical(&value.unwrap()),
            "{\"a\":[100,\"é\\n\"],\"b\":1,\"\u{1f600}\":0,\"\u{fb33}\":0}"
        );
    }
}
