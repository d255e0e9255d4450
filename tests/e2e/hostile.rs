//! Requests made to break the gateway: no 5xx, no hang, and the next request on the same worker is served.
//!
//! One worker, so that every request of a test meets the same VM: a trap would show in the next one.

use std::thread;
use std::time::{Duration, Instant};

use portcullis_tests::crowd::Crowd;
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::world::{OwnEnvoy, Workers};
use portcullis_tests::{Answer, Case, Request, Wire, World, cases, mcp};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    cases!["hostile":
        odd_header_values_do_not_hurt,
        bodies_too_large_are_a_413,
        body_that_stops_halfway_ends_in_time_and_reaches_nobody,
        client_that_leaves_halfway_is_in_the_audit_log,
        broken_http_is_answered_or_cut_off_and_nothing_else,
        calls_with_very_many_members_cost_others_no_answer,
    ]
}

/// An organisation behind a single worker, and a key.
fn alone(world: &World<'_>) -> (OwnEnvoy, Organisation, String) {
    let own = world.single_worker();
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    assert_eq!(served(&org, &key).status(), 200);
    (own, org, key)
}

fn served(org: &Organisation, key: &str) -> Answer {
    let answer = org.call(key, "query_users", json!({"limit": 1}));
    assert_eq!(answer.rows().len(), 1);
    answer
}

/// The VM has never died.
fn assert_no_trap(own: &OwnEnvoy) {
    let stats = own.envoy.admin("stats?filter=wasm").unwrap().text();
    let reloads = stats.lines().filter(|line| line.contains("vm_reload") && !line.ends_with(" 0"));
    assert_eq!(reloads.collect::<Vec<_>>(), Vec::<&str>::new(), "a VM trapped");
}

// Proves: B2, B18
fn odd_header_values_do_not_hurt(world: &World<'_>) {
    let (own, org, key) = alone(world);
    let list = || Request::post(DEMO, mcp::list().to_string());
    let good = || list().bearer(&key);
    // What the gateway has no use for is none of its business.
    for (what, request) in [
        ("non-UTF-8", good().header("x-odd", b"\xff\xfe\x80")),
        ("empty", good().header("x-odd", "")),
        ("non-UTF-8 user agent", good().without("user-agent").header("user-agent", b"\xc3\x28")),
        ("empty user agent", good().without("user-agent").header("user-agent", "")),
        ("non-UTF-8 trace", good().header("traceparent", b"00-\xff-\xfe-01")),
        ("non-UTF-8 spoof", good().header("x-portcullis-org", b"\xff")),
    ] {
        let answer = org.gateway.send(&request);
        assert_eq!(answer.status(), 200, "{what}: {}", answer.text());
        assert_eq!(answer.audit()["status"], "success", "{what}");
        served(&org, &key);
    }
    // A hundred headers are nothing to the gateway. The demo connector's HTTP library has its own idea (431).
    let hundred = |request: Request| {
        (0..100).fold(request, |request, n| request.header(&format!("x-h{n}"), "v".repeat(100)))
    };
    let python = hundred(mcp::modern(PYTHON, mcp::list()).bearer(&key));
    assert_eq!(org.gateway.send(&python).tools(), ["echo", "add"]);
    let answer = org.gateway.send(&hundred(good()));
    assert!(matches!(answer.status(), 200 | 431), "{}", answer.status());
    served(&org, &key);
    // What it reads must be right.
    for (what, status, request) in [
        ("non-UTF-8 bearer", 401, list().header("authorization", b"Bearer \xff\xfe")),
        ("non-UTF-8 scheme", 401, list().header("authorization", b"\xff")),
        ("empty authorization", 401, list().header("authorization", "")),
        ("non-UTF-8 key", 401, list().header("x-api-key", b"pck_\xff_\xff_\xff")),
        ("empty key", 401, list().header("x-api-key", "")),
        (
            "non-UTF-8 content type",
            415,
            good().without("content-type").header("content-type", b"\xff"),
        ),
        ("empty content type", 415, good().without("content-type").header("content-type", "")),
        ("non-UTF-8 version", 400, good().header("mcp-protocol-version", b"\xff\xff")),
        ("empty version", 400, good().header("mcp-protocol-version", "")),
    ] {
        let answer = org.gateway.send(&request);
        assert_eq!(answer.status(), status, "{what}: {}", answer.text());
        assert_eq!(answer.audit()["http_status"], status, "{what}");
        served(&org, &key);
    }
    let modern = mcp::modern(DEMO, mcp::call("query_users", json!({}))).bearer(&key);
    for name in ["mcp-name", "mcp-method"] {
        let request = modern.clone().without(name).header(name, b"\xff\xfe");
        org.gateway.send(&request).assert_refused(400, -32_020);
        served(&org, &key);
    }
    assert_no_trap(&own);
}

