//! JSON read without mercy and written canonically.
//!
//! Owns the rules by which a document has exactly one meaning: no duplicate member at any level
//! (after unescaping), bounded depth, valid UTF-8, nothing after the value. Two parsers that
//! disagree about a document are how a gateway is bypassed; such documents are refused here.

mod canonical;

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

pub use canonical::canonical;

/// Nesting beyond this is refused; far above what MCP messages need, far below the stack.
pub const MAX_DEPTH: usize = 64;

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
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("the body is not valid UTF-8"),
            Self::ByteOrderMark => f.write_str("the body starts with a byte-order mark"),
            Self::Syntax(detail) => write!(f, "the body is not readable JSON: {detail}"),
            Self::DuplicateMember(name) => write!(f, "the member {name:?} occurs twice"),
        }
    }
}

/// Parses one JSON text strictly.
///
/// # Errors
/// See [`JsonError`]; never partial.
pub fn parse_strict(bytes: &[u8]) -> Result<Value, JsonError> {
    if bytes.starts_with(&[0xef, 0xbb, 0xbf]) {
        return Err(JsonError::ByteOrderMark);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::NotUtf8)?;
    let mut duplicate = None;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: MAX_DEPTH, duplicate: &mut duplicate }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    match (value, duplicate) {
        (_, Some(name)) => Err(JsonError::DuplicateMember(name)),
        (Ok(value), None) => Ok(value),
        (Err(error), None) => Err(JsonError::Syntax(error.to_string())),
    }
}

/// One value, read strictly, as a part of something that is read otherwise.
pub(crate) struct Strict<'a> {
    /// How many levels may still open.
    pub(crate) depth: usize,
    /// The member that occurs twice, if one does.
    pub(crate) duplicate: &'a mut Option<String>,
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
        Ok(Strict { depth, duplicate: self.duplicate })
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

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner()?)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if map.contains_key(&name) {
                *self.duplicate = Some(name);
                return Err(de::Error::custom("duplicate member"));
            }
            let value = members.next_value_seed(self.inner()?)?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
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
        for text in ["", "{", "{} x", "{}{}", "nul", "\"\\ud800\"", "1e999", "{\"a\":1,}"] {
            let error = parse_strict(text.as_bytes());
            assert!(matches!(error, Err(JsonError::Syntax(_))), "{text}: {error:?}");
        }
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
        assert!(matches!(parse_strict(deep.as_bytes()), Err(JsonError::Syntax(_))));
        let fits = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(parse_strict(fits.as_bytes()).is_ok());
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
