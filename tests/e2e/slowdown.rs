//! A burst of bad credentials from one address: it is slowed down, costs Redis nothing, and nobody else pays for it.

use std::thread;
use std::time::{Duration, Instant};

use portcullis_tests::organisation::Organisation;
use portcullis_tests::world::Workers;
use portcullis_tests::{Answer, Case, World, cases, mcp};
use serde_json::json;

use crate::credentials::forged;
use crate::work_before_proof::Monitor;

pub(crate) fn cases() -> Vec<Case> {
    cases!["slowdown":
        burst_of_failures_is_slowed_without_redis_and_spares_a_proven_key,
    ]
}

fn list(org: &Organisation, key: &str) -> Answer {
    org.post(key, &mcp::list())
}

fn assert_slowed(answer: &Answer) -> u64 {
    answer.assert_refused(429, -31_429);
    let entry = answer.audit();
    assert_eq!(entry["decision"]["rule"], "auth.slowdown", "{entry}");
    assert_eq!(entry["status"], "limited", "{entry}");
    assert!(entry.get("org_id").is_none(), "{entry}");
    answer.header("retry-after").expect("Retry-After").parse().expect("seconds")
}

// Proves: A14, B6
fn burst_of_failures_is_slowed_without_redis_and_spares_a_proven_key(world: &World<'_>) {
    // One worker: each has a memory of its own.
    let own = world.envoy(Workers::One, |settings| settings.set("SLOWDOWN_FAILURES", 5));
    let org = world.organisation().through(&own.gateway);
    let (proven, fresh) = (org.key("analyst"), org.key("analyst"));
    assert_eq!(list(&org, &proven.key).status(), 200);
    let guess = |number: usize| forged(&org.name, &format!("guess{number}"));
    for number in 0..5 {
        assert_eq!(list(&org, &guess(number)).status(), 401, "failure {number}");
    }
    let mut redis = Monitor::start(world, &org.name);
    let mut waits = Vec::new();
    for number in 5..20 {
        let answer = list(&org, &guess(number));
        if answer.status() == 401 {
            // A wait ended; the next one is longer.
            continue;
        }
        waits.push(assert_slowed(&answer));
        assert_eq!(list(&org, &proven.key).status(), 200, "a proven key pays for another");
    }
    assert!(waits.len() >= 10, "{waits:?}");
    let seen =
        redis.until(&org.name, || _ = org.call(&proven.key, "query_users", json!({"limit": 1})));
    let guessed = seen.iter().filter(|line| line.contains("guess")).count();
    assert!(guessed <= 20 - 5 - waits.len(), "{guessed} guesses came to Redis");
    // A good key that this worker has not seen yet waits like a stranger, for as long as it is told. The next failure that
    // is judged starts a wait of some seconds.
    let patience = Instant::now() + Duration::from_secs(30);
    while list(&org, &guess(99)).status() != 401 {
        assert!(Instant::now() < patience, "the wait does not end");
        thread::sleep(Duration::from_millis(100));
    }
    let wait = assert_slowed(&list(&org, &fresh.key));
    thread::sleep(Duration::from_secs(wait));
    assert_eq!(list(&org, &fresh.key).status(), 200);
}
