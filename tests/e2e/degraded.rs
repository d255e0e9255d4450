//! Redis is away, and the operator had rather go on: how far, and that it shows.

use std::time::Duration;

use portcullis_stack::ready;
use portcullis_tests::organisation::{Organisation, PYTHON};
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["degraded":
        local_serves_whom_it_knows_a_share_and_says_so,
        allow_waives_limits_and_nothing_else,
        session_cannot_be_opened_and_its_client_is_told,
    ]
}

fn call(org: &Organisation, key: &str) -> Answer {
    org.call(key, "get_dashboard_metrics", json!({}))
}

fn events(entry: &Value, name: &str) -> usize {
    let events = entry["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().filter(|event| event["event"] == name && event["dependency"] == "redis").count()
}

/// Calls until both workers know the key; connections go to either.
fn warm(org: &Organisation, key: &str) {
    for _ in 0..24 {
        assert_eq!(call(org, key).status(), 200);
    }
}

// Proves: B2, B18
fn local_serves_whom_it_knows_a_share_and_says_so(world: &World<'_>) {
    let stack = world.own_stack(|options| options.set("REDIS_ON_FAILURE", "local"));
    let org = Organisation::with_policy(&stack, |policy| {
        policy["tiers"]["hourly"] = json!({"limits": {"calls": {"limit": 100, "window": "1h"}}});
    });
    let (key, unknown) = (org.key_in("analyst", "hourly").key, org.key("analyst").key);
    warm(&org, &key);

    stack.valkeys().for_each(|valkey| valkey.crash());
    let away: Vec<Answer> = (0..40).map(|_| call(&org, &key)).collect();
    let count = |status| away.iter().filter(|answer| answer.status() == status).count();
    // A tenth of a hundred on each of two workers, and an exact time to come back. None was refused for Redis's sake.
    assert!((10..=20).contains(&count(200)), "{}", count(200));
    assert_eq!(count(200) + count(429), 40, "{:?}", away.iter().map(Answer::status).max());
    for answer in &away {
        let entry = answer.audit();
        assert_eq!(entry["degraded"], json!(["redis"]), "{entry}");
        assert_eq!(answer.upstream().len(), usize::from(answer.status() == 200));
        assert_eq!(answer.header("retry-after").is_some(), answer.status() == 429);
    }
    let entered = away.iter().map(|answer| events(&answer.audit(), "degraded_entered"));
    assert!((1..=2).contains(&entered.sum::<usize>()), "once on each worker");
    // What the policy refuses is refused; who was never confirmed here does not get in.
    org.call(&key, "create_note", json!({"name": "a", "text": "b"})).assert_refused(403, -31_403);
    call(&org, &unknown).assert_refused(503, -31_503);

    stack.valkeys().for_each(|valkey| valkey.restart().unwrap());
    let mut back = Vec::new();
    ready::eventually("confirmed calls on both workers", Duration::from_secs(20), || {
        back.push(call(&org, &key).audit());
        let entered = away.iter().map(|answer| events(&answer.audit(), "degraded_entered"));
        let left = back.iter().map(|entry| events(entry, "degraded_left")).sum::<usize>();
        (left >= entered.sum()).then_some(())
    })
    .unwrap();
    let last = call(&org, &key).audit();
    assert!(last.get("degraded").is_none(), "{last}");
}

// Proves: B2, B18
fn allow_waives_limits_and_nothing_else(world: &World<'_>) {
    let stack = world.own_stack(|options| options.set("REDIS_ON_FAILURE", "allow"));
    let org = Organisation::with_policy(&stack, |policy| {
        policy["tiers"]["hourly"] = json!({"limits": {"calls": {"limit": 30, "window": "1h"}}});
    });
    let (key, revoked) = (org.key_in("analyst", "hourly").key, org.key("analyst"));
    warm(&org, &key);
    warm(&org, &revoked.key);
    let output = org.operator.run(&["key", "revoke", &revoked.id, "--reason", "a test"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    // Both workers saw it.
    for _ in 0..24 {
        assert_eq!(call(&org, &revoked.key).status(), 401);
    }

    stack.valkeys().for_each(|valkey| valkey.crash());
    for _ in 0..40 {
        let answer = call(&org, &key);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(answer.audit()["degraded"], json!(["redis"]));
        assert_eq!(answer.upstream().len(), 1);
    }
    call(&org, &revoked.key).assert_refused(401, -31_401);
    org.call(&key, "delete_user", json!({"id": 1})).assert_refused(200, -32_602);
}

// Proves: B2
fn session_cannot_be_opened_and_its_client_is_told(world: &World<'_>) {
    let stack = world.own_stack(|options| options.set("REDIS_ON_FAILURE", "allow"));
    let org = Organisation::new(&stack);
    let key = org.key("analyst").key;
    let post = |message: &Value| Request::post(PYTHON, message.to_string()).bearer(&key);
    let client = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let open = mcp::request(1, "initialize", client);
    let opened = org.gateway.send(&post(&open));
    let session = opened.header("mcp-session-id").expect("a session");
    let in_session = |message: &Value| {
        let request = post(message).header("mcp-session-id", &session);
        org.gateway.send(&request.header("mcp-protocol-version", "2025-06-18"))
    };
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    // Until both workers have confirmed the session; connections go to either.
    for _ in 0..24 {
        assert_eq!(in_session(&ready).status(), 202);
    }

    stack.valkeys().for_each(|valkey| valkey.crash());
    for _ in 0..4 {
        let refused = org.gateway.send(&post(&open));
        refused.assert_refused(503, -31_503);
        assert!(refused.text().contains("No session can be opened"), "{}", refused.text());
        assert_eq!(refused.header("mcp-session-id"), None, "nobody is told whose id it is");
        assert!(refused.header("retry-after").is_some());
        assert_eq!(refused.audit()["degraded"], json!(["redis"]));
        assert_eq!(in_session(&mcp::list()).tools(), ["echo", "add"], "what is open goes on");
    }
    // The era without sessions notices nothing.
    let modern = mcp::modern(PYTHON, mcp::call("add", json!({"a": 1, "b": 1}))).bearer(&key);
    assert_eq!(org.gateway.send(&modern).status(), 200);

    stack.valkeys().for_each(|valkey| valkey.restart().unwrap());
    ready::eventually("sessions again", Duration::from_secs(20), || {
        org.gateway.send(&post(&open)).header("mcp-session-id")
    })
    .unwrap();
}
