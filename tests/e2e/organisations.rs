//! Two organisations on one gateway: what one does, the other must not notice.
//!
//! Sixteen ways to use, exhaust or alter what is another's, and where each is tried:
//!
//! | what is shared or could be mixed up | where it is tried |
//! |---|---|
//! | session ids, task ids | `bypass_objects` |
//! | ids of approvals | core, `another_organisation_caller_tool_or_argument_needs_another_approval` |
//! | room for approvals | here, `callers_that_ask_leave_room_for_others` |
//! | global windows | here, `global_window_means_what_each_policy_says` |
//! | resets of windows | docs/guides/limits.md: a global one is the operator's |
//! | local windows | core, `what_one_organisation_fills_is_full_for_it_alone` |
//! | memory of drifted tools | core, `reviewed` |
//! | streams | here, `streams_of_one_caller_leave_room_for_others` |
//! | pending replies of Redis | core, `redis::connection` |
//! | compiled policies | core, `worker` |
//! | slowdown of an address | `throttle` |
//! | labels of metrics | core, `a_caller_cannot_make_up_labels` |
//! | protected-resource metadata | `tokens` |
//! | memory of Redis, by sessions | here, `sessions_of_one_caller_are_bounded_and_ended_ones_are_forgotten` |
//! | units drawn in advance | core, `leases`: an organisation is part of a window's name |
//! | cool-off | `cool_off`: an organisation is part of a caller's name |
//!
//! A new way gets a test here, and a line above.

use std::time::Duration;

use portcullis_stack::{Topology, ready};
use portcullis_tests::fake::{FakeUpstream, json_answer};
use portcullis_tests::organisation::{Organisation, PYTHON};
use portcullis_tests::world::{Workers, topology_of_this_run};
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use redis::Commands as _;
use serde_json::{Value, json};

use crate::streams::{Listener, Source};

pub(crate) fn cases() -> Vec<Case> {
    cases!["organisations":
        global_window_means_what_each_policy_says,
        callers_that_ask_leave_room_for_others,
        streams_of_one_caller_leave_room_for_others,
        sessions_of_one_caller_are_bounded_and_ended_ones_are_forgotten,
        requests_other_than_calls_draw_from_windows_that_name_them,
    ]
}

fn with(world: &World<'_>, change: impl FnOnce(&mut Value)) -> Organisation {
    Organisation::with_policy(world.stack(), change)
}

fn limit_of(answer: &Answer) -> String {
    answer.assert_refused(429, -31_429);
    answer.message()["error"]["data"]["limit"].as_str().unwrap_or_default().to_owned()
}

// Finding 12.6: `{1, 1ms}` wiped the other organisation's count, `{1000000, 1h, cost: bytes}` shut it out.
fn global_window_means_what_each_policy_says(world: &World<'_>) {
    if topology_of_this_run() == Topology::Cluster {
        // There are none.
        return;
    }
    let shared = |limit: Value| {
        with(world, |policy| {
            policy["limits"] = json!({"e2e-shared": limit});
            policy["limits"]["e2e-shared"]["per"] = json!(["global"]);
        })
    };
    let acme = shared(json!({"limit": 3, "window": "1h"}));
    let same = shared(json!({"limit": 3, "window": "1h"}));
    let hostile = [
        shared(json!({"limit": 1, "window": "1ms"})),
        shared(json!({"limit": 1_000_000, "window": "1h", "cost": "bytes"})),
    ];
    let call = |org: &Organisation, key: &str| org.call(key, "query_users", json!({"limit": 1}));
    let (key, other) = (acme.key("analyst").key, same.key("analyst").key);
    assert_eq!(call(&acme, &key).status(), 200);
    for org in &hostile {
        let key = org.key("analyst").key;
        assert_eq!(call(org, &key).status(), 200);
    }
    assert_eq!(call(&acme, &key).status(), 200);
    assert_eq!(call(&same, &other).status(), 200);
    // What was drawn still counts, over all that mean the same by it.
    assert_eq!(limit_of(&call(&acme, &key)), "limits.e2e-shared");
    assert_eq!(limit_of(&call(&same, &other)), "limits.e2e-shared");
}

// Finding 2.4: one caller filled the organisation's 1,000 places in a second, and nothing counted its asking.
fn callers_that_ask_leave_room_for_others(world: &World<'_>) {
    let org = with(world, |policy| {
        policy["connectors"]["demo"]["tools"] = json!({"create_note": {"approval": "required"}});
        policy["tiers"]["asking"] = json!({"limits": {"calls": {"limit": 52, "window": "1h"}}});
    });
    let (eager, other) = (org.key_in("admin", "asking").key, org.key("admin").key);
    let ask = |key: &str, title: &str| {
        let answer = org.call(key, "create_note", json!({"title": title, "body": "b"}));
        let message = answer.message();
        (answer.status(), message["error"]["data"]["state"].as_str().unwrap_or_default().to_owned())
    };
    for number in 0..50 {
        assert_eq!(ask(&eager, &format!("n{number}")), (403, "pending".to_owned()), "{number}");
    }
    for title in ["one too many", "and another"] {
        assert_eq!(ask(&eager, title), (403, "caller_full".to_owned()));
    }
    assert_eq!(ask(&other, "mine"), (403, "pending".to_owned()));
    // Asking draws.
    assert_eq!(ask(&eager, "n1").0, 429);
}

