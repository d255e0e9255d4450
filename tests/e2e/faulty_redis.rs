//! A Redis, or a hop before it, that misbehaves: it closes in the middle of a conversation, sends byte by byte, is slow
//! for all but small replies, or keeps everything back for a moment.
//!
//! The faults are made by a fake hop in front of the real Valkey (`portcullis_tests::faulty_redis`).

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_stack::{Topology, ready};
use portcullis_tests::fake::FakeUpstream;
use portcullis_tests::faulty_redis::{Fault, FaultyRedis};
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::world::{OwnEnvoy, Workers, topology_of_this_run};
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

use crate::policy_size::large;

pub(crate) fn cases() -> Vec<Case> {
    cases!["faulty_redis":
        redis_that_closes_at_any_moment_costs_calls_and_never_the_worker,
        reply_that_trickles_is_a_503_within_the_deadline,
        large_policy_over_a_slow_link_makes_nobody_else_wait,
        callers_that_hang_up_keep_no_old_policy_in_force,
        audit_lines_leave_in_order_when_redis_answers_many_at_once,
    ]
}

/// How often a test tries its luck: `PORTCULLIS_TEST_ROUNDS`, or so often.
fn rounds(default: usize) -> usize {
    let told = std::env::var("PORTCULLIS_TEST_ROUNDS").ok();
    told.and_then(|rounds| rounds.parse().ok()).unwrap_or(default)
}

/// A hop before the shared Valkey, and a gateway of one worker that goes through it. None when Envoy itself stands between.
fn through_a_hop(world: &World<'_>, timeout_ms: u64) -> Option<(FaultyRedis, OwnEnvoy)> {
    if topology_of_this_run() != Topology::Server {
        return None;
    }
    let faulty = FaultyRedis::before(world.stack().valkey.address());
    let own = world.envoy(Workers::One, |settings| {
        settings.redis(faulty.address()).set("REDIS_TIMEOUT_MS", timeout_ms)
    });
    Some((faulty, own))
}

pub(super) fn call(org: &Organisation, key: &str) -> Answer {
    org.call(key, "get_dashboard_metrics", json!({}))
}

/// A success within ten seconds.
pub(super) fn recovers(org: &Organisation, key: &str) {
    ready::eventually("a call that succeeds", Duration::from_secs(10), || {
        (call(org, key).status() == 200).then_some(())
    })
    .unwrap_or_else(|fault| panic!("{fault}"));
}

/// The worker's VM lives: one chain, and Envoy made no new one.
fn assert_no_trap(own: &OwnEnvoy, answers: usize) {
    let entries = ready::eventually("an entry of every answer", Duration::from_secs(10), || {
        Some(own.gateway.audit().entries()).filter(|entries| entries.len() >= answers)
    });
    let entries = entries.unwrap_or_else(|fault| panic!("{fault}"));
    let chains: BTreeSet<_> = entries.iter().filter_map(|entry| entry["chain"].as_str()).collect();
    assert_eq!(chains.len(), 1, "a VM that trapped begins a new chain");
    let stats = own.envoy.admin("stats?filter=vm_reload").unwrap().text();
    assert!(stats.lines().all(|line| line.ends_with(": 0")), "{stats}");
}

// Finding 10.2: a command sent from inside a receive callback to a stream whose peer has closed trapped the VM.
// Proves: B2, A1
fn redis_that_closes_at_any_moment_costs_calls_and_never_the_worker(world: &World<'_>) {
    let Some((faulty, own)) = through_a_hop(world, 1_000) else { return };
    let org = world.organisation().through(&own.gateway);
    let warm = org.key("analyst").key;
    let mut policy = org.standard_policy();
    let mut answers = 0;
    for round in 0..rounds(18) {
        recovers(&org, &warm);
        // Neither the key nor the policy is known to the worker: a conversation of several replies.
        let key = org.key("admin").key;
        policy["tiers"]["wide"]["limits"]["calls"]["limit"] = json!(100_000 + round);
        org.push(&policy);
        faulty.set(match round % 3 {
            0 | 1 => Fault::CloseAfterReplies(1 + round / 3 % 5),
            _ => Fault::CloseAfterBytes(round * 97 % 1_900),
        });
        let met: Vec<Answer> = thread::scope(|scope| {
            let calls = (0..4).map(|_| scope.spawn(|| call(&org, &key)));
            let calls: Vec<_> = calls.collect();
            calls.into_iter().map(|call| call.join().expect("an answer")).collect()
        });
        faulty.set(Fault::None);
        for answer in &met {
            assert!(matches!(answer.status(), 200 | 503), "{} {}", answer.status(), answer.text());
            assert!(answer.took() < Duration::from_secs(3), "{:?}", answer.took());
            answer.audit();
        }
        answers += met.len();
    }
    recovers(&org, &warm);
    assert!(faulty.connections() > rounds(18) / 2, "{} connections", faulty.connections());
    assert_no_trap(&own, answers);
}

