//! The official JSON Schema test suite, for the supported drafts: `cargo xtask schema-suite`.
//!
//! Owns the list of expected failures, each with its reason. The suite is not part of the repository: without
//! `PORTCULLIS_SCHEMA_SUITE`, the directory with its drafts, nothing runs.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;

use portcullis_core::schema;
use serde_json::Value;

/// The reasons, from the fault's text, for which a schema is refused when it is read. No other result may be wrong.
const REASONS: [(&str, &str); 3] = [
    ("a reference to \"", "refers to another document (remote reference or meta-schema)"),
    ("a pattern with \\p", "Unicode property in a pattern"),
    ("\"http", "meta-schema of its own ($schema, $vocabulary)"),
];

#[derive(Default)]
struct Score {
    passed: usize,
    refused: BTreeMap<&'static str, usize>,
}

#[test]
fn required_parts_of_the_official_suite() {
    let Some(suite) = std::env::var_os("PORTCULLIS_SCHEMA_SUITE") else {
        return;
    };
    for (draft, uri) in [
        ("draft2020-12", "https://json-schema.org/draft/2020-12/schema"),
        ("draft7", "http://json-schema.org/draft-07/schema#"),
    ] {
        let mut score = Score::default();
        let mut wrong = Vec::new();
        let mut files: Vec<_> = Path::new(&suite)
            .join(draft)
            .read_dir()
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|it| it == "json")) {
            let groups: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            for group in groups.as_array().unwrap() {
                run(group, uri, &mut score, &mut wrong);
            }
        }
        let refused: usize = score.refused.values().sum();
        let total = score.passed + refused + wrong.len();
        println!(
            "{draft}: {} of {total} as the suite has it, {refused} refused, {} wrong",
            score.passed,
            wrong.len()
        );
        for (reason, count) in &score.refused {
            println!("  {count:>4} refused: {reason}");
        }
        assert!(wrong.is_empty(), "{draft}:\n{}", wrong.join("\n"));
        assert!(
            total > 500 && score.passed * 100 >= total * 95,
            "{draft}: {} of {total}",
            score.passed
        );
    }
}

fn run(group: &Value, uri: &str, score: &mut Score, wrong: &mut Vec<String>) {
    let mut document = group["schema"].clone();
    if let Value::Object(members) = &mut document {
        members.entry("$schema").or_insert_with(|| uri.into());
    }
    let tests = group["tests"].as_array().unwrap();
    // A bare `true` names no dialect.
    let schema = match schema::compile(&document) {
        Ok(schema) => schema,
        Err(fault) => {
            match REASONS.iter().find(|(found, _)| fault.found.starts_with(found)) {
                Some((_, reason)) => *score.refused.entry(reason).or_default() += tests.len(),
                None => wrong.push(format!("{}: {fault:?}", group["description"])),
            }
            return;
        }
    };
    for test in tests {
        let held = schema.check(&test["data"]);
        if held.is_ok() == (test["valid"] == true) {
            score.passed += 1;
        } else {
            wrong.push(format!("{} / {}: {held:?}", group["description"], test["description"]));
        }
    }
}
