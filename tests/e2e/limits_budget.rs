//! Credits, bytes, windows over several organisations, and what clients learn of them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use portcullis_stack::{Topology, ready};
use portcullis_tests::fake::{FakeUpstream, event_answer};
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::tokens::Mint;
use portcullis_tests::world::topology_of_this_run;
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["limits_budget":
        budget_of_credits_warns_once_and_stops_at_its_end,
        rows_are_charged_after_the_call_and_an_overdraft_is_carried,
        call_dearer_than_its_budget_is_forbidden,
        clients_are_told_their_windows_on_every_answer,
        problem_details_go_to_whom_asks_for_them,
        single_key_may_have_a_limit_of_its_own,
        bytes_of_requests_are_counted,
        global_window_is_shared_by_organisations,
        operator_sees_what_a_caller_has_drawn_and_forgets_it,
        rows_that_a_caller_reads_elsewhere_cost_the_most_they_may,
    ]
}

fn metrics(org: &Organisation, key: &str) -> Answer {
    org.call(key, "get_dashboard_metrics", json!({}))
}

fn events<'a>(entry: &'a Value, name: &str) -> Vec<&'a Value> {
    let events = entry["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().filter(|event| event["event"] == name).collect()
}

fn credits_left(answer: &Answer) -> u64 {
    let header = answer.header("x-portcullis-credits-remaining");
    header.expect("the credits that are left").parse().expect("a number")
}

// Proves: B12, C4, C5, C7
fn budget_of_credits_warns_once_and_stops_at_its_end(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["connectors"]["demo"]["tools"] = json!({"get_dashboard_metrics": {"price": 5}});
        policy["limits"] = json!({"hourly": {
            "limit": 100, "window": "1h", "per": ["key"], "cost": "credits",
        }});
    });
    let replica = world.replica();
    let there = org.through(&replica.gateway);
    let key = org.key("analyst").key;
    let mut alerts = Vec::new();
    for call in 1..=20_u64 {
        let answer = metrics(if call % 2 == 0 { &there } else { &org }, &key);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(credits_left(&answer), 100 - 5 * call);
        let entry = answer.audit();
        assert_eq!(entry["credits"], 5);
        alerts
            .extend(events(&entry, "budget_alert").into_iter().cloned().map(|alert| (call, alert)));
    }
    let alert = json!({"event": "budget_alert", "limit": "limits.hourly", "used": 80, "of": 100});
    assert_eq!(alerts, [(16, alert)], "one of twenty calls through two gateways tells of 80 %");
    for gateway in [&org, &there] {
        let refused = metrics(gateway, &key);
        refused.assert_refused(429, -31_429);
        assert_eq!(credits_left(&refused), 0);
        let entry = refused.audit();
        assert_eq!(entry["decision"]["rule"], "limits.hourly");
        assert_eq!(events(&entry, "rate_limit_exceeded").len(), 1, "{entry}");
        assert_eq!(events(&entry, "budget_alert").len(), 0, "{entry}");
        assert_eq!(entry.get("credits"), None, "nothing was drawn: {entry}");
    }
    // Another agent has a budget of its own.
    assert_eq!(credits_left(&metrics(&org, &org.key("analyst").key)), 95);
}

// Proves: X9
fn rows_are_charged_after_the_call_and_an_overdraft_is_carried(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["connectors"]["demo"]["tools"] = json!({
            "query_users": {"price": 1, "row_price": 2}, "get_dashboard_metrics": {"price": 0},
        });
        policy["limits"] = json!({"hourly": {
            "limit": 30, "window": "1h", "per": ["key"], "cost": "credits",
        }});
    });
    let key = org.key("analyst").key;
    let left = || credits_left(&metrics(&org, &key));
    let query = || org.call(&key, "query_users", json!({}));
    let first = query();
    assert_eq!((first.rows().len(), credits_left(&first)), (10, 29), "one for the call");
    assert_eq!(first.audit()["credits"], 21, "and two for each of ten rows");
    eventually("the rows of the first call are charged", || left() == 9);
    // It was unknown before how many rows there would be.
    assert_eq!(query().status(), 200);
    eventually("the rows of the second call are charged", || left() == 0);
    query().assert_refused(429, -31_429);
    assert_eq!(metrics(&org, &key).status(), 200, "what is free is not stopped");
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let held = ready::eventually(what, Duration::from_secs(10), || holds().then_some(()));
    held.unwrap_or_else(|fault| panic!("{fault}"));
}

