//! YAML that every reader parses alike.
//!
//! Owns which strings need no quotation marks: only those that are strings in YAML 1.1 (Go's parsers) and in 1.2.

use saphyr::{Mapping, Scalar, ScalarStyle, Yaml, YamlEmitter};
use serde_json::Value;

/// Words that are not strings in YAML 1.1.
const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan"];

/// `heading`, then each document. A single document gets no `---`, so that it can be part of another one.
pub(super) fn text(heading: &str, documents: &[Value]) -> String {
    let mut text = format!("{heading}\n");
    for (nth, document) in documents.iter().enumerate() {
        let mut written = String::new();
        // Writing to a `String` does not fail.
        let _ = YamlEmitter::new(&mut written).dump(&yaml(document));
        let body = written.strip_prefix("---\n").unwrap_or(&written);
        if nth > 0 {
            text.push_str("---\n");
        }
        text.push_str(body.trim_end_matches('\n'));
        text.push('\n');
    }
    text
}

fn yaml(value: &Value) -> Yaml<'_> {
    match value {
        Value::Null => Yaml::Value(Scalar::Null),
        Value::Bool(value) => Yaml::Value(Scalar::Boolean(*value)),
        Value::Number(number) => {
            Yaml::Representation(number.to_string().into(), ScalarStyle::Plain, None)
        }
        Value::String(text) => scalar(text),
        Value::Array(items) => Yaml::Sequence(items.iter().map(yaml).collect()),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (scalar(name), yaml(value)));
            Yaml::Mapping(members.collect::<Mapping<'_>>())
        }
    }
}

fn scalar(text: &str) -> Yaml<'_> {
    if is_plain(text) {
        return Yaml::Representation(text.into(), ScalarStyle::Plain, None);
    }
    // A JSON string is also a double-quoted YAML string.
    let quoted = Value::from(text).to_string();
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    Yaml::Representation(inner.to_owned().into(), ScalarStyle::DoubleQuoted, None)
}

/// A word that begins with a letter or is a path, and can only be a string.
fn is_plain(text: &str) -> bool {
    let first = text.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._".contains(&byte))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}
