//! Rules about single calls: denials, read-only roles, conditions, caps on records.

use std::time::Duration;

use portcullis_stack::{Stack, ready};
use portcullis_tests::fake::FakeUpstream;
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::world::Mode;
use portcullis_tests::{Answer, Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["authz":
        what_a_role_denies_is_not_there_whatever_it_allows,
        read_only_role_calls_only_what_the_policy_states_to_be_read_only,
        condition_on_the_circumstances_refuses_with_its_rule_and_message,
        condition_on_the_arguments_answers_as_the_tool_would,
        condition_that_cannot_be_decided_refuses,
        cap_makes_a_call_ask_for_less_and_the_upstream_sees_only_that,
        cap_that_refuses_names_the_argument,
        capped_call_passes_in_every_form_that_a_client_sends,
        cap_that_comes_between_headers_and_body_keeps_their_length,
        rules_of_a_role_hold_for_it_alone_beside_those_of_the_tool,
        approval_that_one_role_needs_another_one_does_not,
    ]
}

/// An organisation whose policy has more to say.
pub(crate) fn ruled(stack: &Stack, change: impl FnOnce(&mut Value)) -> Organisation {
    Organisation::with_policy(stack, |policy| {
        policy["connectors"]["demo"]["tools"] = json!({});
        change(policy);
    })
}

/// What the tool's server was asked for, as it arrived.
pub(crate) fn arguments_upstream(answer: &Answer) -> Value {
    let seen = answer.upstream();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let body = seen[0]["body"].as_str().expect("a body");
    let message: Value = serde_json::from_str(body).expect("a JSON body");
    message["params"]["arguments"].clone()
}

fn assert_tool_error(answer: &Answer, text: &str, rule: &str) {
    let result = answer.result();
    assert_eq!(result["isError"], true, "{result}");
    let told = result["content"][0]["text"].as_str().expect("a text");
    assert!(told.contains(text) && told.contains(rule), "{told}");
    let entry = answer.audit();
    assert_eq!(
        (&entry["status"], &entry["decision"]["effect"]),
        (&json!("denied"), &json!("deny"))
    );
    assert_eq!(entry["decision"]["rule"], rule, "{entry}");
    assert!(entry.get("error_code").is_none(), "{entry}");
    assert_eq!(answer.upstream(), Vec::<Value>::new(), "the upstream got a refused request");
}

// Proves: C3
fn what_a_role_denies_is_not_there_whatever_it_allows(world: &World<'_>) {
    let org = ruled(world.stack(), |policy| {
        policy["roles"]["analyst"]["demo"] =
            json!({"allow": ["*"], "show": ["delete_user"], "deny": ["delete_*", "create_note"]});
    });
    let key = org.key("analyst").key;
    let listed = org.post(&key, &mcp::list());
    assert_eq!(listed.tools(), ["get_dashboard_metrics", "query_users", "search_contacts"]);
    for tool in ["delete_user", "create_note"] {
        let answer = org.call(&key, tool, json!({"id": 1}));
        answer.assert_refused(200, -32_602);
        assert_eq!(answer.message()["error"]["message"], format!("Unknown tool: {tool}"));
    }
    assert_eq!(org.call(&key, "query_users", json!({"limit": 1})).rows().len(), 1);
}

// Proves: B9
fn read_only_role_calls_only_what_the_policy_states_to_be_read_only(world: &World<'_>) {
    let org = ruled(world.stack(), |policy| {
        policy["connectors"]["demo"]["tools"]["query_users"] = json!({"read_only": true});
        policy["roles"]["analyst"] = json!({
            "allow_write": false, "demo": {"allow": ["*"], "show": ["create_note"]}});
    });
    let key = org.key("analyst").key;
    assert_eq!(org.post(&key, &mcp::list()).tools(), ["create_note", "query_users"]);
    assert_eq!(org.call(&key, "query_users", json!({"limit": 1})).rows().len(), 1);
    // Of this one the policy says nothing, although the server calls it read-only.
    org.call(&key, "search_contacts", json!({"query": "a"})).assert_refused(200, -32_602);
    let shown = org.call(&key, "create_note", json!({"title": "a", "body": "b"}));
    shown.assert_refused(403, -31_403);
    assert_eq!(shown.message()["error"]["data"]["rule"], "roles.analyst.allow_write");
    assert_eq!(shown.audit()["decision"]["rule"], "roles.analyst.allow_write");
}