// Finding 10.3: a byte each 30 ms hung every call of the worker for ever.
// Proves: B2
fn reply_that_trickles_is_a_503_within_the_deadline(world: &World<'_>) {
    let Some((faulty, own)) = through_a_hop(world, 300) else { return };
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    recovers(&org, &key);
    faulty.set(Fault::Trickle(Duration::from_millis(30)));
    for _ in 0..4 {
        let answer = call(&org, &key);
        answer.assert_refused(503, -31_503);
        assert!(answer.took() < Duration::from_secs(2), "{:?}", answer.took());
    }
    faulty.set(Fault::None);
    recovers(&org, &key);
}

// Finding 10.3: a policy of megabytes on its way made all other calls of the worker wait for it.
// Proves: B2
fn large_policy_over_a_slow_link_makes_nobody_else_wait(world: &World<'_>) {
    let Some((faulty, own)) = through_a_hop(world, 1_000) else { return };
    let org = world.organisation().through(&own.gateway);
    let other = world.organisation().through(&own.gateway);
    let (key, other_key) = (org.key("analyst").key, other.key("analyst").key);
    recovers(&org, &key);
    recovers(&other, &other_key);
    let policy = large(org.standard_policy());
    org.push(&policy);
    // It takes more than five seconds.
    faulty.set(Fault::Slow(500_000));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let begun = Instant::now();
            // Who waits learns in time that it takes long; the read goes on.
            let first = call(&org, &key);
            first.assert_refused(503, -31_503);
            assert!(first.took() < Duration::from_secs(8), "{:?}", first.took());
            ready::eventually("the large policy", Duration::from_secs(40), || {
                (call(&org, &key).status() == 200).then_some(())
            })
            .unwrap_or_else(|fault| panic!("{fault}"));
            over.store(true, Ordering::SeqCst);
            begun.elapsed()
        });
        let mut slowest = Duration::ZERO;
        while !over.load(Ordering::SeqCst) && !reading.is_finished() {
            let answer = call(&other, &other_key);
            assert_eq!(answer.status(), 200, "{}", answer.text());
            slowest = slowest.max(answer.took());
        }
        let took = reading.join().expect("the large policy");
        println!("read in {took:?}; the slowest call of others meanwhile took {slowest:?}");
    });
}

/// Sends a request and hangs up after `after`.
fn hang_up(org: &Organisation, request: &Request, after: Duration) {
    let mut stream = TcpStream::connect(org.gateway.address()).expect("connect");
    stream.write_all(&request.bytes()).expect("send");
    thread::sleep(after);
}

