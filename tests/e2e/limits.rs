//! Sliding windows: exact, per key, shared by every gateway, and honest about when to come back.

use std::thread;
use std::time::{Duration, Instant};

use portcullis_tests::organisation::Organisation;
use portcullis_tests::{Answer, Case, World, cases};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["limits":
        used_up_window_is_a_429_that_says_when_to_come_back,
        window_slides_without_a_burst_at_its_edge,
        limits_are_per_key_not_per_address,
        two_gateways_share_one_window,
        limits_hold_for_an_organisation_for_a_key_and_for_a_costly_tool,
        call_over_one_window_draws_from_none,
        only_calls_of_tools_count,
    ]
}

fn metrics(org: &Organisation, key: &str) -> Answer {
    org.call(key, "get_dashboard_metrics", json!({}))
}

/// Sends until the first refusal; fails if there is none within `most` calls.
fn until_refused(most: usize, mut send: impl FnMut() -> Answer) -> (usize, Answer) {
    for admitted in 0..most {
        let answer = send();
        if answer.status() == 429 {
            return (admitted, answer);
        }
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    panic!("none of {most} calls was refused");
}

fn told_wait(answer: &Answer) -> Duration {
    let data = &answer.message()["error"]["data"];
    Duration::from_millis(data["retryAfterMs"].as_u64().unwrap_or_else(|| panic!("{data}")))
}

// Proves: A8, A11, A12, B12
fn used_up_window_is_a_429_that_says_when_to_come_back(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["tiers"]["brief"] = json!({"limits": {"calls": {"limit": 3, "window": "8s"}}});
    });
    let key = org.key_in("analyst", "brief");
    let (admitted, refused) = until_refused(4, || metrics(&org, &key.key));
    assert_eq!(admitted, 3);
    refused.assert_refused(429, -31_429);
    let error = &refused.message()["error"];
    assert!(error["data"]["limit"].as_str().is_some_and(|name| name.contains("calls")), "{error}");
    let wait = told_wait(&refused);
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(8), "{wait:?}");
    let seconds: u64 = refused.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!(Duration::from_secs(seconds) >= wait && seconds <= 8, "{seconds} s, {wait:?}");
    let entry = refused.audit();
    assert_eq!((&entry["status"], &entry["api_key_id"]), (&json!("limited"), &json!(key.id)));
    // Refused calls draw nothing, so the stated time is exact: not a millisecond is added to it.
    let told = refused.received;
    assert_eq!(metrics(&org, &key.key).status(), 429, "too early is refused");
    thread::sleep((told + wait).saturating_duration_since(Instant::now()));
    let retried = metrics(&org, &key.key);
    assert_eq!(retried.status(), 200, "{}", retried.text());
}

// Proves: A9
fn window_slides_without_a_burst_at_its_edge(world: &World<'_>) {
    const LIMIT: usize = 4;
    const WINDOW: Duration = Duration::from_secs(1);
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["tiers"]["edge"] = json!({"limits": {"calls": {"limit": LIMIT, "window": "1s"}}});
    });
    let key = org.key_in("analyst", "edge").key;
    let (mut admitted, mut refused): (Vec<Answer>, Vec<(Answer, usize)>) = (Vec::new(), Vec::new());
    while admitted.len() < 4 * LIMIT {
        let answer = metrics(&org, &key);
        match answer.status() {
            200 => admitted.push(answer),
            429 => {
                refused.push((answer, admitted.len()));
                thread::sleep(Duration::from_millis(5));
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    // The moment of admission lies between sending and receiving; so this holds for sure if no window held more.
    for group in admitted.windows(LIMIT + 1) {
        let span = group[LIMIT].received - group[0].sent;
        assert!(span >= WINDOW, "{} calls within {span:?}", LIMIT + 1);
    }
    // And the limit is not a smaller one: whenever a call was refused, the window may have been full.
    for (answer, before) in refused {
        let first = before.checked_sub(LIMIT).expect("refused before the limit was reached");
        let passed = answer.sent.saturating_duration_since(admitted[first].received);
        assert!(passed <= WINDOW, "refused {passed:?} after the first of the last {LIMIT} calls");
    }
}

// Proves: A8, A14, B1
fn limits_are_per_key_not_per_address(world: &World<'_>) {
    let org = world.organisation();
    let (runaway, calm) =
        (org.key_in("analyst", "narrow").key, org.key_in("analyst", "narrow").key);
    until_refused(4, || metrics(&org, &runaway));
    // Same organisation, same role, same tier, same address: its own window.
    assert_eq!(until_refused(4, || metrics(&org, &calm)).0, 3);
}

// Proves: A10
fn two_gateways_share_one_window(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["tiers"]["shared"] = json!({"limits": {"calls": {"limit": 7, "window": "1h"}}});
    });
    let replica = world.replica();
    let there = org.through(&replica.gateway);
    let key = org.key_in("analyst", "shared").key;
    let mut admitted = [0, 0];
    for round in 0..20 {
        let side = round % 2;
        let answer = metrics([&org, &there][side], &key);
        assert!(matches!(answer.status(), 200 | 429), "{}", answer.text());
        if answer.status() == 200 {
            admitted[side] += 1;
        }
    }
    assert_eq!(admitted, [4, 3], "seven calls together, taken in turns");
}