// Proves: C9
fn condition_on_the_circumstances_refuses_with_its_rule_and_message(world: &World<'_>) {
    let org = ruled(world.stack(), |policy| {
        policy["roles"]["analyst"]["demo"]["conditions"] = json!([
            {"tools": ["search_*"], "when": "!inRange(source.address, '127.0.0.0/8')",
                "message": "Not from this machine"},
            {"tools": ["query_*"], "when": "principal.role == 'analyst' && time.year > 2000 \
                && principal.method == 'api_key' && connector == 'demo' && tool.endsWith('users')"}]);
    });
    let key = org.key("analyst").key;
    let call = mcp::call("search_contacts", json!({"query": "a"}));
    let rule = "roles.analyst.demo.conditions[0]";
    for request in
        [Request::post(DEMO, call.to_string()).bearer(&key), mcp::modern(DEMO, call).bearer(&key)]
    {
        let answer = org.gateway.send(&request);
        answer.assert_refused(403, -31_403);
        let error = &answer.message()["error"];
        assert_eq!(
            (&error["message"], &error["data"]["rule"]),
            (&json!(format!("Not from this machine (policy rule `{rule}`)")), &json!(rule))
        );
        assert_eq!(answer.header("www-authenticate"), None);
        assert_eq!(answer.audit()["decision"]["rule"], rule);
    }
    assert_eq!(org.call(&key, "query_users", json!({"limit": 1})).rows().len(), 1);
    assert_eq!(org.call(&key, "get_dashboard_metrics", json!({})).status(), 200);
}

fn with_a_condition_on_limits(world: &World<'_>) -> Organisation {
    ruled(world.stack(), |policy| {
        policy["connectors"]["demo"]["tools"]["query_users"] = json!({"conditions": [
            {"when": "arguments.limit <= 10", "message": "Ask for ten at most"}]});
    })
}

const ON_LIMITS: &str = "connectors.demo.tools.query_users.conditions[0]";

// Proves: C9
fn condition_on_the_arguments_answers_as_the_tool_would(world: &World<'_>) {
    let org = with_a_condition_on_limits(world);
    let key = org.key("analyst").key;
    let refused = org.call(&key, "query_users", json!({"limit": 11}));
    assert_tool_error(&refused, "Ask for ten at most", ON_LIMITS);
    assert!(refused.result().get("resultType").is_none());
    // In the revision that types its results, too.
    let call = mcp::call("query_users", json!({"limit": 11}));
    let modern = org.gateway.send(&mcp::modern(DEMO, call).bearer(&key));
    assert_tool_error(&modern, "Ask for ten at most", ON_LIMITS);
    assert_eq!(modern.result()["resultType"], "complete");
    let passed = org.call(&key, "query_users", json!({"limit": 10}));
    assert_eq!(passed.rows().len(), 10);
    assert_eq!(passed.audit()["decision"], json!({"effect": "allow"}));
}

// Proves: C9
fn condition_that_cannot_be_decided_refuses(world: &World<'_>) {
    let org = with_a_condition_on_limits(world);
    let key = org.key("analyst").key;
    for arguments in
        [json!({}), json!({"limit": "5"}), json!({"limit": null}), json!({"limit": [1]})]
    {
        let answer = org.call(&key, "query_users", arguments);
        assert_tool_error(&answer, "Ask for ten at most", ON_LIMITS);
    }
}

fn with_a_cap(world: &World<'_>, on_excess: &str) -> Organisation {
    ruled(world.stack(), |policy| {
        policy["connectors"]["demo"]["tools"]["query_users"] = json!({
            "max_records": {"argument": "limit", "max": 3, "on_excess": on_excess}});
    })
}

// Proves: X8, B9
fn cap_makes_a_call_ask_for_less_and_the_upstream_sees_only_that(world: &World<'_>) {
    let org = with_a_cap(world, "clamp");
    let key = org.key("analyst").key;
    for (asked, goes_on) in [
        (json!({"limit": 5000}), 3),
        (json!({"limit": 10}), 3),
        (json!({}), 3),
        (json!({"limit": -1}), 3),
        (json!({"limit": 1_000_000_000}), 3),
        (json!({"limit": 2}), 2),
    ] {
        let answer = org.call(&key, "query_users", asked.clone());
        assert_eq!(answer.rows().len(), goes_on, "{asked}");
        assert_eq!(arguments_upstream(&answer)["limit"], goes_on, "{asked}");
        let entry = answer.audit();
        assert_eq!((&entry["input"], &entry["rows_returned"]), (&asked, &json!(goes_on)));
        let mut capped = json!({"event": "records_capped", "argument": "limit", "max": 3});
        if let Some(limit) = asked.get("limit") {
            capped["asked"] = limit.clone();
        }
        let events = entry["events"].as_array().expect("events");
        assert_eq!(events.contains(&capped), asked["limit"] != 2, "{entry}");
    }
}

