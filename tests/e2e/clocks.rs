//! The wall clock of the gateway's machine is moved while it works: by an hour, forward and back.
//!
//! What has a length is measured by the monotonic clock, so nothing waits longer for it, and nothing lasts longer. A
//! library that answers in libc's place moves Envoy's clock alone (`portcullis_tests::moved_clock`).

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::faulty_redis::{call, recovers};
use jiff::Timestamp;
use portcullis_stack::{Topology, ready};
use portcullis_tests::faulty_redis::{Fault, FaultyRedis};
use portcullis_tests::moved_clock::MovedClock;
use portcullis_tests::world::{OwnEnvoy, Workers, topology_of_this_run};
use portcullis_tests::{Answer, Case, World, cases, mcp};
use serde_json::json;

use crate::credentials::forged;
use crate::vault::{fetches, with_secret};

pub(crate) fn cases() -> Vec<Case> {
    cases!["clocks":
        deadlines_hold_while_the_wall_clock_moves,
        windows_waits_and_leases_last_as_long_as_they_should_while_the_wall_clock_moves,
    ]
}

const HOUR: i64 = 3_600;
const REDIS_TIMEOUT: Duration = Duration::from_millis(400);
/// How long a call may take that waits for nothing but that; the machine may be busy.
const BOUND: Duration = Duration::from_secs(4);

/// One worker behind a hop before Redis. None where Envoy itself stands between.
fn with_moved_clock(world: &World<'_>) -> Option<(FaultyRedis, OwnEnvoy, MovedClock)> {
    if topology_of_this_run() != Topology::Server || !cfg!(target_os = "linux") {
        return None;
    }
    let source = world.workspace().root.join("tests/preload/clock.rs");
    let clock = MovedClock::build(&source, &world.dir());
    let faulty = FaultyRedis::before(world.stack().valkey.address());
    let own = world.envoy_with(&clock.environment(), Workers::One, |settings| {
        settings
            .redis(faulty.address())
            .set("REDIS_TIMEOUT_MS", REDIS_TIMEOUT.as_millis())
            .set("VAULT_CACHE_SECONDS", 1)
            .set("SLOWDOWN_FAILURES", 3)
    });
    Some((faulty, own, clock))
}

/// The entry's time, in seconds from now.
fn written(answer: &Answer) -> i64 {
    let entry = answer.audit();
    let time: Timestamp = entry["timestamp"].as_str().expect("a time").parse().expect("a time");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    time.as_second() - now.as_secs() as i64
}

// Finding 10.4: with the clock an hour back, calls got no deadline at all, or 503 until it had caught up.
// Proves: B2
fn deadlines_hold_while_the_wall_clock_moves(world: &World<'_>) {
    let Some((faulty, own, clock)) = with_moved_clock(world) else { return };
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    recovers(&org, &key);
    for step in [HOUR, 0, -HOUR, 0, -2 * HOUR, HOUR] {
        // Redis is silent, and the clock moves while a call waits for it.
        faulty.set(Fault::Pause);
        let answer = thread::scope(|scope| {
            let waiting = scope.spawn(|| call(&org, &key));
            thread::sleep(REDIS_TIMEOUT / 4);
            clock.set(step);
            waiting.join().expect("an answer")
        });
        answer.assert_refused(503, -31_503);
        assert!(answer.took() >= REDIS_TIMEOUT, "{step}: too soon, after {:?}", answer.took());
        assert!(answer.took() < BOUND, "{step}: {:?}", answer.took());
        let moved = written(&answer);
        assert!((step - 10..step + 10).contains(&moved), "the clock is {moved}, not {step}");
        faulty.set(Fault::None);
        recovers(&org, &key);
        // Redis hangs up, and the clock moves while the worker waits to connect again.
        faulty.set(Fault::CloseAfterBytes(0));
        let refused = call(&org, &key);
        refused.assert_refused(503, -31_503);
        assert!(refused.took() < BOUND, "{step}: {:?}", refused.took());
        clock.set(-step);
        let refused = call(&org, &key);
        refused.assert_refused(503, -31_503);
        assert!(refused.took() < BOUND, "{step}: {:?}", refused.took());
        faulty.set(Fault::None);
        recovers(&org, &key);
        clock.set(step);
        assert_eq!(call(&org, &key).status(), 200, "{step}");
    }
}

