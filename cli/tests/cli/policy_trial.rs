//! `policy canary start`, `widen`, `stop` and `promote`, and keys that a change of policy would orphan.

use portcullis_core::policy::Activation;
use portcullis_redis_lua::Key;
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, Said, Scratch, file, golden_file, issue};

fn active(operator: &Operator) -> Activation {
    let (rev, doc): (String, Vec<u8>) =
        operator.redis().hmget(Key::policy("acme").as_str(), &["rev", "doc"]).unwrap();
    Activation::parse(&rev, &doc).unwrap()
}

fn variant(from: &str, to: &str) -> Scratch {
    Scratch::new("variant.yaml", &golden_file("policy.yaml").replace(from, to))
}

fn canary(operator: &Operator, arguments: &[&str]) -> Said {
    operator.says(&[&["policy", "canary"], arguments, &["--reason", "r"]].concat())
}

// Proves: X4
#[test]
fn a_trial_starts_widens_and_ends_by_verbs_that_do_one_thing() {
    let operator = Operator::with_policy();
    let first = active(&operator).version;
    let key = issue(&operator, &[]).json()["record"]["id"].as_str().unwrap().to_owned();
    let (candidate, other) = (variant("limit: 5,", "limit: 6,"), variant("limit: 5,", "limit: 7,"));
    for arguments in [&["widen", "--percent", "20%"][..], &["stop"], &["promote"]] {
        let refusal = canary(&operator, arguments).refusal();
        assert_eq!(refusal["found"], "no policy is tried on some callers", "{arguments:?}");
    }
    assert_eq!(canary(&operator, &["start", candidate.path()]).status, 2, "on nobody");
    canary(&operator, &["start", candidate.path(), "--percent", "10%"]).json();
    // Another one does not take its place.
    let refusal = canary(&operator, &["start", other.path(), "--percent", "10%"]).refusal();
    assert!(refusal["found"].as_str().unwrap().ends_with("is tried on 10 % of acme already"));
    let tried = active(&operator).canary.unwrap();
    assert_eq!((tried.percent, tried.callers.len()), (10, 0));

    canary(&operator, &["widen", "--percent", "30%", "--caller", &key]).json();
    canary(&operator, &["widen", "--certificate", "nightly"]).json();
    let wider = active(&operator).canary.unwrap();
    assert_eq!((wider.percent, wider.callers.len()), (30, 2));
    assert_eq!(wider.version, tried.version);
    let refusal = canary(&operator, &["widen", "--percent", "20%"]).refusal();
    assert!(refusal["expected"].as_str().unwrap().starts_with("a larger share"), "{refusal}");
    assert_eq!(canary(&operator, &["widen", "--caller", "nosuchkey1"]).status, 1);

    canary(&operator, &["stop"]).json();
    assert_eq!((active(&operator).version, active(&operator).canary), (first, None));
    canary(&operator, &["start", candidate.path(), "--caller", &key]).json();
    canary(&operator, &["promote"]).json();
    assert_eq!((active(&operator).version, active(&operator).canary), (tried.version, None));
    let history = operator.says(&["policy", "history"]).json();
    let verbs: Vec<&Value> =
        history["history"].as_array().unwrap().iter().map(|entry| &entry["verb"]).collect();
    assert_eq!(verbs, ["promote", "canary", "canary_stop", "canary", "canary", "canary", "push"]);
}

/// `policy.yaml` without the role of a key that is active, and that key.
fn with_orphan() -> (Operator, Scratch, String) {
    let operator = Operator::with_policy();
    let key = issue(&operator, &[]).json()["record"]["id"].as_str().unwrap().to_owned();
    (operator, variant("  analyst:\n", "  reader:\n"), key)
}

fn orphaned(said: &Said, key: &str) {
    let refusal = said.refusal();
    let found = refusal["found"].as_str().unwrap();
    assert!(
        found.starts_with("the document lacks the role or the tier of 1 active key: "),
        "{found}"
    );
    assert!(found.contains(key) && found.contains("role analyst"), "{found}");
}

#[test]
fn every_change_that_would_orphan_keys_names_them_and_is_refused() {
    let (operator, without, key) = with_orphan();
    let with = active(&operator).version;
    let says = |arguments: &[&str]| operator.says(&[arguments, &["--reason", "r"]].concat());
    orphaned(&says(&["policy", "push", without.path()]), &key);
    orphaned(&says(&["policy", "canary", "start", without.path(), "--percent", "10%"]), &key);
    let start = ["policy", "canary", "start", without.path(), "--percent", "10%", "--orphan-keys"];
    let named = |said: Said| {
        let (_, warning) = said.warned();
        let lost = "warning: the document lacks the role or the tier of 1 active key: ";
        assert!(warning.contains(lost) && warning.contains(&key), "{warning}");
    };
    named(says(&start));
    orphaned(&says(&["policy", "promote"]), &key);
    orphaned(&says(&["policy", "canary", "promote"]), &key);
    assert_eq!(active(&operator).version, with);
    named(says(&["policy", "canary", "promote", "--orphan-keys"]));
    // What had no role is not taken one; going back gives it again.
    says(&["policy", "rollback"]).json();
    assert_eq!(active(&operator).version, with);
    orphaned(&says(&["policy", "rollback"]), &key);
    named(says(&["policy", "rollback", "--orphan-keys"]));
}

