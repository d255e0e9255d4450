//! Compares argument rules with the values that pinned schemas allow: finds rules that refuse nothing, and rules that
//! refuse everything.

use std::rc::Rc;

use super::{Warning, WarningKind};
use crate::pattern::Budget;
use crate::policy::arguments::{Demand, Presence};
use crate::policy::condition::lint::{Arguments, Domain, Literal, Span};

/// The effect of a rule on the allowed values.
enum Effect {
    /// It refuses some of them, or the effect is unknown.
    Some,
    /// It refuses none.
    None(String),
    /// It refuses all.
    All(String),
}

/// Warns when `demand` on `path` has no effect for all of `left`, which are all tools if `closed`, or when it refuses
/// all values of one of them.
pub(super) fn warn(
    place: &str,
    path: &str,
    demand: &Demand,
    (left, closed): (&[Rc<Arguments>], bool),
    warnings: &mut Vec<Warning>,
) {
    let field = match demand {
        Demand::OneOf(_) => "enum",
        Demand::Matches(_) => "pattern",
        Demand::MinLength(_) => "min_length",
        Demand::MaxLength(_) => "max_length",
        Demand::Minimum(_) => "minimum",
        Demand::Maximum(_) => "maximum",
        Demand::MaxItems(_) => "max_items",
        Demand::Items(inside) => {
            let (place, path) = (format!("{place}.items"), format!("{path}[]"));
            inside.iter().for_each(|it| warn(&place, &path, it, (left, closed), warnings));
            return;
        }
    };
    let effects: Vec<Effect> = left.iter().map(|left| effect(path, demand, left)).collect();
    let all = effects.iter().find_map(|effect| match effect {
        Effect::All(leaves) => Some(leaves),
        Effect::Some | Effect::None(_) => None,
    });
    let none = effects.iter().map(|effect| match effect {
        Effect::None(leaves) => Some(leaves),
        Effect::Some | Effect::All(_) => None,
    });
    let none = none.collect::<Option<Vec<_>>>().filter(|_| closed);
    let none = none.and_then(|all| all.first().copied());
    let (kind, leaves, effect, expected) = match (all, none) {
        (Some(leaves), _) => (
            WarningKind::NothingLeft,
            leaves,
            "every call with the argument is refused",
            "a value or bound of the pinned schema",
        ),
        (None, Some(leaves)) => (
            WarningKind::AlwaysTrue,
            leaves,
            "the rule refuses nothing",
            "a stricter value or bound than that",
        ),
        (None, None) => return,
    };
    warnings.push(Warning {
        path: format!("{place}.{field}"),
        kind,
        found: format!(
            "{demand}, where the pinned schema and the tool's rules leave {leaves}: {effect}"
        ),
        expected: expected.to_owned(),
    });
}

/// Whether calls without the argument are refused already.
pub(super) fn is_required(path: &str, left: &Arguments) -> bool {
    let sized = format!("size({path})");
    [path, &sized].into_iter().filter_map(|path| left.get(path)).any(|domain| match domain {
        Domain::Listed(_, presence) | Domain::Within(_, presence) => {
            *presence == Presence::Required
        }
        Domain::Texts(_) | Domain::Numbers(..) | Domain::AnyText | Domain::AnyNumber => false,
    })
}

/// A whole number as a double; a number that a double cannot represent is larger than all bounds.
pub(super) fn number(value: u64) -> f64 {
    match Literal::of(&value.into()) {
        Some(Literal::Number(number)) => number,
        Some(Literal::Text(_) | Literal::Bool(_)) | None => f64::INFINITY,
    }
}

fn effect(path: &str, demand: &Demand, left: &Arguments) -> Effect {
    if let Some(Domain::Listed(values, _)) = left.get(path) {
        let met: Option<Vec<bool>> = values.iter().map(|value| meets(demand, value)).collect();
        let Some(met) = met else { return Effect::Some };
        let told: Vec<String> = values.iter().map(Literal::told).collect();
        let told = told.get(..10).unwrap_or(&told).join(", ");
        return match (met.iter().all(|it| *it), met.iter().any(|it| *it)) {
            (true, _) => Effect::None(told),
            (_, false) => Effect::All(told),
            (false, true) => Effect::Some,
        };
    }
    let sized = format!("size({path})");
    let bound = |number: &serde_json::Number| {
        Literal::of(&serde_json::Value::Number(number.clone())).and_then(|it| match it {
            Literal::Number(number) => Some(number),
            Literal::Text(_) | Literal::Bool(_) => None,
        })
    };
    match demand {
        Demand::Maximum(most) => span(path, left).zip(bound(most)).map_or(Effect::Some, upper),
        Demand::Minimum(least) => span(path, left).zip(bound(least)).map_or(Effect::Some, lower),
        Demand::MaxLength(most) | Demand::MaxItems(most) => {
            span(&sized, left).map_or(Effect::Some, |span| upper((span, number(*most))))
        }
        Demand::MinLength(least) => {
            span(&sized, left).map_or(Effect::Some, |span| lower((span, number(*least))))
        }
        Demand::OneOf(values) => {
            let Some(span) = span(path, left) else { return Effect::Some };
            let within = values.iter().any(|value| match Literal::of(value) {
                Some(Literal::Number(number)) => span.has(number),
                Some(Literal::Text(_) | Literal::Bool(_)) => false,
                // A number that a double cannot represent may be within the bounds.
                None => true,
            });
            // A value of another type has a warning of its own.
            let numbers = values.iter().any(serde_json::Value::is_number);
            if within || !numbers { Effect::Some } else { Effect::All(span.told()) }
        }
        Demand::Matches(_) | Demand::Items(_) => Effect::Some,
    }
}

fn span(path: &str, left: &Arguments) -> Option<Span> {
    match left.get(path) {
        Some(Domain::Within(span, _)) => Some(*span),
        _ => None,
    }
}

fn upper((span, most): (Span, f64)) -> Effect {
    let beyond =
        span.least.is_some_and(|(least, closed)| least > most || (least == most && !closed));
    match span.most {
        Some((own, _)) if own <= most => Effect::None(span.told()),
        _ if beyond => Effect::All(span.told()),
        _ => Effect::Some,
    }
}

fn lower((span, least): (Span, f64)) -> Effect {
    let beyond = span.most.is_some_and(|(most, closed)| most < least || (most == least && !closed));
    match span.least {
        Some((own, _)) if own >= least => Effect::None(span.told()),
        _ if beyond => Effect::All(span.told()),
        _ => Effect::Some,
    }
}

/// Whether a value meets `demand`; `None` when unknown.
fn meets(demand: &Demand, value: &Literal) -> Option<bool> {
    let own = |number: &serde_json::Number| number.as_str().parse::<f64>().ok();
    let length = |text: &str| u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    Some(match (demand, value) {
        (Demand::OneOf(values), value) => {
            values.iter().any(|it| Literal::of(it).as_ref() == Some(value))
        }
        (Demand::Matches(source), Literal::Text(text)) => {
            Budget::default().matches(source, text).ok()?
        }
        (Demand::MinLength(least), Literal::Text(text)) => length(text) >= *least,
        (Demand::MaxLength(most), Literal::Text(text)) => length(text) <= *most,
        (Demand::Minimum(least), Literal::Number(number)) => *number >= own(least)?,
        (Demand::Maximum(most), Literal::Number(number)) => *number <= own(most)?,
        // A value of another type has a warning of its own.
        _ => return None,
    })
}
