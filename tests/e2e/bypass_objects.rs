//! Ways around the gateway, second half: through answers that come another way, and objects of other callers.

use portcullis_tests::fake::{FakeUpstream, event_answer, json_answer};
use portcullis_tests::organisation::{Organisation, PYTHON};
use portcullis_tests::world::{Mode, OwnEnvoy, Workers, replaced};
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["bypass":
        lists_that_come_late_or_oddly_are_filtered_all_the_same,
        objects_are_refused_by_whatever_way_they_are_named,
        sessions_and_tasks_of_somebody_else_are_unknown,
        filtered_lists_are_private_and_short_lived,
    ]
}

/// Where clients of HTTP+SSE post to.
const MESSAGES: &str = "/python/messages";

/// One worker, a fake behind `/python/mcp` and [`MESSAGES`], and a role that may use a few of its objects.
fn behind(world: &World<'_>, fake: &FakeUpstream, messages: bool) -> (OwnEnvoy, Organisation) {
    let route = format!(
        "              routes:\n              - match: {{path: {MESSAGES}}}\n                route: {{cluster: python, \
         prefix_rewrite: /message}}\n"
    );
    let own = world.envoy_changed(
        Workers::One,
        |settings| settings.python(fake.address()),
        |template| replaced(&template, "              routes:\n", &route),
    );
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["roles"]["analyst"]["python"] =
            json!({"allow": ["echo"], "prompts": ["greet"], "resources": ["file:///open/*"]});
        if messages {
            policy["connectors"]["python"]["messages"] = json!(MESSAGES);
        }
    });
    let org = org.through(&own.gateway);
    (own, org)
}

/// Refused and audited as such, and not one whole request at the fake.
fn refused(fake: &FakeUpstream, answer: &Answer, status: u16, code: i64, what: &str) {
    let got = (answer.status(), answer.error_code());
    assert_eq!(got, (status, Some(code)), "{what}: {}", answer.text());
    let entry = answer.audit();
    assert_eq!(entry["decision"]["effect"], "deny", "{what}: {entry}");
    assert_eq!(entry["http_status"], status, "{what}: {entry}");
    assert_eq!(fake.requests(), Vec::<String>::new(), "{what} reached the upstream");
    if Mode::of_this_run() == Mode::Hold {
        assert_eq!(fake.bytes(), 0, "{what} reached the upstream");
    }
}

fn list_of(tools: &[&str]) -> Value {
    let tools: Vec<Value> = tools.iter().map(|name| json!({"name": name})).collect();
    json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools, "nextCursor": "more"}})
}

/// The client says in `x-case` what it wants to get.
fn list_by_case(request: &str) -> Vec<Vec<u8>> {
    let wanted = request.lines().find_map(|line| line.strip_prefix("x-case: ")).unwrap_or_default();
    let list = list_of(&["secrets", "echo"]);
    let hidden = r#"{"id":1,"result":{"tools":[{"name":"secrets"}]}}"#;
    match wanted {
        "bytes" => event_answer(&format!("data:{hidden}\n\n"), 1),
        "crlf" => event_answer(&format!("id: 7\r\nevent: message\r\ndata: {list}\r\n\r\n"), 11),
        "cr" => event_answer(&format!("id: 7\revent: message\rdata: {list}\r\r"), 11),
        "lines" => {
            event_answer(&format!("data: {}\n\n", list.to_string().replace(',', ",\ndata:")), 9)
        }
        "unfinished" => event_answer(&format!("data: {list}"), 40),
        "priming" => {
            event_answer(&format!("\u{feff}id: 1\ndata:\n\nretry: 10\n\ndata: {list}\n\n"), 13)
        }
        "array" => event_answer(&format!("data: [{list}]\n\n"), 1000),
        "renamed" => event_answer(&format!("event: other\ndata: {list}\n\n"), 1000),
        "page" => json_answer(&list_of(&["secrets"]).to_string()),
        "typed" => {
            let body = list.to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            vec![(head + &body).into_bytes()]
        }
        "gzip" | "br" => {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: {wanted}\r\n"
            );
            vec![format!("{head}content-length: 7\r\n\r\nsecrets").into_bytes()]
        }
        _ => event_answer(&format!("data: {list}\n\n"), 1000),
    }
}