fn call_dearer_than_its_budget_is_forbidden(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["connectors"]["demo"]["price"] = json!(11);
        policy["limits"] = json!({"small": {
            "limit": 10, "window": "1h", "per": ["key"], "cost": "credits",
        }});
    });
    let answer = metrics(&org, &org.key("analyst").key);
    answer.assert_refused(403, -31_403);
    assert_eq!(answer.message()["error"]["data"]["rule"], "limits.small");
    assert_eq!(answer.header("retry-after"), None, "to wait would be in vain");
}

// Proves: X11
fn clients_are_told_their_windows_on_every_answer(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["tiers"]["told"] = json!({"limits": {
            "calls": {"limit": 2, "window": "1h"},
            "burst": {"limit": 50, "window": "1500ms"},
        }});
        policy["limits"] = json!({"credits": {
            "limit": 1_000, "window": "30d", "per": ["org"], "cost": "credits",
        }});
    });
    let key = org.key_in("analyst", "told").key;
    // In the order of the policy's canonical form.
    let policies = "\"tiers.told.burst\";q=50, \"tiers.told.calls\";q=2;w=3600, \
                    \"limits.credits\";q=1000;qu=\"credits\";w=2592000";
    for (status, calls, credits) in [(200, 1, 999), (200, 0, 998), (429, 0, 998)] {
        let answer = metrics(&org, &key);
        assert_eq!(answer.status(), status);
        assert_eq!(answer.header("ratelimit-policy").as_deref(), Some(policies));
        let limits = answer.header("ratelimit").expect("RateLimit");
        let [burst, hour, month] = limits.split(", ").collect::<Vec<_>>()[..] else {
            panic!("{limits}");
        };
        assert!(hour.starts_with(&format!("\"tiers.told.calls\";r={calls};t=")), "{hour}");
        assert!(month.starts_with(&format!("\"limits.credits\";r={credits};t=")), "{month}");
        let seconds = |item: &str| item.rsplit_once("t=").unwrap().1.parse::<u64>().unwrap();
        assert!(seconds(hour) <= 3_600 && seconds(hour) > 3_500 && seconds(burst) <= 2, "{limits}");
    }
    // What draws from no window has none to tell of.
    let list = org.post(&key, &mcp::list());
    assert_eq!((list.status(), list.header("ratelimit")), (200, None));
}

// Proves: X11
fn problem_details_go_to_whom_asks_for_them(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key_in("analyst", "narrow").key;
    let message = mcp::call("get_dashboard_metrics", json!({})).to_string();
    let request = Request::post(DEMO, message).bearer(&key).without("accept");
    let send = |accept: &str| org.gateway.send(&request.clone().header("accept", accept));
    const BOTH: &str = "application/json, text/event-stream, application/problem+json";
    for _ in 0..3 {
        assert_eq!(send(BOTH).status(), 200);
    }
    let refused = send(BOTH);
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.header("content-type").as_deref(), Some("application/problem+json"));
    let problem: Value = serde_json::from_str(&refused.text()).expect("a problem");
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["violated-policies"], json!(["tiers.narrow.calls"]));
    assert_eq!(problem["status"], 429);
    let seconds: u64 = refused.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!(seconds * 1_000 >= problem["retryAfterMs"].as_u64().unwrap());
    assert_eq!(refused.audit()["status"], "limited");
    // Everybody else gets JSON-RPC.
    send("application/json, text/event-stream").assert_refused(429, -31_429);
}