// Proves: X8
fn cap_that_refuses_names_the_argument(world: &World<'_>) {
    const RULE: &str = "connectors.demo.tools.query_users.max_records";
    let org = with_a_cap(world, "refuse");
    let key = org.key("analyst").key;
    for arguments in [json!({"limit": 4}), json!({}), json!({"limit": "3"}), json!({"limit": 2.5})]
    {
        let answer = org.call(&key, "query_users", arguments);
        assert_tool_error(&answer, "limit must be a whole number from 1 to 3", RULE);
    }
    assert_eq!(org.call(&key, "query_users", json!({"limit": 3})).rows().len(), 3);
    // What is no number cannot be made a smaller one.
    let clamping = with_a_cap(world, "clamp");
    let key = clamping.key("analyst").key;
    let answer = clamping.call(&key, "query_users", json!({"limit": "all"}));
    assert_tool_error(&answer, "limit must be a whole number from 1 to 3", RULE);
}

// Proves: X8
fn capped_call_passes_in_every_form_that_a_client_sends(world: &World<'_>) {
    let org = with_a_cap(world, "clamp");
    let key = org.key("analyst").key;
    // A body so large that it comes in several pieces, and becomes a longer one.
    let padding = "x".repeat(200_000);
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"_meta": {"padding": padding}, "name": "query_users"}});
    let answer = org.post(&key, &message);
    assert_eq!((answer.rows().len(), &answer.message()["id"]), (3, &json!(7)));
    let body = answer.upstream()[0]["body"].as_str().expect("a body").to_owned();
    let arrived: Value = serde_json::from_str(&body).expect("a whole body");
    assert_eq!(arrived["params"]["_meta"]["padding"], padding);
    assert_eq!(arrived["params"]["arguments"], json!({"limit": 3}));
    // Modern, and twice on one connection: no byte of the first is taken for the second.
    for _ in 0..2 {
        let call = mcp::call("query_users", json!({"limit": 100}));
        let answer = org.gateway.send(&mcp::modern(DEMO, call).bearer(&key));
        assert_eq!(answer.rows().len(), 3);
    }
}

