//! Which tools a caller sees, and what happens to calls of the others.

use portcullis_tests::fake::{FakeUpstream, event_answer, json_answer};
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::world::Mode;
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["tools":
        list_shows_each_role_its_own_tools_in_the_servers_order,
        list_that_comes_as_an_event_stream_is_filtered_too,
        list_in_awkward_pieces_is_filtered_too,
        list_that_cannot_be_read_does_not_pass,
        filtered_list_may_be_cached_only_for_its_caller,
        hidden_tool_is_unknown_exactly_like_a_missing_one,
        visible_but_refused_tool_is_a_403_that_names_the_rule,
        names_are_compared_byte_for_byte,
        refused_call_sends_the_upstream_nothing_at_all,
    ]
}

const ANALYST_TOOLS: [&str; 4] =
    ["create_note", "get_dashboard_metrics", "query_users", "search_contacts"];

// Proves: A2, C3
fn list_shows_each_role_its_own_tools_in_the_servers_order(world: &World<'_>) {
    let org = world.organisation();
    let (analyst, admin) = (org.key("analyst"), org.key("admin"));
    let seen = org.post(&analyst.key, &mcp::list());
    assert_eq!(seen.tools(), ANALYST_TOOLS);
    let everything = org.post(&admin.key, &mcp::list());
    let wanted =
        ["create_note", "delete_user", "get_dashboard_metrics", "query_users", "search_contacts"];
    assert_eq!(everything.tools(), wanted);
    // What stays, stays as the server wrote it.
    let tool = |answer: &Answer, name: &str| {
        let result = answer.result();
        let tools = result["tools"].as_array().unwrap().clone();
        tools.into_iter().find(|tool| tool["name"] == name).unwrap()
    };
    assert_eq!(tool(&seen, "query_users"), tool(&everything, "query_users"));
    assert!(!seen.text().contains("delete_user"), "{}", seen.text());
    let entry = seen.audit();
    assert_eq!((&entry["mcp_method"], &entry["status"]), (&json!("tools/list"), &json!("success")));
    assert!(entry.get("rows_returned").is_none(), "{entry}");
    assert_eq!(seen.upstream().len(), 1);
}

// Proves: C3
fn list_that_comes_as_an_event_stream_is_filtered_too(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    // The legacy era, in which this server streams: a session first.
    let client = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let post = |message: Value| Request::post(PYTHON, message.to_string()).bearer(&key);
    let opened = org.gateway.send(&post(mcp::request(1, "initialize", client)));
    assert_eq!(opened.result()["protocolVersion"], "2025-06-18");
    let session = opened.header("mcp-session-id").expect("the session id passes");
    let in_session = |message| {
        post(message)
            .header("mcp-session-id", &session)
            .header("mcp-protocol-version", "2025-06-18")
    };
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(org.gateway.send(&in_session(notification)).status(), 202);
    let listed = org.gateway.send(&in_session(mcp::list()));
    let media = listed.header("content-type").unwrap_or_default();
    assert!(media.starts_with("text/event-stream"), "this server streams: {media}");
    assert_eq!(listed.tools(), ["echo", "add"]);
    assert!(!listed.text().contains("secrets"), "{}", listed.text());
    assert_eq!(listed.audit()["status"], "success");
}

/// A list with one tool too many, as events with a comment, a notification and a priming event around it.
fn awkward_events() -> String {
    let tools = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": [
        {"name": "echo", "description": "ünïcode", "inputSchema": {"type": "object"}},
        {"name": "secrets", "inputSchema": {"type": "object"}},
    ]}})
    .to_string();
    let (front, back) = tools.split_at(tools.find("\"result\"").unwrap());
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}});
    format!(
        ": keep-alive\r\n\r\nid: 1\r\ndata:\r\n\r\nevent: message\ndata: {notification}\n\n\
         event: message\rid: 2\rdata: {front}\rdata: {back}\r\r"
    )
}

