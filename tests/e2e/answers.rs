//! Answers that come by another way than asked, in another form, or of any size.
//!
//! An upstream of the test's own answers as no good one would; what reaches the client is looked at byte by byte.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use portcullis_tests::fake::{FakeUpstream, event_answer, json_answer};
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::world::OwnEnvoy;
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["answers":
        lists_are_filtered_whatever_stream_and_form_they_come_in,
        item_that_cannot_be_read_takes_no_other_with_it,
        what_is_no_known_form_is_the_upstreams_fault,
        headers_of_an_upstream_pass_by_name,
        answers_of_any_size_pass_in_bounded_memory,
        session_of_another_connector_or_organisation_is_not_a_callers,
        task_is_bound_before_its_answer_goes_on,
        one_answer_opens_64_tasks_at_most,
    ]
}

const LIST: &str = r#"{"tools":[{"name":"danger"},{"name":"echo"}]}"#;

/// What an upstream sends: by the word in the request's body, or its method.
fn answer(request: &str) -> Vec<Vec<u8>> {
    let event = |id: u32, result: &str| {
        format!("id: {id}\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}\n\n")
    };
    let raw = |head: &str, body: &str| {
        let length = body.len();
        vec![format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()]
    };
    let json =
        |id: u32, result: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    let size = size();
    // Ids are owned for days: those of a test are its own.
    let id =
        request.split("id-of-").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("none");
    match request {
        get if get.starts_with("GET") && get.contains("large") => {
            event_answer(&event(1, &large(size)), 100_000)
        }
        get if get.starts_with("GET") => json_answer(&json(1, LIST)),
        text if text.contains("initialize") => {
            let text = event(1, "{}") + &event(9, LIST);
            let mut pieces = event_answer(&text, 60);
            let head = String::from_utf8(pieces[0].clone()).unwrap_or_default();
            pieces[0] =
                head.replace("\r\n\r\n", &format!("\r\nmcp-session-id: {id}\r\n\r\n")).into_bytes();
            pieces
        }
        text if text.contains("on-a-call") => event_answer(&(event(9, LIST) + &event(1, "{}")), 7),
        text if text.contains("as-202") => {
            raw("202 Accepted\r\ncontent-type: application/json", &json(1, LIST))
        }
        text if text.contains("twins") => json_answer(&json(
            1,
            r#"{"Tools":[{"name":"danger"}],"\u0074ools":[{"name":"danger"}]}"#,
        )),
        text if text.contains("utf-16") => {
            raw("200 OK\r\ncontent-type: text/event-stream;charset=utf-16", "data")
        }
        text if text.contains("html") => raw("200 OK\r\ncontent-type: text/html", "<html>"),
        text if text.contains("gzip") => {
            raw("200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip", "x")
        }
        text if text.contains("redirect") => {
            raw("307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/", "")
        }
        text if text.contains("challenge") => raw(
            "403 Forbidden\r\nwww-authenticate: Bearer resource_metadata=\"http://evil/\"",
            "no",
        ),
        text if text.contains("page") => raw("404 Not Found\r\ncontent-type: text/html", "<html>"),
        text if text.contains("large-json") => json_answer(&json(1, &large(size))),
        text if text.contains("large-list") => json_answer(&json(1, &long_list(size))),
        text if text.contains("large-item") => json_answer(&json(
            1,
            &format!(
                r#"{{"tools":[{{"name":"echo","x":"{}"}},{{"name":"add","x":"\ud800"}},{{"name":"echo"}}]}}"#,
                "x".repeat(size)
            ),
        )),
        text if text.contains("large-event") => event_answer(&event(1, &large(size)), 100_000),
        text if text.contains("many-tasks") => {
            let task = |nth: usize| {
                event(1, &format!(r#"{{"task":{{"taskId":"{id}-{nth}","status":"working"}}}}"#))
            };
            // Each three times, and as many events as fit in a piece.
            let events: String = (0..300).map(|nth| task(nth / 3)).collect();
            event_answer(&events, if text.contains("at-once") { 1 << 20 } else { 300 })
        }
        text if text.contains("make-task") => {
            let task = format!(r#"{{"task":{{"taskId":"{id}","status":"working"}}}}"#);
            event_answer(&(event(1, &task) + &event(9, LIST)), 1_000)
        }
        text if text.contains("cookie") => raw(
            "200 OK\r\ncontent-type: application/json\r\nset-cookie: a=b\r\naccess-control-allow-origin: *\r\n\
             x-powered-by: x\r\nx-portcullis-request-id: forged\r\nmcp-protocol-version: 2025-11-25",
            &json(1, "{}"),
        ),
        _ => json_answer(&json(1, "{}")),
    }
}

/// As large as a photograph; `PORTCULLIS_TEST_ANSWER_MB` says otherwise.
fn size() -> usize {
    let megabytes = std::env::var("PORTCULLIS_TEST_ANSWER_MB").ok();
    megabytes.and_then(|text| text.parse().ok()).unwrap_or(3) * 1_000_000
}

fn large(size: usize) -> String {
    format!(
        r#"{{"content":[{{"type":"image","data":"{}"}}],"isError":false}}"#,
        "QUJD".repeat(size / 4)
    )
}

fn long_list(size: usize) -> String {
    let tool = |name: &str| format!(r#"{{"name":"{name}","description":"{}"}}"#, "d".repeat(1_000));
    let tools: Vec<_> = (0..size / 2_048).map(|_| tool("danger") + "," + &tool("echo")).collect();
    format!(r#"{{"tools":[{}]}}"#, tools.join(","))
}

struct Behind {
    own: OwnEnvoy,
    org: Organisation,
    key: String,
    _fake: FakeUpstream,
}

fn behind(world: &World<'_>) -> Behind {
    let fake = FakeUpstream::answering(answer);
    let own = world.with_python_as(&fake);
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    Behind { own, org, key, _fake: fake }
}

impl Behind {
    fn call(&self, what: &str) -> Answer {
        self.ask(&mcp::request(
            1,
            "tools/call",
            json!({"name": "echo", "arguments": {"text": what}}),
        ))
    }

    fn list(&self, cursor: &str) -> Answer {
        self.ask(&mcp::request(1, "tools/list", json!({"cursor": cursor})))
    }

    fn ask(&self, message: &Value) -> Answer {
        self.org.gateway.send(&Request::post(PYTHON, message.to_string()).bearer(&self.key))
    }

    fn get(&self, agent: &str) -> Answer {
        let request = Request::bare("GET", PYTHON).header("host", "gateway.test");
        self.org.gateway.send(&request.header("user-agent", agent).bearer(&self.key))
    }
}

fn initialize(org: &Organisation) -> Value {
    let params = json!({"protocolVersion": "2025-11-25", "clientInfo": {"name": format!("id-of-{}", org.name)}});
    mcp::request(1, "initialize", params)
}

// Findings 5.1 and 5.2. Proves: C3, B3
fn lists_are_filtered_whatever_stream_and_form_they_come_in(world: &World<'_>) {
    let behind = behind(world);
    let initialize = initialize(&behind.org);
    for (what, answer) in [
        ("the stream of a call", behind.call("on-a-call")),
        ("the stream of a session", behind.ask(&initialize)),
        ("a GET answered with JSON", behind.get("plain")),
        ("names that only some readers take for it", behind.list("twins")),
    ] {
        let text = answer.text();
        assert!(!text.contains("danger") && text.contains("ools\":["), "{what}: {text}");
        assert_eq!(answer.audit()["status"], "success", "{what}");
    }
    // Clients read no answer in a 202.
    let answer = behind.list("as-202");
    assert_eq!((answer.status(), answer.error_code()), (502, Some(-31_502)), "{}", answer.text());
    assert!(!answer.text().contains("danger"), "{}", answer.text());
    assert_eq!(answer.audit()["decision"]["rule"], "upstream.no_answer");
}

// Finding 5.6. Proves: C3, B3
fn item_that_cannot_be_read_takes_no_other_with_it(world: &World<'_>) {
    let behind = behind(world);
    let answer = behind.list("large-item");
    assert_eq!((answer.status(), answer.tools()), (200, vec!["echo".to_owned()]));
    let entry = answer.audit();
    let events = entry["events"].as_array().expect("events").clone();
    for reason in ["too_large", "item"] {
        let event = json!({"event": "unreadable_items", "connector": "python", "list": "tools", "reason": reason, "items": 1});
        assert!(events.contains(&event), "{events:?}");
    }
    let page =
        behind.own.envoy.admin("stats?filter=upstream_unreadable").expect("Envoy's stats").text();
    assert!(page.contains("too_large"), "{page}");
}

// Findings 1.4, 1.5, 5.2, 5.9, 5.10. Proves: B3
fn what_is_no_known_form_is_the_upstreams_fault(world: &World<'_>) {
    let behind = behind(world);
    for (what, status, code, rule) in [
        ("utf-16", 502, -31_502, "upstream.content_type"),
        ("html", 502, -31_502, "upstream.content_type"),
        ("gzip", 502, -31_502, "upstream.content_encoding"),
        ("redirect", 502, -31_502, "upstream.redirect"),
        ("challenge", 503, -31_503, "upstream.credential_refused"),
    ] {
        for answer in [behind.call(what), behind.list(what)] {
            assert_eq!((answer.status(), answer.error_code()), (status, Some(code)), "{what}");
            for header in ["location", "www-authenticate"] {
                assert_eq!(answer.header(header), None, "{what}");
            }
            let entry = answer.audit();
            assert_eq!(
                (&entry["status"], &entry["decision"]["rule"]),
                (&json!("error"), &json!(rule))
            );
        }
    }
    let page = behind.list("page");
    assert_eq!((page.status(), page.error_code()), (404, Some(-31_502)), "{}", page.text());
}

// Finding 1.5. Proves: B3
fn headers_of_an_upstream_pass_by_name(world: &World<'_>) {
    let behind = behind(world);
    let answer = behind.call("cookie");
    for header in ["set-cookie", "access-control-allow-origin", "x-powered-by"] {
        assert_eq!(answer.header(header), None, "{header}");
    }
    assert_eq!(answer.header("mcp-protocol-version").as_deref(), Some("2025-11-25"));
    assert_ne!(answer.request_id(), "forged");
    // What the policy names for the connector passes, and nothing else.
    let mut policy = behind.org.standard_policy();
    policy["connectors"]["python"]["response_headers"] = json!(["Set-Cookie"]);
    behind.org.push(&policy);
    let answer = behind.call("cookie");
    assert_eq!(answer.header("set-cookie").as_deref(), Some("a=b"));
    for header in ["access-control-allow-origin", "x-powered-by"] {
        assert_eq!(answer.header(header), None, "{header}");
    }
}

/// What Envoy has resident, in bytes.
pub(crate) fn resident(own: &OwnEnvoy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", own.envoy.process().pid()));
    let kilobytes = status.expect("its status").lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    kilobytes.expect("a number") * 1_024
}

// Findings 5.5 and 8.1. Proves: B3
fn answers_of_any_size_pass_in_bounded_memory(world: &World<'_>) {
    let behind = behind(world);
    assert_eq!(behind.call("small").status(), 200);
    let before = resident(&behind.own);
    let size = size();
    let expected = large(size);
    for (what, answer) in [
        ("JSON", behind.call("large-json")),
        ("an event", behind.call("large-event")),
        ("an event of a GET stream", behind.get("large")),
    ] {
        assert_eq!(answer.status(), 200, "{what}");
        assert!(answer.text().contains(&expected), "{what}: {} bytes", answer.text().len());
        assert_eq!(answer.audit()["status"], "success", "{what}");
    }
    let list = behind.list("large-list");
    let tools = list.tools();
    assert_eq!(tools.len(), size / 2_048);
    assert!(tools.iter().all(|tool| tool == "echo"));
    let grown = resident(&behind.own).saturating_sub(before);
    println!("answers of {size} bytes: resident at most {grown} bytes more");
    // Envoy's own buffers of two connections, and what one item of a list may have.
    assert!(grown < 24_000_000, "{grown}");
}

// Findings 5.12 and 12.1. Proves: X17
fn session_of_another_connector_or_organisation_is_not_a_callers(world: &World<'_>) {
    let acme = behind(world);
    let (initialize, id) = (initialize(&acme.org), acme.org.name.clone());
    let opened = acme.ask(&initialize);
    assert_eq!(opened.header("mcp-session-id").as_deref(), Some(id.as_str()));
    let ping = || mcp::request(1, "ping", json!({})).to_string();
    let with = |path: &str| Request::post(path, ping()).header("mcp-session-id", &id);
    assert_eq!(acme.org.gateway.send(&with(PYTHON).bearer(&acme.key)).status(), 200);
    acme.org.gateway.send(&with(DEMO).bearer(&acme.key)).assert_refused(404, -32_001);
    // Another caller, and another organisation, to which the server gives the same id.
    let globex = world.organisation().through(&acme.own.gateway);
    for key in [acme.org.key("analyst").key, globex.key("analyst").key] {
        let request = Request::post(PYTHON, initialize.to_string()).bearer(&key);
        let taken = acme.org.gateway.send(&request);
        assert_eq!((taken.status(), taken.error_code()), (502, Some(-31_502)), "{}", taken.text());
        assert_eq!(taken.header("mcp-session-id"), None);
        let entry = taken.audit();
        assert_eq!(entry["decision"]["rule"], "upstream.session_taken");
        let event = json!({"event": "not_bound", "connector": "python", "kind": "session", "reason": "foreign"});
        assert!(entry["events"].as_array().expect("events").contains(&event), "{entry}");
        acme.org.gateway.send(&with(PYTHON).bearer(&key)).assert_refused(404, -32_001);
    }
    assert_eq!(acme.org.gateway.send(&with(PYTHON).bearer(&acme.key)).status(), 200);
}

// Findings 5.1 and 12.1. Proves: X17
fn task_is_bound_before_its_answer_goes_on(world: &World<'_>) {
    let acme = behind(world);
    let id = acme.org.name.clone();
    let mut stream = TcpStream::connect(acme.own.gateway.address()).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let call = mcp::request(
        1,
        "tools/call",
        json!({"name": "echo", "arguments": {"text": "make-task", "x": format!("id-of-{id}")}}),
    );
    let request = Request::post(PYTHON, call.to_string()).bearer(&acme.key);
    stream.write_all(&request.bytes()).expect("send");
    let mut text = String::new();
    while !text.ends_with("\r\n0\r\n\r\n") {
        let mut chunk = [0; 4_096];
        let read = stream.read(&mut chunk).expect("something to read");
        assert!(read > 0, "{text}");
        text += &String::from_utf8_lossy(&chunk[..read]);
    }
    // What came while the task was being bound is filtered as well.
    assert!(text.contains(&id) && text.contains(r#"{"tools":[{"name":"echo"}]}"#), "{text}");
    let poll = mcp::request(2, "tasks/get", json!({"taskId": id}));
    assert_eq!(acme.ask(&poll).error_code(), None);
    let globex = world.organisation().through(&acme.own.gateway);
    let request = Request::post(PYTHON, call.to_string()).bearer(&globex.key("analyst").key);
    let taken = acme.org.gateway.send(&request);
    let event =
        json!({"event": "not_bound", "connector": "python", "kind": "task", "reason": "foreign"});
    let entry = taken.audit();
    assert!(entry["events"].as_array().expect("events").contains(&event), "{entry}");
}

// Finding 12.2: one answer with very many tasks took all that a worker may ask of Redis, so that calls of others failed.
// Proves: X17, B2
fn one_answer_opens_64_tasks_at_most(world: &World<'_>) {
    let acme = behind(world);
    for how in ["at-once", "one-by-one"] {
        let id = format!("{how}-{}", acme.org.name);
        let arguments = json!({"text": format!("many-tasks {how}"), "x": format!("id-of-{id}")});
        let call = mcp::request(1, "tools/call", json!({"name": "echo", "arguments": arguments}));
        let answer = acme.ask(&call);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let entry = answer.audit();
        let event = json!({"event": "not_bound", "connector": "python", "kind": "task", "reason": "too_many"});
        assert!(entry["events"].as_array().expect("events").contains(&event), "{entry}");
        let known = |nth: usize| {
            let poll = mcp::request(2, "tasks/get", json!({"taskId": format!("{id}-{nth}")}));
            acme.ask(&poll).error_code().is_none()
        };
        for (nth, bound) in [(0, true), (31, true), (63, true), (64, false), (99, false)] {
            assert_eq!(known(nth), bound, "{how}: task {nth}");
        }
    }
}
