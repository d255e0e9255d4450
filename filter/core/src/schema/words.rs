//! Kinds of values, bounds and counts: whether they hold, and what they are called.
//!
//! Owns the words of a refusal that a model repairs its call by.

use std::cmp::Ordering;

use serde_json::Value;

use super::number::is_whole;
use super::rule::{Bound, Kind, Range};

impl Kind {
    pub(super) fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Null,
            Self::Boolean,
            Self::Integer,
            Self::Number,
            Self::String,
            Self::Array,
            Self::Object,
        ];
        all.into_iter().find(|kind| kind.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }

    pub(super) fn is_of(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Integer, Value::Number(number)) => is_whole(number),
            (Self::Null, Value::Null)
            | (Self::Boolean, Value::Bool(_))
            | (Self::Number, Value::Number(_))
            | (Self::String, Value::String(_))
            | (Self::Array, Value::Array(_))
            | (Self::Object, Value::Object(_)) => true,
            _ => false,
        }
    }
}

impl Bound {
    pub(super) fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Least => order.is_ge(),
            Self::Most => order.is_le(),
            Self::Above => order.is_gt(),
            Self::Below => order.is_lt(),
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Least => "at least",
            Self::Most => "at most",
            Self::Above => "more than",
            Self::Below => "less than",
        }
    }
}

impl Range {
    pub(super) fn has(self, count: usize) -> bool {
        u64::try_from(count).is_ok_and(|count| (self.least..=self.most).contains(&count))
    }

    pub(super) fn words(self) -> String {
        match (self.least, self.most) {
            (least, u64::MAX) => format!("at least {least}"),
            (0, most) => format!("at most {most}"),
            (least, most) => format!("{least} to {most}"),
        }
    }
}

pub(super) fn listed(values: &[Value]) -> String {
    let texts: Vec<_> = values.iter().take(20).map(Value::to_string).collect();
    texts.join(", ")
}
