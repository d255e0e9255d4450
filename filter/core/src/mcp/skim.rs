//! A server's answer, without what nobody looks at.
//!
//! Owns which members of an answer are read: those that [`super::outcome`] asks for. Answers carry a lot
//! of text and rows; to skip them costs a third of what it costs to build them. What is skipped is
//! checked less: it need not be UTF-8, nor of bounded depth. It passes to the client either way.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::outcome::LISTS;
use crate::json::{Digits, is_number};

/// The message in `bytes`; `None` when it is no JSON. Lists keep their length, and not their items.
#[must_use]
pub fn message(bytes: &[u8]) -> Option<Value> {
    read(serde_json::Deserializer::from_slice(bytes), &MESSAGE)
}

/// The lists in `text`, with which a tool's result may come.
pub(super) fn lists(text: &str) -> Option<Value> {
    read(serde_json::Deserializer::from_str(text), &LISTED)
}

fn read<'de, R: serde_json::de::Read<'de>>(
    mut reader: serde_json::Deserializer<R>,
    shape: &'static Shape,
) -> Option<Value> {
    let value = shape.deserialize(&mut reader).ok()?;
    reader.end().ok().map(|()| value)
}

/// What of a value is kept. A scalar always is.
struct Shape {
    /// Of an object, these members.
    members: &'static [(&'static str, &'static Shape)],
    /// Of a list, this of each item; without, only how many there are.
    items: Option<&'static Shape>,
}

const COUNTED: Shape = Shape { members: &[], items: None };
const TASK: Shape = Shape { members: &[("taskId", &COUNTED)], items: None };
const CONTENT: Shape = Shape { members: &[("text", &COUNTED)], items: None };
const LISTED: Shape = Shape {
    members: &{
        let [a, b, c, d, e, f] = LISTS;
        [(a, &COUNTED), (b, &COUNTED), (c, &COUNTED), (d, &COUNTED), (e, &COUNTED), (f, &COUNTED)]
    },
    items: None,
};
const RESULT: Shape = Shape {
    members: &[
        ("isError", &COUNTED),
        ("structuredContent", &LISTED),
        ("content", &Shape { members: &[], items: Some(&CONTENT) }),
        ("resultType", &COUNTED),
        ("taskId", &COUNTED),
        ("task", &TASK),
    ],
    items: None,
};
const MESSAGE: Shape = Shape {
    members: &[
        ("id", &COUNTED),
        ("error", &Shape { members: &[("code", &COUNTED)], items: None }),
        ("result", &RESULT),
    ],
    items: None,
};

impl<'de> DeserializeSeed<'de> for &'static Shape {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &'static Shape {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        match self.items {
            Some(shape) => {
                while let Some(item) = items.next_element_seed(shape)? {
                    list.push(item);
                }
            }
            None => {
                while items.next_element::<IgnoredAny>()?.is_some() {
                    list.push(Value::Null);
                }
            }
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(known) = members.next_key_seed(Name(self))? {
            match known {
                // The last of several counts, as for `Value`.
                Known::Member(name, shape) => {
                    map.insert(name.to_owned(), members.next_value_seed(shape)?);
                }
                Known::Number => return members.next_value_seed(Digits).map(Value::Number),
                Known::Other => _ = members.next_value::<IgnoredAny>()?,
            }
        }
        Ok(map.into())
    }
}

/// A member's name: which of the shape's it is.
struct Name(&'static Shape);

enum Known {
    Member(&'static str, &'static Shape),
    /// What follows are the digits of a number.
    Number,
    Other,
}

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Known;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Known, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Known;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Known, E> {
        Ok(match self.0.members.iter().find(|(known, _)| *known == name) {
            Some((known, shape)) => Known::Member(known, shape),
            None if is_number(name) => Known::Number,
            None => Known::Other,
        })
    }
}