// Proves: B2, B18
fn bodies_too_large_are_a_413(world: &World<'_>) {
    let (own, org, key) = alone(world);
    let padded = |size: usize| {
        mcp::call("query_users", json!({"name_contains": "x".repeat(size)})).to_string()
    };
    // Just below the cap is served.
    let answer = org.gateway.send(&Request::post(DEMO, padded((1 << 20) - 300)).bearer(&key));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    for size in [1 << 20, 2 << 20, 3 << 20] {
        let answer = org.gateway.send(&Request::post(DEMO, padded(size)).bearer(&key));
        answer.assert_refused(413, -32_600);
        served(&org, &key);
    }
    // Beyond what Envoy itself would hold: whoever says it first, it is a 413.
    let mut wire = Wire::connect(own.gateway.address()).unwrap();
    let request = Request::post(DEMO, padded(16 << 20)).bearer(&key);
    // The gateway may hang up before it has everything.
    let _ = wire.write(&request.bytes());
    if let Ok(reply) = wire.read_reply() {
        assert_eq!(reply.status, 413);
    }
    served(&org, &key);
    assert_no_trap(&own);
}

// Proves: B2, B18
fn body_that_stops_halfway_ends_in_time_and_reaches_nobody(world: &World<'_>) {
    let (own, org, key) = alone(world);
    let before = org.gateway.recorded().len();
    let message = mcp::call("query_users", json!({"name_contains": "halfway"})).to_string();
    let request = Request::post(DEMO, message.clone()).bearer(&key);
    let chunked = request.clone().header("transfer-encoding", "chunked");
    let half = &message.as_bytes()[..message.len() / 2];
    for (what, head, half_close) in [
        ("announced length", request.head(Some(message.len())), false),
        ("chunks", chunked.head(None), false),
        ("half-closed", request.head(Some(message.len())), true),
    ] {
        let started = Instant::now();
        let mut wire = Wire::connect(own.gateway.address()).unwrap();
        wire.write(&head).unwrap();
        match what {
            "chunks" => {
                wire.write(&[format!("{:x}\r\n", half.len()).as_bytes(), half, b"\r\n"].concat())
            }
            _ => wire.write(half),
        }
        .unwrap();
        if half_close {
            wire.half_close().unwrap();
        }
        // While it hangs there, others are served by the same worker.
        served(&org, &key);
        let ended = wire.read_reply();
        assert!(started.elapsed() < Duration::from_secs(10), "{what} hung");
        if let Ok(reply) = ended {
            assert!((400..500).contains(&reply.status), "{what}: {}", reply.status);
        }
        served(&org, &key);
    }
    let reached = org.gateway.recorded().split_off(before);
    assert!(!reached.iter().any(|request| request.to_string().contains("halfway")), "{reached:?}");
    assert_no_trap(&own);
}

// Proves: B2, A15
fn client_that_leaves_halfway_is_in_the_audit_log(world: &World<'_>) {
    let (own, org, key) = alone(world);
    let message = mcp::call("query_users", json!({})).to_string();
    let request = Request::post(DEMO, message.clone())
        .bearer(&key)
        .without("user-agent")
        .header("user-agent", "leaver");
    let mut wire = Wire::connect(own.gateway.address()).unwrap();
    wire.write(&request.head(Some(message.len()))).unwrap();
    wire.write(&message.as_bytes()[..10]).unwrap();
    drop(wire);
    let entries = portcullis_stack::ready::eventually("the entry", Duration::from_secs(10), || {
        let entries = own.gateway.audit().entries_where("user_agent", "leaver");
        (!entries.is_empty()).then_some(entries)
    })
    .unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["status"], "aborted", "{}", entries[0]);
    served(&org, &key);
    assert_no_trap(&own);
}

