//! `policy diff` and `policy push --dry-run`.

use serde_json::{Value, json};

use crate::harness::{Operator, Scratch, file, run};

fn changed() -> Scratch {
    let text = std::fs::read_to_string(file("policy.yaml")).unwrap();
    let text = text
        .replace("show: [create_note]", "show: [create_note, delete_user]")
        .replace("limit: 5,", "limit: 6,")
        .replace("redact: [ssn]", "cool_off: {refusals: 10, within: 1m, first: 1s, longest: 5m}");
    Scratch::new("changed.yaml", &text)
}

const LINES: &str = "  \
  + cool_off  {\"first\":\"1s\",\"longest\":\"5m\",\"refusals\":10,\"within\":\"1m\"}
  - redact  [\"ssn\"]
  ~ roles.analyst.demo.show  + \"delete_user\"
  ~ tiers.free.limits.calls.limit  5 -> 6
1 added, 1 removed, 2 changed
";

// Proves: A25, X4
#[test]
fn a_file_is_compared_with_what_is_active_place_by_place() {
    let operator = Operator::with_policy();
    let (active, changed) = (operator.says(&["policy", "show"]).json(), changed());
    let said = operator.plainly(&["policy", "diff", changed.path()]);
    assert_eq!((said.status, said.stderr.as_str()), (0, ""));
    let version = active["version"].as_str().unwrap();
    let (head, rest) = said.stdout.split_at(said.stdout.match_indices('\n').nth(1).unwrap().0 + 1);
    assert!(
        head.starts_with(&format!("from  policy {version}, active for acme\nto    ")),
        "{head}"
    );
    assert!(head.contains("changed.yaml, version "), "{head}");
    assert_eq!(rest, LINES);

    let json = operator.says(&["policy", "diff", changed.path()]).json();
    assert_eq!(
        (&json["different"], &json["comparisons"][0]["from"]["version"]),
        (&json!(true), &active["version"])
    );
    let changes = &json["comparisons"][0]["changes"];
    assert_eq!(
        changes[2],
        json!({
            "path": "roles.analyst.demo.show", "kind": "changed",
            "old": ["create_note"], "new": ["create_note", "delete_user"],
            "added": ["delete_user"], "removed": [],
        })
    );
    let limit =
        json!({"path": "tiers.free.limits.calls.limit", "kind": "changed", "old": 5, "new": 6});
    assert_eq!(changes[3], limit);
    assert_eq!(changes[1], json!({"path": "redact", "kind": "removed", "old": ["ssn"]}));
    assert_eq!(changes[0]["kind"], "added");
}

#[test]
fn the_exit_status_tells_of_a_difference_when_asked_to() {
    let changed = changed();
    let files = |first: &str, second: &str, more: &[&str]| {
        run(&[&["policy", "diff", first, second], more].concat(), &[], "")
    };
    let same = file("policy.yaml");
    assert_eq!(files(&same, changed.path(), &[]).status, 0);
    assert_eq!(files(&same, changed.path(), &["--exit-code"]).status, 1);
    let none = files(&same, &same, &["--exit-code"]);
    assert_eq!((none.status, none.stdout.lines().last()), (0, Some("no difference")));
    // Whatever is wrong is on standard error, and leaves standard output empty.
    let missing = files(&same, "nowhere.yaml", &["--exit-code"]);
    assert_eq!((missing.status, missing.stdout.as_str()), (1, ""));
    assert_eq!(files(&same, changed.path(), &["--org", "acme"]).status, 2);
}

#[test]
fn stored_versions_and_the_canary_are_compared() {
    let operator = Operator::with_policy();
    let refusal = operator.says(&["policy", "diff"]).refusal();
    assert_eq!(refusal["found"], "no policy is tried on some callers");
    let first = operator.says(&["policy", "show"]).json()["version"].as_str().unwrap().to_owned();
    let changed = changed();
    let push = ["policy", "push", changed.path(), "--reason", "r", "--canary", "5%"];
    let second = operator.says(&push).json()["version"].as_str().unwrap().to_owned();
    let lines = |arguments: &[&str]| {
        let said = operator.plainly(&[&["policy", "diff"], arguments].concat());
        assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{said:?}");
        said.stdout
    };
    let canary = lines(&[]);
    assert!(canary.contains(&format!("to    policy {second}, the canary of acme\n")), "{canary}");
    for told in
        [canary, lines(&[&second]), lines(&[&first, &second]), lines(&[&first, changed.path()])]
    {
        assert!(told.ends_with(LINES), "{told}");
    }
    let back = operator.says(&["policy", "diff", &second, &first]).json();
    assert_eq!(back["comparisons"][0]["changes"][0]["kind"], "removed");
    let refusal = operator.says(&["policy", "diff", "0123456789abcdef"]).refusal();
    assert_eq!(refusal["found"], "there is no policy 0123456789abcdef");
}

#[test]
fn a_dry_run_shows_the_same_and_changes_nothing() {
    let operator = Operator::with_policy();
    let before = operator.says(&["policy", "history"]).json();
    let changed = changed();
    let push = |more: &[&str]| {
        operator.says(&[&["policy", "push", changed.path(), "--dry-run"], more].concat())
    };
    let said = push(&[]).json();
    assert_eq!((&said["dry_run"], &said["different"]), (&json!(true), &json!(true)));
    let diff = operator.says(&["policy", "diff", changed.path()]).json();
    assert_eq!(said["comparisons"], diff["comparisons"]);
    assert_eq!(push(&["--canary", "10%"]).json()["organisations"][0]["canary"]["percent"], 10);
    assert_eq!(operator.says(&["policy", "history"]).json(), before);
    let version = said["version"].as_str().unwrap();
    operator.says(&["policy", "show", version]).refusal();
    // Without it, a reason is needed.
    assert_eq!(operator.says(&["policy", "push", changed.path()]).status, 2);
    let fresh = Operator::new();
    let said: Value = fresh.says(&["policy", "push", changed.path(), "--dry-run"]).json();
    assert_eq!(said["comparisons"][0]["from"]["name"], "nothing: acme without a policy");
}
