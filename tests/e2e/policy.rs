//! Policies change under running gateways, from one request to the next, without a restart.

use std::time::Duration;

use portcullis_stack::ready;
use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::{Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["policy":
        change_takes_effect_on_the_next_request_of_every_worker,
        rollback_takes_effect_on_the_next_request,
        refused_policy_changes_nothing_and_names_every_mistake,
        organisation_without_a_policy_is_refused,
        a_policy_that_cannot_be_read_leaves_the_last_good_one_in_force,
        unknown_path_is_told_only_to_who_has_a_key,
    ]
}

fn without_metrics(policy: &Value) -> Value {
    let mut changed = policy.clone();
    changed["roles"]["analyst"]["demo"]["allow"] = json!(["query_users", "search_contacts"]);
    changed
}

fn change_takes_effect_on_the_next_request_of_every_worker(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let metrics = || org.call(&key, "get_dashboard_metrics", json!({}));
    let mut versions = Vec::new();
    for round in 0..3 {
        for _ in 0..6 {
            let answer = metrics();
            assert_eq!(answer.rows().len(), 6, "round {round}");
            versions.push(answer.audit()["policy_version"].clone());
        }
        org.push(&without_metrics(&org.standard_policy()));
        for _ in 0..6 {
            let answer = metrics();
            answer.assert_refused(200, -32_602);
            versions.push(answer.audit()["policy_version"].clone());
        }
        org.push(&org.standard_policy());
    }
    versions.sort_by_key(Value::to_string);
    versions.dedup();
    // Two documents, two versions, however often they were active: a version is its content.
    assert_eq!(versions.len(), 2, "{versions:?}");
    assert!(versions.iter().all(|version| version.as_str().is_some_and(|v| v.len() == 16)));
}

// Proves: A26
fn rollback_takes_effect_on_the_next_request(world: &World<'_>) {
    // Its own stack: a rollback concerns the history, which all organisations of a Redis share.
    let stack = world.own_stack(|options| options);
    let org = Organisation::new(&stack);
    let key = org.key("analyst").key;
    let metrics = || org.call(&key, "get_dashboard_metrics", json!({}));
    let first = metrics().audit()["policy_version"].clone();
    org.push(&without_metrics(&org.standard_policy()));
    metrics().assert_refused(200, -32_602);
    org.operator
        .json(&["policy", "rollback", "--reason", "too strict"])
        .unwrap_or_else(|fault| panic!("{fault}"));
    for _ in 0..6 {
        let answer = metrics();
        assert_eq!(answer.rows().len(), 6);
        assert_eq!(answer.audit()["policy_version"], first);
    }
}

fn refused_policy_changes_nothing_and_names_every_mistake(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let mut policy = without_metrics(&org.standard_policy());
    policy["roles"]["analyst"]["dmeo"] = json!({"allow": ["*"]});
    policy["tiers"]["wide"]["limits"]["calls"]["window"] = json!("1 fortnight");
    policy["surprise"] = json!(true);
    let file = world.stack().dir().join(format!("bad-policy-{}.json", org.name));
    std::fs::write(&file, policy.to_string()).unwrap();
    for verb in ["check", "push"] {
        let mut arguments = vec!["policy", verb, file.to_str().unwrap()];
        if verb == "push" {
            arguments.extend(["--reason", "a test"]);
        }
        let output = org.operator.run(&arguments).unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(1), "{verb}: {said}");
        for mistake in ["roles.analyst.dmeo", "tiers.wide.limits.calls.window", "surprise"] {
            assert!(said.contains(mistake), "{verb} does not name {mistake}: {said}");
        }
    }
    assert_eq!(org.call(&key, "get_dashboard_metrics", json!({})).rows().len(), 6);
}

// Proves: B2
fn organisation_without_a_policy_is_refused(world: &World<'_>) {
    // The worker that knew a policy is the one that is asked again.
    let own = world.single_worker();
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    assert_eq!(org.post(&key, &mcp::list()).status(), 200);
    // No command of the CLI leaves an organisation without a policy; a person with access to Redis can.
    let delete = [format!("DEL portcullis:{{{}}}:policy", org.name)];
    // In a Cluster one node has it.
    let mut valkeys = world.stack().valkeys();
    assert!(valkeys.any(|valkey| valkey.administer(&delete).unwrap() == [":1"]));
    let answer = org.post(&key, &mcp::list());
    answer.assert_refused(503, -31_503);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(answer.audit()["decision"]["rule"], "unavailable.redis.went_back");
}

fn a_policy_that_cannot_be_read_leaves_the_last_good_one_in_force(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    // A worker that knows a good policy; the shared gateway was never asked by this organisation.
    let worker = world.single_worker();
    let there = org.through(&worker.gateway);
    let metrics = |org: &Organisation| org.call(&key, "get_dashboard_metrics", json!({}));
    let good = metrics(&there).audit()["policy_version"].clone();
    let mut policy = without_metrics(&org.standard_policy());
    // No command leaves such a version; a person with access to Redis can.
    for (name, verb, rest, done) in [("a", "SET", " rubbish", "+OK"), ("b", "DEL", "", ":1")] {
        policy["redact"] = json!([name]);
        let version = org.push(&policy)["version"].clone();
        let key = format!("portcullis:policy:doc:{}", version.as_str().unwrap());
        let command = [format!("{verb} {key}{rest}")];
        // In a Cluster one node has it.
        let mut valkeys = world.stack().valkeys();
        assert!(valkeys.any(|valkey| valkey.administer(&command).unwrap() == [done]));

        let answer = metrics(&there);
        assert_eq!(answer.rows().len(), 6);
        let entry = answer.audit();
        assert_eq!(entry["policy_version"], good, "{entry}");
        let told = json!({"event": "policy_unusable", "version": version});
        assert!(entry["events"].as_array().unwrap().contains(&told), "{entry}");
        let answer = metrics(&org);
        answer.assert_refused(503, -31_503);
        assert_eq!(answer.audit()["decision"]["rule"], "policy.unusable");
    }
    // Pushing the document again brings it back; it is looked for again after ten seconds.
    let version = org.push(&policy)["version"].clone();
    let refused = ready::eventually("the new policy", Duration::from_secs(30), || {
        Some(metrics(&there)).filter(|answer| answer.error_code().is_some())
    });
    let refused = refused.unwrap_or_else(|fault| panic!("{fault}"));
    refused.assert_refused(200, -32_602);
    assert_eq!(refused.audit()["policy_version"], version);
}

// Proves: B2
fn unknown_path_is_told_only_to_who_has_a_key(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    for path in ["/nowhere", "/demo/mcp/", "/demo", "/DEMO/MCP", "/demo/mcp/x", "/"] {
        let message = mcp::call("query_users", json!({}));
        let answer = org.gateway.send(&Request::post(path, message.to_string()).bearer(&key));
        assert_eq!(answer.status(), 404, "{path}: {}", answer.text());
        assert!(answer.upstream().is_empty(), "{path}");
        assert_eq!(answer.audit()["http_status"], 404, "{path}");
    }
    // One spelling of a path: what normalises to the connector's path is the connector's path.
    for path in ["//demo//mcp", "/x/../demo/mcp", "/%64emo/mcp"] {
        let message = mcp::call("delete_user", json!({"id": 1}));
        let answer = org.gateway.send(&Request::post(path, message.to_string()).bearer(&key));
        assert!(answer.upstream().is_empty(), "{path} went around the policy");
    }
    let plain = Request::post(DEMO, mcp::list().to_string()).bearer(&key);
    assert_eq!(org.gateway.send(&plain).status(), 200);
}
