//! Regular expressions of pinned schemas that match no text.

use serde_json::Value;

use super::{Connector, Warning, WarningKind};
use crate::pattern::Budget;

/// Schemas below this depth are not inspected.
const DEEPEST: usize = 32;

pub(super) fn warn(place: &str, connector: &Connector, warnings: &mut Vec<Warning>) {
    for (tool, stated) in &connector.tools {
        let schema = stated.pin.as_ref().and_then(|pin| pin.member("inputSchema"));
        let path = format!("{place}.tools.{tool}.input_schema");
        if let Some(schema) = schema {
            visit(&path, schema, DEEPEST, warnings);
        }
    }
}

fn visit(path: &str, value: &Value, depth: usize, warnings: &mut Vec<Warning>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path = format!("{path}.{name}");
                match value {
                    Value::String(pattern) if name == "pattern" && never_matches(pattern) => {
                        warnings.push(warning(path, pattern, REFUSED));
                    }
                    Value::Object(_) | Value::Array(_) => visit(&path, value, depth, warnings),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
                }
            }
        }
        Value::Array(items) => {
            let each = items.iter().enumerate();
            each.for_each(|(at, item)| visit(&format!("{path}[{at}]"), item, depth, warnings));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The consequence for an argument that has to match.
pub(super) const REFUSED: &str = ": every call with it is refused";

/// The warning of a regular expression that matches no text.
pub(super) fn warning(path: String, pattern: &str, effect: &str) -> Warning {
    Warning {
        path,
        kind: WarningKind::NeverMatches,
        found: format!("{pattern:?}, which matches no text{effect}"),
        expected: "^ at the beginning and $ at the end, such as ^[a-z]+$".to_owned(),
    }
}

/// The warning of a regular expression that matches every text.
pub(super) fn idle(path: String, pattern: &str) -> Warning {
    Warning {
        path,
        kind: WarningKind::AlwaysTrue,
        found: format!(
            "{pattern:?}, which every text meets, since a match may be anywhere in it and may be empty"
        ),
        expected: "^ at the beginning and $ at the end, such as ^[a-z]+$".to_owned(),
    }
}

/// Whether a pattern has an empty match in every text: it matches the empty text, and has no condition on the position.
pub(super) fn always_matches(pattern: &str) -> bool {
    let without_classes = pattern.replace("[^", "[");
    let is_bound = ["^", "$", "\\b", "\\B", "(?=", "(?!", "(?<"]
        .iter()
        .any(|part| without_classes.contains(part));
    !is_bound && Budget::default().matches(pattern, "").is_ok_and(|matches| matches)
}

/// Whether a pattern without groups and alternatives requires a letter after the end or before the beginning of the
/// text.
pub(super) fn never_matches(pattern: &str) -> bool {
    let (mut letters, mut ended, mut in_class) = (false, false, false);
    let mut chars = pattern.chars().peekable();
    while let Some(letter) = chars.next() {
        let is_letter = match letter {
            '(' | '|' => return false,
            '\\' => {
                // `\b` and `\B` are not letters.
                let escaped = chars.next();
                !in_class && !matches!(escaped, Some('b' | 'B'))
            }
            ']' if in_class => {
                in_class = false;
                true
            }
            _ if in_class => false,
            '[' => {
                in_class = true;
                continue;
            }
            '^' => {
                if letters {
                    return true;
                }
                continue;
            }
            '$' => {
                ended = true;
                continue;
            }
            '*' | '?' | '{' | '}' | '+' => false,
            _ => true,
        };
        let optional = matches!(chars.peek(), Some('*' | '?' | '{'));
        if is_letter && !optional {
            if ended {
                return true;
            }
            letters = true;
        }
        if letter == '{' {
            while chars.next_if(|letter| *letter != '}').is_some() {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{always_matches, never_matches};

    // Finding 3 of a fresh reader: `[A-Za-z]*` let `%;--` pass.
    #[test]
    fn a_pattern_that_asks_for_nothing_is_found() {
        for pattern in ["[A-Za-z]*", "[^;]*", "", "a?", "(abc)*", ".*", "(?s)x{0,3}", "a|"] {
            assert!(always_matches(pattern), "{pattern}");
        }
        for pattern in ["^[A-Za-z]*$", "[a-z]+", "^.*", r"\ba*", "a", r"\^*", "^$"] {
            assert!(!always_matches(pattern), "{pattern}");
        }
    }

    #[test]
    fn a_letter_behind_the_end_or_before_the_beginning_is_found() {
        for pattern in ["^a$b", "a^b", "^[a-z]+$x", "$a", "[ab]^", "^a$ ", r"\d^1"] {
            assert!(never_matches(pattern), "{pattern}");
        }
        for pattern in [
            "^a$", "^$", "a|^b", "(^a$|b)c", "[$^]a", r"a\$b", "a$*", "^a?$", "x*^a", "^a{2}$",
            "$b?", "^[^a]$",
        ] {
            assert!(!never_matches(pattern), "{pattern}");
        }
    }
}
