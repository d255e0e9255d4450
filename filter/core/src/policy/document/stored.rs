//! Reads a stored document without parsing its pinned schemas.
//!
//! Owns the position of those schemas. They are most of a large document, and a worker that parses one delays every
//! other request. Here they are only checked to be JSON.

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::json::{MAX_DEPTH, Reading, Strict};

/// Reads `text` strictly; the result has a text with the JSON of each pinned schema.
pub(super) fn read(text: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(text).ok()?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = StoredValue { place: Place::Document, depth: MAX_DEPTH }.deserialize(&mut reader);
    reader.end().ok().and(value.ok())
}

/// The position on the path to pinned schemas.
#[derive(Clone, Copy)]
enum Place {
    Document,
    Connectors,
    Connector,
    Tools,
    Tool,
    Schema,
    Elsewhere,
}

impl Place {
    fn member(self, name: &str) -> Self {
        match (self, name) {
            (Self::Document, "connectors") => Self::Connectors,
            (Self::Connectors, _) => Self::Connector,
            (Self::Connector, "tools") => Self::Tools,
            (Self::Tools, _) => Self::Tool,
            (Self::Tool, "input_schema" | "output_schema") => Self::Schema,
            (Self::Document | Self::Connector | Self::Tool | Self::Schema | Self::Elsewhere, _) => {
                Self::Elsewhere
            }
        }
    }
}

struct StoredValue {
    place: Place,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for StoredValue {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.place {
            Place::Schema => {
                let raw: &RawValue = Deserialize::deserialize(deserializer)?;
                Ok(Value::String(raw.get().to_owned()))
            }
            Place::Elsewhere => {
                let reading = &mut Reading::of_any_size();
                Strict { depth: self.depth, reading }.deserialize(deserializer)
            }
            Place::Document | Place::Connectors | Place::Connector | Place::Tools | Place::Tool => {
                deserializer.deserialize_map(self)
            }
        }
    }
}

/// A value on the path to a schema that is not an object is a fault anyway.
impl<'de> Visitor<'de> for StoredValue {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.depth.checked_sub(1);
        let depth = depth.ok_or_else(|| de::Error::custom("nested too deeply"))?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let part = Self { place: self.place.member(&name), depth };
            let value = members.next_value_seed(part)?;
            if map.insert(name, value).is_some() {
                return Err(de::Error::custom("a member occurs twice"));
            }
        }
        Ok(Value::Object(map))
    }
}
