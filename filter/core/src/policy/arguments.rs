//! A policy's rules on single arguments of a call, in addition to the pinned schema.
//!
//! Owns the rules and the message for an argument that violates one. The schema is the server's and these rules are the
//! operator's, so that a pin stays the server's text. Never repeats a value: it may be a secret.

use std::fmt;

use serde_json::{Map, Number, Value};

use crate::json::{compare, misspelt};
use crate::pattern::{Budget, LONGEST_TEXT};
use crate::policy::enforcement::Enforcement;
use crate::schema::same;

/// The rule for one argument.
#[derive(Clone, Debug, PartialEq)]
pub struct ArgumentRule {
    /// The argument.
    pub argument: Box<str>,
    /// Whether a call without it is refused.
    pub presence: Presence,
    /// The demands on its value, which must all hold.
    pub demands: Box<[Demand]>,
    /// Whether it is in shadow mode.
    pub enforcement: Enforcement,
}

/// Whether an argument is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// A call without it complies.
    Optional,
    /// A call without it is refused.
    Required,
}

/// One demand on a value. A value of another type violates it: a number is no text that matches.
#[derive(Clone, Debug, PartialEq)]
pub enum Demand {
    /// One of these.
    OneOf(Box<[Value]>),
    /// A text that matches.
    Matches(Box<str>),
    /// A text of at least this many characters.
    MinLength(u64),
    /// A text of at most this many characters.
    MaxLength(u64),
    /// A number that is not smaller.
    Minimum(Number),
    /// A number that is not larger.
    Maximum(Number),
    /// A list of at most this many items.
    MaxItems(u64),
    /// A list whose items all meet these demands.
    Items(Box<[Demand]>),
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The most characters of an expectation in a message.
        const MOST_TOLD: usize = 300;
        match self {
            Self::OneOf(values) => {
                let values: Vec<_> = values.iter().map(Value::to_string).collect();
                let values: String = values.join(", ").chars().take(MOST_TOLD).collect();
                write!(f, "one of {values}")
            }
            Self::Matches(source) => {
                let source: String = source.chars().take(MOST_TOLD).collect();
                write!(f, "a text of at most {LONGEST_TEXT} bytes that matches {source}")
            }
            Self::MinLength(least) => write!(f, "a text of at least {least} characters"),
            Self::MaxLength(most) => write!(f, "a text of at most {most} characters"),
            Self::Minimum(least) => write!(f, "a number of at least {least}"),
            Self::Maximum(most) => write!(f, "a number of at most {most}"),
            Self::MaxItems(most) => write!(f, "a list of at most {most} items"),
            Self::Items(_) => f.write_str("a list"),
        }
    }
}

impl ArgumentRule {
    /// The demands that `arguments` violate.
    pub(crate) fn broken_by(
        &self,
        arguments: &Map<String, Value>,
        budget: &mut Budget,
    ) -> Option<String> {
        let argument = &*self.argument;
        if misspelt(arguments, &[argument]).is_some() {
            return Some(format!("{argument} must be spelled exactly so"));
        }
        match (arguments.get(argument), self.presence) {
            (None, Presence::Optional) => None,
            (None, Presence::Required) => Some(format!("{argument} is required")),
            (Some(value), _) => {
                let unmet = unmet(argument, value, &self.demands, budget)?;
                Some(format!("{}: expected {}", unmet.place, unmet.demand))
            }
        }
    }
}

/// A violated demand, and its position.
struct Unmet<'r> {
    place: String,
    demand: &'r Demand,
}

fn unmet<'r>(
    place: &str,
    value: &Value,
    demands: &'r [Demand],
    budget: &mut Budget,
) -> Option<Unmet<'r>> {
    demands.iter().find_map(|demand| {
        let inside = match (demand, value) {
            (Demand::Items(demands), Value::Array(items)) => {
                let mut each = items.iter().enumerate();
                return each.find_map(|(at, item)| {
                    unmet(&format!("{place}[{at}]"), item, demands, budget)
                });
            }
            _ => demand.holds(value, budget),
        };
        (!inside).then(|| Unmet { place: place.to_owned(), demand })
    })
}