// Proves: B18
fn broken_http_is_answered_or_cut_off_and_nothing_else(world: &World<'_>) {
    let (own, org, key) = alone(world);
    let long =
        format!("POST {DEMO} HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(100_000));
    let crowd: String = (0..300).map(|n| format!("x-h{n}: v\r\n")).collect();
    let crowd = format!("POST {DEMO} HTTP/1.1\r\nhost: x\r\n{crowd}\r\n");
    let both = format!(
        "POST {DEMO} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    let twice = format!(
        "POST {DEMO} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"
    );
    for (what, bytes) in [
        ("noise", b"\x00\x01\x02\xff\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("no host", format!("POST {DEMO} HTTP/1.1\r\n\r\n").into_bytes()),
        ("a long header", long.into_bytes()),
        ("three hundred headers", crowd.into_bytes()),
        ("two lengths", twice.into_bytes()),
        ("length and chunks", both.into_bytes()),
        ("a NUL in a header", format!("POST {DEMO} HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n").into_bytes()),
        ("underscores", format!("POST {DEMO} HTTP/1.1\r\nhost: x\r\nx_portcullis_org: a\r\n\r\n").into_bytes()),
        ("an escaped slash", format!("POST /demo%2fmcp HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 0\r\n\r\n").into_bytes()),
        ("a non-UTF-8 path", b"POST /demo/\xff\xfe HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec()),
    ] {
        let mut wire = Wire::connect(own.gateway.address()).unwrap();
        // It may be cut off while it is being sent.
        let _ = wire.write(&bytes);
        let _ = wire.half_close();
        if let Ok(reply) = wire.read_reply() {
            assert!((400..500).contains(&reply.status), "{what}: {}", reply.status);
        }
        served(&org, &key);
    }
    assert_no_trap(&own);
}

// Finding 3.1: an 880 KB call with 95,000 members was always 503, and two connections that sent such calls made 43 % of
// all others 503: the time that the worker took to parse counted as Redis's silence.
// Proves: B2, X17
fn calls_with_very_many_members_cost_others_no_answer(world: &World<'_>) {
    let own = world.envoy(Workers::Two, |settings| settings.set("REDIS_TIMEOUT_MS", 250));
    let org = world.organisation().through(&own.gateway);
    let other = world.organisation().through(&own.gateway);
    let keys = [org.key("analyst").key, org.key("analyst").key, other.key("analyst").key];
    let members: Vec<_> = (0..95_000).map(|nth| format!("\"{nth:05}\":1")).collect();
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"query_users","arguments":{{{}}}}}}}"#,
        members.join(",")
    );
    assert!((880_000..1_048_576).contains(&body.len()), "{} bytes", body.len());
    let large = Request::post(DEMO, body).bearer(&keys[0]);
    let answer = org.gateway.send(&large);
    answer.assert_refused(400, -32_700);
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let request = || {
        let nth = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Request::post(DEMO, mcp::list().to_string()).bearer(&keys[1 + nth % 2])
    };
    let (met, sent) = Crowd::calls_during(&[&own.gateway], 4, request, |_| {
        let end = Instant::now() + Duration::from_secs(3);
        thread::scope(|scope| {
            let attackers = [(); 2].map(|()| {
                scope.spawn(|| {
                    let mut sent = 0;
                    while Instant::now() < end {
                        let answer = org.gateway.send(&large);
                        assert_eq!(answer.status(), 400, "{}", answer.text());
                        sent += 1;
                    }
                    sent
                })
            });
            attackers.map(|attacker| attacker.join().expect("an attacker")).iter().sum::<usize>()
        })
    });
    let refused = met.iter().filter(|met| met.reply.status != 200).count();
    println!("beside {sent} calls with 95,000 members: {} answers, {refused} refused", met.len());
    assert!(sent > 1, "there was no attack");
    assert_eq!(refused, 0, "others paid for them");
}