#[test]
fn keys_whose_role_the_active_policy_lacks_are_named_where_keys_are_looked_at() {
    let (operator, without, key) = with_orphan();
    let list = || operator.plainly(&["key", "list"]).stdout;
    assert!(!list().contains("warning"), "{}", list());
    operator.says(&["policy", "push", without.path(), "--reason", "r", "--orphan-keys"]).warned();
    let warning = format!("warning: acme/{key}: the active policy lacks its role analyst");
    assert!(list().contains(&warning), "{}", list());
    assert!(operator.plainly(&["key", "show", &key]).stdout.contains("lacks its role analyst"));
    let listed = operator.says(&["key", "list"]).json();
    assert_eq!(listed["keys"][0]["policy_lacks"], json!("role analyst"));
    let doctor = operator.plainly(&["doctor"]).stdout;
    assert!(doctor.contains("keys acme"), "{doctor}");
    assert!(doctor.contains(&format!("1 active keys, whose calls get 403: {key}")), "{doctor}");
    // A role that the policy has not is refused at every connector: none has to be named.
    let explained = operator.plainly(&["explain", "--key", &key, "--tool", "echo"]);
    assert_eq!(explained.status, 1, "{explained:?}");
    assert!(explained.stdout.starts_with("deny by "), "{explained:?}");
    operator.says(&["policy", "push", &file("policy.yaml"), "--reason", "r"]).json();
    assert!(!operator.plainly(&["doctor"]).stdout.contains("keys acme"));
}

#[test]
fn every_change_of_a_key_or_a_denial_wants_a_reason() {
    let redis = [("PORTCULLIS_REDIS", "redis://127.0.0.1:1/")];
    for arguments in [
        &["key", "issue", "--org", "a", "--name", "n", "--role", "r", "--tier", "t"][..],
        &["key", "set", "key1", "--role", "r"],
        &["key", "rotate", "key1"],
        &["key", "rotate", "--older-than", "30d"],
        &["key", "revoke", "key1"],
        &["token", "deny", "--jti", "j", "--issuer", "i", "--org", "a"],
        &["token", "allow", "--jti", "j", "--issuer", "i", "--org", "a"],
        &["limits", "reset", "key1"],
        &["approve", "grant", "0123456789abcdef"],
        &["policy", "push", "policy.yaml"],
        &["policy", "promote"],
        &["policy", "rollback"],
        &["policy", "canary", "start", "policy.yaml", "--percent", "10%"],
        &["policy", "canary", "widen", "--percent", "10%"],
        &["policy", "canary", "stop"],
    ] {
        let said = crate::harness::run(arguments, &redis, "");
        assert_eq!(said.status, 2, "{arguments:?}: {said:?}");
        assert!(said.stderr.contains("--reason"), "{arguments:?}: {said:?}");
    }
}

/// A limit for a key that does not exist counts no caller, and nothing said so. Proves: X4
#[test]
fn keys_that_a_policy_names_and_nobody_has_are_named() {
    let operator = Operator::with_policy();
    let key = issue(&operator, &[]).json()["record"]["id"].as_str().unwrap().to_owned();
    let limits = "{limits: {calls: {limit: 9, window: 1s}}}";
    let text = golden_file("policy.yaml");
    let with = |ids: &[&str]| {
        let keys: String = ids.iter().map(|id| format!("  {id}: {limits}\n")).collect();
        Scratch::new("keys.yaml", &format!("{text}\nkeys:\n{keys}"))
    };
    let (known, unknown) = (with(&[&key]), with(&[&key, "k9misspelt"]));
    let push = |file: &Scratch, more: &[&str]| {
        operator.says(&[&["policy", "push", file.path(), "--reason", "r"], more].concat())
    };
    let told = "keys.k9misspelt: found no key of acme with this id, so the limits count no calls";
    push(&known, &["--strict"]).json();
    let dry = push(&unknown, &["--dry-run"]).json();
    assert_eq!(dry["unknown_keys"], json!(["k9misspelt"]), "{dry}");
    let dry = operator.plainly(&["policy", "push", unknown.path(), "--reason", "r", "--dry-run"]);
    assert!(dry.stdout.contains(&format!("warning: {told}")), "{dry:?}");
    let refusal = push(&unknown, &["--strict"]).refusal();
    assert!(refusal["found"].as_str().unwrap().starts_with(told), "{refusal}");
    let pushed = push(&unknown, &[]);
    let (_, warning) = pushed.warned();
    assert!(warning.contains(told) && !warning.contains(&key), "{warning}");
    assert!(operator.plainly(&["doctor"]).stdout.contains(told));
}
