//! A burst of bad credentials from one address: it is slowed down, costs Redis little, and no other caller pays for it.

use std::thread;
use std::time::Instant;

use portcullis_tests::organisation::Organisation;
use portcullis_tests::world::Workers;
use portcullis_tests::{Answer, Case, World, cases, mcp};
use serde_json::json;

use crate::credentials::forged;
use crate::work_before_proof::Monitor;

pub(crate) fn cases() -> Vec<Case> {
    cases!["throttle":
        burst_of_failures_is_slowed_and_spares_keys_that_hold,
        made_up_keys_cost_redis_a_bounded_share,
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
// Finding 2.6: 200 bad credentials behind a NAT, and a fresh valid key there got 429 for up to five minutes.
fn burst_of_failures_is_slowed_and_spares_keys_that_hold(world: &World<'_>) {
    // One worker: each has a memory of its own.
    let own = world.envoy(Workers::One, |settings| settings.set("SLOWDOWN_FAILURES", 5));
    let org = world.organisation().through(&own.gateway);
    let (proven, fresh) = (org.key("analyst"), org.key("analyst"));
    assert_eq!(list(&org, &proven.key).status(), 200);
    let guess = |number: usize| forged(&org.name, &format!("guess{number}"));
    for number in 0..5 {
        assert_eq!(list(&org, &guess(number)).status(), 401, "failure {number}");
    }
    // What failed before waits, and so does what cannot hold.
    assert_slowed(&list(&org, &guess(0)));
    assert_slowed(&list(&org, "pck_typo"));
    assert_eq!(list(&org, &proven.key).status(), 200, "a proven key pays for another");
    // A key that this worker has not seen is tried, and so is one that it has no record of.
    assert_eq!(list(&org, &fresh.key).status(), 200, "a fresh key pays for another");
    assert_eq!(list(&org, &guess(5)).status(), 401);
    assert_slowed(&list(&org, &guess(5)));
}

// Proves: A14, B6
fn made_up_keys_cost_redis_a_bounded_share(world: &World<'_>) {
    let own = world.envoy(Workers::One, |settings| settings.set("SLOWDOWN_FAILURES", 5));
    let org = world.organisation().through(&own.gateway);
    let proven = org.key("analyst");
    assert_eq!(list(&org, &proven.key).status(), 200);
    let guess = |number: usize| forged(&org.name, &format!("guess{number}"));
    for number in 0..5 {
        assert_eq!(list(&org, &guess(number)).status(), 401, "failure {number}");
    }
    let mut redis = Monitor::start(world, &org.name);
    let started = Instant::now();
    let statuses: Vec<u16> = thread::scope(|scope| {
        let guessers: Vec<_> = (0..8)
            .map(|guesser| {
                let (org, guess) = (&org, &guess);
                scope.spawn(move || {
                    let numbers = (0..12).map(move |number| 100 + 100 * guesser + number);
                    numbers.map(|number| list(org, &guess(number)).status()).collect::<Vec<_>>()
                })
            })
            .collect();
        guessers.into_iter().flat_map(|guesser| guesser.join().expect("a guesser")).collect()
    });
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    assert_eq!(list(&org, &proven.key).status(), 200);
    let tried = statuses.iter().filter(|status| **status == 401).count();
    // Ten at once, and ten a second; none of those that were slowed down came to Redis.
    let seconds = usize::try_from(started.elapsed().as_secs()).expect("not long") + 1;
    let seen =
        redis.until(&org.name, || _ = org.call(&proven.key, "query_users", json!({"limit": 1})));
    let guessed = seen.iter().filter(|line| line.contains("guess")).count();
    assert_eq!(guessed, tried);
    // Each wait, of a second at first, is followed by five failures that are free.
    assert!(tried <= (10 + 10 * seconds) + 5 * seconds, "{tried} guesses in {seconds} s");
}
