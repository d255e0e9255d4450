//! The difference between two schemas for calls and results.
//!
//! Owns a few changes that are known to widen; every other difference counts as breaking. In general it is undecidable
//! whether a schema accepts everything that another one accepts.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::Drift;
use crate::json::compare;
use crate::schema::same;

/// Keywords that readers use and validators ignore.
const TEXTS: [&str; 9] = [
    "title",
    "description",
    "examples",
    "$comment",
    "deprecated",
    "readOnly",
    "writeOnly",
    "default",
    "$schema",
];
/// The depth to which schemas are compared in parts; below it they are only equal or different.
const MAX_DEPTH: u8 = 32;

/// The change from `old` to `new`; [`Drift::Text`] is the least.
pub(super) fn change(old: Option<&Value>, new: Option<&Value>) -> Drift {
    match (old, new) {
        (None, None) => Drift::Text,
        (None, Some(_)) | (Some(_), None) => Drift::Breaking,
        (Some(old), Some(new)) => between(old, new, 0),
    }
}

fn between(old: &Value, new: &Value, depth: u8) -> Drift {
    if same(old, new) {
        return Drift::Text;
    }
    match (old, new) {
        (Value::Object(old), Value::Object(new)) if depth < MAX_DEPTH => members(old, new, depth),
        (_, Value::Bool(true)) => Drift::Widening,
        (_, Value::Object(new)) if new.is_empty() => Drift::Widening,
        _ => Drift::Breaking,
    }
}

fn members(old: &Map<String, Value>, new: &Map<String, Value>, depth: u8) -> Drift {
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    let differing = names.filter(|name| !TEXTS.contains(&name.as_str()));
    let changes = differing.map(|name| keyword(name, old.get(name), new.get(name), depth));
    changes.max().unwrap_or(Drift::Text)
}

fn keyword(name: &str, old: Option<&Value>, new: Option<&Value>, depth: u8) -> Drift {
    let deeper = depth.saturating_add(1);
    if let (Some(old), Some(new)) = (old, new)
        && same(old, new)
    {
        return Drift::Text;
    }
    match (name, old, new) {
        ("properties" | "$defs" | "definitions", old, new) => properties(old, new, deeper),
        ("required", old, new) => {
            let (old, new) = (listed(old), listed(new));
            subset(&new, &old, old.len() > new.len())
        }
        ("enum", Some(old), Some(new)) => {
            let (old, new) = (listed(Some(old)), listed(Some(new)));
            subset(&old, &new, new.len() > old.len())
        }
        ("type", Some(old), Some(new)) => {
            let (old, new) = (listed(Some(old)), listed(Some(new)));
            let whole =
                |kind: &Value| kind == "integer" && new.iter().any(|kind| *kind == "number");
            let kept = old.iter().all(|kind| new.contains(kind) || whole(kind));
            if kept { Drift::Widening } else { Drift::Breaking }
        }
        ("maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties", old, new) => {
            limit(old, new, Ordering::Greater)
        }
        ("minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties", old, new) => {
            limit(old, new, Ordering::Less)
        }
        ("additionalProperties" | "items" | "unevaluatedProperties", Some(old), Some(new)) => {
            between(old, new, deeper)
        }
        // A limit was removed.
        (
            "additionalProperties"
            | "pattern"
            | "format"
            | "uniqueItems"
            | "multipleOf"
            | "enum"
            | "const"
            | "type"
            | "not"
            | "unevaluatedProperties"
            | "propertyNames",
            Some(_),
            None,
        ) => Drift::Widening,
        // Unknown keywords, compositions and references: the effect is unknown.
        _ => Drift::Breaking,
    }
}

fn properties(old: Option<&Value>, new: Option<&Value>, depth: u8) -> Drift {
    let empty = Map::new();
    let members = |value: Option<&Value>| value.map(Value::as_object).map(|it| it.cloned());
    let (Some(old), Some(new)) =
        (members(old).unwrap_or(Some(empty.clone())), members(new).unwrap_or(Some(empty)))
    else {
        return Drift::Breaking;
    };
    let kept = old.iter().map(|(name, old)| match new.get(name) {
        Some(new) => between(old, new, depth),
        None => Drift::Breaking,
    });
    let added = new.keys().filter(|name| !old.contains_key(*name)).map(|_| Drift::Widening);
    kept.chain(added).max().unwrap_or(Drift::Text)
}

fn listed(value: Option<&Value>) -> Vec<&Value> {
    match value {
        None => Vec::new(),
        Some(Value::Array(items)) => items.iter().collect(),
        Some(value) => vec![value],
    }
}

/// Widening if all of `part` is in `whole`, and something was added or removed.
fn subset(part: &[&Value], whole: &[&Value], differs: bool) -> Drift {
    match part.iter().all(|value| whole.iter().any(|other| same(value, other))) {
        true if differs => Drift::Widening,
        true => Drift::Text,
        false => Drift::Breaking,
    }
}

/// `wider` is the order of a widening new limit to the old one.
fn limit(old: Option<&Value>, new: Option<&Value>, wider: Ordering) -> Drift {
    match (old.and_then(Value::as_number), new.map(Value::as_number)) {
        (Some(_), None) => Drift::Widening,
        (Some(old), Some(Some(new))) if compare(new, old) == Some(wider) => Drift::Widening,
        _ => Drift::Breaking,
    }
}
