//! One pinned member: a value, or its text until the value is needed.
//!
//! Owns when it is parsed. A policy may pin thousands of schemas, of which a worker needs a few.

use std::cell::OnceCell;

use serde_json::Value;

use crate::json;

/// A pinned member.
#[derive(Clone, Debug)]
pub struct Member {
    text: Box<str>,
    value: OnceCell<Value>,
}

impl Member {
    /// A member whose JSON is `text`; parsed when it is needed.
    #[must_use]
    pub fn unread(text: &str) -> Self {
        Self { text: text.into(), value: OnceCell::new() }
    }

    /// Its value; `null`, which is no schema, when the text has no single meaning.
    #[must_use]
    pub fn value(&self) -> &Value {
        self.value.get_or_init(|| json::parse_strict(self.text.as_bytes()).unwrap_or_default())
    }
}

impl From<Value> for Member {
    fn from(value: Value) -> Self {
        Self { text: Box::default(), value: OnceCell::from(value) }
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        let same_text = !self.text.is_empty() && self.text == other.text;
        same_text || self.value() == other.value()
    }
}

impl Eq for Member {}