// Proves: C3
fn list_in_awkward_pieces_is_filtered_too(world: &World<'_>) {
    fn by_request(request: &str) -> Vec<Vec<u8>> {
        // The client chooses the size of the pieces.
        let wanted = request.lines().find_map(|line| line.strip_prefix("x-piece: "));
        event_answer(&awkward_events(), wanted.and_then(|size| size.parse().ok()).unwrap_or(1000))
    }
    let fake = FakeUpstream::answering(by_request);
    let own = world.with_python_as(&fake);
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    for size in ["7", "40", "1000"] {
        let request =
            Request::post(PYTHON, mcp::list().to_string()).bearer(&key).header("x-piece", size);
        let answer = org.gateway.send(&request);
        let text = answer.text();
        assert!(!text.contains("secrets"), "pieces of {size}: {text}");
        assert!(
            text.contains("ünïcode") && text.contains(": keep-alive"),
            "pieces of {size}: {text}"
        );
        assert!(
            text.contains("notifications/message") && text.contains("id: 2"),
            "pieces of {size}: {text}"
        );
        assert_eq!(answer.audit()["status"], "success", "pieces of {size}");
    }
}

// Proves: B2
fn list_that_cannot_be_read_does_not_pass(world: &World<'_>) {
    fn by_request(request: &str) -> Vec<Vec<u8>> {
        let hidden = r#"{"name":"secrets","inputSchema":{"type":"object"}}"#;
        if request.contains("x-case: twice") {
            json_answer(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[],"tools":[{hidden}]}}}}"#
            ))
        } else if request.contains("x-case: no-array") {
            json_answer(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":{hidden}}}}}"#))
        } else if request.contains("x-case: gzip") {
            vec![b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 7\r\n\r\nsecrets".to_vec()]
        } else {
            json_answer(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{hidden}"#))
        }
    }
    let fake = FakeUpstream::answering(by_request);
    let own = world.with_python_as(&fake);
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    for (case, status, code) in [
        ("twice", 200, None),
        ("no-array", 200, None),
        ("gzip", 502, Some(-31_502)),
        ("cut", 200, Some(-31_502)),
    ] {
        let request =
            Request::post(PYTHON, mcp::list().to_string()).bearer(&key).header("x-case", case);
        let answer = org.gateway.send(&request);
        assert!(!answer.text().contains("secrets"), "{case}: {}", answer.text());
        // What can be read of a list is filtered; its headers are on their way when the rest turns out bad.
        assert_eq!((answer.status(), answer.error_code()), (status, code), "{case}");
        assert_eq!(answer.message()["id"], 1, "{case}");
        let outcome = if code.is_some() { "error" } else { "success" };
        assert_eq!(answer.audit()["status"], outcome, "{case}");
    }
}

// Proves: C3
fn filtered_list_may_be_cached_only_for_its_caller(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    // The connector says `public` here, which lets a shared cache serve one caller's list to another.
    let answer = org.gateway.send(&mcp::modern(DEMO, mcp::list()).bearer(&key));
    assert_eq!(answer.tools(), ANALYST_TOOLS);
    assert_eq!(answer.result()["cacheScope"], "private", "{}", answer.text());
}

// Proves: C3, B10
fn hidden_tool_is_unknown_exactly_like_a_missing_one(world: &World<'_>) {
    let org = world.organisation();
    let (analyst, admin) = (org.key("analyst"), org.key("admin"));
    let hidden = org.call(&analyst.key, "delete_user", json!({"id": 11}));
    let missing = org.call(&analyst.key, "delete_usar", json!({"id": 11}));
    for (answer, tool) in [(&hidden, "delete_user"), (&missing, "delete_usar")] {
        let error = json!({"code": -32_602, "message": format!("Unknown tool: {tool}")});
        assert_eq!(answer.message(), json!({"jsonrpc": "2.0", "id": 1, "error": error}));
        answer.assert_refused(200, -32_602);
        assert_eq!(answer.audit()["tool_name"], *tool);
        assert_eq!(answer.audit()["status"], "denied");
    }
    // Same headers too, but for what differs between any two answers.
    let names = |answer: &Answer| {
        answer.reply.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&hidden), names(&missing));
    // The user lives, and who may delete does delete.
    assert_eq!(org.call(&admin.key, "delete_user", json!({"id": 11})).rows()[0]["id"], 11);
}

