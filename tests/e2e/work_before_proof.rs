//! What a stranger's request costs before its sender is proven.
//!
//! Two places tell: what Redis is asked (MONITOR), and what other callers meet meanwhile. With `PORTCULLIS_ATTACK_SECONDS=60`
//! the attack takes that long; the latencies that it prints are for people.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_tests::crowd::{Crowd, Met};
use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::world::Workers;
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::json;

use crate::credentials::forged;

pub(crate) fn cases() -> Vec<Case> {
    cases!["work_before_proof":
        what_redis_is_asked_for_a_stranger_has_a_constant_size,
        listening_for_very_many_tasks_is_refused_also_to_a_proven_caller,
        large_body_of_a_stranger_is_refused_before_it_is_whole,
        strangers_that_name_very_much_cost_nobody_an_answer,
    ]
}

fn listen(tasks: &[String]) -> Request {
    let params = json!({"notifications": {"taskIds": tasks}});
    mcp::modern(DEMO, mcp::request(1, "subscriptions/listen", params))
}

fn tasks(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("t{number}")).collect()
}

// Proves: A14, X17
// Finding 2.1: each task that a request named became a key of the script, also for a forged key.
fn what_redis_is_asked_for_a_stranger_has_a_constant_size(world: &World<'_>) {
    let org = world.organisation();
    let known = org.key("analyst");
    // The key's record is cached now, and another secret of the same key is no proof.
    assert_eq!(org.post(&known.key, &mcp::list()).status(), 200);
    let strangers = [forged(&org.name, "nobody"), forged(&org.name, &known.id)];
    for named in [1, 64] {
        for stranger in &strangers {
            let mut redis = Monitor::start(world, &org.name);
            let answer = org.gateway.send(&listen(&tasks(named)).bearer(stranger));
            answer.assert_refused(401, -31_401);
            let asked = redis.until(&org.name, || {
                _ = org.call(&known.key, "query_users", json!({"limit": 1}));
            });
            assert!(!asked.is_empty(), "Redis was not asked");
            for line in &asked {
                assert!(!line.contains(":bound:"), "asked about tasks of a stranger: {line}");
                assert!(line.len() < 400, "{line}");
            }
        }
    }
    // An organisation that does not exist costs no more.
    let elsewhere = forged("nowhere", "nobody");
    org.gateway.send(&listen(&tasks(64)).bearer(&elsewhere)).assert_refused(401, -31_401);
}

// Proves: X17
fn listening_for_very_many_tasks_is_refused_also_to_a_proven_caller(world: &World<'_>) {
    let org = world.organisation();
    let known = org.key("analyst");
    let answer = org.gateway.send(&listen(&tasks(65)).bearer(&known.key));
    answer.assert_refused(400, -32_600);
    assert!(answer.text().contains("64"), "{}", answer.text());
    // Whose each of 64 is, is asked: they have no owner.
    let answer = org.gateway.send(&listen(&tasks(64)).bearer(&known.key));
    answer.assert_refused(200, -32_602);
}

