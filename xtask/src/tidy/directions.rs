//! The direction of imports inside an exchange (docs/decisions/0011-an-exchange-runs-one-way.md).
//!
//! Owns the order of its layers. Reads paths as text: it does not check imports by a list in braces, or names in a test
//! module.

use super::Finding;
use crate::source::Source;

const EXCHANGE: &str = "filter/core/src/exchange/";
/// From the importing layers to the imported ones.
const LAYERS: [&str; 10] = [
    "mod", "flow", "stages", "handover", "actions", "turn", "checks", "grant", "request", "session",
];
/// The layer whose members must not import each other.
const APART: &str = "stages";

/// Imports that violate the order.
pub(super) fn one_way(source: &Source) -> Vec<Finding> {
    let Some(place) = source.path.strip_prefix(EXCHANGE).and_then(|it| it.strip_suffix(".rs"))
    else {
        return Vec::new();
    };
    let (layer, inside) =
        place.split_once('/').map_or((place, false), |(folder, _)| (folder, true));
    let code = source.lines().take_while(|(_, line)| line.trim() != "#[cfg(test)]");
    let code = code.filter(|(_, line)| !line.trim_start().starts_with("//"));
    code.flat_map(|(number, line)| targets(line, inside).map(move |target| (number, target)))
        .filter_map(|(number, target)| {
            fault(layer, target).map(|message| Finding::new(number, message))
        })
        .collect()
}

/// The parts of the exchange that a line names: a layer, or `None` for a member of the same layer.
fn targets(line: &str, inside: bool) -> impl Iterator<Item = Option<&str>> {
    let up = if inside { "super::super::" } else { "super::" };
    let layers = ["crate::exchange::", up]
        .into_iter()
        .flat_map(move |prefix| line.split(prefix).skip(1).map(|rest| Some(first_name(rest))));
    let siblings = if inside { line.matches("super::").count() } else { 0 };
    let siblings = siblings.saturating_sub(2 * line.matches("super::super::").count());
    layers.chain((0..siblings).map(|_| None))
}

fn first_name(path: &str) -> &str {
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    let name = path.get(..end).unwrap_or_default();
    // Types of the exchange itself.
    if name.starts_with(char::is_uppercase) { "mod" } else { name }
}

fn fault(layer: &str, target: Option<&str>) -> Option<String> {
    let place = |name: &str| LAYERS.iter().position(|it| *it == name);
    let own = place(layer);
    let Some(target) = target else {
        return (layer == APART)
            .then(|| "a stage names no other stage; flow.rs leads to the next".to_owned());
    };
    if target.is_empty() {
        return None;
    }
    match (own, place(target)) {
        (Some(own), Some(other)) if own < other => None,
        (Some(own), Some(other)) if own == other && layer != APART => None,
        (Some(_), Some(_)) => {
            Some(format!("{layer} imports {target}; the order is {}", LAYERS.join(", ")))
        }
        (None, _) => {
            Some(format!("{layer} has no place in the order of xtask/src/tidy/directions.rs"))
        }
        (_, None) => {
            Some(format!("{target} has no place in the order of xtask/src/tidy/directions.rs"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        one_way(&Source { path: format!("{EXCHANGE}{path}"), text: text.to_owned() }).len()
    }

    #[test]
    fn imports_run_from_the_table_to_the_nouns() {
        assert_eq!(
            findings("flow.rs", "use super::stages::admission;\nuse super::turn::Turn;\n"),
            0
        );
        assert_eq!(findings("stages/admission.rs", "use crate::exchange::checks::verdict;\n"), 0);
        assert_eq!(findings("actions/bind.rs", "use super::recheck;\n"), 0);
        assert_eq!(findings("checks/cors.rs", "// see crate::exchange::flow\n"), 0);
        assert_eq!(findings("grant.rs", "#[cfg(test)]\nuse super::flow::Stage;\n"), 0);
    }

    #[test]
    fn an_import_against_the_order_is_named() {
        assert_eq!(findings("stages/admission.rs", "use super::credential::enter;\n"), 1);
        assert_eq!(
            findings("stages/admission.rs", "use crate::exchange::stages::credential;\n"),
            1
        );
        assert_eq!(findings("checks/cors.rs", "use crate::exchange::turn::Turn;\n"), 1);
        assert_eq!(findings("actions/bind.rs", "use super::super::stages::admission;\n"), 1);
        assert_eq!(findings("grant.rs", "use super::Exchange;\n"), 1);
        assert_eq!(findings("turn.rs", "use crate::exchange::flow::Stage;\n"), 1);
        assert_eq!(findings("stray.rs", "use super::grant::Grant;\n"), 1);
    }
}