// Finding 10.1: the reply of a shared read went to whoever asked first; when that caller had gone, the others took
// "nothing" for a bad policy and the old one stayed in force for ten seconds.
// Proves: A26, X4
fn callers_that_hang_up_keep_no_old_policy_in_force(world: &World<'_>) {
    let stack = world.own_stack(|options| options);
    let org = Organisation::new(&stack);
    let key = org.key("analyst");
    let request = || {
        let message = mcp::call("get_dashboard_metrics", json!({}));
        Request::post(DEMO, message.to_string()).bearer(&key.key)
    };
    let base = large(org.standard_policy());
    let mut first = Vec::new();
    let (mut decided, mut unavailable) = (0, 0);
    for round in 0..rounds(5) {
        let mut policy = base.clone();
        policy["tiers"]["wide"]["limits"]["calls"]["limit"] = json!(100_000 + round);
        let forbids = round % 2 == 0;
        if forbids {
            policy["roles"]["analyst"]["demo"]["allow"] = json!(["query_users"]);
        }
        let version = org.push(&policy)["version"].clone();
        let met: Vec<Answer> = thread::scope(|scope| {
            for nth in 0..3_u64 {
                let after = 500 + (round as u64 * 7 + nth * 5) % 21 * 100;
                let (org, request) = (&org, request());
                scope.spawn(move || hang_up(org, &request, Duration::from_micros(after)));
            }
            let calls: Vec<_> =
                (0..3).map(|_| scope.spawn(|| org.gateway.send(&request()))).collect();
            calls.into_iter().map(|call| call.join().expect("an answer")).collect()
        });
        // Both workers, whoever waited for the policy.
        let later = (0..4).map(|_| org.gateway.send(&request()));
        for answer in met.into_iter().chain(later) {
            let (entry, message) = (answer.audit(), answer.message());
            // What a busy machine makes time out is decided by no policy.
            if answer.status() == 503 {
                unavailable += 1;
                continue;
            }
            decided += 1;
            assert_eq!(entry["policy_version"], version, "round {round}: {entry}");
            let refused = message["error"]["code"] == -32_602;
            assert_eq!(refused, forbids, "round {round}: {entry}");
        }
        first.push(version);
    }
    let unusable = |entry: &Value| entry.to_string().contains("policy_unusable");
    let entries = org.gateway.audit().entries();
    let bad = entries.iter().filter(|entry| unusable(entry)).count();
    println!(
        "{} pushes, {} callers that hung up: {decided} decided on the new version, {unavailable} unavailable",
        first.len(),
        3 * first.len(),
    );
    assert_eq!(bad, 0, "nobody found a good policy bad, in {} pushes", first.len());
    assert!(decided > unavailable, "{unavailable} of {} were unavailable", decided + unavailable);
}

/// An answer that opens a session.
pub(crate) fn session(_: &str) -> Vec<Vec<u8>> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let id = NEXT.fetch_add(1, Ordering::SeqCst);
    let body = json!({"jsonrpc": "2.0", "id": 1, "result": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "fake", "version": "1"},
    }})
    .to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json";
    let text = format!(
        "{head}\r\nmcp-session-id: order-{id}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    vec![text.into_bytes()]
}

// Finding 9.1: a chunk of replies let several streams go in one callback, and Envoy logged the first of them last.
// Proves: A17, A19
fn audit_lines_leave_in_order_when_redis_answers_many_at_once(world: &World<'_>) {
    if topology_of_this_run() != Topology::Server {
        return;
    }
    let fake = FakeUpstream::answering(session);
    let faulty = FaultyRedis::before(world.stack().valkey.address());
    let own = world
        .envoy(Workers::One, |settings| settings.redis(faulty.address()).python(fake.address()));
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    recovers(&org, &key);
    let opens = mcp::request(
        1,
        "initialize",
        json!({
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"},
        }),
    );
    let hidden = mcp::call("create_note", json!({}));
    let (threads, each) = (24, 6);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                faulty.set(Fault::Pause);
                thread::sleep(Duration::from_millis(40));
                faulty.set(Fault::None);
                thread::sleep(Duration::from_millis(5));
            }
        });
        let clients: Vec<_> = (0..threads)
            .map(|nth| {
                let (org, key, opens, hidden) = (&org, &key, &opens, &hidden);
                scope.spawn(move || {
                    for _ in 0..each {
                        let (path, message) =
                            if nth % 2 == 0 { (PYTHON, opens) } else { (DEMO, hidden) };
                        let request = Request::post(path, message.to_string()).bearer(key);
                        assert_eq!(
                            org.gateway.send(&request).status(),
                            if nth % 2 == 0 { 200 } else { 403 }
                        );
                    }
                })
            })
            .collect();
        let met: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::SeqCst);
        assert!(met.iter().all(Result::is_ok), "every call is answered");
    });
    let all = ready::eventually("an entry of every call", Duration::from_secs(10), || {
        Some(own.gateway.audit().entries()).filter(|entries| entries.len() > threads * each)
    });
    let entries = all.unwrap_or_else(|fault| panic!("{fault}"));
    let seqs: Vec<_> = entries.iter().filter_map(|entry| entry["seq"].as_u64()).collect();
    let swapped = seqs.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert_eq!(swapped, 0, "of {} lines: {seqs:?}", seqs.len());
    let file = own.gateway.audit().file().to_str().unwrap().to_owned();
    let output = world.stack().operator.run(&["audit", "verify", &file]).unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
}
