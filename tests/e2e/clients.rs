//! Official MCP clients, unmodified, against both kinds of connector: what they get and what they understand.

use portcullis_tests::clients::{Mode, PythonClient, rmcp_list_and_call};
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::{Case, World, cases};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["clients":
        python_client_lists_and_calls_through_both_connectors,
        rust_client_lists_and_calls_through_both_connectors,
        python_client_understands_each_refusal,
        rust_client_does_not_hang_on_any_refusal,
    ]
}

const MODES: [Mode; 2] = [Mode::Auto, Mode::Legacy];
const DEMO_TOOLS: [&str; 4] =
    ["create_note", "get_dashboard_metrics", "query_users", "search_contacts"];

fn python<'a>(
    world: &World<'a>,
    org: &Organisation,
    path: &str,
    key: &str,
    mode: Mode,
) -> PythonClient<'a> {
    let url = format!("{}{path}", org.gateway.url());
    PythonClient { stack: world.stack(), url, key: key.to_owned(), mode }
}

fn names(listed: &Value) -> Vec<&str> {
    let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{listed}"));
    tools.iter().filter_map(|tool| tool["name"].as_str()).collect()
}

fn newest_entry(org: &Organisation, tool: &str) -> Value {
    let all = || org.gateway.audit().entries_where("org_id", &org.name);
    let calls = |entries: Vec<Value>| entries.into_iter().rfind(|entry| entry["tool_name"] == tool);
    let within = std::time::Duration::from_secs(10);
    portcullis_stack::ready::eventually("the call in the audit log", within, || calls(all()))
        .unwrap()
}

// Proves: B1
fn python_client_lists_and_calls_through_both_connectors(world: &World<'_>) {
    for mode in MODES {
        let org = world.organisation();
        let key = org.key("analyst").key;
        let demo = python(world, &org, DEMO, &key, mode);
        assert_eq!(names(&demo.run(&["list"])), DEMO_TOOLS, "{mode:?}");
        let called = demo.run(&["call", "query_users", r#"{"limit": 2}"#]);
        assert_eq!(
            called["result"]["structuredContent"]["rows"].as_array().map(Vec::len),
            Some(2),
            "{called}"
        );
        let revision = match mode {
            Mode::Auto => "2026-07-28",
            Mode::Legacy => "2025-11-25",
        };
        assert_eq!(called["protocol"], revision);
        let entry = newest_entry(&org, "query_users");
        assert_eq!((&entry["rows_returned"], &entry["status"]), (&json!(2), &json!("success")));

        let other = python(world, &org, PYTHON, &key, mode);
        assert_eq!(names(&other.run(&["list"])), ["echo", "add"], "{mode:?}");
        let called = other.run(&["call", "add", r#"{"a": 20, "b": 22}"#]);
        assert_eq!(called["result"]["structuredContent"]["result"], 42, "{called}");
        assert_eq!(newest_entry(&org, "add")["status"], "success");
    }
}

// Proves: B1
fn rust_client_lists_and_calls_through_both_connectors(world: &World<'_>) {
    for mode in MODES {
        let org = world.organisation();
        let key = org.key("analyst").key;
        let session = |path: &str, call| {
            let url = format!("{}{path}", org.gateway.url());
            rmcp_list_and_call((&url, &key), mode, call)
                .unwrap_or_else(|fault| panic!("{mode:?}: {fault}"))
        };
        let demo = session(DEMO, ("query_users", json!({"limit": 2})));
        assert_eq!(demo.tools, DEMO_TOOLS, "{mode:?}");
        let result = demo.call.unwrap();
        assert_eq!(
            result["structuredContent"]["rows"].as_array().map(Vec::len),
            Some(2),
            "{result}"
        );
        assert_eq!(newest_entry(&org, "query_users")["rows_returned"], 2);

        let other = session(PYTHON, ("add", json!({"a": 20, "b": 22})));
        assert_eq!(other.tools, ["echo", "add"], "{mode:?}");
        assert_eq!(other.call.unwrap()["structuredContent"]["result"], 42);
        assert_eq!(newest_entry(&org, "add")["status"], "success");
    }
}

// Proves: B2, A12
fn python_client_understands_each_refusal(world: &World<'_>) {
    let org = world.organisation();
    let (key, narrow) = (org.key("analyst").key, org.key_in("analyst", "narrow").key);
    let revoked = org.key("analyst");
    org.operator.revoke_key(&revoked.id, "a test").unwrap();
    // Of the legacy era, a proven caller reads a result: it has the code beside its text (finding 8.4).
    let code = |key: &str, mode, operation: &[&str]| {
        let said = python(world, &org, DEMO, key, mode).run(operation);
        let refusal = &said["result"]["_meta"]["portcullis/refusal"];
        let code = said["error"]["code"].as_i64().or(refusal["code"].as_i64());
        code.unwrap_or_else(|| panic!("no code: {said}"))
    };
    for mode in MODES {
        assert_eq!(code(&key, mode, &["call", "delete_user", r#"{"id": 1}"#]), -32_602, "{mode:?}");
        assert_eq!(
            code(&key, mode, &["call", "create_note", r#"{"title": "a", "body": "b"}"#]),
            -31_403
        );
        assert_eq!(code(&revoked.key, mode, &["list"]), -31_401);
        assert_eq!(code("", mode, &["list"]), -31_401);
    }
    (0..3).for_each(|_| assert_eq!(org.call(&narrow, "query_users", json!({})).status(), 200));
    for mode in MODES {
        assert_eq!(code(&narrow, mode, &["call", "query_users"]), -31_429, "{mode:?}");
    }
}

// Proves: B2
fn rust_client_does_not_hang_on_any_refusal(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let url = format!("{}{DEMO}", org.gateway.url());
    for mode in MODES {
        let call = |tool: &str| {
            let outcome = rmcp_list_and_call((&url, &key), mode, (tool, json!({"id": 1})));
            let outcome = outcome.unwrap_or_else(|fault| panic!("{mode:?} {tool}: {fault}"));
            outcome.call.map_or_else(|fault| fault, |result| result.to_string())
        };
        let hidden = call("delete_user");
        assert!(hidden.contains("-32602") && hidden.contains("Unknown tool"), "{hidden}");
        let refused = call("create_note");
        assert!(refused.contains("-31403"), "{refused}");
        let stranger = rmcp_list_and_call((&url, "pck_x"), mode, ("query_users", json!({})));
        let fault = stranger.unwrap_err();
        assert!(fault.contains("Auth required") && !fault.contains("hung"), "{fault}");
    }
}
