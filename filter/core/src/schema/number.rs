//! Equality and arithmetic of JSON Schema: 1 and 1.0 are one number.
//!
//! Owns their meaning for values. Numbers are compared by every written digit: a reader that rounds and one that does
//! not must not disagree about the checked value.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::json::{Decimal, is_plain_integer};
use crate::order;

pub(super) use crate::json::compare;

/// Whether two values are equal as JSON, regardless of the order of members and the spelling of numbers.
#[must_use]
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || compare(one, other) == Some(Ordering::Equal)
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, value)| other.get(name).is_some_and(|it| same(value, it)))
        }
        (one, other) => one == other,
    }
}

/// Whether the number is whole, in any spelling.
pub(super) fn is_whole(number: &Number) -> bool {
    is_plain_integer(number.as_str())
        || Decimal::of(number.as_str()).is_some_and(|number| number.is_whole())
}

/// Whether `number` is a multiple of `of`.
pub(super) fn is_multiple(number: &Number, of: &Number) -> bool {
    match (Decimal::of(number.as_str()), Decimal::of(of.as_str())) {
        (Some(number), Some(of)) => number.is_multiple(&of),
        _ => false,
    }
}

/// A text that is the same for two values exactly when they are [`same`].
pub(super) fn key(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => match Decimal::of(number.as_str()) {
            Some(number) => out.push_str(&number.text()),
            None => out.push_str(number.as_str()),
        },
        Value::Array(items) => {
            out.push('[');
            for item in items {
                key(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            order::sort_by(&mut members, |(one, _), (other, _)| one.cmp(other));
            out.push('{');
            for (name, value) in members {
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                key(value, out);
                out.push(',');
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}
