//! References that are written by hand: every field that a reader of the code knows is in its page.
//!
//! Owns the questions to the readers: a document with an unknown field at each place names the known ones.

use std::collections::BTreeSet;
use std::path::Path;

use portcullis_core::config::Config;
use portcullis_markdown as markdown;
use serde_json::{Value, json};

fn page(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    std::fs::read_to_string(docs.join(name)).unwrap()
}

/// Of `names`, those that are in no code of `page`.
fn missing<'n>(names: &'n BTreeSet<String>, page: &str) -> Vec<&'n str> {
    let blocks = markdown::blocks(page);
    let spans = markdown::prose(page).flat_map(|(_, line)| markdown::spans(line));
    let words: BTreeSet<&str> = blocks
        .iter()
        .map(|block| block.text.as_str())
        .chain(spans)
        .flat_map(|span| span.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .collect();
    names.iter().map(String::as_str).filter(|name| !words.contains(name)).collect()
}

/// A plugin configuration with an object at every place that takes one.
fn configuration() -> Value {
    json!({
        "redis": {"cluster": "r"},
        "vault": {"cluster": "v"},
        "organisations": {"acme": {}},
        "auth": {
            "issuers": [{"issuer": "https://idp.example", "jwks": {"cluster": "i", "path": "/"}, "claims": {}}],
            "certificates": {"identities": [{"match": {}}], "forwarded": {}},
            "slowdown": {},
        },
        "request": {},
        "policy_cache": {},
        "audit": {},
    })
}

/// JSON pointers of all objects whose members have names of their own.
fn objects(value: &Value, at: &str, all: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, it)| (name.clone(), it)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(n, it)| (n.to_string(), it)).collect()
        }
        _ => return,
    };
    if value.is_object() && at != "/organisations" {
        all.push(at.to_owned());
    }
    for (name, child) in children {
        objects(child, &format!("{at}/{name}"), all);
    }
}

/// The names that the reader of the configuration knows.
fn known_fields() -> BTreeSet<String> {
    let document = configuration();
    let mut places = Vec::new();
    objects(&document, "", &mut places);
    let mut names = BTreeSet::new();
    for place in &places {
        let mut document = document.clone();
        document.pointer_mut(place).unwrap()["zzz"] = Value::Null;
        let faults = Config::parse(&document).expect_err(place);
        let unknown = faults.iter().find(|it| it.path.ends_with("zzz"));
        let expected = &unknown.unwrap_or_else(|| panic!("{place} is open: {faults:?}")).expected;
        let known =
            expected.strip_prefix("one of ").unwrap_or_else(|| panic!("{place}: {expected}"));
        names.extend(known.split(", ").map(str::to_owned));
    }
    names
}

#[test]
fn every_field_of_the_plugin_configuration_is_in_its_reference() {
    let names = known_fields();
    assert!(names.len() >= 60, "only {} fields are known: {names:?}", names.len());
    let absent = missing(&names, &page("reference/configuration.md"));
    assert!(absent.is_empty(), "docs/reference/configuration.md lacks {absent:?}");
}

#[test]
fn every_field_of_a_policy_is_in_its_reference() {
    let schema: Value = serde_json::from_str(&page("policy.schema.json")).unwrap();
    let (mut names, mut waiting) = (BTreeSet::new(), vec![&schema]);
    while let Some(node) = waiting.pop() {
        if let Some(members) = node.get("properties").and_then(Value::as_object) {
            names.extend(members.keys().cloned());
        }
        match node {
            Value::Object(members) => waiting.extend(members.values()),
            Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
    assert!(names.len() >= 50, "only {} fields are known: {names:?}", names.len());
    let pages = page("reference/policy.md") + &page("guides/limits.md");
    let absent = missing(&names, &pages);
    assert!(absent.is_empty(), "docs/reference/policy.md lacks {absent:?}");
}

#[test]
fn a_field_that_a_page_lacks_is_found() {
    let names: BTreeSet<String> = ["timeout_ms", "new_field"].map(str::to_owned).into();
    assert_eq!(missing(&names, "new_field `redis.timeout_ms`"), ["new_field"]);
}
