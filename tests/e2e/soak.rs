//! What only a long run shows: `PORTCULLIS_SOAK_SECONDS=3600` makes each trial take an hour instead of a few seconds.
//!
//! `cargo xtask soak` runs them alone. The counts that they print are for people.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_stack::{Stack, ready};
use portcullis_tests::fake::FakeUpstream;
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};

use crate::faulty_redis::session;

pub(crate) fn cases() -> Vec<Case> {
    cases!["soak": audit_log_stays_intact_under_parallel_initialize_and_pauses_of_redis]
}

const CLIENTS: usize = 24;
/// A client that got no answer in time, on a machine that is busy with something else.
const GAVE_UP: u16 = 0;
/// Between two exchanges of one client.
const REST: Duration = Duration::from_millis(200);

fn length() -> Duration {
    let told = std::env::var("PORTCULLIS_SOAK_SECONDS").ok();
    Duration::from_secs(told.and_then(|seconds| seconds.parse().ok()).unwrap_or(6))
}

// Finding 9.1: Redis's replies let several streams go in one callback, and their lines left in another order. An
// 11-minute run had three swapped pairs in 12,282 lines.
// Proves: A17, A19
fn audit_log_stays_intact_under_parallel_initialize_and_pauses_of_redis(world: &World<'_>) {
    let fake = FakeUpstream::answering(session);
    let stack = world.own_stack(|options| options);
    let template = stack.options().root.join("envoy/envoy.yaml");
    let own = world.envoy_before(&stack, &template, |settings| settings.python(fake.address()));
    let org = Organisation::with_policy(&stack, |policy| {
        policy["sessions"] = json!({"per_caller": "unlimited"});
    });
    let org = org.through(&own.gateway);
    let key = org.key("analyst").key;
    let (statuses, over) = (Statuses::default(), AtomicBool::new(false));
    let end = Instant::now() + length();
    let pauses = thread::scope(|scope| {
        let pausing = scope.spawn(|| pause_again_and_again(&stack, &over));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    while Instant::now() < end {
                        open_and_end(&org, &key, &statuses);
                        thread::sleep(REST);
                    }
                })
            })
            .collect();
        let joined: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::SeqCst);
        assert!(joined.iter().all(Result::is_ok), "a client failed");
        pausing.join().expect("the pauses")
    });
    // Who gave up has an entry, too, unless the machine was so busy that the request never came.
    let (answers, gave_up) = (statuses.all() - statuses.of(GAVE_UP), statuses.of(GAVE_UP));
    ready::eventually("an entry of every answer", Duration::from_secs(30), || {
        (lines(own.gateway.audit().file()) >= answers).then_some(())
    })
    .unwrap_or_else(|fault| panic!("{fault}"));
    let file = own.gateway.audit().file();
    let (entries, swapped) = (lines(file), swapped(file));
    println!(
        "{:?}: {pauses} pauses of Redis, {answers} answers {}, {entries} entries, {swapped} of them out of order",
        length(),
        statuses.shown(),
    );
    let verify = ["audit", "verify", file.to_str().expect("a path in UTF-8")];
    let output = stack.operator.run(&verify).expect("portcullis audit verify");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    println!("{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!((answers..=answers + gave_up).contains(&entries), "{entries} entries");
    assert_eq!(swapped, 0);
    assert!(statuses.of(200) > answers / 4, "{}", statuses.shown());
}

/// How often each status was met: 503 and 504 are what a Redis or a machine that is too slow makes of a call.
#[derive(Default)]
struct Statuses(Mutex<BTreeMap<u16, u64>>);

impl Statuses {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<u16, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn met(&self, status: u16) {
        *self.counts().entry(status).or_default() += 1;
    }

    fn of(&self, status: u16) -> u64 {
        self.counts().get(&status).copied().unwrap_or_default()
    }

    fn all(&self) -> u64 {
        self.counts().values().sum()
    }

    fn shown(&self) -> String {
        format!("{:?}", *self.counts())
    }
}

/// A session that is opened and ended, and a call that is refused between the two.
fn open_and_end(org: &Organisation, key: &str, statuses: &Statuses) {
    let params = json!({
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"},
    });
    let opens = mcp::request(1, "initialize", params);
    let send = |request: Request| {
        // A connection each, so that both workers have a part.
        let mut wire = Wire::connect(org.gateway.address()).expect("connect");
        let reply = wire.exchange(&request).ok();
        statuses.met(reply.as_ref().map_or(GAVE_UP, |reply| reply.status));
        reply
    };
    let opened = send(Request::post(PYTHON, opens.to_string()).bearer(key));
    let forbidden = mcp::call("create_note", json!({}));
    send(Request::post(DEMO, forbidden.to_string()).bearer(key));
    if let Some(id) = opened.and_then(|reply| reply.header("mcp-session-id")) {
        send(
            Request::bare("DELETE", PYTHON)
                .header("host", "gateway.test")
                .header("mcp-session-id", &id)
                .bearer(key),
        );
    }
}

/// Two ways in which Redis stays silent for a moment and then answers all at once; how often it did.
fn pause_again_and_again(stack: &Stack, over: &AtomicBool) -> u64 {
    let mut pauses = 0;
    while !over.load(Ordering::SeqCst) {
        let length = Duration::from_millis(20 + pauses * 7 % 60);
        for valkey in stack.valkeys() {
            match pauses % 2 {
                0 => {
                    let process = valkey.process();
                    process.pause();
                    thread::sleep(length);
                    process.resume();
                }
                _ => {
                    let pause = format!("CLIENT PAUSE {} ALL", length.as_millis());
                    // The server may be too busy to say so in time.
                    let _ = valkey.administer(&[pause]);
                    thread::sleep(length);
                }
            }
        }
        pauses += 1;
        thread::sleep(Duration::from_millis(15));
    }
    pauses
}

/// The log of an hour is large: it is read line by line.
fn each_line(file: &std::path::Path) -> impl Iterator<Item = String> {
    BufReader::new(File::open(file).expect("the audit log")).lines().map_while(Result::ok)
}

fn lines(file: &std::path::Path) -> u64 {
    each_line(file).count() as u64
}

/// Lines that stand behind a later one of their chain.
fn swapped(file: &std::path::Path) -> u64 {
    let mut latest: BTreeMap<String, u64> = BTreeMap::new();
    let mut swapped = 0;
    for line in each_line(file) {
        let entry: Value = serde_json::from_str(&line).expect("an entry");
        let (chain, seq) = (entry["chain"].as_str().unwrap_or_default(), entry["seq"].as_u64());
        let seq = seq.expect("a number in the chain");
        if latest.insert(chain.to_owned(), seq).is_some_and(|before| before > seq) {
            swapped += 1;
        }
    }
    swapped
}
