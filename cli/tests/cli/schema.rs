//! The published JSON Schema of policies: as true as the decoder, in both directions.
//!
//! Owns the comparison of their members. What it refuses is tried in `bad`.

use std::collections::BTreeSet;
use std::path::Path;

use portcullis_core::policy;
use portcullis_core::schema::{self, Schema};
use portcullis_markdown as markdown;
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Number, Value};

use crate::harness::{golden_file, run};

const UNKNOWN: &str = "zzz";

/// The schema as `policy schema` prints it.
fn text() -> Value {
    let said = run(&["policy", "schema"], &[], "");
    assert_eq!((said.status, said.stderr.as_str()), (0, ""));
    serde_json::from_str(&said.stdout).unwrap()
}

pub(crate) fn published() -> Schema {
    schema::compile(&text()).unwrap_or_else(|fault| panic!("{fault:?}"))
}

/// YAML as editors and their schemas see it.
pub(crate) fn document(text: &str) -> Value {
    let documents = Yaml::load_from_str(text).unwrap_or_else(|fault| panic!("{fault}: {text}"));
    value(&documents[0])
}

fn value(node: &Yaml<'_>) -> Value {
    match node {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => Value::Bool(*value),
        Yaml::Value(Scalar::Integer(value)) => Value::from(*value),
        Yaml::Value(Scalar::FloatingPoint(value)) => {
            Number::from_f64(value.into_inner()).map_or(Value::Null, Value::Number)
        }
        Yaml::Value(Scalar::String(text)) => Value::String(text.to_string()),
        Yaml::Sequence(items) => items.iter().map(value).collect(),
        Yaml::Mapping(members) => {
            let member = |(name, it)| Some((value(name).as_str()?.to_owned(), value(it)));
            Value::Object(members.iter().filter_map(member).collect::<Map<_, _>>())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_printed_is_what_the_documentation_has() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.schema.json");
    let said = run(&["policy", "schema"], &[], "");
    assert_eq!(said.stdout, std::fs::read_to_string(file).unwrap());
    let json = run(&["policy", "schema", "--output", "json"], &[], "").json();
    assert_eq!(json, text());
}

#[test]
fn every_good_document_fits() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let schema = published();
    for file in [
        "demo/policy.yaml",
        "envoy/bench/policy.yaml",
        "cli/tests/cli/files/policy.yaml",
        "cli/tests/cli/files/rules.yaml",
        "cli/tests/cli/files/everything.yaml",
    ] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        assert_eq!(schema.check(&document(&text)), Ok(()), "{file}");
        let said = run(&["policy", "check", "-"], &[], &text);
        assert_eq!(said.status, 0, "{file}: {said:?}");
    }
}

fn yaml_blocks(page: &str) -> impl Iterator<Item = String> {
    let blocks = markdown::blocks(page).into_iter().filter(|block| block.language == "yaml");
    blocks.map(|block| block.text)
}

/// What is wrong with a block of YAML in a page; whether it is of a policy.
fn checked(schema: &Schema, block: &str) -> (bool, Option<String>) {
    let base = "{version: 1, organisations: [acme], connectors: {}, roles: {}, tiers: {}}";
    let mut policy = match Yaml::load_from_str(block) {
        Err(fault) => return (false, Some(fault.to_string())),
        Ok(documents) => value(&documents[0]),
    };
    let text = text();
    let known = text["properties"].as_object().unwrap();
    let Some(members) = policy.as_object_mut() else { return (false, None) };
    if !members.keys().all(|name| known.contains_key(name)) || members.is_empty() {
        return (false, None);
    }
    if members.contains_key("version") && members.contains_key("organisations") {
        let said = run(&["policy", "check", "-"], &[], block);
        return (true, (said.status != 0).then(|| format!("{said:?}")));
    }
    for (name, absent) in document(base).as_object().unwrap() {
        members.entry(name).or_insert(absent.clone());
    }
    (true, schema.check(&policy).err().map(|fault| format!("{fault:?}")))
}