// Proves: A11
fn single_key_may_have_a_limit_of_its_own(world: &World<'_>) {
    let org = world.organisation();
    let [enterprise, other] = [0; 2].map(|_| org.key_in("analyst", "narrow"));
    let mut policy = org.standard_policy();
    policy["keys"][&enterprise.id] = json!({"limits": {"calls": {"limit": 5, "window": "1h"}}});
    org.push(&policy);
    for (key, limit) in [(&enterprise.key, 5), (&other.key, 3)] {
        let admitted = (0..10).take_while(|_| metrics(&org, key).status() == 200).count();
        assert_eq!(admitted, limit);
    }
}

fn bytes_of_requests_are_counted(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["limits"] = json!({"upload": {
            "limit": 1_000, "window": "1h", "per": ["key"], "cost": "bytes",
        }});
    });
    let key = org.key("analyst").key;
    let message = mcp::call("search_contacts", json!({"query": "x".repeat(400)}));
    let length = message.to_string().len() as u64;
    let first = org.post(&key, &message);
    assert_eq!(first.status(), 200, "{}", first.text());
    let limits = first.header("ratelimit").expect("RateLimit");
    assert!(limits.contains(&format!("\"limits.upload\";r={}", 1_000 - length)), "{limits}");
    let policies = first.header("ratelimit-policy").expect("RateLimit-Policy");
    assert!(policies.contains("\"limits.upload\";q=1000;qu=\"content-bytes\""), "{policies}");
    assert_eq!(org.post(&key, &message).status(), 429 - 229 * u16::from(2 * length <= 1_000));
    assert_eq!(metrics(&org, &key).status(), 200, "a small one still fits");
}

// Proves: B11
fn global_window_is_shared_by_organisations(world: &World<'_>) {
    let first = world.organisation();
    let name = format!("all-{}", first.name);
    let limit = |policy: &mut Value| {
        policy["limits"][&name] = json!({"limit": 5, "window": "1h", "per": ["global"]});
    };
    let mut policy = first.standard_policy();
    limit(&mut policy);
    if topology_of_this_run() == Topology::Cluster {
        // There is no such window there; redis_places has what happens then.
        let refusal = first.push_refused(&policy);
        assert_eq!(refusal["found"], format!("limits.{name} counts over all organisations"));
        return;
    }
    first.push(&policy);
    let second = Organisation::with_policy(world.stack(), limit);
    let keys = [first.key("analyst").key, second.key("analyst").key];
    let statuses: Vec<u16> =
        (0..7).map(|call| metrics([&first, &second][call % 2], &keys[call % 2]).status()).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429]);
    let refused = metrics(&first, &keys[0]);
    assert_eq!(refused.message()["error"]["data"]["limit"], format!("limits.{name}"));
}

