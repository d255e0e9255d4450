//! `policy diff` and `policy push --dry-run`.

use serde_json::{Value, json};

use crate::harness::{Operator, Scratch, file, issue, run};
use sha2::Digest as _;

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
    assert_eq!((missing.status, missing.stdout.as_str()), (2, ""));
    assert_eq!(files(&same, changed.path(), &["--org", "acme"]).status, 2);
}

#[test]
fn stored_versions_and_the_canary_are_compared() {
    let operator = Operator::with_policy();
    let refusal = operator.says(&["policy", "diff"]).unanswered();
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
    let refusal = operator.says(&["policy", "diff", "0123456789abcdef"]).unanswered();
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

/// What the filter writes of calls of `query_users` and `create_note` by key `id`.
pub(crate) fn log(id: &str) -> String {
    use portcullis_core::audit::{Chain, Decision, Entry};
    let mut chain = Chain::new("worker-a".into());
    let entry = |tool: &str, effect: &'static str, arguments: serde_json::Value| {
        let arguments = arguments.as_object().unwrap().clone();
        let text = portcullis_core::json::canonical(&arguments);
        let digest = sha2::Sha256::digest(text.as_bytes());
        Entry {
            timestamp: "2027-01-04T12:00:00.000000Z".into(),
            request_id: format!("req-{tool}"),
            org_id: Some("acme".into()),
            api_key_id: Some(id.into()),
            principal: Some("cursor".into()),
            auth_method: Some("api_key"),
            role: Some("analyst".into()),
            connector: Some("demo".into()),
            mcp_method: Some("tools/call".into()),
            tool_name: Some(tool.into()),
            input: Some(text),
            input_sha256: Some(base16ct::lower::encode_string(&digest)),
            status: if effect == "allow" { "success" } else { "denied" },
            decision: Decision { effect, rule: String::new() },
            client_address: "192.0.2.1".into(),
            ..Entry::default()
        }
    };
    let entries = [
        entry("query_users", "allow", json!({"limit": 5})),
        entry("query_users", "allow", json!({"limit": 500})),
        entry("search_contacts", "allow", json!({})),
        entry("create_note", "deny", json!({})),
    ];
    entries.iter().map(|entry| chain.append(entry) + "\n").collect()
}

/// Task 9: the comparison was of documents only; no replay of last week's calls. Proves: X4
#[test]
fn what_calls_of_a_log_would_get_is_told() {
    let operator = Operator::with_policy();
    let id = issue(&operator, &[]).json()["record"]["id"].as_str().unwrap().to_owned();
    let log = Scratch::new("audit.jsonl", &log(&id));
    let text = std::fs::read_to_string(file("policy.yaml")).unwrap();
    let text = text
        .replace("[query_users, search_contacts], show: [create_note]", "[query_users, create_note]")
        .replace(
            "    path: /demo/mcp\n",
            "    path: /demo/mcp\n    tools: {query_users: {price: 5, max_records: {argument: limit, max: 50}}}\n",
        );
    let new = Scratch::new("new.yaml", &text);
    let command = ["policy", "diff", new.path(), "--against", log.path()];
    let told = operator.says(&command).json();
    let replay = &told["replays"][0];
    let group = |effect: &str| {
        let group = &replay[effect][0];
        (group["tool"].clone(), group["rule"].clone(), group["calls"].clone())
    };
    assert_eq!((&replay["calls"], &replay["callers"]), (&json!(4), &json!(1)), "{told}");
    assert_eq!(
        group("newly_refused"),
        (json!("demo/search_contacts"), json!("roles.analyst.demo.allow"), json!(1))
    );
    assert_eq!(
        group("newly_allowed"),
        (json!("demo/create_note"), json!("roles.analyst.demo.show"), json!(1))
    );
    assert_eq!(
        group("other_arguments"),
        (json!("demo/query_users"), json!("{\"limit\":50}"), json!(1))
    );
    assert_eq!(group("priced_otherwise").2, json!(2));
    assert_eq!(replay["credits"], json!({"from": 3, "to": 11}));
    for none in ["inexact", "guessed", "decided_otherwise"] {
        assert_eq!(replay[none], json!(0), "{none}: {told}");
    }
    let text = operator.plainly(&command).stdout;
    assert!(text.contains("newly refused: 1 call of 1 caller"), "{text}");
    assert!(
        text.contains(&format!("1  {id}  demo/search_contacts  roles.analyst.demo.allow")),
        "{text}"
    );
    assert_eq!(operator.says(&[&command[..], &["--exit-code"]].concat()).status, 1);
    // Two files need no Redis; then tiers are not known, which is said.
    let both = ["policy", "diff", &file("policy.yaml"), new.path(), "--against", log.path()];
    let told = crate::harness::run(&both, &[], "").stdout;
    assert!(told.contains("note: 4 calls of callers whose tier"), "{told}");
    assert!(told.contains("newly refused: 1 call"), "{told}");
}

/// Task 4: a push orphaned two live keys, and nothing said so. Proves: X4
#[test]
fn keys_that_a_push_would_orphan_are_named_and_have_to_be_meant() {
    let operator = Operator::with_policy();
    let id = issue(&operator, &[]).json()["record"]["id"].as_str().unwrap().to_owned();
    let gone = issue(&operator, &[]).json()["record"]["id"].as_str().unwrap().to_owned();
    operator.says(&["key", "revoke", &gone, "--reason", "r"]).json();
    let text = std::fs::read_to_string(file("policy.yaml")).unwrap();
    let new = Scratch::new("new.yaml", &text.replace("  free: {", "  basic: {"));
    let push = ["policy", "push", new.path(), "--reason", "r"];
    let refused = operator.says(&push).refusal();
    let told = refused["found"].as_str().unwrap();
    assert_eq!(
        told,
        format!(
            "the document lacks the role or the tier of 1 active key: {id} of acme (cursor: tier free)"
        )
    );
    assert!(refused["expected"].as_str().unwrap().contains("--orphan-keys"), "{refused}");
    let dry = operator.says(&["policy", "push", new.path(), "--dry-run"]);
    assert_eq!(dry.status, 1, "{dry:?}");
    let dry: serde_json::Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!(dry["orphaned_keys"][0]["id"], json!(id), "{dry}");
    let dry = [&push[..], &["--orphan-keys", "--dry-run"]].concat();
    // Asked for, they are still named, and no reason to refuse.
    assert_eq!(operator.says(&dry).json()["orphaned_keys"].as_array().map(Vec::len), Some(1));
    operator.says(&[&push[..], &["--orphan-keys"]].concat()).warned();
    // It has no tier by now: the next push takes nothing from it.
    let next = Scratch::new("next.yaml", &text.replace("  free: {", "  plain: {"));
    operator.says(&["policy", "push", next.path(), "--reason", "r"]).json();
}
