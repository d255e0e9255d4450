//! Changes that reach several organisations, or meet those of another operator: asked for, or refused.

use portcullis_redis_lua::Key;
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, Said, Scratch, golden_file, run};

/// `policy.yaml` for other organisations, and with another limit.
fn policy(organisations: &str, limit: u32) -> Scratch {
    let text = golden_file("policy.yaml").replace("[acme]", organisations);
    Scratch::new("policy.yaml", &text.replace("limit: 5,", &format!("limit: {limit},")))
}

fn push(operator: &Operator, file: &Scratch, more: &[&str]) -> Said {
    operator.says(&[&["policy", "push", file.path(), "--reason", "r"], more].concat())
}

fn version(said: &Said) -> String {
    said.json()["version"].as_str().unwrap().to_owned()
}

fn active(operator: &Operator, org: &str) -> Option<String> {
    operator.redis().hget(Key::policy(org).as_str(), "rev").unwrap()
}

/// As another operator.
fn as_other(operator: &Operator, arguments: &[&str]) -> Said {
    let arguments = [arguments, &["--output", "json", "--actor", "other"]].concat();
    run(&arguments, &[("PORTCULLIS_REDIS", operator.valkey.url())], "")
}

fn asked_for(said: &Said) {
    assert_eq!((said.status, said.stdout.as_str()), (2, ""), "{said:?}");
    assert!(said.stderr.contains("--all") && said.stderr.contains("--org"), "{said:?}");
    assert!(said.stderr.contains("nothing was changed"), "{said:?}");
}

// Finding 12.10: a document with a second name in it replaced the policy of the second.
#[test]
fn a_document_replaces_several_policies_only_when_that_is_asked_for() {
    let operator = Operator::with_policy();
    version(&push(&operator, &policy("[globex]", 6), &[]));
    let before = ["acme", "globex"].map(|org| active(&operator, org));
    let both = policy("[acme, globex]", 7);
    asked_for(&push(&operator, &both, &[]));
    asked_for(&push(&operator, &both, &["--canary", "10%"]));
    assert_eq!(["acme", "globex"].map(|org| active(&operator, org)), before);

    let third = version(&push(&operator, &both, &["--org", "acme"]));
    assert_eq!(active(&operator, "acme").as_ref(), Some(&third));
    assert_eq!(active(&operator, "globex"), before[1]);
    // The rest of it: nothing but one policy is replaced by now.
    version(&push(&operator, &both, &[]));
    assert_eq!(active(&operator, "globex").as_ref(), Some(&third));
    // From here on they are one, and a third joins them.
    let three = policy("[acme, globex, initech]", 8);
    let fourth = version(&push(&operator, &three, &[]));
    assert_eq!(active(&operator, "initech"), Some(fourth.clone()));
    assert_eq!(push(&operator, &three, &["--org", "hooli"]).status, 1);

    // Going back reaches all three.
    asked_for(&operator.says(&["policy", "rollback", "--reason", "r"]));
    operator.says(&["policy", "rollback", "--reason", "r", "--org", "globex"]).json();
    assert_eq!(active(&operator, "globex").as_ref(), Some(&third));
    assert_eq!(active(&operator, "acme"), Some(fourth));
}

// Finding 12.10.
#[test]
fn canaries_of_several_organisations_are_promoted_only_when_that_is_asked_for() {
    let operator = Operator::new();
    version(&push(&operator, &policy("[acme, globex]", 5), &[]));
    let canary = version(&push(&operator, &policy("[acme, globex]", 6), &["--canary", "10%"]));
    asked_for(&operator.says(&["policy", "promote", "--reason", "r"]));
    assert_ne!(active(&operator, "acme").as_ref(), Some(&canary));
    operator.says(&["policy", "promote", "--reason", "r", "--all"]).json();
    assert_eq!(active(&operator, "globex"), Some(canary));
}

// Finding 9.11: two operators went back from the same bad push, and the second brought it back.
#[test]
fn a_rollback_of_somebody_else_is_not_undone_unasked() {
    let operator = Operator::with_policy();
    let good = active(&operator, "acme").unwrap();
    let bad = version(&push(&operator, &policy("[acme]", 6), &[]));
    let rollback = ["policy", "rollback", "--reason", "too many"];
    operator.says(&rollback).json();
    assert_eq!(active(&operator, "acme").as_ref(), Some(&good));

    let refusal = as_other(&operator, &rollback).refusal();
    let found = refusal["found"].as_str().unwrap();
    assert!(found.starts_with(&format!("tester went back to {good} ")), "{found}");
    assert!(found.ends_with(": too many"), "{found}");
    let from_bad = [&rollback[..], &["--from", &bad]].concat();
    let refusal = as_other(&operator, &from_bad).refusal();
    assert_eq!(refusal["found"], json!(format!("{good} is active for acme")));
    assert_eq!(active(&operator, "acme").as_ref(), Some(&good));

    // One's own, and whoever insists, or names what is to go.
    as_other(&operator, &[&rollback[..], &["--force"]].concat()).json();
    assert_eq!(active(&operator, "acme").as_ref(), Some(&bad));
    as_other(&operator, &from_bad).json();
    assert_eq!(active(&operator, "acme").as_ref(), Some(&good));
}

// Finding 9.11.
#[test]
fn a_push_that_expects_another_version_to_be_active_is_refused() {
    let operator = Operator::with_policy();
    let first = active(&operator, "acme").unwrap();
    let mine = policy("[acme]", 7);
    let other = version(&push(&operator, &policy("[acme]", 6), &["--if-active", &first]));
    let refusal = push(&operator, &mine, &["--if-active", &first]).refusal();
    assert_eq!(refusal["found"], json!(format!("{other} is active for acme")));
    assert_eq!(active(&operator, "acme").as_ref(), Some(&other));
    version(&push(&operator, &mine, &["--if-active", &other]));
}

// Finding 12.10: a push with a user of one organisation was active, and exited with 1.
#[test]
fn an_operator_of_one_organisation_is_told_what_was_done() {
    let operator = Operator::with_policy();
    version(&push(&operator, &policy("[globex]", 6), &[]));
    let create = ["operator", "create", "of-acme", "--org", "acme", "--task", "policy"];
    let created: Value = serde_json::from_str(&operator.says(&create).stdout).unwrap();
    let url = created["url"].as_str().unwrap();
    let environment = [("PORTCULLIS_REDIS", url)];
    let file = policy("[acme]", 9);
    let arguments = ["policy", "push", file.path(), "--reason", "r", "--output", "json"];
    let said = run(&arguments, &environment, "");
    assert_eq!(said.status, 0, "{said:?}");
    let pushed: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(active(&operator, "acme").as_deref(), pushed["version"].as_str());
    assert!(!said.stderr.contains("globex"), "{said:?}");
    // What is another's stays another's.
    let file = policy("[globex]", 9);
    let arguments = ["policy", "push", file.path(), "--reason", "r", "--output", "json"];
    let refusal = run(&arguments, &environment, "").refusal();
    assert_eq!(refusal["found"], "this Redis user may not do that");
}
