//! That the search for secrets in places where none belongs finds one: each trial, and the whole run, ends with it.

use std::fs;

use portcullis_stack::known_secrets;
use portcullis_tests::leaks::{report, search};
use portcullis_tests::{Case, World, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases!["leaks": a_secret_that_was_planted_is_found_in_each_form]
}

// Proves: A5, A16, C1
fn a_secret_that_was_planted_is_found_in_each_form(world: &World<'_>) {
    let dir = world.dir().join("planted");
    fs::create_dir_all(dir.join("logs")).unwrap();
    let value = "planted\"s3cret/with+more";
    const PLACE: &str = "secret/data/connectors/planted";
    known_secrets::note(value, PLACE);
    // Trials that run at the same time have secrets of their own, such as a part of this one.
    let planted = |dir: &std::path::Path| {
        let mut found = search(dir);
        found.retain(|leak| leak.of == PLACE);
        found
    };
    for (file, text) in [
        ("raw.log", format!("[info] the key is {value}, indeed")),
        ("url.txt", "GET /mcp?key=planted%22s3cret%2Fwith%2Bmore HTTP/1.1".to_owned()),
        ("logs/audit.jsonl", r#"{"arguments":{"key":"planted\"s3cret/with+more"}}"#.to_owned()),
        ("core.4711", "\0\0cGxhbnRlZCJzM2NyZXQvd2l0aCttb3Jl\0".to_owned()),
        ("harmless.log", "planted s3cret/with+more".to_owned()),
        ("credential", value.to_owned()),
    ] {
        fs::write(dir.join(file), text).unwrap();
    }
    let found = planted(&dir);
    let mut files: Vec<_> =
        found.iter().map(|leak| leak.file.strip_prefix(&dir).unwrap().to_owned()).collect();
    files.sort();
    files.dedup();
    let expected = ["core.4711", "logs/audit.jsonl", "raw.log", "url.txt"];
    assert_eq!(files, expected.map(std::path::PathBuf::from));
    let said = report(&found).unwrap();
    assert!(said.contains(&format!("raw.log: the secret of {PLACE}")), "{said}");
    assert!(!said.contains(value), "the report is none of the places: {said}");
    // Nothing of it is left for the search that follows this trial.
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(report(&planted(&world.dir())), None);
}
