//! The values of arguments that a pinned schema allows.
//!
//! Owns which parts of a schema hold for every valid value. An uncertain part, such as one behind a reference, has no
//! [`Domain`], and the lint reports nothing about it.

use serde_json::{Map, Value};

use super::constant::{Arguments, Domain, Literal, Span};
use crate::policy::arguments::{Demand, Presence};

/// Nested objects below this depth are not inspected.
const DEEPEST: usize = 4;

/// The values that `schema`, a tool's input schema, allows for its arguments.
#[must_use]
pub fn of_schema(schema: &Value) -> Arguments {
    let mut found = Arguments::new();
    if let Some(members) = schema.as_object() {
        properties("arguments", members, Presence::Required, DEEPEST, &mut found);
    }
    found
}

fn properties(
    path: &str,
    schema: &Map<String, Value>,
    presence: Presence,
    depth: usize,
    found: &mut Arguments,
) {
    // Next to a reference, some drafts ignore the other keywords.
    if schema.contains_key("$ref") || depth == 0 {
        return;
    }
    let required = schema.get("required").and_then(Value::as_array);
    let needed = |name: &str| required.is_some_and(|all| all.iter().any(|it| it == name));
    let members = schema.get("properties").and_then(Value::as_object);
    for (name, property) in members.into_iter().flatten().filter(|(name, _)| is_plain(name)) {
        let presence = if needed(name) { presence } else { Presence::Optional };
        value(&format!("{path}.{name}"), property, presence, depth, found);
    }
}

/// Whether a path with this name is unambiguous.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['.', '[', ']', '(', ')'])
}

fn value(path: &str, schema: &Value, presence: Presence, depth: usize, found: &mut Arguments) {
    let Some(schema) = schema.as_object().filter(|it| !it.contains_key("$ref")) else { return };
    let listed = match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
        (Some(only), _) => Some(vec![only]),
        (None, Some(all)) => Some(all.iter().collect()),
        (None, None) => None,
    };
    if let Some(all) = listed {
        let literals: Option<Vec<Literal>> = all.into_iter().map(Literal::of).collect();
        if let Some(literals) = literals.filter(|all| !all.is_empty()) {
            found.insert(path.to_owned(), Domain::Listed(literals, presence));
        }
        return;
    }
    let mut size = |least: &str, most: &str| {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let span =
            Span { least: Some((bound(least).unwrap_or(0.0), true)), most: None, whole: true };
        let span = Span { most: bound(most).map(|most| (most, true)), ..span };
        found.insert(format!("size({path})"), Domain::Within(span, presence));
    };
    match schema.get("type").and_then(Value::as_str) {
        Some(kind @ ("integer" | "number")) => {
            let span = Span::of_schema(schema, kind == "integer");
            found.extend(span.map(|span| (path.to_owned(), Domain::Within(span, presence))));
        }
        Some("boolean") => {
            let both = [true, false].map(Literal::Bool).to_vec();
            found.insert(path.to_owned(), Domain::Listed(both, presence));
        }
        Some("string") => size("minLength", "maxLength"),
        Some("array") => {
            size("minItems", "maxItems");
            if let (Some(items), Some(depth)) = (schema.get("items"), depth.checked_sub(1)) {
                value(&format!("{path}[]"), items, Presence::Required, depth, found);
            }
        }
        Some("object") => {
            properties(path, schema, presence, depth.saturating_sub(1), found);
        }
        _ => {}
    }
}

impl Span {
    /// The bounds of a number's schema; none when one of them has an old draft's form, or is too large to be compared
    /// exactly.
    fn of_schema(schema: &Map<String, Value>, whole: bool) -> Option<Self> {
        let bound = |name: &str| match schema.get(name) {
            None => Some(None),
            Some(value) => match Literal::of(value) {
                Some(Literal::Number(number)) => Some(Some(number)),
                Some(Literal::Text(_) | Literal::Bool(_)) | None => None,
            },
        };
        let (least, above) = (bound("minimum")?, bound("exclusiveMinimum")?);
        let (most, below) = (bound("maximum")?, bound("exclusiveMaximum")?);
        let closed = |bound: Option<f64>| bound.map(|bound| (bound, true));
        let open = |bound: Option<f64>| bound.map(|bound| (bound, false));
        let mut span = Self { least: closed(least), most: closed(most), whole };
        span.least = span.higher(open(above));
        span.most = span.lower(open(below));
        Some(span)
    }

    fn higher(&self, other: Option<(f64, bool)>) -> Option<(f64, bool)> {
        match (self.least, other) {
            (Some(one), Some(other)) => {
                Some(if other.0 > one.0 || (other.0 == one.0 && !other.1) { other } else { one })
            }
            (one, other) => one.or(other),
        }
    }

    fn lower(&self, other: Option<(f64, bool)>) -> Option<(f64, bool)> {
        match (self.most, other) {
            (Some(one), Some(other)) => {
                Some(if other.0 < one.0 || (other.0 == one.0 && !other.1) { other } else { one })
            }
            (one, other) => one.or(other),
        }
    }
}

/// The domain of an argument under a record cap: it is present, and at most `most`.
#[must_use]
pub fn capped(most: u64) -> Option<Domain> {
    let most = Literal::of(&most.into())?;
    let Literal::Number(most) = most else { return None };
    let span = Span { least: Some((1.0, true)), most: Some((most, true)), whole: true };
    Some(Domain::Within(span, Presence::Required))
}

/// Restricts the domains in `found` at `path` by the policy's demands.
pub fn demanded(path: &str, demands: &[Demand], presence: Presence, found: &mut Arguments) {
    for demand in demands {
        let sized = format!("size({path})");
        match demand {
            Demand::Maximum(most) => narrow(path, found, |span| {
                let most = Literal::of(&Value::Number(most.clone()));
                if let Some(Literal::Number(most)) = most {
                    span.most = span.lower(Some((most, true)));
                }
            }),
            Demand::Minimum(least) => narrow(path, found, |span| {
                let least = Literal::of(&Value::Number(least.clone()));
                if let Some(Literal::Number(least)) = least {
                    span.least = span.higher(Some((least, true)));
                }
            }),
            Demand::MaxLength(most) | Demand::MaxItems(most) => narrow(&sized, found, |span| {
                span.most = span.lower(Some((exact(*most), true)));
            }),
            Demand::MinLength(least) => narrow(&sized, found, |span| {
                span.least = span.higher(Some((exact(*least), true)));
            }),
            Demand::OneOf(_) | Demand::Matches(_) | Demand::Items(_) => {}
        }
    }
    if presence == Presence::Required {
        for path in [path.to_owned(), format!("size({path})")] {
            if let Some(Domain::Listed(_, own) | Domain::Within(_, own)) = found.get_mut(&path) {
                *own = presence;
            }
        }
    }
}

fn narrow(path: &str, found: &mut Arguments, bound: impl FnOnce(&mut Span)) {
    if let Some(Domain::Within(span, _)) = found.get_mut(path) {
        bound(span);
    }
}

/// Lengths are at most a million.
fn exact(length: u64) -> f64 {
    u32::try_from(length).map_or(f64::INFINITY, f64::from)
}
