//! The admin chain: who changed which key or policy, when and why.

use portcullis_redis_lua::Key;
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, file, issue, record, run};

fn chain(operator: &Operator, org: &str) -> Vec<String> {
    operator.redis().lrange(Key::admin(org).as_str(), 0, -1).unwrap()
}

fn verify(operator: &Operator) -> (i32, Value) {
    let said = operator.says(&["audit", "verify", "--admin"]);
    (said.status, serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}")))
}

// Proves: A18, A23, A27
#[test]
fn every_change_leaves_one_entry_that_tells_who_what_when_and_why() {
    let operator = Operator::with_policy();
    let issued = issue(&operator, &["--reason", "new agent"]).json();
    let (id, key) = (issued["record"]["id"].as_str().unwrap(), issued["key"].as_str().unwrap());
    operator.says(&["key", "set", id, "--role", "admin", "--reason", "promoted"]).json();
    operator.says(&["key", "set", id, "--role", "admin"]).json();
    let rotated = operator.says(&["key", "rotate", id, "--overlap", "1h"]).json();
    operator.says(&["key", "rotate", id]).refusal();
    operator.says(&["key", "revoke", id, "--reason", "left"]).json();
    operator.says(&["key", "revoke", id, "--reason", "again"]).json();
    operator.says(&["policy", "push", &file("policy.yaml"), "--reason", "the same"]).json();

    let lines = chain(&operator, "acme");
    let entries: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(told, ["policy.push", "key.issue", "key.set", "key.rotate", "key.revoke"]);
    for (place, entry) in (1..).zip(&entries) {
        assert_eq!((&entry["chain"], &entry["seq"]), (&json!("admin:acme"), &json!(place)));
        assert_eq!((&entry["actor"], &entry["org_id"]), (&json!("tester"), &json!("acme")));
        assert_eq!(
            (&entry["status"], &entry["decision"]["effect"]),
            (&json!("success"), &json!("allow"))
        );
        assert_eq!(entry["timestamp"].as_str().unwrap().len(), 27);
        if place > 1 {
            assert_eq!((&entry["api_key_id"], &entry["principal"]), (&json!(id), &json!("cursor")));
        }
    }
    assert_eq!(entries[2]["reason"], "promoted");
    assert_eq!(entries[2]["changes"], json!({"role": {"from": "analyst", "to": "admin"}}));
    let label = |rotated: &Value, nth: usize| {
        rotated["record"]["secrets"][nth]["sha256"].as_str().unwrap()[..12].to_owned()
    };
    let secret = &entries[3]["changes"]["secret"];
    assert_eq!(secret, &json!({"from": label(&rotated, 1), "to": label(&rotated, 0)}));
    assert_eq!(entries[4]["changes"], json!({"revoked": {"from": false, "to": true}}));
    assert_eq!(entries[0]["policy_version"], entries[0]["changes"]["policy_version"]["to"]);
    // Nothing in it proves a key.
    let text = lines.concat();
    for key in [key, rotated["key"].as_str().unwrap()] {
        assert!(!text.contains(&key[key.len() - 49..key.len() - 6]), "{text}");
    }
    // As many entries as the record has revisions.
    assert_eq!(record(&operator, "acme", id).0, "4");
    let (status, verified) = verify(&operator);
    assert_eq!((status, &verified["intact"], &verified["entries"]), (0, &json!(true), &json!(5)));
    // What is kept elsewhere verifies there, too.
    let kept = run(&["audit", "verify", "-"], &[], &(lines.join("\n") + "\n"));
    assert_eq!(kept.status, 0, "{kept:?}");
}