// Proves: B10, C3
fn visible_but_refused_tool_is_a_403_that_names_the_rule(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let notes = || {
        let metrics = org.call(&key, "get_dashboard_metrics", json!({})).rows();
        metrics.into_iter().find(|row| row["metric"] == "notes_total").unwrap()["value"].clone()
    };
    let before = notes();
    let answer = org.call(&key, "create_note", json!({"title": "a", "body": "b"}));
    answer.assert_refused(403, -31_403);
    let error = &answer.message()["error"];
    let rule = error["data"]["rule"].as_str().expect("data.rule");
    assert!(!rule.is_empty());
    // No scope cures this, so there is no challenge: clients would start a login.
    assert_eq!(answer.header("www-authenticate"), None);
    let entry = answer.audit();
    assert_eq!((&entry["status"], &entry["decision"]["rule"]), (&json!("denied"), &json!(rule)));
    assert_eq!(entry["error_code"], -31_403, "{entry}");
    assert_eq!(notes(), before, "no note was written");
}

// Proves: C3
fn names_are_compared_byte_for_byte(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    for name in
        ["Query_users", "query_users ", " query_users", "query_users\0", "query_users\u{301}"]
    {
        let answer = org.call(&key, name, json!({}));
        answer.assert_refused(200, -32_602);
    }
}

// Proves: B18
fn refused_call_sends_the_upstream_nothing_at_all(world: &World<'_>) {
    fn anything(_: &str) -> Vec<Vec<u8>> {
        json_answer(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":false}}"#)
    }
    let fake = FakeUpstream::answering(anything);
    let own = world.with_python_as(&fake);
    let stack = world.stack();
    let org = Organisation::with_policy(stack, |policy| {
        policy["roles"]["analyst"]["python"] = json!({"allow": ["echo"], "show": ["add"]});
        policy["tiers"]["none"] = json!({"limits": {"calls": {"limit": 1, "window": "1h"}}});
    });
    let org = org.through(&own.gateway);
    let (key, used_up, revoked) =
        (org.key("analyst"), org.key_in("analyst", "none"), org.key("analyst"));
    org.operator.revoke_key(&revoked.id, "a test").unwrap();
    let call = |key: &str, tool: &str| {
        let message = mcp::call(tool, json!({"message": "x".repeat(20_000)}));
        Request::post(PYTHON, message.to_string()).bearer(key)
    };
    // Draws the one call of this key from the window without reaching the fake: the other connector answers.
    assert_eq!(org.call(&used_up.key, "query_users", json!({})).status(), 200);

    let good = call(&key.key, "echo");
    let body = |body: &str| Request::post(PYTHON, body).bearer(&key.key);
    for (what, status, request) in [
        ("no credential", 401, good.clone().without("authorization")),
        ("revoked key", 401, call(&revoked.key, "echo")),
        ("hidden tool", 200, call(&key.key, "secrets")),
        ("refused tool", 403, call(&key.key, "add")),
        ("used-up window", 429, call(&used_up.key, "echo")),
        ("unreadable body", 400, body("{\"jsonrpc\":")),
        ("batch", 400, body(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#)),
        ("too large", 413, body(&"x".repeat(2 << 20))),
        (
            "wrong content type",
            415,
            good.clone().without("content-type").header("content-type", "text/plain"),
        ),
        ("unknown method", 200, body(&mcp::request(1, "made/up", json!({})).to_string())),
    ] {
        let answer = org.gateway.send(&request);
        assert_eq!(answer.status(), status, "{what}: {}", answer.text());
        assert_eq!(answer.audit()["http_status"], status, "{what}");
        match Mode::of_this_run() {
            Mode::Hold => {
                let reached = (fake.connections(), fake.bytes());
                assert_eq!(reached, (0, 0), "{what} reached the upstream");
            }
            // Headers may, a body may not: the smallest of these bodies is larger.
            Mode::Split => assert!(fake.bytes() < 20_000, "{what} reached the upstream: {fake:?}"),
        }
    }
    // The same way in does lead there.
    let answer = org.gateway.send(&good);
    assert_eq!(answer.result()["isError"], false);
    assert!(fake.bytes() > 20_000, "{fake:?}");
}