// Proves: X9, C7
fn operator_sees_what_a_caller_has_drawn_and_forgets_it(world: &World<'_>) {
    let mint = Mint::of(world.stack());
    // Several organisations: in a Cluster they are on different nodes.
    for _ in 0..4 {
        let org = Organisation::with_policy(world.stack(), |policy| {
            policy["limits"] = json!({
                "storm": {"limit": 2, "window": "1h", "per": ["key", "tool"]},
                "company": {"limit": 100, "window": "1h", "per": ["org"]},
            });
        });
        let key = org.key("analyst");
        let token = mint.token(&org.name, json!({"sub": "agent-7"}));
        let mapped = ["--org", &org.name, "--role", "analyst", "--tier", "wide"];
        let subject = [&["--subject", "agent-7", "--issuer", mint.issuer()], &mapped[..]].concat();
        for (credential, caller) in [(&key.key, vec![key.id.as_str()]), (&token, subject)] {
            let limits = |verb: &str, more: &[&str]| {
                let all = [&["limits", verb], more, caller.as_slice()].concat();
                org.operator.json(&all).unwrap()
            };
            let used = |limit: &str| {
                let shown = limits("show", &[]);
                let windows = shown["windows"].as_array().unwrap().clone();
                windows.iter().find(|one| one["limit"] == limit).map(|one| one["used"].clone())
            };
            assert_eq!(used("limits.storm"), None, "no tool was called");
            let statuses = || [(); 3].map(|()| metrics(&org, credential).status());
            assert_eq!(statuses(), [200, 200, 429]);
            assert_eq!(used("limits.storm"), Some(json!(2)));
            let company = used("limits.company");
            assert_eq!(limits("reset", &["--reason", "a test"])["changed"], true);
            assert_eq!(used("limits.storm"), None);
            assert_eq!(used("limits.company"), company, "others share it");
            assert_eq!(statuses(), [200, 200, 429], "from the next request on");
        }
        let verified = ["audit", "verify", "--admin", "--org", &org.name];
        assert_eq!(org.operator.json(&verified).unwrap()["intact"], true);
    }
}

/// The first event of an answer; the rest would come on another stream.
fn first_event(request: &str) -> Vec<Vec<u8>> {
    let event = |message: Value| event_answer(&format!("id: 1\ndata: {message}\n\n"), 10_000);
    match request.contains("breaks-off") {
        true => {
            let mut pieces =
                event(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}));
            pieces.pop();
            pieces
        }
        false => event(json!({"jsonrpc": "2.0", "id": 1, "result": {"content": []}})),
    }
}

// Finding 5.4: 250 rows cost 5 credits for a caller who broke off after the first event and read the rest by GET.
// Proves: X9
fn rows_that_a_caller_reads_elsewhere_cost_the_most_they_may(world: &World<'_>) {
    const PRICE: u64 = 5;
    const MOST_ROWS: u64 = 1_000;
    const BUDGET: u64 = 100_000;
    let fake = FakeUpstream::answering(first_event);
    let own = world.with_python_as(&fake);
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["connectors"]["python"]["tools"] = json!({"echo": {"price": PRICE, "row_price": 1}});
        policy["limits"] = json!({"credits": {
            "limit": BUDGET, "window": "1h", "per": ["org"], "cost": "credits",
        }});
    })
    .through(&own.gateway);
    let key = org.key("analyst").key;
    let request = |message: &str| {
        let call = mcp::call("echo", json!({"message": message}));
        Request::post(PYTHON, call.to_string()).bearer(&key)
    };
    let mut stream = TcpStream::connect(own.gateway.address()).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(&request("breaks-off").bytes()).expect("send");
    let mut text = String::new();
    while !text.contains("notifications/progress") {
        let mut chunk = [0; 4_096];
        let read = stream.read(&mut chunk).expect("the first event");
        assert!(read > 0, "{text}");
        text += &String::from_utf8_lossy(&chunk[..read]);
    }
    drop(stream);
    let entry = ready::eventually("the entry of the call", Duration::from_secs(20), || {
        own.gateway.audit().entries().into_iter().next()
    });
    let entry = entry.unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(entry["credits"], PRICE + MOST_ROWS, "{entry}");
    // The charge is on its way when the entry is written.
    let left = ready::eventually("the charge", Duration::from_secs(20), || {
        let answer = org.gateway.send(&request("reads"));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let limits = answer.header("ratelimit").expect("RateLimit");
        let (_, credits) = limits.split_once("\"limits.credits\";r=")?;
        let left: u64 = credits.split(';').next()?.parse().ok()?;
        (left < BUDGET - MOST_ROWS).then_some(left)
    });
    let left = left.unwrap_or_else(|fault| panic!("{fault}"));
    assert!(left <= BUDGET - 2 * PRICE - MOST_ROWS, "{left}");
}
