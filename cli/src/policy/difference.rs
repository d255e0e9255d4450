//! What differs between two documents, place by place.
//!
//! Owns how far a difference is taken apart and how it is shown. Knows nothing of what a policy means.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_core::json::canonical_exact as canonical;
use serde_json::{Map, Value, json};

use crate::escape;

/// One place that is not the same.
#[derive(Debug, PartialEq)]
pub(super) struct Difference {
    path: String,
    kind: Kind,
}

#[derive(Debug, PartialEq)]
enum Kind {
    Added(Value),
    Removed(Value),
    Changed {
        old: Value,
        new: Value,
    },
    /// A list of names is taken for a set.
    Members {
        added: Vec<Value>,
        removed: Vec<Value>,
        old: Value,
        new: Value,
    },
}

/// What is longer stands on lines of its own, or is taken apart.
const SHORT: usize = 60;

/// Every place, in the order of paths. None exactly if both documents have the same version.
pub(super) fn differences(old: &Value, new: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", old, new, &mut found);
    found
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<Difference>) {
    if same(old, new) {
        return;
    }
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => objects(path, old, new, found),
        (Value::Array(old), Value::Array(new)) => lists(path, old, new, found),
        (old, new) => found.push(Difference {
            path: path.to_owned(),
            kind: Kind::Changed { old: old.clone(), new: new.clone() },
        }),
    }
}

fn objects(
    path: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    found: &mut Vec<Difference>,
) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let path = member(path, name);
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => compare(&path, old, new, found),
            (Some(old), None) => one_sided(path, old, Kind::Removed, found),
            (None, Some(new)) => one_sided(path, new, Kind::Added, found),
            (None, None) => {}
        }
    }
}

/// What only one side has; taken apart as long as it is too much for a line. A schema stays whole: it came or went in one
/// piece, and a hundred places of it would hide the rest.
fn one_sided(path: String, value: &Value, kind: fn(Value) -> Kind, found: &mut Vec<Difference>) {
    match value {
        Value::Object(members) if !is_short(&told(value)) && !is_schema(&path) => {
            // A file's members come in its own order.
            for (name, value) in members.iter().collect::<BTreeMap<_, _>>() {
                one_sided(member(&path, name), value, kind, found);
            }
        }
        value => found.push(Difference { path, kind: kind(value.clone()) }),
    }
}

/// Whether a pinned schema stands there.
fn is_schema(path: &str) -> bool {
    [".input_schema", ".output_schema"].iter().any(|end| path.ends_with(end))
}

fn lists(path: &str, old: &[Value], new: &[Value], found: &mut Vec<Difference>) {
    if let (Some(before), Some(after)) = (names(old), names(new)) {
        let only = |list: &[Value], other: &BTreeSet<String>| -> Vec<Value> {
            list.iter().filter(|value| !other.contains(&canonical(value))).cloned().collect()
        };
        let (added, removed) = (only(new, &before), only(old, &after));
        let (old, new) = (Value::from(old.to_vec()), Value::from(new.to_vec()));
        let kind = match added.is_empty() && removed.is_empty() {
            true => Kind::Changed { old, new },
            false => Kind::Members { added, removed, old, new },
        };
        return found.push(Difference { path: path.to_owned(), kind });
    }
    let head = old.iter().zip(new).take_while(|(old, new)| same(old, new)).count();
    let (old, new) = (old.split_at(head).1, new.split_at(head).1);
    let pairs = old.iter().rev().zip(new.iter().rev());
    let tail = pairs.take_while(|(old, new)| same(old, new)).count();
    let old = old.split_at(old.len().saturating_sub(tail)).0;
    let new = new.split_at(new.len().saturating_sub(tail)).0;
    for place in 0..old.len().max(new.len()) {
        let path = format!("{path}[{}]", head.saturating_add(place));
        match (old.get(place), new.get(place)) {
            (Some(old), Some(new)) => compare(&path, old, new, found),
            (Some(old), None) => one_sided(path, old, Kind::Removed, found),
            (None, Some(new)) => one_sided(path, new, Kind::Added, found),
            (None, None) => {}
        }
    }
}

/// A list of plain values, each of them once.
fn names(list: &[Value]) -> Option<BTreeSet<String>> {
    let plain = list.iter().all(|value| !value.is_object() && !value.is_array());
    let names: BTreeSet<String> = list.iter().map(canonical).collect();
    (plain && names.len() == list.len()).then_some(names)
}

/// As versions tell documents apart.
fn same(one: &Value, other: &Value) -> bool {
    one == other || canonical(one) == canonical(other)
}

/// `a.b`; a name that could be taken for a path is quoted.
fn member(path: &str, name: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "_-*?$:/".contains(letter);
    match (path.is_empty(), !name.is_empty() && name.chars().all(plain)) {
        (true, true) => name.to_owned(),
        (false, true) => format!("{path}.{name}"),
        (_, false) => format!("{path}[\"{}\"]", escape::line(name)),
    }
}

impl Difference {
    pub(super) fn text(&self) -> String {
        let (sign, parts) = match &self.kind {
            Kind::Added(value) => ('+', vec![('+', told(value))]),
            Kind::Removed(value) => ('-', vec![('-', told(value))]),
            Kind::Changed { old, new } => ('~', vec![('-', told(old)), ('+', told(new))]),
            Kind::Members { added, removed, .. } => {
                let removed = removed.iter().map(|value| ('-', told(value)));
                ('~', removed.chain(added.iter().map(|value| ('+', told(value)))).collect())
            }
        };
        let lengths = parts.iter().map(|(_, text)| text.chars().count());
        let long = lengths.fold(0, usize::saturating_add) > SHORT;
        let short = match (&self.kind, &*parts) {
            (_, _) if long => {
                let lines = parts.iter().map(|(sign, text)| format!("\n      {sign} {text}"));
                return format!("  {sign} {}{}", self.path, lines.collect::<String>());
            }
            (Kind::Changed { .. }, [(_, old), (_, new)]) => format!("{old} -> {new}"),
            (Kind::Added(_) | Kind::Removed(_), [(_, value)]) => value.clone(),
            (_, parts) => {
                let parts = parts.iter().map(|(sign, text)| format!("{sign} {text}"));
                parts.collect::<Vec<_>>().join("  ")
            }
        };
        format!("  {sign} {}  {short}", self.path)
    }

