//! The form of a policy's rules on arguments.
//!
//! Owns the allowed fields of an argument, and which demands contradict each other.

use serde_json::{Number, Value};

use super::LONGEST_GLOB;
use super::enforcement::enforcement;
use crate::decode::{Faults, Fields, Node};
use crate::json::compare;
use crate::order;
use crate::pattern;
use crate::policy::arguments::{ArgumentRule, Demand, Presence};

/// An operator with more rules on one tool's arguments should use a schema.
const MOST_ARGUMENTS: usize = 50;
/// The largest bound of a length.
const MOST: u64 = 1_000_000;
/// The most values of an `enum`.
const MOST_VALUES: usize = 1_000;
const EXPECTED: &str = "an object with at least one of required, enum, pattern, min_length, max_length, minimum, \
     maximum, max_items or items, such as {pattern: ^[a-z]+$}";

/// The field `arguments`: one member for each argument.
pub(super) fn arguments(node: Node<'_>, faults: &mut Faults) -> Option<Box<[ArgumentRule]>> {
    let expected = "one member for each argument, such as {query: {pattern: ^[a-z]+$}}";
    let place = node.clone();
    let members = node.members(faults, expected)?;
    if members.is_empty() || members.len() > MOST_ARGUMENTS {
        place.fault(faults, format!("1 to {MOST_ARGUMENTS} arguments"));
    }
    let mut rules = Vec::new();
    let mut whole = true;
    for (name, node) in members {
        if !(1..=LONGEST_GLOB).contains(&name.len()) {
            let expected = format!("an argument's name of 1 to {LONGEST_GLOB} bytes");
            faults.push(node.path(), format!("a name of {} bytes", name.len()), expected);
        }
        match rule(name, node, faults) {
            Some(rule) => rules.push(rule),
            None => whole = false,
        }
    }
    // The order of rules in the document does not matter: the same rules are the same policy.
    order::sort_by(&mut rules, |one, other| one.argument.cmp(&other.argument));
    whole.then(|| rules.into())
}

fn rule(argument: &str, node: Node<'_>, faults: &mut Faults) -> Option<ArgumentRule> {
    let place = node.clone();
    let mut fields = node.object(faults, EXPECTED)?;
    let required = match fields.optional("required") {
        Some(node) => node.boolean(faults).map(Some),
        None => Some(None),
    };
    let demands = demands(&mut fields, faults).and_then(|mut demands| {
        if let Some(node) = fields.optional("max_items") {
            demands.push(Demand::MaxItems(node.integer(faults, 0..=MOST, "items")?));
        }
        if let Some(node) = fields.optional("items") {
            demands.push(Demand::Items(inside(node, faults)?.into()));
        }
        consistent(&demands, &place, faults);
        Some(demands)
    });
    let enforcement = enforcement(&mut fields, faults);
    fields.finish(faults);
    let (required, demands) = (required?, demands?);
    let mut named = place.names().into_iter();
    let says_nothing = named.all(|name| ["required", "enforcement"].contains(&name));
    if says_nothing && required != Some(true) {
        place.fault(faults, EXPECTED);
    }
    let presence = if required == Some(true) { Presence::Required } else { Presence::Optional };
    let (argument, demands) = (argument.into(), demands.into());
    Some(ArgumentRule { argument, presence, demands, enforcement: enforcement? })
}

/// The demands on a value that is not a list.
fn demands(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Vec<Demand>> {
    let mut demands = Vec::new();
    let mut add = |demand: Option<Demand>| demands.push(demand);
    if let Some(node) = fields.optional("enum") {
        add(values(node, faults).map(Vec::into).map(Demand::OneOf));
    }
    if let Some(node) = fields.optional("pattern") {
        add(matching(&node, faults).map(Demand::Matches));
    }
    let mut length = |name, demand: fn(u64) -> Demand| {
        if let Some(node) = fields.optional(name) {
            add(node.integer(faults, 0..=MOST, "characters").map(demand));
        }
    };
    length("min_length", Demand::MinLength);
    length("max_length", Demand::MaxLength);
    let mut bound = |name, demand: fn(Number) -> Demand| {
        if let Some(node) = fields.optional(name) {
            let number = node.json(|value| value.as_number().cloned());
            if number.is_none() {
                node.fault(faults, "a number");
            }
            add(number.map(demand));
        }
    };
    bound("minimum", Demand::Minimum);
    bound("maximum", Demand::Maximum);
    demands.into_iter().collect()
}

/// The demands on each item of a list; items are not lists themselves.
fn inside(node: Node<'_>, faults: &mut Faults) -> Option<Vec<Demand>> {
    const ITEMS: &str = "what each item must be, such as {pattern: ^[a-z]+$}";
    let place = node.clone();
    let mut fields = node.object(faults, ITEMS)?;
    let demands = demands(&mut fields, faults);
    fields.finish(faults);
    if place.names().is_empty() {
        place.fault(faults, ITEMS);
    }
    consistent(demands.as_deref()?, &place, faults);
    demands
}

fn values(node: Node<'_>, faults: &mut Faults) -> Option<Vec<Value>> {
    const LIST: &str = "a list of texts, numbers, true, false or null, such as [free, pro]";
    let items = node.clone().items(faults, LIST)?;
    if items.is_empty() || items.len() > MOST_VALUES {
        node.fault(faults, format!("1 to {MOST_VALUES} values"));
    }
    let values = items.into_iter().map(|item| {
        let value = item.value();
        if value.is_object() || value.is_array() {
            item.fault(faults, LIST);
        }
        value.clone()
    });
    Some(values.collect())
}

fn matching(node: &Node<'_>, faults: &mut Faults) -> Option<Box<str>> {
    let source = node.clone().text(faults, pattern::EXPECTED, Some)?;
    if let Some(found) = pattern::mistake(source) {
        faults.push(node.path(), found, pattern::EXPECTED);
        return None;
    }
    Some(source.into())
}

/// Reports demands that contradict each other.
fn consistent(demands: &[Demand], place: &Node<'_>, faults: &mut Faults) {
    let kinds = |demand: &Demand| match demand {
        Demand::OneOf(_) => None,
        Demand::Matches(_) | Demand::MinLength(_) | Demand::MaxLength(_) => Some("a text"),
        Demand::Minimum(_) | Demand::Maximum(_) => Some("a number"),
        Demand::MaxItems(_) | Demand::Items(_) => Some("a list"),
    };
    let mut named = demands.iter().filter_map(kinds);
    if let Some(first) = named.next()
        && let Some(other) = named.find(|kind| *kind != first)
    {
        let found = format!("demands on {first} and on {other}: no value meets them");
        faults.push(place.path(), found, "demands on values of one kind");
    }
    let crossed = demands.iter().any(|one| {
        demands.iter().any(|other| match (one, other) {
            (Demand::MinLength(least), Demand::MaxLength(most)) => least > most,
            (Demand::Minimum(least), Demand::Maximum(most)) => {
                compare(least, most).is_some_and(|order| order.is_gt())
            }
            _ => false,
        })
    });
    if crossed {
        let found = "a lower bound above the upper one: no value meets them";
        faults.push(place.path(), found, "a lower bound that is not above the upper one");
    }
}