// Proves: A14, X17
// Finding 2.1: a body of any size was read to its end and parsed before its sender was proven.
fn large_body_of_a_stranger_is_refused_before_it_is_whole(world: &World<'_>) {
    let org = world.organisation();
    let known = org.key("analyst");
    let body = listen(&tasks(125_000)).body.unwrap_or_default();
    for stranger in [forged(&org.name, "nobody"), forged(&org.name, &known.id)] {
        let request = listen(&[]).bearer(&stranger);
        let mut wire = Wire::connect(org.gateway.address()).unwrap();
        wire.write(&[&request.head(Some(body.len())), &body[..65_536]].concat()).unwrap();
        // The rest never comes.
        let sent = Instant::now();
        let answer = org.gateway.answer(wire.read_reply().unwrap(), sent);
        answer.assert_refused(401, -31_401);
    }
    // A key that no worker knows yet passes with such a body, and one that is known.
    let list = format!("{:65000}", mcp::list().to_string());
    for _ in 0..4 {
        let answer = org.gateway.send(&Request::post(DEMO, list.clone()).bearer(&known.key));
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
}

// Proves: A14
// Finding 2.1: in six seconds of this other callers got 172 answers 503 and 34 answers 200.
fn strangers_that_name_very_much_cost_nobody_an_answer(world: &World<'_>) {
    let seconds =
        std::env::var("PORTCULLIS_ATTACK_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds = Duration::from_secs(seconds.unwrap_or(3));
    let own = world.envoy(Workers::Two, |settings| settings.set("REDIS_TIMEOUT_MS", 250));
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let request = || Request::post(DEMO, mcp::list().to_string()).bearer(&key);
    let calls = |during: &dyn Fn()| {
        let (met, ()) = Crowd::calls_during(&[&own.gateway], 4, request, |_| during());
        met
    };
    let alone = calls(&|| thread::sleep(seconds));
    let sent = AtomicUsize::new(0);
    let attacked = calls(&|| attack(&org, seconds, &sent));
    let refused = |met: &[Met]| met.iter().filter(|met| met.reply.status != 200).count();
    println!(
        "others: alone {} answers, p99 {:?}; beside {} requests of 1 MB {} answers, {} refused, p99 {:?}",
        alone.len(),
        p99(&alone),
        sent.load(Ordering::Relaxed),
        attacked.len(),
        refused(&attacked),
        p99(&attacked),
    );
    assert_eq!(refused(&alone), 0);
    assert!(sent.load(Ordering::Relaxed) > 1, "there was no attack");
    assert_eq!(refused(&attacked), 0, "others paid for strangers");
}

/// Forged keys, each new, with a body of nearly 1 MB that names 125,000 tasks; one after the other.
fn attack(org: &Organisation, time: Duration, sent: &AtomicUsize) {
    let many: Vec<_> = (0..125_000).map(|number| format!("{number:05x}")).collect();
    let body = listen(&many);
    assert!((900_000..1_048_576).contains(&body.body.as_ref().map_or(0, Vec::len)));
    let (end, over) = (Instant::now() + time, AtomicBool::new(false));
    while !over.load(Ordering::Relaxed) {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        let key = forged(&org.name, &format!("guess{number}"));
        let mut wire = Wire::connect(org.gateway.address()).expect("connect");
        // Whatever the answer is; no caller may get a result.
        if let Ok(reply) = wire.exchange(&body.clone().bearer(&key)) {
            assert_ne!(reply.status, 200);
        }
        over.store(Instant::now() >= end, Ordering::Relaxed);
    }
}

fn p99(met: &[Met]) -> Duration {
    let mut took: Vec<_> =
        met.iter().filter_map(|met| met.received.duration_since(met.sent).ok()).collect();
    took.sort_unstable();
    took.get(took.len() * 99 / 100).copied().unwrap_or_default()
}

/// What Redis is asked about an organisation, by everybody.
pub(crate) struct Monitor {
    lines: BufReader<TcpStream>,
}

impl Monitor {
    pub(crate) fn start(world: &World<'_>, org: &str) -> Self {
        let stream = world.stack().valkey_of(org).connect().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (&stream).write_all(b"MONITOR\r\n").unwrap();
        let mut monitor = Self { lines: BufReader::new(stream) };
        assert_eq!(monitor.line(), "+OK");
        monitor
    }

    /// The lines about `org` so far: up to the window that `marker` draws from.
    pub(crate) fn until(&mut self, org: &str, marker: impl FnOnce()) -> Vec<String> {
        marker();
        let mut seen = Vec::new();
        loop {
            let line = self.line();
            // What a script does is listed line by line, too.
            if line.contains(" lua]") || !line.contains(&format!("{{{org}}}")) {
                continue;
            }
            if line.contains(":window:") {
                return seen;
            }
            seen.push(line);
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}