impl Demand {
    fn holds(&self, value: &Value, budget: &mut Budget) -> bool {
        let length = |text: &str| u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        match (self, value) {
            // Each item of a list is compared with each value.
            (Self::OneOf(values), value) => {
                budget.compares(values.len()) && values.iter().any(|one| same(one, value))
            }
            // A match that takes too long counts as none.
            (Self::Matches(source), Value::String(text)) => {
                budget.matches(source, text).unwrap_or(false)
            }
            (Self::MinLength(least), Value::String(text)) => length(text) >= *least,
            (Self::MaxLength(most), Value::String(text)) => length(text) <= *most,
            (Self::Minimum(least), Value::Number(number)) => {
                compare(number, least).is_some_and(|order| order.is_ge())
            }
            (Self::Maximum(most), Value::Number(number)) => {
                compare(number, most).is_some_and(|order| order.is_le())
            }
            (Self::MaxItems(most), Value::Array(items)) => {
                u64::try_from(items.len()).is_ok_and(|items| items <= *most)
            }
            (
                Self::Matches(_)
                | Self::MinLength(_)
                | Self::MaxLength(_)
                | Self::Minimum(_)
                | Self::Maximum(_)
                | Self::MaxItems(_)
                | Self::Items(_),
                _,
            ) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(presence: Presence, demands: Vec<Demand>) -> ArgumentRule {
        ArgumentRule {
            argument: "query".into(),
            presence,
            demands: demands.into(),
            enforcement: Enforcement::Enforce,
        }
    }

    fn told(rule: &ArgumentRule, arguments: Value) -> Option<String> {
        rule.broken_by(arguments.as_object().unwrap(), &mut Budget::default())
    }

    // Proves: A10
    #[test]
    fn a_value_of_another_kind_meets_no_demand() {
        let demands = [
            (Demand::OneOf([json!("a"), json!(1)].into()), json!("a"), json!("b")),
            (Demand::Matches("^a+$".into()), json!("aa"), json!("ab")),
            (Demand::MinLength(2), json!("éé"), json!("é")),
            (Demand::MaxLength(2), json!("éé"), json!("eee")),
            (Demand::Minimum(3.into()), json!(3.0), json!(2)),
            (Demand::Maximum(3.into()), json!(3), json!(3.5)),
            (Demand::MaxItems(1), json!([1]), json!([1, 2])),
            (Demand::Items([Demand::Maximum(3.into())].into()), json!([1, 3]), json!([1, 4])),
        ];
        for (demand, good, bad) in demands {
            let rule = rule(Presence::Optional, vec![demand]);
            assert_eq!(told(&rule, json!({ "query": good })), None, "{rule:?}");
            let others = [bad, json!(null), json!({}), json!(true)];
            for other in others {
                assert!(told(&rule, json!({ "query": other })).is_some(), "{rule:?} {other}");
            }
            assert_eq!(told(&rule, json!({})), None);
            assert!(told(&rule, json!({"Query": "a"})).is_some());
        }
        let required = rule(Presence::Required, Vec::new());
        assert_eq!(told(&required, json!({})).as_deref(), Some("query is required"));
        assert_eq!(told(&required, json!({"query": null})), None);
    }

    /// Each of a million items was compared with each of a thousand values.
    #[test]
    fn comparisons_of_items_with_values_have_a_budget() {
        let values: Vec<Value> = (0..1_000).map(|number| json!(number)).collect();
        let items = Demand::Items([Demand::OneOf(values.into())].into());
        let rule = rule(Presence::Optional, vec![items]);
        let list = |items: usize| json!({ "query": vec![json!(999); items] });
        assert_eq!(told(&rule, list(1_000)), None);
        assert!(told(&rule, list(2_000)).is_some());
    }

    #[test]
    fn the_message_says_where_and_what_and_not_the_value() {
        let items = Demand::Items([Demand::Matches("^[a-z]+$".into())].into());
        let rule = rule(Presence::Optional, vec![items]);
        assert_eq!(
            told(&rule, json!({"query": ["a", "secret 1"]})).as_deref(),
            Some("query[1]: expected a text of at most 65536 bytes that matches ^[a-z]+$")
        );
    }
}