#[test]
fn yaml_in_pages_parses_and_policies_in_pages_fit() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let (schema, mut policies, mut faults) = (published(), 0, Vec::new());
    for page in markdown::pages(&docs).unwrap() {
        for block in yaml_blocks(&std::fs::read_to_string(&page).unwrap()) {
            let (is_policy, fault) = checked(&schema, &block);
            policies += usize::from(is_policy);
            faults.extend(fault.map(|it| format!("{}: {it}\n{block}", page.display())));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(policies >= 10, "only {policies} policies were found");
}

#[test]
fn yaml_in_pages_that_is_wrong_is_found() {
    let page = "1. So:\n\n   ```yaml\n   tiers:\n     free: {limits: {}}\n   ```\n```sh\na: [\n```\n```yaml\na: [\n```\n\
                ```yaml\nroutes: []\n```\n```yaml\ntiers: {free: {limit: {}}}\n```\n\
                ```yaml\nversion: 1\norganisations: []\n```\n";
    let schema = published();
    let said: Vec<_> = yaml_blocks(page)
        .map(|block| {
            let (is_policy, fault) = checked(&schema, &block);
            (is_policy, fault.is_some())
        })
        .collect();
    assert_eq!(said, [(true, false), (false, true), (false, false), (true, true), (true, true)]);
}

#[test]
fn the_schema_and_the_decoder_know_the_same_members() {
    let schema = text();
    let document = document(&golden_file("everything.yaml"));
    let mut walk = Walk { schema: &schema, document: &document, used: BTreeSet::new() };
    walk.visit(&document, vec![String::new()], &mut Vec::new());
    let mut all = BTreeSet::new();
    properties(&schema, "", &mut all);
    let unused: Vec<_> = all.difference(&walk.used).collect();
    assert!(unused.is_empty(), "everything.yaml does not use {unused:#?}");
}

/// Goes through a document and what the schema says of each part, by JSON pointers into the schema.
struct Walk<'a> {
    schema: &'a Value,
    document: &'a Value,
    used: BTreeSet<String>,
}

#[derive(Clone, Debug)]
enum PathSegment {
    Member(String),
    Item(usize),
}