// Proves: C3, X17, B2
fn lists_that_come_late_or_oddly_are_filtered_all_the_same(world: &World<'_>) {
    let fake = FakeUpstream::answering(list_by_case);
    let (_own, org) = behind(world, &fake, false);
    let key = org.key("analyst").key;
    let resumed = Request::bare("GET", PYTHON)
        .header("host", "gateway.test")
        .header("accept", "text/event-stream")
        .header("last-event-id", "41")
        .bearer(&key);
    let asked = Request::post(PYTHON, mcp::list().to_string()).bearer(&key);
    // What comes, and whether the allowed tool has to be in what is left of it.
    for (case, kept) in [
        ("plain", true),
        ("bytes", false),
        ("crlf", true),
        ("cr", true),
        ("lines", true),
        ("unfinished", false),
        ("priming", true),
        ("array", true),
        ("renamed", false),
        ("gzip", false),
        ("br", false),
    ] {
        for request in [&resumed, &asked] {
            let what = format!("{case} to {}", request.method);
            let answer = org.gateway.send(&request.clone().header("x-case", case));
            assert!(!answer.text().contains("secrets"), "{what}: {}", answer.text());
            if kept {
                assert!(answer.text().contains("echo"), "{what}: {}", answer.text());
                assert_eq!(answer.audit()["status"], "success", "{what}");
            } else {
                answer.audit();
            }
        }
    }
    for case in ["gzip", "br"] {
        let answer = org.gateway.send(&asked.clone().header("x-case", case));
        assert_eq!((answer.status(), answer.error_code()), (502, Some(-31_502)), "{case}");
    }
    // A page with nothing for this caller is empty, and the way to the next one stays.
    let answer = org.gateway.send(&asked.clone().header("x-case", "page"));
    assert_eq!(answer.result(), json!({"tools": [], "nextCursor": "more"}));
    let answer = org.gateway.send(&asked.header("x-case", "typed"));
    assert!(!answer.text().contains("secrets"), "{}", answer.text());
    // Asked not to compress, whatever the client would accept.
    for request in fake.requests() {
        let request = request.to_ascii_lowercase();
        let codings = request.lines().filter(|line| line.starts_with("accept-encoding:"));
        assert_eq!(codings.collect::<Vec<_>>(), ["accept-encoding: identity"]);
    }
}

// Proves: C3, B10
fn objects_are_refused_by_whatever_way_they_are_named(world: &World<'_>) {
    let fake = FakeUpstream::answering(|_| json_answer(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
    let (_own, org) = behind(world, &fake, false);
    let key = org.key("analyst").key;
    let legacy = |method: &str, params: Value| {
        let message = mcp::request(1, method, params).to_string();
        org.gateway.send(&Request::post(PYTHON, message).bearer(&key))
    };
    let closed = "file:///closed/x";
    let argument = json!({"name": "a", "value": ""});
    let completion = |reference: Value| json!({"ref": reference, "argument": argument});
    for (method, params, code) in [
        ("prompts/get", json!({"name": "secret"}), -32_602),
        (
            "completion/complete",
            completion(json!({"type": "ref/prompt", "name": "secret"})),
            -32_602,
        ),
        (
            "completion/complete",
            completion(json!({"type": "ref/prompt", "name": "secret", "uri": "file:///open/x"})),
            -32_602,
        ),
        (
            "completion/complete",
            completion(json!({"type": "ref/resource", "uri": closed})),
            -32_002,
        ),
        (
            "completion/complete",
            completion(
                json!({"type": "ref/resource", "uri": "file:///open/../closed/x", "name": "greet"}),
            ),
            -32_002,
        ),
        ("resources/read", json!({"uri": closed}), -32_002),
        ("resources/read", json!({"uri": "file:///open/%2E%2e/closed/x"}), -32_002),
        ("resources/read", json!({"uri": "file:///open/a/..%252f../closed/x"}), -32_002),
        ("resources/read", json!({"uri": "file:///open/..\\closed"}), -32_002),
        ("resources/read", json!({"uri": "FILE:///open/x"}), -32_002),
        ("resources/subscribe", json!({"uri": closed}), -32_002),
        ("resources/unsubscribe", json!({"uri": closed}), -32_002),
        (
            "subscriptions/listen",
            json!({"notifications": {"resourceSubscriptions": ["file:///open/x", closed]}}),
            -32_002,
        ),
        ("tasks/get", json!({"taskId": "t-1"}), -32_602),
        ("tasks/result", json!({"taskId": "t-1"}), -32_602),
        ("tasks/cancel", json!({"taskId": "t-1"}), -32_602),
        ("subscriptions/listen", json!({"notifications": {"taskIds": ["t-1"]}}), -32_602),
        ("tasks/list", json!({}), -32_601),
        ("Tools/call", json!({"name": "echo"}), -32_601),
        ("tools/call ", json!({"name": "echo"}), -32_601),
        ("rpc.discover", json!({}), -32_601),
    ] {
        refused(&fake, &legacy(method, params.clone()), 200, code, &format!("{method} {params}"));
    }
    for (method, params) in [
        ("completion/complete", completion(json!({"name": "secret"}))),
        ("completion/complete", completion(json!({"type": "REF/PROMPT", "name": "secret"}))),
        ("completion/complete", json!({"argument": argument})),
        ("resources/read", json!({"uri": [closed]})),
        ("resources/read", json!({"uri": "file:///open/x", "URI": closed})),
        ("tasks/get", json!({"taskId": "t-1", "ta\u{17f}kId": "t-2"})),
        ("prompts/get", json!({"name": "greet", "Name": "secret"})),
        ("subscriptions/listen", json!({"notifications": {"resourceSubscriptions": closed}})),
    ] {
        refused(
            &fake,
            &legacy(method, params.clone()),
            400,
            -32_600,
            &format!("{method} {params}"),
        );
    }
    // A notification names nothing and calls nothing.
    let silent = json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "echo"}});
    let answer = org.gateway.send(&Request::post(PYTHON, silent.to_string()).bearer(&key));
    assert!(answer.error_code().is_some(), "{}", answer.text());
    assert_eq!(fake.requests(), Vec::<String>::new());
    for (method, params) in [
        ("prompts/get", json!({"name": "greet"})),
        ("resources/read", json!({"uri": "file:///open/x"})),
        ("completion/complete", completion(json!({"type": "ref/prompt", "name": "greet"}))),
    ] {
        assert_eq!(legacy(method, params).status(), 200, "{method}");
    }
    assert_eq!(fake.requests().len(), 3);
}

