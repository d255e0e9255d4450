//! Rules on trial, calls that a person has to agree to, and the account of a judgement.

use portcullis_tests::{Case, World, cases, mcp};
use serde_json::{Value, json};

use crate::authz::{arguments_upstream, ruled};
use crate::metrics::{eventually, sample};

pub(crate) fn cases() -> Vec<Case> {
    cases!["authz":
        on_trial_nothing_is_refused_and_the_log_says_what_would_have_been,
        one_rule_on_trial_leaves_the_others_in_force,
        identity_is_never_on_trial,
        limits_on_trial_are_told_and_counted,
        call_that_needs_a_person_is_made_once_it_is_granted_and_only_once,
        approval_is_for_exactly_one_call,
        denied_call_stays_refused,
        explain_says_what_the_gateway_does,
    ]
}

fn events(entry: &Value, name: &str) -> Vec<Value> {
    let events = entry["events"].as_array().cloned().unwrap_or_default();
    events.into_iter().filter(|event| event["event"] == name).collect()
}

// Proves: X13
fn on_trial_nothing_is_refused_and_the_log_says_what_would_have_been(world: &World<'_>) {
    let org = ruled(world.stack(), |policy| {
        policy["enforcement"] = json!("shadow");
        policy["roles"]["analyst"]["demo"]["deny"] = json!(["delete_*"]);
        policy["connectors"]["demo"]["tools"]["query_users"] = json!({
            "max_records": {"argument": "limit", "max": 2},
            "conditions": [{"when": "arguments.limit < 3"}]});
    });
    let key = org.key("analyst").key;
    assert!(org.post(&key, &mcp::list()).tools().contains(&"delete_user".to_owned()));
    let denied = org.call(&key, "delete_user", json!({"id": 987_654}));
    assert_eq!((denied.status(), denied.upstream().len()), (200, 1));
    let entry = denied.audit();
    let rule = "roles.analyst.demo.deny";
    assert_eq!(entry["decision"], json!({"effect": "shadow_deny", "rule": rule}));
    let event = json!({"event": "shadow_denied", "check": "authorisation", "rule": rule});
    assert_eq!(events(&entry, "shadow_denied"), [event]);

    let both = org.call(&key, "query_users", json!({"limit": 4}));
    assert_eq!((both.rows().len(), &arguments_upstream(&both)["limit"]), (4, &json!(4)));
    let told: Vec<_> =
        events(&both.audit(), "shadow_denied").iter().map(|event| event["check"].clone()).collect();
    assert_eq!(told, ["caps", "conditions"]);
    let fine = org.call(&key, "query_users", json!({"limit": 2}));
    assert_eq!(fine.audit()["decision"], json!({"effect": "allow"}));
}

// Proves: X13
fn one_rule_on_trial_leaves_the_others_in_force(world: &World<'_>) {
    let org = ruled(world.stack(), |policy| {
        policy["shadow"] = json!(["caps"]);
        policy["connectors"]["demo"]["tools"]["query_users"] = json!({
            "max_records": {"argument": "limit", "max": 2},
            "conditions": [
                {"when": "arguments.limit < 5"},
                {"when": "arguments.limit < 4", "enforcement": "shadow"}]});
    });
    let key = org.key("analyst").key;
    let passed = org.call(&key, "query_users", json!({"limit": 4}));
    assert_eq!(passed.rows().len(), 4);
    assert_eq!(events(&passed.audit(), "shadow_denied").len(), 2);
    let refused = org.call(&key, "query_users", json!({"limit": 5}));
    assert_eq!((&refused.result()["isError"], refused.upstream().len()), (&json!(true), 0));
    assert_eq!(refused.audit()["decision"]["effect"], "deny");
    org.call(&key, "delete_user", json!({"id": 1})).assert_refused(200, -32_602);
}

// Proves: X13
fn identity_is_never_on_trial(world: &World<'_>) {
    let org = ruled(world.stack(), |policy| policy["enforcement"] = json!("shadow"));
    let key = org.key("analyst");
    org.operator.revoke_key(&key.id, "a test").unwrap();
    let call = |key: &str| org.call(key, "query_users", json!({"limit": 1}));
    call(&key.key).assert_refused(401, -31_401);
    call("pck_nobody").assert_refused(401, -31_401);
}

// Proves: X13
fn limits_on_trial_are_told_and_counted(world: &World<'_>) {
    let org = ruled(world.stack(), |policy| policy["shadow"] = json!(["limits"]));
    let key = org.key_in("analyst", "narrow").key;
    let counted = || {
        let labels = [("check", "limits")];
        sample(world, "portcullis_shadow_denied_total", &labels).unwrap_or(0.0)
    };
    let before = counted();
    for call in 1..=5 {
        let answer = org.call(&key, "query_users", json!({"limit": 1}));
        assert_eq!((answer.rows().len(), answer.upstream().len()), (1, 1));
        let decision = match call {
            1..=3 => json!({"effect": "allow"}),
            _ => json!({"effect": "shadow_deny", "rule": "tiers.narrow.calls"}),
        };
        assert_eq!(answer.audit()["decision"], decision, "call {call}");
    }
    eventually("two calls are counted", || counted() >= before + 2.0);
}

/// An organisation in which notes wait for a person, and the key of a caller who writes them.
fn waiting(world: &World<'_>) -> (portcullis_tests::organisation::Organisation, String) {
    let org = ruled(world.stack(), |policy| {
        policy["connectors"]["demo"]["tools"]["create_note"] = json!({"approval": "required"});
    });
    let key = org.key("admin").key;
    (org, key)
}

fn note(title: &str) -> Value {
    json!({"title": title, "body": "b"})
}

