//! Calls that are allowed: they reach the tool, and all three places agree on what happened.

use std::thread;
use std::time::Instant;

use portcullis_tests::gateway::sent_header;
use portcullis_tests::organisation::{DEMO, PYTHON};
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["calls":
        allowed_call_returns_real_rows_and_is_audited_with_their_number,
        key_may_come_in_x_api_key,
        every_response_names_the_request_that_the_audit_log_names,
        upstream_is_told_who_calls_and_spoofed_names_are_taken_away,
        error_of_a_tool_is_passed_on_and_audited_as_one,
        third_party_server_without_credential_is_guarded_as_it_is,
        modern_call_passes_when_headers_and_body_agree,
        many_agents_at_once_each_get_their_own_answer,
        one_connection_carries_allowed_and_refused_calls_in_turn,
        body_may_come_in_chunks_or_after_a_continue,
        health_is_answered_without_credential,
    ]
}

// Proves: A1, A15, A16, B13
fn allowed_call_returns_real_rows_and_is_audited_with_their_number(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst");
    let answer = org.call(&key.key, "query_users", json!({"limit": 3, "plan": "pro"}));
    let rows = answer.rows();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows.iter().all(|row| row["plan"] == "pro"), "{rows:?}");

    let upstream = answer.upstream();
    assert_eq!(upstream.len(), 1, "{upstream:?}");
    let body: Value = serde_json::from_str(upstream[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(body, mcp::call("query_users", json!({"limit": 3, "plan": "pro"})));

    let entry = answer.audit();
    let expected = json!({
        "org_id": org.name, "api_key_id": key.id, "principal": "analyst", "role": "analyst",
        "auth_method": "api_key", "connector": "demo", "mcp_method": "tools/call",
        "tool_name": "query_users", "input": {"limit": 3, "plan": "pro"}, "status": "success",
        "http_status": 200, "rows_returned": 3, "user_agent": "portcullis-tests",
        "client_address": "127.0.0.1",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&entry[field], value, "{field} of {entry}");
    }
    assert_eq!(entry["decision"]["effect"], "allow", "{entry}");
    assert!(entry["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{entry}");
    assert!(entry["latency_ms"].is_u64() && entry["upstream_ms"].is_u64(), "{entry}");
    // Inputs are logged, outputs are not.
    let email = rows[0]["email"].as_str().unwrap();
    assert!(!entry.to_string().contains(email), "{entry}");
}

// Proves: B4
fn key_may_come_in_x_api_key(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst");
    let message = mcp::call("get_dashboard_metrics", json!({}));
    let request = Request::post(DEMO, message.to_string()).header("x-api-key", &key.key);
    let answer = org.gateway.send(&request);
    assert!(!answer.rows().is_empty());
    assert_eq!(answer.audit()["api_key_id"], key.id);
    let upstream = answer.upstream();
    assert_eq!(sent_header(&upstream[0], "x-api-key"), Vec::<&str>::new());
    assert!(!upstream[0].to_string().contains(&key.key), "the key went on to the upstream");
}

// Proves: A15
fn every_response_names_the_request_that_the_audit_log_names(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let post = |body: &str| Request::post(DEMO, body).bearer(&key);
    let mut ids = Vec::new();
    for (status, request) in [
        (200, post(&mcp::list().to_string())),
        (200, post(&mcp::call("delete_user", json!({"id": 1})).to_string())),
        (403, post(&mcp::call("create_note", json!({})).to_string())),
        (400, post("{")),
        (401, Request::post(DEMO, "{}")),
        (415, post("{}").without("content-type")),
        (405, Request::bare("PUT", DEMO).header("host", "x").bearer(&key)),
    ] {
        let answer = org.gateway.send(&request);
        assert_eq!(answer.status(), status, "{}", answer.text());
        let entry = answer.audit();
        assert_eq!(entry["http_status"], status, "{entry}");
        ids.push(answer.request_id());
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "ids are unique");
}

// Proves: A1, A5
fn upstream_is_told_who_calls_and_spoofed_names_are_taken_away(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let request = Request::post(DEMO, mcp::list().to_string())
        .bearer(&key)
        .header("x-portcullis-org", "evil")
        .header("x-portcullis-principal", "root")
        .header("x-portcullis-request-id", "chosen-by-the-client")
        .header("X-Portcullis-Anything", "else")
        .header("x-portcullis-principal", "root again");
    let answer = org.gateway.send(&request);
    let upstream = answer.upstream();
    let sent = |name| sent_header(&upstream[0], name);
    assert_eq!(sent("x-portcullis-org"), [org.name.as_str()]);
    assert_eq!(sent("x-portcullis-principal"), ["analyst"]);
    assert_eq!(sent("x-portcullis-request-id"), [answer.request_id().as_str()]);
    assert_eq!(sent("x-portcullis-anything"), Vec::<&str>::new());
    assert_ne!(answer.request_id(), "chosen-by-the-client");
    assert_eq!(answer.audit()["org_id"], org.name);
}

// Proves: B13
fn error_of_a_tool_is_passed_on_and_audited_as_one(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("admin").key;
    let answer = org.call(&key, "delete_user", json!({"id": 999_999}));
    let result = answer.result();
    assert_eq!(result["isError"], true, "{result}");
    assert!(result["content"][0]["text"].as_str().unwrap().contains("999999"), "{result}");
    let entry = answer.audit();
    assert_eq!((&entry["status"], &entry["http_status"]), (&json!("tool_error"), &json!(200)));
    assert_eq!(entry["decision"]["effect"], "allow", "{entry}");
    assert_eq!(answer.upstream().len(), 1);
}

// Proves: B1
fn third_party_server_without_credential_is_guarded_as_it_is(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let send = |tool: &str, arguments: Value| {
        let request = mcp::modern(PYTHON, mcp::call(tool, arguments)).bearer(&key);
        org.gateway.send(&request)
    };
    let answer = send("add", json!({"a": 2, "b": 3}));
    assert_eq!(answer.result()["structuredContent"], json!({"result": 5}));
    let entry = answer.audit();
    assert_eq!((&entry["connector"], &entry["tool_name"]), (&json!("python"), &json!("add")));
    assert_eq!(entry["status"], "success", "{entry}");
    let hidden = send("secrets", json!({}));
    assert_eq!(hidden.message()["error"]["message"], "Unknown tool: secrets");
    assert_eq!(hidden.audit()["status"], "denied");
}

// Proves: B2
fn modern_call_passes_when_headers_and_body_agree(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let message = mcp::call("query_users", json!({"limit": 1}));
    let good = mcp::modern(DEMO, message).bearer(&key);
    let answer = org.gateway.send(&good);
    assert_eq!(answer.result()["resultType"], "complete");
    assert_eq!(answer.rows().len(), 1);
    assert_eq!(answer.audit()["rows_returned"], 1);
    // "query_users" as a base64 sentinel is the same name.
    let sentinel =
        good.clone().without("mcp-name").header("mcp-name", "=?base64?cXVlcnlfdXNlcnM=?=");
    assert_eq!(org.gateway.send(&sentinel).rows().len(), 1);

    let version =
        |value| good.clone().without("mcp-protocol-version").header("mcp-protocol-version", value);
    for (what, request) in [
        (
            "another tool in the header",
            good.clone().without("mcp-name").header("mcp-name", "search_contacts"),
        ),
        ("no tool in the header", good.clone().without("mcp-name")),
        ("no method in the header", good.clone().without("mcp-method")),
        ("two tools in the header", good.clone().header("mcp-name", "search_contacts")),
        (
            "a broken sentinel",
            good.clone().without("mcp-name").header("mcp-name", "=?base64?%%%?="),
        ),
        ("a legacy version in the header", version("2025-11-25")),
        ("no version in the header", good.clone().without("mcp-protocol-version")),
    ] {
        let answer = org.gateway.send(&request);
        assert_eq!(answer.error_code(), Some(-32_020), "{what}: {}", answer.text());
        answer.assert_refused(400, -32_020);
    }
}

// Proves: B1, A4
fn many_agents_at_once_each_get_their_own_answer(world: &World<'_>) {
    const AGENTS: usize = 8;
    const CALLS: usize = 40;
    let org = world.organisation();
    let keys: Vec<_> = (0..AGENTS).map(|_| org.key("analyst")).collect();
    // An answer given to the wrong request would carry another agent's number of rows.
    let answers: Vec<_> = thread::scope(|scope| {
        let agents = keys.iter().enumerate().map(|(agent, key)| {
            let org = &org;
            scope.spawn(move || {
                let call =
                    || (agent, org.call(&key.key, "query_users", json!({"limit": agent + 1})));
                (0..CALLS).map(|_| call()).collect::<Vec<_>>()
            })
        });
        let agents: Vec<_> = agents.collect();
        agents.into_iter().flat_map(|agent| agent.join().unwrap()).collect()
    });
    assert_eq!(answers.len(), AGENTS * CALLS);
    for (agent, answer) in &answers {
        assert_eq!(answer.rows().len(), agent + 1);
    }
    for (agent, answer) in answers.iter().step_by(7) {
        let entry = answer.audit();
        assert_eq!(entry["api_key_id"], keys[*agent].id, "{entry}");
        assert_eq!(entry["rows_returned"], agent + 1, "{entry}");
    }
}

// Proves: B2
fn one_connection_carries_allowed_and_refused_calls_in_turn(world: &World<'_>) {
    let org = world.organisation();
    let (key, narrow) = (org.key("analyst").key, org.key_in("analyst", "narrow").key);
    for _ in 0..3 {
        assert_eq!(org.call(&narrow, "query_users", json!({})).status(), 200);
    }
    let call = |key: &str, tool: &str| {
        Request::post(DEMO, mcp::call(tool, json!({})).to_string()).bearer(key)
    };
    // Not a 400 among them: Envoy announces the end of the connection after it, and keeps its word.
    let mut wire = Wire::connect(org.gateway.address()).unwrap();
    for _ in 0..3 {
        for (status, request) in [
            (200, call(&key, "query_users")),
            (403, call(&key, "create_note")),
            (429, call(&narrow, "query_users")),
            (200, call(&key, "delete_user")),
            (200, Request::post(DEMO, mcp::list().to_string()).bearer(&key)),
        ] {
            let reply = wire.exchange(&request).unwrap();
            let answer = org.gateway.answer(reply, Instant::now());
            assert_eq!(answer.status(), status, "{}", answer.text());
            assert_eq!(answer.audit()["http_status"], status);
        }
    }
}

// Proves: B2
fn body_may_come_in_chunks_or_after_a_continue(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let message = mcp::call("query_users", json!({"limit": 2})).to_string();
    let request = Request::post(DEMO, message.clone()).bearer(&key);
    let chunks: Vec<u8> = message
        .as_bytes()
        .chunks(7)
        .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
        .chain(*b"0\r\n\r\n")
        .collect();
    let chunked = request.clone().header("transfer-encoding", "chunked").head(None);
    let expecting = request.header("expect", "100-continue").head(Some(message.len()));
    for (head, body) in [(chunked, chunks), (expecting, message.into_bytes())] {
        let sent = Instant::now();
        let mut wire = Wire::connect(org.gateway.address()).unwrap();
        wire.write(&head).unwrap();
        wire.write(&body).unwrap();
        let answer = org.gateway.answer(wire.read_reply().unwrap(), sent);
        assert_eq!(answer.rows().len(), 2);
        assert_eq!(answer.audit()["rows_returned"], 2);
        let seen = answer.upstream();
        let body: Value = serde_json::from_str(seen[0]["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["params"]["arguments"], json!({"limit": 2}));
    }
}

fn health_is_answered_without_credential(world: &World<'_>) {
    let org = world.organisation();
    let answer = org.gateway.send(&Request::bare("GET", "/portcullis/health").header("host", "x"));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.message()["status"], "healthy");
    assert!(answer.upstream().is_empty());
}
