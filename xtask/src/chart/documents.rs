//! Manifests as data, and the differences between two of them.
//!
//! Owns when two documents are equal: fields and values count, not their order or notation.

use crate::alerts::rules::json;
use crate::failure::{Failure, Result};
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;
use std::collections::BTreeMap;

/// Documents by kind, namespace and name.
pub(super) type Documents = BTreeMap<String, Value>;

/// The documents in a text.
pub(super) fn read(of: &str, text: &str) -> Result<Documents> {
    let fault = |why: String| Failure::new(format!("{of}: {why}"));
    let all = Yaml::load_from_str(text).map_err(|error| fault(error.to_string()))?;
    let mut documents = Documents::new();
    for document in all.iter().map(json).filter(|document| !document.is_null()) {
        let key = key(&document);
        if documents.insert(key.clone(), normal(document)).is_some() {
            return Err(fault(format!("{key} is there twice")));
        }
    }
    Ok(documents)
}

/// Documents that are already data.
pub(super) fn of(documents: Vec<Value>) -> Documents {
    documents.into_iter().map(|document| (key(&document), normal(document))).collect()
}

fn key(document: &Value) -> String {
    let text = |pointer| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

/// Converts all numbers to one kind, and parses the plugin configuration.
fn normal(mut document: Value) -> Value {
    walk(&mut document, &mut |value| match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64() {
                *value = Value::from(float);
            }
        }
        Value::String(text) if text.trim_start().starts_with('{') => {
            if let Ok(mut inner) = serde_json::from_str::<Value>(text) {
                inner = normal(inner);
                *value = inner;
            }
        }
        _ => {}
    });
    document
}

/// Calls `change` with every value, outermost first.
pub(super) fn walk(value: &mut Value, change: &mut dyn FnMut(&mut Value)) {
    change(value);
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|field| walk(field, change)),
        Value::Array(list) => list.iter_mut().for_each(|entry| walk(entry, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Removes a field, by its pointer, if it exists.
pub(super) fn remove(document: &mut Value, pointer: &str) {
    let Some((parent, name)) = pointer.rsplit_once('/') else { return };
    if let Some(Value::Object(fields)) = document.pointer_mut(parent) {
        fields.remove(name);
    }
}

/// The first difference, with both values.
pub(super) fn difference(ours: &Value, theirs: &Value) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            names.into_iter().find_map(|name| {
                let of = |map: &serde_json::Map<String, Value>| {
                    map.get(name).cloned().unwrap_or(Value::Null)
                };
                let inner = difference(&of(a), &of(b))?;
                Some(format!("{name}.{inner}"))
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(nth, (a, b))| difference(a, b).map(|inner| format!("{nth}.{inner}"))),
        _ if ours == theirs => None,
        _ => Some(format!(": {} and {}", short(ours), short(theirs))),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(300) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_document_says_counts() {
        let text = "kind: A\nmetadata: {name: x}\nspec: {n: 1048576, v: '{\"a\": 1}'}\n";
        let other = "metadata: {name: x}\nspec:\n  v: |\n    {\n      \"a\": 1\n    }\n  n: 1.048576e+06\nkind: A\n";
        let (one, two) = (read("one", text).unwrap(), read("two", other).unwrap());
        assert_eq!(one, two);
        let third = read("third", "kind: A\nmetadata: {name: x}\nspec: {n: 2}\n").unwrap();
        let found = difference(&one["A /x"], &third["A /x"]);
        assert_eq!(found.as_deref(), Some("spec.n.: 1048576.0 and 2.0"));
    }
}