fn call_that_needs_a_person_is_made_once_it_is_granted_and_only_once(world: &World<'_>) {
    let (org, key) = waiting(world);
    let call = || org.call(&key, "create_note", note("a"));
    let asked = call();
    asked.assert_refused(403, -31_403);
    let data = asked.message()["error"]["data"].clone();
    let id = data["approval"].as_str().expect("an id").to_owned();
    let rule = "connectors.demo.tools.create_note.approval";
    assert_eq!(data, json!({"rule": rule, "approval": id, "state": "pending"}));
    assert_eq!(events(&asked.audit(), "approval_requested")[0]["id"], id);
    assert_eq!(events(&call().audit(), "approval_requested"), Vec::<Value>::new(), "noted once");

    let list = org.operator.json(&["approve", "list", "--org", &org.name]).unwrap();
    let listed = &list["approvals"][0];
    assert_eq!((&listed["id"], &listed["state"]), (&json!(id), &json!("pending")));
    assert_eq!((&listed["tool"], &listed["arguments"]), (&json!("create_note"), &note("a")));
    let granted = org.operator.json(&["approve", "grant", &id, "--reason", "a test"]).unwrap();
    assert_eq!(granted["approval"]["state"], "granted");
    // No person is asked twice.
    assert!(org.operator.json(&["approve", "grant", &id, "--reason", "again"]).is_err());

    let made = call();
    assert_eq!((made.status(), made.upstream().len()), (200, 1), "{}", made.text());
    assert!(made.message().get("error").is_none(), "{}", made.text());
    let used = events(&made.audit(), "approval_used")[0].clone();
    let asked_by = asked.audit()["request_id"].clone();
    assert_eq!((&used["id"], &used["request_id"]), (&json!(id), &asked_by), "{used}");
    call().assert_refused(403, -31_403);

    let log =
        org.operator.json(&["audit", "show", "--admin", "--org", &org.name]).unwrap().to_string();
    assert!(log.contains("call.grant") && log.contains(&id), "{log}");
}

fn approval_is_for_exactly_one_call(world: &World<'_>) {
    let (org, key) = waiting(world);
    let other = org.key("admin").key;
    let asked = org.call(&key, "create_note", note("a"));
    let id = asked.message()["error"]["data"]["approval"].as_str().unwrap().to_owned();
    org.operator.json(&["approve", "grant", &id, "--reason", "a test"]).unwrap();
    org.call(&key, "create_note", note("A")).assert_refused(403, -31_403);
    org.call(&other, "create_note", note("a")).assert_refused(403, -31_403);
    // Of many at the same moment one is made.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| org.call(&key, "create_note", note("a")).status()))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let made = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(made, 1, "{statuses:?}");
}

fn denied_call_stays_refused(world: &World<'_>) {
    let (org, key) = waiting(world);
    let call = || org.call(&key, "create_note", note("a"));
    let id = call().message()["error"]["data"]["approval"].as_str().unwrap().to_owned();
    org.operator.json(&["approve", "deny", &id, "--reason", "no"]).unwrap();
    let refused = call();
    refused.assert_refused(403, -31_403);
    assert_eq!(refused.message()["error"]["data"]["state"], "denied");
}

fn explain_says_what_the_gateway_does(world: &World<'_>) {
    let org = ruled(world.stack(), |policy| {
        policy["connectors"]["demo"]["tools"] = json!({
            "query_users": {
                "max_records": {"argument": "limit", "max": 3},
                "conditions": [{"when": "arguments.limit < 100", "message": "Too many"}]},
            "search_contacts": {"conditions": [{"when": "time.year < 2000", "enforcement": "shadow"}]},
            "get_dashboard_metrics": {"approval": "required"}});
    });
    let key = org.key("analyst");
    for (tool, arguments) in [
        ("query_users", json!({"limit": 2})),
        ("query_users", json!({"limit": 50})),
        ("query_users", json!({"limit": 100})),
        ("search_contacts", json!({"query": "a"})),
        ("create_note", note("a")),
        ("delete_user", json!({"id": 1})),
        ("get_dashboard_metrics", json!({})),
    ] {
        let text = arguments.to_string();
        let mut command = vec!["explain", "--key", &key.id, "--org", &org.name, "--tool", tool];
        command.extend(["--connector", "demo", "--arguments", &text, "--output", "json"]);
        let output = org.operator.run(&command).unwrap();
        let told: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let answer = org.call(&key.key, tool, arguments);
        let entry = answer.audit();
        let passed = answer.upstream().len() == 1;
        assert_eq!(
            (told["allowed"].as_bool(), output.status.success()),
            (Some(passed), passed),
            "{told}"
        );
        let effect = entry["decision"]["effect"].as_str().unwrap();
        let decision = told["decision"].as_str().unwrap();
        assert_eq!(if decision == "needs_approval" { "deny" } else { decision }, effect, "{told}");
        // A hidden tool's rule is shown to operators, not to the log that names what the client heard.
        if entry["decision"]["rule"] != "tool.not_visible" {
            assert_eq!(told.get("rule"), entry["decision"].get("rule"), "{told}");
        }
        assert!(!told["steps"].as_array().unwrap().is_empty());
        assert_eq!(told["policy_version"], entry["policy_version"]);
        if passed {
            assert_eq!(told["windows"], json!(["tiers.wide.calls"]));
            let goes_on = told.get("amended").cloned();
            assert!(goes_on.is_none_or(|amended| amended == arguments_upstream(&answer)));
        }
    }
    let usage = org.operator.run(&["explain", "--tool", "x"]).unwrap();
    assert_eq!(usage.status.code(), Some(2));
}
