//! Secret values that this process put into Vault, so that a test can search for them in all other places.
//!
//! Owns the list. Searches nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// The first place of each value.
static KNOWN: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Records `value`, which is at `place` now.
pub fn note(value: &str, place: &str) {
    let value = value.trim_end_matches(['\r', '\n']);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.entry(value.to_owned()).or_insert_with(|| place.to_owned());
}

/// Records all strings in a document.
pub fn note_all(document: &Value, place: &str) {
    match document {
        Value::String(text) => note(text, place),
        Value::Array(items) => items.iter().for_each(|item| note_all(item, place)),
        Value::Object(members) => members.values().for_each(|member| note_all(member, place)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The values, and the first place of each.
pub fn all() -> Vec<(String, String)> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.iter().map(|(value, place)| (value.clone(), place.clone())).collect()
}