impl Walk<'_> {
    fn visit(&mut self, value: &Value, places: Vec<String>, at: &mut Vec<PathSegment>) {
        let places = self.resolved(places);
        match value {
            Value::Object(members) => {
                let closed = self.members(&places, at);
                for (name, member) in members {
                    let inner = self.member(&places, name);
                    assert!(!closed || !inner.is_empty(), "{at:?} {name}");
                    at.push(PathSegment::Member(name.clone()));
                    // What nothing is said of is a schema or annotations, in their own form.
                    if !inner.is_empty() {
                        self.visit(member, inner, at);
                    }
                    at.pop();
                }
            }
            Value::Array(items) => {
                let inner: Vec<_> = places
                    .iter()
                    .map(|place| format!("{place}/items"))
                    .filter(|it| self.has(it))
                    .collect();
                for (index, item) in items.iter().enumerate() {
                    at.push(PathSegment::Item(index));
                    self.visit(item, inner.clone(), at);
                    at.pop();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn has(&self, place: &str) -> bool {
        self.schema.pointer(place).is_some()
    }

    /// Follows references and alternatives.
    fn resolved(&self, mut waiting: Vec<String>) -> Vec<String> {
        let mut places = Vec::new();
        while let Some(place) = waiting.pop() {
            let node = self.schema.pointer(&place).unwrap();
            if let Some(reference) = node.get("$ref") {
                waiting.push(reference.as_str().unwrap().trim_start_matches('#').to_owned());
            }
            for keyword in ["allOf", "anyOf"] {
                let count = node.get(keyword).and_then(Value::as_array).map_or(0, Vec::len);
                waiting.extend((0..count).map(|nth| format!("{place}/{keyword}/{nth}")));
            }
            places.push(place);
        }
        places
    }

    fn member(&mut self, places: &[String], name: &str) -> Vec<String> {
        let own: Vec<String> = places
            .iter()
            .map(|place| format!("{place}/properties/{name}"))
            .filter(|it| self.has(it))
            .collect();
        self.used.extend(own.iter().cloned());
        if !own.is_empty() {
            return own;
        }
        let others = places.iter().map(|place| format!("{place}/additionalProperties"));
        others.filter(|it| self.schema.pointer(it).is_some_and(Value::is_object)).collect()
    }

    /// Compares the members of the object at `at`; whether it has no others.
    fn members(&self, places: &[String], at: &[PathSegment]) -> bool {
        let decoded = self.decoded(at);
        let closed = places.iter().any(|place| {
            self.schema.pointer(&format!("{place}/additionalProperties"))
                == Some(&Value::Bool(false))
        });
        assert_eq!(decoded.is_some(), closed, "{at:?}: closed for one, open for the other");
        let Some(decoded) = decoded else { return false };
        let members = places
            .iter()
            .filter_map(|place| self.schema.pointer(&format!("{place}/properties"))?.as_object());
        let known: BTreeSet<String> = members.flat_map(Map::keys).cloned().collect();
        assert_eq!(known, decoded, "{at:?}: the schema on the left, the decoder on the right");
        true
    }

    /// The members that the decoder knows of the object at `at`; nothing when it takes any.
    fn decoded(&self, at: &[PathSegment]) -> Option<BTreeSet<String>> {
        let mut document = self.document.clone();
        let mut value = &mut document;
        let mut path = String::new();
        for step in at {
            value = match step {
                PathSegment::Member(name) => {
                    path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    &mut value[name]
                }
                PathSegment::Item(index) => {
                    path = format!("{path}[{index}]");
                    &mut value[index]
                }
            };
        }
        value[UNKNOWN] = Value::Null;
        let path = if path.is_empty() { UNKNOWN.to_owned() } else { format!("{path}.{UNKNOWN}") };
        let faults = policy::compile(&document).err()?;
        let fault = faults.iter().find(|it| it.path == path && it.found == "an unknown field")?;
        let names = fault.expected.strip_prefix("one of ").unwrap();
        Some(names.split(", ").map(str::to_owned).collect())
    }
}

/// Every property anywhere in the schema.
fn properties(node: &Value, place: &str, all: &mut BTreeSet<String>) {
    for (keyword, value) in node.as_object().into_iter().flatten() {
        let inner = format!("{place}/{keyword}");
        match (keyword.as_str(), value) {
            ("examples" | "default" | "required" | "dependentRequired", _) => {}
            ("properties" | "$defs", Value::Object(members)) => {
                for (name, member) in members {
                    let place = format!("{inner}/{name}");
                    properties(member, &place, all);
                    if keyword == "properties" {
                        all.insert(place);
                    }
                }
            }
            (_, Value::Object(_)) => properties(value, &inner, all),
            (_, Value::Array(items)) => {
                for (nth, item) in items.iter().enumerate() {
                    properties(item, &format!("{inner}/{nth}"), all);
                }
            }
            _ => {}
        }
    }
}

// Every field is described in words, which editors show.
#[test]
fn every_field_is_described() {
    let schema = text();
    let mut all = BTreeSet::new();
    properties(&schema, "", &mut all);
    let silent: Vec<_> = all
        .iter()
        .filter(|place| {
            let node = schema.pointer(place).unwrap();
            let referred = node.get("$ref").and_then(Value::as_str).map(|it| &it[1..]);
            let described = |node: &Value| node.get("description").is_some_and(Value::is_string);
            !described(node) && !referred.and_then(|it| schema.pointer(it)).is_some_and(described)
        })
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
}