/// Opens a session to who initialises or listens, and a task to who calls.
fn opening(request: &str) -> Vec<Vec<u8>> {
    if request.starts_with("GET") {
        event_answer("event: endpoint\ndata: /message?sessionId=sse-1\n\n", 1000)
    } else if request.contains("\"initialize\"") {
        let body = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;
        let id = request.lines().find_map(|line| line.strip_prefix("x-opens: ")).unwrap_or("none");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: ";
        vec![format!("{head}{id}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()]
    } else if request.contains("tools/call") {
        json_answer(
            r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"task","task":{"taskId":"task-1","status":"working"},"taskId":"task-1"}}"#,
        )
    } else {
        json_answer(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)
    }
}

// Proves: B1, B2, B3, X17
fn sessions_and_tasks_of_somebody_else_are_unknown(world: &World<'_>) {
    let fake = FakeUpstream::answering(opening);
    let (_own, org) = behind(world, &fake, true);
    let (victim, thief) = (org.key("analyst").key, org.key("analyst").key);
    let ping = || mcp::request(1, "ping", json!({})).to_string();
    let client = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let initialize = Request::post(PYTHON, mcp::request(1, "initialize", client).to_string());
    for (key, session) in [(&victim, "s-victim"), (&thief, "s-thief")] {
        let opened = org.gateway.send(&initialize.clone().bearer(key).header("x-opens", session));
        assert_eq!(opened.header("mcp-session-id").as_deref(), Some(session), "{}", opened.text());
    }
    let get =
        Request::bare("GET", PYTHON).header("host", "x").header("accept", "text/event-stream");
    let opened = org.gateway.send(&get.clone().bearer(&victim));
    assert!(opened.text().contains(&format!("{MESSAGES}?sessionId=sse-1")), "{}", opened.text());
    let called = Request::post(PYTHON, mcp::call("echo", json!({})).to_string()).bearer(&victim);
    assert_eq!(org.gateway.send(&called).status(), 200);

    let theirs = |path: &str| Request::post(path, ping()).bearer(&thief);
    let delete = Request::bare("DELETE", PYTHON).header("host", "x").bearer(&thief);
    let before = fake.requests().len();
    let refused = |status: u16, what: &str, request: Request| {
        let answer = org.gateway.send(&request);
        assert_eq!(answer.status(), status, "{what}: {}", answer.text());
        let entry = answer.audit();
        assert_eq!(entry["decision"]["effect"], "deny", "{what}: {entry}");
        assert_eq!(fake.requests().len(), before, "{what} reached the upstream");
    };
    refused(404, "a session by header", theirs(PYTHON).header("mcp-session-id", "s-victim"));
    refused(404, "in a stream", get.bearer(&thief).header("mcp-session-id", "s-victim"));
    refused(404, "to end it", delete.header("mcp-session-id", "s-victim"));
    refused(404, "one that never was", theirs(PYTHON).header("mcp-session-id", "s-none"));
    let two =
        theirs(PYTHON).header("mcp-session-id", "s-thief").header("mcp-session-id", "s-victim");
    refused(400, "two sessions", two);
    refused(404, "no session at all", theirs(MESSAGES));
    for query in ["sessionId=sse-1", "session_id=sse-1", "a=b&sessionId=sse-1", "sessionId=%73se-1"]
    {
        refused(404, query, theirs(&format!("{MESSAGES}?{query}")));
    }
    // Names that a server may read as that of a session, or the other of two.
    for query in [
        "sessionId=s-thief&sessionId=sse-1",
        "session_id=s-thief&sessionId=sse-1",
        "sessionId=s-thief&session%49d=sse-1",
        "sessionId=s-thief;sessionId=sse-1",
        "sessionId=s-thief&sessionId[]=sse-1",
        "sessionId[0]=sse-1",
        "SESSIONID=sse-1",
    ] {
        let request = theirs(&format!("{MESSAGES}?{query}")).header("mcp-session-id", "s-thief");
        refused(400, query, request);
    }
    // The modern era has no sessions: neither the stream's nor, upstream, anybody's.
    let modern = |path: &str| mcp::modern(path, mcp::call("echo", json!({}))).bearer(&thief);
    refused(404, "a modern message to a stream", modern(&format!("{MESSAGES}?sessionId=sse-1")));
    let task = |key: &str| {
        let message = mcp::request(1, "tasks/get", json!({"taskId": "task-1"}));
        Request::post(PYTHON, message.to_string()).bearer(key)
    };
    refused(200, "a task", task(&thief));
    assert_eq!(org.gateway.send(&task(&thief)).error_code(), Some(-32_602));

    assert_eq!(
        org.gateway.send(&modern(PYTHON).header("mcp-session-id", "s-victim")).status(),
        200
    );
    let last = fake.requests().pop().unwrap();
    assert!(!last.contains("s-victim"), "the session went on: {last}");
    for request in [
        Request::post(PYTHON, ping()).bearer(&victim).header("mcp-session-id", "s-victim"),
        Request::post(&format!("{MESSAGES}?sessionId=sse-1"), ping()).bearer(&victim),
        task(&victim),
    ] {
        assert_eq!(
            org.gateway.send(&request).status(),
            200,
            "whose it is may use it: {}",
            request.path
        );
    }
    assert_eq!(fake.requests().len(), before + 4);
}

