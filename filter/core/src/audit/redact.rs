//! Arguments made fit for the log: secrets out, size bounded.
//!
//! Owns where a secret may stand: under a secret name, beside one (`{"name": …, "value": …}`), in the
//! JSON of a text, in a text by its form, at a path of the policy; and how a cut is marked.

#[cfg(test)]
mod cases;
mod name;
mod number;
mod path;
#[cfg(test)]
mod spellings;
mod text;

use std::borrow::Cow;
use std::cell::Cell;

use serde_json::{Map, Number, Value};

use self::name::{is_count, is_label, is_named, is_secret, is_value};
use self::path::{Inside, Places};
use self::text::{REDACTED, masked};

use crate::json::{self, Form, Writer};
use crate::json_path::{JsonPath, MOST_STEPS};

const LONGEST_TEXT: usize = 512;
const DEEPEST: usize = MOST_STEPS;
/// Longer texts are not read as JSON, and so many times one may stand in another.
const LONGEST_JSON: usize = 16_384;
const MOST_WRAPPED: usize = 2;
/// Larger objects are not one name and its value.
const MOST_OF_A_PAIR: usize = 8;
/// Stands for what did not fit.
const CAPPED: &str = "[capped]";

/// What to take out, and how much may stay.
#[derive(Clone, Copy, Debug)]
pub struct Redaction<'a> {
    /// Further names, from the policy.
    pub names: &'a [String],
    /// Places in the arguments, from what the policy says of the tool.
    pub paths: &'a [JsonPath],
    /// The most bytes of text that stay, roughly: what does not fit is replaced by a mark.
    pub max_bytes: usize,
}

/// The arguments as the log may show them.
#[must_use]
pub const fn redact<'a>(
    arguments: &'a Map<String, Value>,
    redaction: Redaction<'a>,
) -> Redacted<'a> {
    Redacted { arguments, redaction }
}

/// Arguments that are redacted while they are written: nothing of them is copied before.
#[derive(Clone, Copy, Debug)]
pub struct Redacted<'a> {
    arguments: &'a Map<String, Value>,
    redaction: Redaction<'a>,
}

impl Redacted<'_> {
    /// As canonical JSON.
    #[must_use]
    pub fn canonical(self) -> String {
        self.written(Form::Rounded)
    }

    /// As a value, with members in the order of the arguments.
    #[must_use]
    pub fn value(self) -> Value {
        serde_json::from_str(&self.written(Form::AsRead)).unwrap_or_default()
    }

    fn written(self, form: Form) -> String {
        let Redaction { names, paths, max_bytes } = self.redaction;
        let (left, depth) = (Cell::new(max_bytes), Cell::new(DEEPEST));
        let redactor = Redactor { names, left, depth, wrapped: 0 };
        let mut text = Writer::new(form);
        redactor.object(self.arguments, &Places::of(paths), &mut text);
        text.end()
    }
}

/// Whether two names are the same for redaction.
#[must_use]
pub(crate) fn same_name(one: &str, other: &str) -> bool {
    name::same(one, other)
}

/// Whether a token of a service or a private key stands in `text`.
#[must_use]
pub(crate) fn has_token(text: &str) -> bool {
    text::has_token(text)
}

/// A text of a client, such as a URI, as the log may show it before a policy is known.
#[must_use]
pub fn shown_text(text: &str) -> String {
    cut(masked(start(text, LONGEST_TEXT.saturating_mul(2)), &[]), LONGEST_TEXT)
}

/// The same of a name, such as a tool's: lower-case words are no secret, whatever they begin with.
#[must_use]
pub(super) fn shown_name(name: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b"_-.:/".contains(&b);
    match name.len() <= LONGEST_TEXT && name.bytes().all(is_plain) {
        true => name.to_owned(),
        false => shown_text(name),
    }
}

/// What may still be shown, on the way through the arguments.
struct Redactor<'a> {
    names: &'a [String],
    left: Cell<usize>,
    /// How many levels may still open.
    depth: Cell<usize>,
    /// How many texts the place stands in.
    wrapped: usize,
}

