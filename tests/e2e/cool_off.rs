//! Callers that do not back off: sent to cool off, each for itself, and only for a while.

use std::time::{Duration, Instant};

use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::wire::{Request, Wire};
use portcullis_tests::world::Mode;
use portcullis_tests::{Answer, Case, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["cool_off":
        caller_that_ignores_the_told_time_cools_off_alone_and_only_for_a_while,
        loop_of_one_call_is_stopped,
    ]
}

/// One connection stays with one worker, and it is the worker that watches.
struct Client<'a> {
    org: &'a Organisation,
    wire: Wire,
}

impl<'a> Client<'a> {
    fn of(org: &'a Organisation) -> Self {
        Self { org, wire: Wire::connect(org.gateway.address()).expect("connect") }
    }

    fn call(&mut self, key: &str, limit: u64) -> Answer {
        let message = mcp::call("query_users", json!({"limit": limit})).to_string();
        let sent = Instant::now();
        let reply = self.wire.exchange(&Request::post(DEMO, message).bearer(key)).expect("answer");
        self.org.gateway.answer(reply, sent)
    }
}

fn limit_of(answer: &Answer) -> String {
    assert_eq!(answer.status(), 429, "{}", answer.text());
    let data = answer.message()["error"]["data"].clone();
    data["limit"].as_str().unwrap_or_else(|| panic!("{data}")).to_owned()
}

fn events(answer: &Answer) -> Vec<Value> {
    answer.audit()["events"].as_array().cloned().unwrap_or_default()
}

fn has(events: &[Value], name: &str) -> bool {
    events.iter().any(|event| event["event"] == name)
}

// Proves: A13
fn caller_that_ignores_the_told_time_cools_off_alone_and_only_for_a_while(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["cool_off"] = json!({"refusals": 3, "first": "5s", "longest": "20s"});
    });
    let (hasty, calm) = (org.key_in("analyst", "narrow"), org.key("analyst"));
    let mut client = Client::of(&org);
    (0..3).for_each(|turn| assert_eq!(client.call(&hasty.key, turn).status(), 200));
    (0..3).for_each(|turn| {
        assert_eq!(limit_of(&client.call(&hasty.key, turn)), "tiers.narrow.calls")
    });
    let start = client.call(&hasty.key, 1);
    assert_eq!(limit_of(&start), "cool_off.refusals");
    assert!(has(&events(&start), "cool_off_started"), "{:?}", events(&start));
    // The window is full for an hour. The refusal blames the pause, and names its time.
    assert_eq!(start.header("retry-after").as_deref(), Some("5"));
    let unwritten = client.call(&hasty.key, 1);
    assert_eq!(limit_of(&unwritten), "cool_off.refusals");
    assert!(unwritten.upstream().is_empty());
    assert_eq!(client.call(&calm.key, 1).status(), 200, "another key on the same worker");
    std::thread::sleep(Duration::from_millis(5_100).saturating_sub(start.received.elapsed()));
    let after = client.call(&hasty.key, 1);
    assert_eq!(limit_of(&after), "tiers.narrow.calls");
    let told = events(&after);
    let ended = told.iter().find(|event| event["event"] == "cool_off_ended").expect("its end");
    assert_eq!(ended["refused"], 1, "{told:?}");
    // In split mode the headers went upstream before the call was read, and the reply says what went upstream.
    let written = org.gateway.audit().entries_where("request_id", &unwritten.request_id());
    assert_eq!(written.len(), usize::from(Mode::of_this_run() == Mode::Split), "{written:?}");
}

// Proves: X10
fn loop_of_one_call_is_stopped(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["cool_off"] = json!({"repeats": 10, "first": "30s"});
    });
    let key = org.key("analyst");
    let mut client = Client::of(&org);
    // Different calls are no loop.
    (0..15).for_each(|turn| assert_eq!(client.call(&key.key, turn).status(), 200));
    (0..10).for_each(|_| assert_eq!(client.call(&key.key, 99).status(), 200));
    let stopped = client.call(&key.key, 99);
    assert_eq!(limit_of(&stopped), "cool_off.repeats");
    stopped.assert_refused(429, -31_429);
    assert!(has(&events(&stopped), "cool_off_started"));
}