// Proves: C3, X17
fn filtered_lists_are_private_and_short_lived(world: &World<'_>) {
    fn public(request: &str) -> Vec<Vec<u8>> {
        let ttl = request.lines().find_map(|line| line.strip_prefix("x-ttl: ")).unwrap_or("0");
        let list = format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{{"name":"secrets"}},{{"name":"echo"}}],"cacheScope":"public","ttlMs":{ttl}}}}}"#
        );
        if request.contains("x-streamed") {
            event_answer(&format!("data: {list}\n\n"), 50)
        } else {
            json_answer(&list)
        }
    }
    let fake = FakeUpstream::answering(public);
    let (_own, org) = behind(world, &fake, false);
    let (analyst, admin) = (org.key("analyst").key, org.key("admin").key);
    for (ttl, at_most) in [
        ("0", 0),
        ("5000", 5_000),
        ("86400000", 10_000),
        ("1e300", 10_000),
        ("9007199254740993", 10_000),
        ("\"long\"", 10_000),
        ("-1", 10_000),
    ] {
        for streamed in ["no", "yes"] {
            for (key, tools) in [(&analyst, vec!["echo"]), (&admin, vec!["secrets", "echo"])] {
                let request = mcp::modern(PYTHON, mcp::list()).bearer(key).header("x-ttl", ttl);
                let request =
                    if streamed == "yes" { request.header("x-streamed", "1") } else { request };
                let answer = org.gateway.send(&request);
                let what = format!("{ttl} streamed {streamed}: {}", answer.text());
                assert_eq!(answer.tools(), tools, "{what}");
                let result = answer.result();
                assert_eq!(result["cacheScope"], "private", "{what}");
                assert!(result["ttlMs"].as_u64().is_some_and(|ttl| ttl <= at_most), "{what}");
            }
        }
    }
}