impl Redactor<'_> {
    fn object(&self, members: &Map<String, Value>, places: &Places<'_>, text: &mut Writer) {
        let pair = self.is_secret_pair(members);
        text.object(|object| {
            for (name, value) in members {
                if !self.spend(name.len().saturating_add(4)) {
                    object.member("…", |place| place.text(CAPPED));
                    break;
                }
                let count = value.is_number() && is_count(name) && !is_named(name, self.names);
                let secret = is_secret(name, self.names) && !count || pair && is_value(name);
                object.member(name, |place| match places.member(name) {
                    Inside::Shown(places) if !secret => self.value(value, &places, place),
                    Inside::Secret | Inside::Shown(_) => place.text(REDACTED),
                });
            }
        });
    }

    /// Whether a member says that the value beside it is secret: `{"name": "Authorization", "value": …}`.
    fn is_secret_pair(&self, members: &Map<String, Value>) -> bool {
        let says = |(name, value): (&String, &Value)| {
            value.as_str().is_some_and(|value| is_label(name) && is_secret(value, self.names))
        };
        (2..=MOST_OF_A_PAIR).contains(&members.len()) && members.iter().any(says)
    }

    fn value(&self, value: &Value, places: &Places<'_>, text: &mut Writer) {
        // Whatever it is, it takes room: empty lists and marks add up too.
        if !self.spend(8) {
            return text.text(CAPPED);
        }
        let depth = self.depth.get();
        let Some(deeper) = depth.checked_sub(1) else {
            return text.text(CAPPED);
        };
        self.depth.set(deeper);
        match value {
            Value::Object(members) => self.object(members, places, text),
            Value::Array(items) => self.list(items, places, text),
            Value::String(letters) => text.text(&self.text(letters, places)),
            Value::Number(number) if number::is_card(number.as_str()) => text.text(REDACTED),
            Value::Number(number) if is_of_double(number) => text.value(value),
            Value::Number(number) => text.text(number.as_str()),
            Value::Null | Value::Bool(_) => text.value(value),
        }
        self.depth.set(depth);
    }

    fn list(&self, items: &[Value], places: &Places<'_>, text: &mut Writer) {
        let inside = places.item();
        let mut named = false;
        text.list(|list| {
            for item in items {
                if self.left.get() == 0 {
                    list.item(|place| place.text(CAPPED));
                    break;
                }
                list.item(|place| match &inside {
                    Inside::Shown(places) if !named => self.value(item, places, place),
                    Inside::Secret | Inside::Shown(_) => place.text(REDACTED),
                });
                // `["Authorization", …]`, and what a command line says: `["--password", …]`.
                named = item.as_str().is_some_and(|name| {
                    (items.len() == 2 || name.starts_with('-')) && is_secret(name, self.names)
                });
            }
        });
    }

    fn text<'t>(&self, text: &'t str, places: &Places<'_>) -> Cow<'t, str> {
        let most = LONGEST_TEXT.min(self.left.get());
        if let Some(json) = self.json(text, places) {
            return json.into();
        }
        self.spend(text.len());
        let begin = start(text, LONGEST_TEXT.saturating_mul(2));
        let masked = masked(begin, self.names);
        let behind = text.len().saturating_sub(begin.len());
        if behind == 0 && masked.len() <= most {
            return masked;
        }
        let kept = start(&masked, most);
        let gone = masked.len().saturating_sub(kept.len()).saturating_add(behind);
        format!("{kept}…[{gone} bytes capped]").into()
    }

    /// A text that is JSON with a secret in it, without the secret.
    fn json(&self, text: &str, places: &Places<'_>) -> Option<String> {
        if !text.trim_start().starts_with(['{', '[']) {
            return None;
        }
        // What stands at a place in it is unknown.
        let unread = || (!places.is_empty()).then(|| REDACTED.to_owned());
        if text.len() > LONGEST_JSON || self.wrapped >= MOST_WRAPPED {
            return unread();
        }
        let Ok(value) = json::parse_strict(text.as_bytes()) else { return unread() };
        let left = Cell::new(LONGEST_TEXT.min(self.left.get()));
        let (depth, wrapped) = (self.depth.clone(), self.wrapped.saturating_add(1));
        let inner = Redactor { names: self.names, left, depth, wrapped };
        let mut shown = Writer::new(Form::AsRead);
        inner.value(&value, places, &mut shown);
        let shown = shown.end();
        // What did not fit was not looked at either.
        if !shown.contains(REDACTED) && !shown.contains(CAPPED) {
            return None;
        }
        self.spend(text.len());
        Some(cut(shown.into(), LONGEST_TEXT.saturating_mul(2)))
    }

    /// Takes `cost` from what is left; whether it fits. After something did not, nothing does.
    fn spend(&self, cost: usize) -> bool {
        let rest = self.left.get().checked_sub(cost);
        self.left.set(rest.unwrap_or(0));
        rest.is_some()
    }
}