    pub(super) fn view(&self) -> Value {
        let path = &self.path;
        match &self.kind {
            Kind::Added(new) => json!({ "path": path, "kind": "added", "new": new }),
            Kind::Removed(old) => json!({ "path": path, "kind": "removed", "old": old }),
            Kind::Changed { old, new } => {
                json!({ "path": path, "kind": "changed", "old": old, "new": new })
            }
            Kind::Members { added, removed, old, new } => json!({
                "path": path, "kind": "changed", "old": old, "new": new,
                "added": added, "removed": removed,
            }),
        }
    }
}

/// `1 added, 2 changed`.
pub(super) fn summary(differences: &[Difference]) -> String {
    let count = |what, is: fn(&Kind) -> bool| {
        let number = differences.iter().filter(|difference| is(&difference.kind)).count();
        (number > 0).then(|| format!("{number} {what}"))
    };
    let counts = [
        count("added", |kind| matches!(kind, Kind::Added(_))),
        count("removed", |kind| matches!(kind, Kind::Removed(_))),
        count("changed", |kind| matches!(kind, Kind::Changed { .. } | Kind::Members { .. })),
    ];
    counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn is_short(text: &str) -> bool {
    text.chars().count() <= SHORT
}

/// Texts are what a model reads: whole, with all that cannot be seen made visible.
fn told(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", escape::line(text)),
        value => escape::line(&canonical(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(old: Value, new: Value) -> String {
        let found = differences(&old, &new);
        found.iter().map(Difference::text).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_place_is_told_once_by_its_path() {
        let long = "x".repeat(SHORT);
        let old = json!({
            "a": {"limit": 5, "show": ["p", "q"], "gone": null, "same": 1},
            "b": {"description": "short"},
            "c.d": 1,
        });
        let new = json!({
            "a": {"limit": 6, "show": ["q", "r"], "same": 1.0},
            "b": {"description": long},
            "c.d": 2,
            "e": {"f": {"g": long, "h": {}}},
            "i": {"j": true},
        });
        let expected = format!(
            "  - a.gone  null\n  ~ a.limit  5 -> 6\n  ~ a.show  - \"p\"  + \"r\"\n  ~ b.description\n      \
             - \"short\"\n      + \"{long}\"\n  ~ [\"c.d\"]  1 -> 2\n  + e.f.g\n      + \"{long}\"\n  \
             + e.f.h  {{}}\n  + i  {{\"j\":true}}"
        );
        assert_eq!(text(old, new), expected);
    }

    #[test]
    fn a_schema_that_is_new_is_one_place_and_one_that_changes_is_taken_apart() {
        let tool = |maximum: u64| {
            let long = "x".repeat(SHORT);
            let limit = json!({"type": "integer", "maximum": maximum, "description": long});
            json!({"t": {"price": 2, "input_schema": {"type": "object", "properties": {"limit": limit}}}})
        };
        let new = differences(&json!({"u": 1}), &tool(5));
        let paths: Vec<&str> = new.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(paths, ["t.input_schema", "t.price", "u"]);
        let shown = text(json!({}), tool(5));
        assert_eq!(shown.lines().count(), 3, "{shown}");
        assert!(shown.contains(r#"+ {"properties":{"limit":{"description":"xxx"#), "{shown}");
        assert_eq!(text(tool(5), tool(6)), "  ~ t.input_schema.properties.limit.maximum  5 -> 6");
    }

    #[test]
    fn a_list_of_rules_is_compared_from_both_ends() {
        let rules = |whens: &[&str]| -> Value {
            whens.iter().map(|when| json!({ "when": when })).collect::<Vec<_>>().into()
        };
        assert_eq!(text(rules(&["a", "c"]), rules(&["a", "b", "c"])), "  + [1]  {\"when\":\"b\"}");
        assert_eq!(text(rules(&["a", "b"]), rules(&["b"])), "  - [0]  {\"when\":\"a\"}");
        assert_eq!(text(rules(&["a", "b"]), rules(&["x", "b"])), "  ~ [0].when  \"a\" -> \"x\"");
    }

    #[test]
    fn whatever_makes_another_version_is_a_difference() {
        let all = [
            json!(null),
            json!({}),
            json!([]),
            json!({"a": null}),
            json!({"a": {}}),
            json!({"a": []}),
            json!({"a": ["x", "y"]}),
            json!({"a": ["y", "x"]}),
            json!({"a": ["x", "x"]}),
            json!({"a": [{}, []]}),
            json!({"a": [[], {}]}),
            json!({"a": 0.5}),
        ];
        for (number, old) in all.iter().enumerate() {
            for (other, new) in all.iter().enumerate() {
                assert_eq!(differences(old, new).is_empty(), number == other, "{old} {new}");
            }
        }
    }

    #[test]
    fn what_hides_is_made_visible() {
        let told = text(json!({"a": "ok"}), json!({"a": "ok\u{202e}\n"}));
        assert_eq!(told, "  ~ a  \"ok\" -> \"ok\\u{202e}\\n\"");
    }
}