// Proves: B11
fn limits_hold_for_an_organisation_for_a_key_and_for_a_costly_tool(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["tiers"]["client"] = json!({"limits": {"calls": {"limit": 5, "window": "1h"}}});
        policy["limits"] = json!({
            "costly": {
                "limit": 2, "window": "1h", "per": ["key", "tool"],
                "match": {"connectors": ["demo"], "tools": ["search_*"], "roles": ["*"]},
            },
            "everybody": {"limit": 9, "window": "1h", "per": ["org"]},
        });
    });
    let [one, other, third] = [0; 3].map(|_| org.key_in("analyst", "client").key);
    let search = |key: &str| org.call(key, "search_contacts", json!({"query": "a"}));
    let assert_limited = |answer: &Answer, name: &str| {
        let limit = answer.message()["error"]["data"]["limit"].clone();
        assert!(limit.as_str().is_some_and(|found| found.contains(name)), "{limit}, not {name}");
        let entry = answer.audit();
        assert_eq!((&entry["status"], &entry["decision"]["rule"]), (&json!("limited"), &limit));
    };
    // The costly tool after two calls, the key after five, the organisation after nine.
    let (admitted, refused) = until_refused(3, || search(&one));
    assert_eq!(admitted, 2);
    assert_limited(&refused, "costly");
    let (admitted, refused) = until_refused(4, || metrics(&org, &one));
    assert_eq!(admitted, 3);
    assert_limited(&refused, "calls");
    assert_eq!(search(&other).status(), 200, "another key");
    assert_eq!(until_refused(5, || metrics(&org, &third)).0, 3);
    assert_limited(&metrics(&org, &other), "everybody");
}

// Proves: B11
fn call_over_one_window_draws_from_none(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["tiers"]["pair"] = json!({"limits": {"calls": {"limit": 4, "window": "1h"}}});
        policy["limits"]["searches"] = json!({"limit": 1, "window": "1h", "per": ["key"], "match": {"tools": ["search_contacts"]}});
    });
    let key = org.key_in("analyst", "pair").key;
    let search = || org.call(&key, "search_contacts", json!({"query": "a"}));
    assert_eq!(search().status(), 200);
    for _ in 0..5 {
        assert_eq!(search().status(), 429);
    }
    // One of four was used; the five refused ones cost nothing.
    assert_eq!(until_refused(4, || metrics(&org, &key)).0, 3);
}

// Proves: A8
fn only_calls_of_tools_count(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key_in("analyst", "narrow").key;
    for _ in 0..6 {
        // A limited handshake would demote clients to an older protocol for their whole life.
        let answer = org.post(&key, &portcullis_tests::mcp::list());
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let answer = org.call(&key, "delete_user", json!({}));
        assert_eq!(answer.error_code(), Some(-32_602), "refused calls are not drawn");
    }
    let (admitted, answer) = until_refused(4, || metrics(&org, &key));
    assert_eq!(admitted, 3, "{}", Value::from(answer.text()));
}