/// The start of a text, of at most so many bytes.
pub(super) fn start(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.split_at_checked(end.unwrap_or_default()).unwrap_or_default().0
}

fn cut(text: Cow<'_, str>, most: usize) -> String {
    let kept = start(&text, most);
    match text.len().saturating_sub(kept.len()) {
        0 => text.into_owned(),
        gone => format!("{kept}…[{gone} bytes capped]"),
    }
}

/// A number as readers of a log find it: as a text where a double would be another number, as RFC 8785
/// (appendix D) and RFC 7493 (§2.2) advise. So it is seen as it was written, and the chain verifies
/// with any implementation.
#[must_use]
pub fn shown(number: &Number) -> Value {
    match is_of_double(number) {
        true => Value::Number(number.clone()),
        false => number.as_str().into(),
    }
}

/// Whether a double is the same number.
fn is_of_double(number: &Number) -> bool {
    json::is_plain_integer(number.as_str()) || json::in_double(number.as_str()).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redacted(arguments: Value, max_bytes: usize) -> Value {
        let Value::Object(arguments) = arguments else { panic!("not an object") };
        let names = ["ssn".to_owned()];
        redact(&arguments, Redaction { names: &names, paths: &[], max_bytes }).value()
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

    // Issue 16: "by JSON path per tool".
    // Proves: C6
    #[test]
    fn a_place_that_the_policy_names_is_secret_there_and_nowhere_else() {
        let shown = |paths: &[&str], arguments: Value| {
            let paths: Vec<_> = paths.iter().map(|path| JsonPath::new(path).unwrap()).collect();
            let Value::Object(arguments) = arguments else { panic!("not an object") };
            let redaction = Redaction { names: &[], paths: &paths, max_bytes: 4_096 };
            redact(&arguments, redaction).value()
        };
        let arguments = json!({
            "customer": {"number": 17, "name": "Ada", "Tax-Id": "x"}, "number": 3,
            "items": [{"iban": "x", "n": 1}, {"iban": ["x"], "n": 2}], "all": {"a": 1, "b": [2]},
        });
        assert_eq!(
            shown(
                &["$.customer.number", "$.customer.tax_id", "$.items[*].iban", "$.all[*]"],
                arguments
            ),
            json!({
                "customer": {"number": "[redacted]", "name": "Ada", "Tax-Id": "[redacted]"}, "number": 3,
                "items": [{"iban": "[redacted]", "n": 1}, {"iban": "[redacted]", "n": 2}],
                "all": {"a": "[redacted]", "b": "[redacted]"},
            })
        );
        // A list or a text with JSON in the place of an object hides nothing.
        assert_eq!(
            shown(&["$.a.b"], json!({"a": [[{"b": "x", "c": 1}]]})),
            json!({"a": [[{"b": "[redacted]", "c": 1}]]})
        );
        assert_eq!(
            shown(&["$.a.b"], json!({"a": r#"{"b": "x", "c": 1}"#})),
            json!({"a": r#"{"b":"[redacted]","c":1}"#})
        );
        assert_eq!(
            shown(&["$.a[*]"], json!({"a": ["x", "y"]}))["a"],
            json!(["[redacted]", "[redacted]"])
        );
        // An object in the place of a list, and texts that are not read to their end.
        assert_eq!(
            shown(&["$.a[*].b"], json!({"a": {"b": "x", "c": 1}})),
            json!({"a": {"b": "[redacted]", "c": 1}})
        );
        let long = format!(r#"{{"l":{},"b":"hunter2"}}"#, json!(vec![0; 64]));
        let (deep, large) = ("[".repeat(17), " ".repeat(20_000));
        for text in [
            long.clone(),
            format!(r#"{deep}{{"b":"hunter2"}}{}"#, "]".repeat(17)),
            r#"{"b":"hunter2","b":1}"#.to_owned(),
            r#"{"b":"hunter2""#.to_owned(),
            format!(r#"{{"b":"hunter2"{large}}}"#),
        ] {
            let seen = shown(&["$.a.b"], json!({"a": text})).to_string();
            assert!(!seen.contains("hunter2"), "{seen}");
        }
        let named = long.replace(r#""b":"hunter2""#, r#""password":"hunter2 battery""#);
        let seen = shown(&[], json!({"a": named})).to_string();
        assert!(!seen.contains("hunter2") && !seen.contains("battery"), "{seen}");
        // A path leads to no other place.
        let untouched = json!({"b": "y", "c": {"a": {"b": "y"}}, "a": "y"});
        assert_eq!(shown(&["$.a.b"], untouched.clone()), untouched);
    }

    // Proves: C6
    #[test]
    fn a_count_that_the_policy_names_is_secret() {
        let shown = |names: &[String]| {
            let arguments = Map::from_iter([("max_tokens".to_owned(), Value::from(5))]);
            redact(&arguments, Redaction { names, paths: &[], max_bytes: 600 }).canonical()
        };
        assert_eq!(shown(&[]), r#"{"max_tokens":5}"#);
        assert_eq!(shown(&["maxTokens".to_owned()]), r#"{"max_tokens":"[redacted]"}"#);
    }

    // Finding 6.2.
    // Proves: C6, A16
    #[test]
    fn secrets_beside_their_name_and_inside_of_texts_go_too() {
        let seen = redacted(
            json!({
                "headers": [{"name": "Authorization", "value": "x"}, {"key": "Accept", "value": "y"}],
                "env": [["API_KEY", "x"], ["LANG", "y"]], "argv": ["run", "--password", "x", "-v"],
                "body": r#"{"user": "u", "password": "x", "n": 1.50}"#, "plain": r#"{"user": "u"}"#,
                "url": "https://u:x@host.example/", "big": 100_000_000_000_000_000_001_u128.to_string(),
            }),
            4_096,
        );
        assert_eq!(
            seen,
            json!({
                "headers": [{"name": "Authorization", "value": "[redacted]"}, {"key": "Accept", "value": "y"}],
                "env": [["API_KEY", "[redacted]"], ["LANG", "y"]],
                "argv": ["run", "--password", "[redacted]", "-v"],
                "body": r#"{"user":"u","password":"[redacted]","n":1.50}"#, "plain": r#"{"user": "u"}"#,
                "url": "https://u:[redacted]@host.example/", "big": "100000000000000000001",
            })
        );
    }

    // Finding 4.3: entries said 2574604874062343700.
    // Proves: A16
    #[test]
    fn a_number_is_shown_as_it_was_written() {
        let read = |text: &str| json::parse_strict(text.as_bytes()).unwrap();
        let seen = redacted(
            read(
                r#"{"a":2574604874062343600,"b":[9007199254740993,1e2,0.10000000000000000001],"c":5}"#,
            ),
            4_096,
        );
        assert_eq!(
            json::canonical(&seen),
            r#"{"a":"2574604874062343600","b":["9007199254740993",100,"0.10000000000000000001"],"c":5}"#
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
