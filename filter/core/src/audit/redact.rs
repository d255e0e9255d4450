//! Arguments made fit for the log: secrets by name out, size bounded.
//!
//! Owns which names are secret and how a cut is marked. Values are not inspected: a name is a
//! promise of what is in it, a value is a guess.

use serde_json::{Map, Number, Value};

use crate::json;

/// Fragments of argument names whose values are never logged; compared without case, `-` and `_`.
const SECRET_NAMES: [&str; 14] = [
    "apikey",
    "password",
    "passwd",
    "passphrase",
    "token",
    "secret",
    "authorization",
    "credential",
    "privatekey",
    "cookie",
    "session",
    "cardnumber",
    "cvv",
    "pin",
];
/// Names too short to be looked for inside others.
const WHOLE_NAMES: [&str; 2] = ["cvv", "pin"];
const LONGEST_TEXT: usize = 512;
const DEEPEST: usize = 16;
/// Stands for what did not fit.
const CAPPED: &str = "[capped]";

/// What to take out, and how much may stay.
#[derive(Clone, Copy, Debug)]
pub struct Redaction<'a> {
    /// Further names, from the policy.
    pub names: &'a [String],
    /// The most bytes of text that stay, roughly: what does not fit is replaced by a mark.
    pub max_bytes: usize,
}

/// The arguments as the log may show them.
#[must_use]
pub fn redact(arguments: &Map<String, Value>, redaction: Redaction<'_>) -> Value {
    let mut left = redaction.max_bytes;
    object(arguments, redaction.names, &mut left, DEEPEST)
}

fn object(members: &Map<String, Value>, names: &[String], left: &mut usize, depth: usize) -> Value {
    let mut kept = Map::new();
    for (name, value) in members {
        if !spend(left, name.len().saturating_add(4)) {
            kept.insert("…".to_owned(), CAPPED.into());
            break;
        }
        let value = if is_secret(name, names) {
            "[redacted]".into()
        } else {
            self::value(value, names, left, depth)
        };
        kept.insert(name.clone(), value);
    }
    Value::Object(kept)
}

fn value(value: &Value, names: &[String], left: &mut usize, depth: usize) -> Value {
    // Whatever it is, it takes room: empty lists and marks add up too.
    let (true, Some(deeper)) = (spend(left, 8), depth.checked_sub(1)) else {
        return CAPPED.into();
    };
    match value {
        Value::Object(members) => object(members, names, left, deeper),
        Value::Array(items) => {
            let mut kept = Vec::new();
            for item in items {
                if *left == 0 {
                    kept.push(CAPPED.into());
                    break;
                }
                kept.push(self::value(item, names, left, deeper));
            }
            Value::Array(kept)
        }
        Value::String(text) => self::text(text, left),
        Value::Number(number) => shown(number),
        Value::Null | Value::Bool(_) => value.clone(),
    }
}

/// A number as readers of a log find it: as a text where a double would be another number, as RFC 8785
/// (appendix D) and RFC 7493 (§2.2) advise. So it is seen as it was written, and the chain verifies
/// with any implementation.
#[must_use]
pub fn shown(number: &Number) -> Value {
    match json::in_double(number.as_str()) {
        Some(_) => Value::Number(number.clone()),
        None => number.as_str().into(),
    }
}

/// Takes `cost` from what is left; whether it fits. After something did not, nothing does.
fn spend(left: &mut usize, cost: usize) -> bool {
    let rest = left.checked_sub(cost);
    *left = rest.unwrap_or(0);
    rest.is_some()
}

fn text(text: &str, left: &mut usize) -> Value {
    let most = LONGEST_TEXT.min(*left);
    spend(left, text.len());
    if text.len() <= most {
        return text.into();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    let (kept, cut) = text.split_at_checked(end).unwrap_or_default();
    format!("{kept}…[{} bytes capped]", cut.len()).into()
}

fn is_secret(name: &str, names: &[String]) -> bool {
    let plain = |text: &str| {
        let letters = text.chars().filter(|letter| !matches!(letter, '_' | '-' | ' ' | '.'));
        let mut plain = String::with_capacity(text.len());
        plain.extend(letters.flat_map(char::to_lowercase));
        plain
    };
    let name = plain(name);
    let built_in = SECRET_NAMES.iter().any(|secret| {
        if WHOLE_NAMES.contains(secret) { name == *secret } else { name.contains(secret) }
    });
    built_in || names.iter().any(|secret| name == plain(secret))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redacted(arguments: Value, max_bytes: usize) -> Value {
        let Value::Object(arguments) = arguments else { panic!("not an object") };
        redact(&arguments, Redaction { names: &["ssn".to_owned()], max_bytes })
    }

    // Proves: C6, B14, A16
    #[test]
    fn secrets_go_by_name_at_every_level_in_every_spelling() {
        let seen = redacted(
            json!({
                "API-Key": "x", "db": [{"Password": "x", "user": "u"}], "accessToken": ["x"],
                "client_secret": {"a": 1}, "SSN": "x", "pin": 1, "shipping": "kept", "limit": 5
            }),
            4_096,
        );
        assert_eq!(
            seen,
            json!({
                "API-Key": "[redacted]", "db": [{"Password": "[redacted]", "user": "u"}],
                "accessToken": "[redacted]", "client_secret": "[redacted]", "SSN": "[redacted]",
                "pin": "[redacted]", "shipping": "kept", "limit": 5
            })
        );
    }

    // Proves: A16
    #[test]
    fn what_stays_is_bounded_and_cuts_are_marked() {
        let long = "ä".repeat(10_000);
        let seen = redacted(json!({"a": long, "b": long, "c": 1}), 600).to_string();
        assert!(seen.len() < 1_200, "{}", seen.len());
        assert!(seen.contains("bytes capped]") && seen.contains("[capped]"), "{seen}");
        let many = redacted(json!({"list": vec![1; 100_000]}), 600).to_string();
        assert!(many.len() < 1_200, "{}", many.len());
        assert_eq!(redacted(json!({"a": 1}), 0), json!({"…": "[capped]"}));
        for item in [json!([]), json!({}), json!(""), json!({"far too long a name": 1})] {
            let mut deep = Value::from(vec![item; 1_000]);
            for _ in 0..DEEPEST {
                deep = Value::Array(vec![deep]);
                let seen = redacted(json!({"list": deep}), 600).to_string();
                assert!(seen.len() < 1_200, "{}", seen.len());
            }
        }
    }
}