/// What `RateLimit` says is left of the limit of that name.
fn left(answer: &Answer, limit: &str) -> u64 {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let field = answer.header("ratelimit").expect("RateLimit");
    let part = field.split(", ").find(|part| part.contains(limit));
    let rest = part.and_then(|part| part.split(";r=").nth(1)).unwrap_or_else(|| panic!("{field}"));
    rest.split(';').next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{field}"))
}

// Finding 10.4: breakers, back-off, slowdown, cool-off and leases were measured by the wall clock.
// Proves: B2, A9
fn windows_waits_and_leases_last_as_long_as_they_should_while_the_wall_clock_moves(
    world: &World<'_>,
) {
    let Some((_faulty, own, clock)) = with_moved_clock(world) else { return };
    let org = with_secret(world, "python", "x-upstream-key", "{secret}", "s3cret");
    let org = org.through(&own.gateway);
    let mut policy = org.standard_policy();
    policy["cool_off"] = json!({"refusals": 3, "first": "1s", "longest": "20s"});
    let leased = json!({"limit": 1_000, "window": "10s", "lease": 10});
    policy["tiers"]["leased"] = json!({"limits": {"calls": leased}});
    org.push(&policy);
    let [hasty, leasing] = ["narrow", "leased"].map(|tier| org.key_in("analyst", tier).key);
    let calm = org.key("analyst").key;

    // A window of an hour is full, whatever time it is here.
    (0..3).for_each(|_| assert_eq!(call(&org, &hasty).status(), 200));
    for step in [2 * HOUR, -2 * HOUR, 0] {
        clock.set(step);
        let refused = call(&org, &hasty);
        assert_eq!(refused.status(), 429, "{step}: {}", refused.text());
        let wait: u64 = refused.header("retry-after").expect("Retry-After").parse().expect("s");
        assert!((3_000..=3_600).contains(&wait), "{step}: {wait}");
    }
    // Who does not back off cools off for a second, and not for an hour more.
    let cools = call(&org, &hasty);
    assert_eq!(cools.message()["error"]["data"]["limit"], "cool_off.refusals", "{}", cools.text());
    clock.set(-HOUR);
    ready::eventually("the end of the cool-off", Duration::from_secs(10), || {
        let answer = call(&org, &hasty);
        (answer.message()["error"]["data"]["limit"] == "tiers.narrow.calls").then_some(())
    })
    .unwrap_or_else(|fault| panic!("{fault}"));

    // An address that guesses waits a second, and not for an hour more.
    clock.set(0);
    let guess = |nth: u64| org.post(&forged(&org.name, &format!("guess{nth}")), &mcp::list());
    (0..3).for_each(|nth| assert_eq!(guess(nth).status(), 401));
    assert_eq!(guess(0).status(), 429);
    clock.set(-HOUR);
    ready::eventually("the end of the wait", Duration::from_secs(10), || {
        (guess(0).status() == 401).then_some(())
    })
    .unwrap_or_else(|fault| panic!("{fault}"));

    // Units that were drawn in advance serve for a tenth of the window, and not for an hour more.
    clock.set(0);
    let drawn = left(&call(&org, &leasing), "tiers.leased.calls");
    let begun = Instant::now();
    clock.set(-HOUR);
    thread::sleep(Duration::from_millis(1_200).saturating_sub(begun.elapsed()));
    // Nine units are lost, and Redis is asked for others.
    let later = left(&call(&org, &leasing), "tiers.leased.calls");
    assert_eq!(later, drawn - 10, "units of {:?} ago were used", begun.elapsed());

    // A credential is cached for a second, and not for an hour more.
    clock.set(0);
    let path = format!("secret/data/connectors/{}", org.name);
    let mut policy = org.standard_policy();
    policy["connectors"]["demo"]["credential"]["secret"] =
        json!(format!("vault://secret/connectors/{}#token", org.name));
    org.push(&policy);
    // Whether the server takes it does not matter.
    call(&org, &calm);
    let before = fetches(world.stack(), &path).len();
    assert!(before > 0, "it was not read");
    clock.set(-HOUR);
    ready::eventually("another read of the credential", Duration::from_secs(10), || {
        call(&org, &calm);
        (fetches(world.stack(), &path).len() > before).then_some(())
    })
    .unwrap_or_else(|fault| panic!("{fault}"));
}