// Proves: A18, A23
#[test]
fn an_edited_dropped_or_forged_entry_is_named_and_stops_nobody() {
    let operator = Operator::with_policy();
    let ids: Vec<String> = (0..4)
        .map(|_| issue(&operator, &[]).json()["record"]["id"].as_str().unwrap().to_owned())
        .collect();
    let whole = chain(&operator, "acme");
    let write = |lines: &[String]| {
        let key = Key::admin("acme");
        let _: () = operator.redis().del(key.as_str()).unwrap();
        let _: () = operator.redis().rpush(key.as_str(), lines).unwrap();
    };
    let edited: Vec<_> = whole.iter().map(|line| line.replace("tester", "nobody")).collect();
    let mut dropped = whole.clone();
    dropped.remove(2);
    let mut rubbish = whole;
    rubbish.push("rubbish".to_owned());
    for (lines, place, words) in [
        (&edited, 1, "was changed after it was written"),
        (&dropped, 3, "entries are missing"),
        (&rubbish, 6, "not an audit entry"),
    ] {
        write(lines);
        let (status, found) = verify(&operator);
        assert_eq!((status, &found["intact"]), (1, &json!(false)));
        let bad = &found["first_bad"];
        assert_eq!(
            (&bad["file"], &bad["line"]),
            (&json!("the admin chain of acme"), &json!(place))
        );
        assert!(bad["fault"].as_str().unwrap().contains(words), "{bad}");
    }
    // Whoever spoils the log cannot keep a key alive.
    let revoked = operator.says(&["key", "revoke", &ids[0], "--reason", "r"]).json();
    assert_eq!(revoked["changed"], true);
    operator.says(&["key", "revoke", &ids[1], "--reason", "r"]).json();
    let (_, found) = verify(&operator);
    assert_eq!((&found["first_bad"]["line"], &found["bad"]), (&json!(6), &json!(1)));
    assert_eq!(found["chains"].as_array().unwrap().len(), 2);
}

// Proves: A23
#[test]
fn changes_at_the_same_moment_are_one_chain_without_a_gap() {
    let operator = Operator::with_policy();
    let ids: Vec<String> = (0..4)
        .map(|_| issue(&operator, &[]).json()["record"]["id"].as_str().unwrap().to_owned())
        .collect();
    std::thread::scope(|scope| {
        for (nth, id) in ids.iter().enumerate() {
            let operator = &operator;
            scope.spawn(move || {
                for tier in ["pro", "free", "pro"] {
                    let changed = operator.says(&["key", "set", id, "--tier", tier]).json();
                    assert_eq!(changed["changed"], true);
                }
                if nth % 2 == 0 {
                    issue(operator, &[]).json();
                }
            });
        }
        scope.spawn(|| {
            // The same key as one of the others, by another field.
            for name in ["a", "b", "c"] {
                operator.says(&["key", "set", &ids[0], "--name", name]).json();
            }
        });
    });
    let (status, verified) = verify(&operator);
    // A push, four keys, four times three changes, two more keys, three names.
    assert_eq!((status, &verified["entries"]), (0, &json!(1 + 4 + 12 + 2 + 3)), "{verified}");
    let (rev, record) = record(&operator, "acme", &ids[0]);
    assert_eq!((rev.as_str(), record.name.as_str(), record.tier.as_str()), ("7", "c", "pro"));
}

#[test]
fn show_finds_the_changes_of_a_key_newest_first() {
    let operator = Operator::with_policy();
    let [one, _other] = [issue(&operator, &[]).json(), issue(&operator, &[]).json()];
    let id = one["record"]["id"].as_str().unwrap();
    operator.says(&["key", "set", id, "--tier", "pro", "--reason", "paid"]).json();
    let actions = |more: &[&str]| {
        let shown = operator.says(&[&["audit", "show", "--admin"], more].concat()).json();
        let entries = shown["entries"].as_array().unwrap().iter();
        entries.map(|entry| entry["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(actions(&[]), ["key.set", "key.issue", "key.issue", "policy.push"]);
    assert_eq!(actions(&["--key", id]), ["key.set", "key.issue"]);
    assert_eq!(actions(&["--limit", "1"]), ["key.set"]);
    assert_eq!(actions(&["--since", "1h"]).len(), 4);
    assert_eq!(actions(&["--since", "2126-01-01T00:00:00Z"]), [""; 0]);
    assert_eq!(actions(&["--org", "globex"]), [""; 0]);
    let plainly = operator.plainly(&["audit", "show", "--admin", "--key", id]).stdout;
    assert!(plainly.contains("tester  paid         tier: free -> pro"), "{plainly}");
    let shown = operator.says(&["audit", "show"]).json();
    assert_eq!(shown["entries"].as_array().unwrap().len(), 4);
    assert_eq!(operator.says(&["audit", "verify", "--admin", "x.log"]).status, 2);
}
