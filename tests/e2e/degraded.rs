//! Redis is away, and the operator had rather go on: how far, and that it shows.

use std::time::Duration;

use portcullis_stack::ready;
use portcullis_tests::organisation::Organisation;
use portcullis_tests::{Answer, Case, World, cases};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["degraded":
        local_serves_whom_it_knows_a_share_and_says_so,
        allow_waives_limits_and_nothing_else,
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

    stack.valkeys().for_each(|valkey| valkey.process().kill_9());
    let away: Vec<Answer> = (0..40).map(|_| call(&org, &key)).collect();
    let count = |status| away.iter().filter(|answer| answer.status() == status).count();
    // A tenth of a hundred on each of two workers, and an exact time to come back. Nobody was refused for Redis's sake.
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

    stack.valkeys().for_each(|valkey| valkey.process().kill_9());
    for _ in 0..40 {
        let answer = call(&org, &key);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(answer.audit()["degraded"], json!(["redis"]));
        assert_eq!(answer.upstream().len(), 1);
    }
    call(&org, &revoked.key).assert_refused(401, -31_401);
    org.call(&key, "delete_user", json!({"id": 1})).assert_refused(200, -32_602);
}