// Proves: X8, A26
fn cap_that_comes_between_headers_and_body_keeps_their_length(world: &World<'_>) {
    const RULE: &str = "connectors.python.tools.echo.max_records";
    let fake = FakeUpstream::of_one_row();
    let own = world.with_python_as(&fake);
    let org = Organisation::new(world.stack()).through(&own.gateway);
    let key = org.key("analyst");
    let uncapped = org.standard_policy();
    let mut capped = uncapped.clone();
    capped["connectors"]["python"]["tools"]["echo"]["max_records"] =
        json!({"argument": "limit", "max": 50});
    let mut wire = Wire::connect(own.gateway.address()).expect("connect");
    let mut across = |arguments: Value| {
        org.push(&uncapped);
        let (requests, bytes) = (fake.requests().len(), fake.bytes());
        let message = mcp::call("echo", arguments).to_string();
        let request = Request::post(PYTHON, message.clone()).bearer(&key.key);
        wire.write(&request.head(Some(message.len()))).expect("send the headers");
        if Mode::of_this_run() == Mode::Split {
            let arrived = || (fake.bytes() > bytes).then_some(());
            ready::eventually("the headers", Duration::from_secs(20), arrived).expect("headers");
        }
        org.push(&capped);
        wire.write(message.as_bytes()).expect("send the body");
        let reply = wire.read_reply().expect("an answer");
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        let answer: Value = serde_json::from_slice(&reply.body).expect("a JSON answer");
        (message, answer, fake.requests().split_off(requests))
    };
    // Twice on one connection: no byte of the first is taken for the second.
    for _ in 0..2 {
        let (message, answer, requests) = across(json!({"message": "m", "limit": 5000}));
        assert_eq!(answer["result"]["structuredContent"]["rows"], json!([1]), "{answer}");
        let [request] = requests.as_slice() else { panic!("{requests:?}") };
        let (head, body) = request.split_once("\r\n\r\n").expect("a head");
        let goes_on = message.replace("5000", "50");
        let (length, goes_on) = match Mode::of_this_run() {
            Mode::Split => (message.len(), format!("{goes_on}  ")),
            Mode::Hold => (goes_on.len(), goes_on),
        };
        assert_eq!(body, goes_on);
        assert!(head.to_ascii_lowercase().contains(&format!("content-length: {length}")), "{head}");
    }
    // A cap puts an absent argument in: there is no room for it.
    let (_, answer, requests) = across(json!({"message": "m"}));
    match Mode::of_this_run() {
        Mode::Split => {
            let text = answer["result"]["content"][0]["text"].as_str().expect("a text");
            assert!(text.contains("from 1 to 50") && text.contains(RULE), "{text}");
            assert_eq!(requests, Vec::<String>::new());
        }
        Mode::Hold => assert!(requests[0].contains(r#""limit":50"#), "{requests:?}"),
    }
}

// Issue 14: caps, patterns and approvals stood at the tool and were about every role.
// Proves: C3, X8
fn rules_of_a_role_hold_for_it_alone_beside_those_of_the_tool(world: &World<'_>) {
    let org = ruled(world.stack(), |policy| {
        policy["connectors"]["demo"]["tools"]["query_users"] = json!({
            "max_records": {"argument": "limit", "max": 4},
            "conditions": [{"when": "arguments.limit <= 4"}],
        });
        policy["roles"]["analyst"]["demo"]["tools"] = json!({"query_*": {
            "max_records": {"argument": "limit", "max": 2},
            "arguments": {"plan": {"enum": ["free", "pro"]}, "name_contains": {"pattern": "^[a-z]{1,9}$"}},
            "conditions": [{"when": "!has(arguments.name_contains) || arguments.name_contains.matches('^[^x]*$')"}],
        }});
        policy["roles"]["admin"] = json!({"demo": {"allow": ["*"]}});
    });
    let (analyst, admin) = (org.key("analyst").key, org.key("admin").key);
    // The stricter cap wins, and the condition sees what goes on.
    for (key, most) in [(&analyst, 2), (&admin, 4)] {
        for asked in [json!({"limit": 5000}), json!({})] {
            let answer = org.call(key, "query_users", asked.clone());
            assert_eq!(answer.rows().len(), most, "{asked}");
            assert_eq!(arguments_upstream(&answer)["limit"], most, "{asked}");
            assert_eq!(answer.audit()["decision"], json!({"effect": "allow"}));
        }
    }
    let place = "roles.analyst.demo.tools.query_*";
    for (arguments, text, rule) in [
        (
            json!({"name_contains": "a' OR 1=1"}),
            "name_contains: expected a text",
            ".arguments.name_contains",
        ),
        (json!({"name_contains": 5}), "that matches ^[a-z]{1,9}$", ".arguments.name_contains"),
        (
            json!({"Name_contains": "ann"}),
            "name_contains must be spelled exactly so",
            ".arguments.name_contains",
        ),
        (
            json!({"plan": "enterprise"}),
            r#"plan: expected one of "free", "pro""#,
            ".arguments.plan",
        ),
        (json!({"name_contains": "axe"}), "do not meet a condition", ".conditions[0]"),
    ] {
        let answer = org.call(&analyst, "query_users", arguments.clone());
        assert_tool_error(&answer, text, &format!("{place}{rule}"));
        assert_eq!(answer.audit()["input"], arguments);
    }
    let free = org.call(&admin, "query_users", json!({"plan": "enterprise", "limit": 1}));
    assert_eq!(free.audit()["decision"], json!({"effect": "allow"}));
}

// Issue 14, task 3: the approval that support needs hit every other role.
// Proves: X9
fn approval_that_one_role_needs_another_one_does_not(world: &World<'_>) {
    let org = ruled(world.stack(), |policy| {
        let rules = json!({"query_users": {"approval": {"expires": "20m"}}});
        policy["roles"]["analyst"]["demo"]["tools"] = rules;
        policy["roles"]["admin"] = json!({"demo": {"allow": ["*"]}});
    });
    let waits = org.call(&org.key("analyst").key, "query_users", json!({"limit": 1}));
    assert_eq!(waits.status(), 403);
    let data = waits.message()["error"]["data"].clone();
    let rule = "roles.analyst.demo.tools.query_users.approval";
    assert_eq!((&data["rule"], &data["state"]), (&json!(rule), &json!("pending")));
    assert_eq!((&waits.audit()["decision"]["rule"], waits.upstream().len()), (&json!(rule), 0));
    let passes = org.call(&org.key("admin").key, "query_users", json!({"limit": 1}));
    assert_eq!((passes.rows().len(), passes.upstream().len()), (1, 1));
}