// Findings 2.5 and 12.9: 35 streams of one key left none for another organisation.
fn streams_of_one_caller_leave_room_for_others(world: &World<'_>) {
    let source = Source::start();
    let own = world.envoy(Workers::One, |settings| settings.python(source.address));
    let org = with(world, |policy| {
        policy["streams"] = json!({"per_caller": 2, "per_organisation": 3});
    });
    let org = org.through(&own.gateway);
    let (eager, other) = (org.key("analyst").key, org.key("analyst").key);
    let listen = |key: &str| {
        Request::bare("GET", PYTHON)
            .header("host", "gateway.test")
            .header("accept", "text/event-stream")
            .bearer(key)
    };
    let refused = |key: &str| limit_of(&org.gateway.send(&listen(key)));
    let open = |key: &str| Listener::open(org.gateway.address(), &listen(key));
    let first = open(&eager);
    let _second = open(&eager);
    assert_eq!(refused(&eager), "streams.per_caller");
    let _third = open(&other);
    assert_eq!(refused(&other), "streams.per_organisation");
    let elsewhere = world.organisation().through(&own.gateway);
    let _fourth = open(&elsewhere.key("analyst").key);
    // What has ended is out of the way.
    drop(first);
    let again = ready::eventually("room for a stream", Duration::from_secs(10), || {
        Listener::try_open(org.gateway.address(), &listen(&other)).ok()
    });
    drop(again.unwrap_or_else(|fault| panic!("{fault}")));
}

/// Opens the session that the client's name says.
fn opening(request: &str) -> Vec<Vec<u8>> {
    let body =
        r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;
    if request.starts_with("DELETE") {
        return vec![b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()];
    }
    let named = request.split_once("\"clientInfo\":{\"name\":\"");
    match named.and_then(|(_, rest)| rest.split_once('"')) {
        Some((id, _)) => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: ";
            vec![format!("{head}{id}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()]
        }
        _ => json_answer(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
    }
}

// Findings 2.3 and 12.4: one key's `initialize` filled Redis, and `DELETE` freed nothing.
fn sessions_of_one_caller_are_bounded_and_ended_ones_are_forgotten(world: &World<'_>) {
    let fake = FakeUpstream::answering(opening);
    let own = world.with_python_as(&fake);
    let org = with(world, |policy| {
        policy["sessions"] = json!({"per_caller": {"limit": 2, "window": "1h"}, "idle": "1h"});
    });
    let org = org.through(&own.gateway);
    let (eager, other) = (org.key("analyst").key, org.key("analyst").key);
    let open = |key: &str, id: &str| {
        let client = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": id, "version": "1"}});
        let message = mcp::request(1, "initialize", client).to_string();
        org.gateway.send(&Request::post(PYTHON, message).bearer(key))
    };
    for id in ["s-1", "s-2"] {
        assert_eq!(open(&eager, id).header("mcp-session-id").as_deref(), Some(id));
    }
    assert_eq!(limit_of(&open(&eager, "s-3")), "sessions.per_caller");
    assert_eq!(open(&other, "s-4").header("mcp-session-id").as_deref(), Some("s-4"));

    let mut redis = redis_of(world, &org.name);
    let pattern = format!("portcullis:{{{}}}:bound:session:*", org.name);
    let mut bound = || {
        let keys: Vec<String> = redis.scan_match(&pattern).unwrap().map(Result::unwrap).collect();
        for key in &keys {
            let life: i64 = redis.pttl(key).unwrap();
            assert!((1..=3_600_000).contains(&life), "{key} lives for {life} ms");
        }
        keys.len()
    };
    assert_eq!(bound(), 3);
    let end = Request::bare("DELETE", PYTHON).header("host", "gateway.test").bearer(&eager);
    let ended = org.gateway.send(&end.header("mcp-session-id", "s-1"));
    assert_eq!(ended.status(), 204);
    let freed = ready::eventually("the session is forgotten", Duration::from_secs(5), || {
        (bound() == 2).then_some(())
    });
    freed.unwrap_or_else(|fault| panic!("{fault}"));
    let ping = mcp::request(1, "ping", json!({})).to_string();
    let lost = Request::post(PYTHON, ping).bearer(&eager).header("mcp-session-id", "s-1");
    assert_eq!(org.gateway.send(&lost).status(), 404);
}

fn redis_of(world: &World<'_>, org: &str) -> redis::Connection {
    let url = world.stack().valkey_of(org).url();
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

// Finding 12.4: lists, reads, prompts and completions drew from nothing.
fn requests_other_than_calls_draw_from_windows_that_name_them(world: &World<'_>) {
    let org = with(world, |policy| {
        policy["limits"] = json!({
            "lists": {"limit": 2, "window": "1h", "per": ["key"], "match": {"methods": ["*/list"]}},
        });
    });
    let key = org.key("analyst").key;
    for _ in 0..2 {
        assert_eq!(org.post(&key, &mcp::list()).status(), 200);
    }
    assert_eq!(limit_of(&org.post(&key, &mcp::list())), "limits.lists");
    assert_eq!(org.call(&key, "query_users", json!({"limit": 1})).status(), 200);
}
