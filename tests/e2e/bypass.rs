//! Ways around the gateway that were tried on some gateway: what a request says, and how it says it.
//!
//! Each test is one family of attempts. Of every attempt the upstream executes nothing, the client gets the answer
//! that its era has for it, and the audit log tells. What only looks like an attempt passes. Attempts on answers and on
//! objects with an owner are in `bypass_objects`, those on HTTP in `bypass_http`.

use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["bypass":
        arrays_are_refused_under_every_version,
        members_given_twice_are_refused_however_they_are_spelt,
        headers_that_name_another_tool_are_refused,
        requests_between_two_eras_are_refused,
        names_that_only_resemble_an_allowed_one_are_unknown,
        ids_of_every_type_keep_it_or_are_refused,
        discovery_is_answered_when_the_quota_is_used_up,
    ]
}

const VERSIONS: [Option<&str>; 6] = [
    None,
    Some("2024-11-05"),
    Some("2025-03-26"),
    Some("2025-06-18"),
    Some("2025-11-25"),
    Some(mcp::MODERN),
];

pub(crate) fn forbidden() -> Value {
    mcp::call("delete_user", json!({"id": 1}))
}

pub(crate) fn allowed() -> Value {
    mcp::call("query_users", json!({"limit": 1}))
}

fn with_version(request: Request, version: Option<&str>) -> Request {
    match version {
        Some(version) => request.header("mcp-protocol-version", version),
        None => request,
    }
}

/// An organisation and the key of a caller who may not delete users.
pub(crate) fn analyst(world: &World<'_>) -> (Organisation, String) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    (org, key)
}

pub(crate) fn refused(answer: &Answer, status: u16, code: i64, what: &str) {
    let got = (answer.status(), answer.error_code());
    assert_eq!(got, (status, Some(code)), "{what}: {}", answer.text());
    answer.assert_refused(status, code);
}

pub(crate) fn served(answer: &Answer, what: &str) {
    assert_eq!(answer.status(), 200, "{what}: {}", answer.text());
    assert_eq!(answer.rows().len(), 1, "{what}");
    assert_eq!(answer.upstream().len(), 1, "{what}");
    assert_eq!(answer.audit()["status"], "success", "{what}");
}

// Proves: B2, B18, C3, X17
fn arrays_are_refused_under_every_version(world: &World<'_>) {
    let (org, key) = analyst(world);
    let (good, bad) = (allowed(), forbidden());
    let answered = json!({"jsonrpc": "2.0", "id": 1, "result": {}});
    for version in VERSIONS {
        for body in [
            json!([bad]).to_string(),
            json!([good, bad]).to_string(),
            json!([good]).to_string(),
            json!([[bad]]).to_string(),
            json!([answered, bad]).to_string(),
            format!(" \r\n\t[{bad}]"),
        ] {
            let request = with_version(Request::post(DEMO, body.clone()).bearer(&key), version);
            refused(&org.gateway.send(&request), 400, -32_600, &format!("{version:?} {body}"));
        }
    }
    // Headers that announce one allowed call do not help.
    let request = mcp::modern(DEMO, good.clone()).bearer(&key);
    let request = Request { body: Some(json!([bad]).to_string().into()), ..request };
    refused(&org.gateway.send(&request), 400, -32_600, "announced as something else");
    served(&org.post(&key, &good), "the same without an array");
}

// Proves: B2, B18, C3
fn members_given_twice_are_refused_however_they_are_spelt(world: &World<'_>) {
    let (org, key) = analyst(world);
    let head = r#""jsonrpc":"2.0","id":1,"method":"tools/call""#;
    let arguments = r#""arguments":{"id":1}"#;
    let params = |inside: &str| format!(r#"{{{head},"params":{{{inside}}}}}"#);
    for body in [
        params(&format!(r#""name":"query_users","name":"delete_user",{arguments}"#)),
        params(&format!(r#""name":"delete_user","name":"query_users",{arguments}"#)),
        params(&format!(r#""n\u0061me":"query_users","name":"delete_user",{arguments}"#)),
        params(&format!(
            r#""name":"query_users","\u006e\u0061\u006D\u0065":"delete_user",{arguments}"#
        )),
        params(r#""name":"query_users","arguments":{"limit":1},"arguments":{"limit":9}"#),
        params(r#""name":"query_users","arguments":{"a":{"b":1,"\u0062":2}}"#),
        params(r#""name":"query_users","_meta":{"a":1},"_meta":{"a":2}"#),
        params(r#""name":"query_users","_meta":{"progressToken":1,"progressToken":2}"#),
        format!(
            r#"{{{head},"params":{{"name":"query_users"}},"params":{{"name":"delete_user",{arguments}}}}}"#
        ),
        format!(
            r#"{{{head},"params":{{"name":"query_users"}},"p\u0061rams":{{"name":"delete_user",{arguments}}}}}"#
        ),
        format!(r#"{{"method":"ping",{head},"params":{{"name":"delete_user",{arguments}}}}}"#),
        format!(r#"{{"m\u0065thod":"ping",{head},"params":{{"name":"delete_user",{arguments}}}}}"#),
        format!(r#"{{"id":2,{head},"params":{{"name":"query_users"}}}}"#),
        format!(r#"{{"jsonrpc":"1.0",{head},"params":{{"name":"query_users"}}}}"#),
    ] {
        refused(
            &org.gateway.send(&Request::post(DEMO, body.clone()).bearer(&key)),
            400,
            -32_600,
            &body,
        );
    }
    // To some parsers the case of a member's name means nothing. They must not find another tool either.
    for inside in [
        format!(r#""name":"query_users","Name":"delete_user",{arguments}"#),
        format!(r#""NAME":"delete_user","name":"query_users",{arguments}"#),
        r#""name":"query_users","arguments":{"limit":1},"Arguments":{"limit":9}"#.to_owned(),
    ] {
        let body = params(&inside);
        refused(
            &org.gateway.send(&Request::post(DEMO, body.clone()).bearer(&key)),
            400,
            -32_600,
            &body,
        );
    }
    // Once is not twice: arguments may be named as the members around them.
    let body = params(r#""n\u0061me":"query_users","arguments":{"limit":1,"name_contains":"a"}"#);
    let answer = org.gateway.send(&Request::post(DEMO, body).bearer(&key));
    served(&answer, "one escaped name");
}

fn named(key: &str, message: Value, names: &[&str]) -> Request {
    let request = mcp::modern(DEMO, message).bearer(key).without("mcp-name");
    names.iter().fold(request, |request, name| request.header("mcp-name", name))
}

// Proves: B2, C3, X17
fn headers_that_name_another_tool_are_refused(world: &World<'_>) {
    let (org, key) = analyst(world);
    // `cXVlcnlfdXNlcnM=` is query_users, `ZGVsZXRlX3VzZXI=` delete_user.
    for (message, names) in [
        (forbidden(), vec!["query_users"]),
        (allowed(), vec!["delete_user"]),
        (allowed(), vec!["query_users", "query_users"]),
        (allowed(), vec!["query_users", "delete_user"]),
        (forbidden(), vec!["delete_user", "query_users"]),
        (allowed(), vec!["query_users, query_users"]),
        (forbidden(), vec!["=?base64?cXVlcnlfdXNlcnM=?="]),
        (allowed(), vec!["=?base64?ZGVsZXRlX3VzZXI=?="]),
        (allowed(), vec!["=?base64?cXVlcnlfdXNlcnM?="]),
        (allowed(), vec!["=?base64?cXVlcnlfdXNlcnM==?="]),
        (allowed(), vec!["=?base64?cXVlcnlfdXNl!nM=?="]),
        (allowed(), vec!["=?BASE64?cXVlcnlfdXNlcnM=?="]),
        (allowed(), vec!["=?base64?cXVlcnlfdXNlcnM="]),
        (allowed(), vec!["Query_users"]),
        (allowed(), vec![""]),
        (allowed(), vec![]),
    ] {
        let answer = org.gateway.send(&named(&key, message.clone(), &names));
        refused(&answer, 400, -32_020, &format!("{names:?} for {message}"));
    }
    for method in ["tools/list", "Tools/call", "tools/call, tools/call", ""] {
        let request = mcp::modern(DEMO, allowed()).bearer(&key).without("mcp-method");
        let request = request.header("mcp-method", method);
        refused(&org.gateway.send(&request), 400, -32_020, method);
    }
    for name in ["query_users", "  query_users \t", "=?base64?cXVlcnlfdXNlcnM=?="] {
        served(&org.gateway.send(&named(&key, allowed(), &[name])), name);
    }
    let shouting = named(&key, allowed(), &[]).header("MCP-NAME", "query_users");
    served(&org.gateway.send(&shouting), "a field name in upper case");
}

// Proves: B2, X17
fn requests_between_two_eras_are_refused(world: &World<'_>) {
    let (org, key) = analyst(world);
    let version = "mcp-protocol-version";
    for tool in [allowed(), forbidden()] {
        let modern = mcp::modern(DEMO, tool.clone()).bearer(&key);
        let headless = modern.clone().without(version);
        refused(&org.gateway.send(&headless), 400, -32_020, "_meta without header");
        let bare = headless.clone().without("mcp-name").without("mcp-method");
        refused(&org.gateway.send(&bare), 400, -32_020, "_meta without any header");
        for legacy in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
            let request = headless.clone().header(version, legacy);
            refused(&org.gateway.send(&request), 400, -32_020, legacy);
        }
        let twice = modern.clone().header(version, "2025-11-25");
        refused(&org.gateway.send(&twice), 400, -32_020, "two versions");
    }
    let headers_only =
        Request { body: Some(allowed().to_string().into()), ..mcp::modern(DEMO, allowed()) };
    refused(&org.gateway.send(&headers_only.bearer(&key)), 400, -32_602, "headers without _meta");
    for unknown in ["2026-07-29", "9999-99-99", "2026-7-28", "1"] {
        let request =
            Request::post(DEMO, allowed().to_string()).bearer(&key).header(version, unknown);
        refused(&org.gateway.send(&request), 400, -32_022, unknown);
    }
    // On a legacy request the mirroring headers mean nothing: they open nothing and close nothing.
    let legacy = |message: Value, name: &str| {
        let request = Request::post(DEMO, message.to_string()).bearer(&key);
        request
            .header(version, "2025-11-25")
            .header("mcp-name", name)
            .header("mcp-method", "tools/call")
    };
    refused(&org.gateway.send(&legacy(forbidden(), "query_users")), 200, -32_602, "forged name");
    served(&org.gateway.send(&legacy(allowed(), "delete_user")), "a name that means nothing");
    let unnamed = with_version(Request::post(DEMO, forbidden().to_string()).bearer(&key), None);
    refused(&org.gateway.send(&unnamed), 200, -32_602, "no version at all");
}

// Proves: C3
fn names_that_only_resemble_an_allowed_one_are_unknown(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["roles"]["analyst"]["demo"] = json!({"allow": ["query_users", "caf\u{e9}"]});
    });
    let key = org.key("analyst").key;
    let long = "a".repeat(200);
    for name in [
        "QUERY_USERS",
        "query_Users",
        "query_users ",
        " query_users",
        "query_users\t",
        "query_users\n",
        "query_users\0",
        "query_users\0delete_user",
        "query_users\u{200b}",
        "\u{feff}query_users",
        "query_user\u{455}",
        "query\u{ff3f}users",
        "cafe\u{301}",
        "query_users/../delete_user",
        "*",
        "?uery_users",
        &long,
    ] {
        let answer = org.call(&key, name, json!({"limit": 1}));
        refused(&answer, 200, -32_602, name);
        assert_eq!(answer.message()["error"]["message"], format!("Unknown tool: {name}"));
    }
    for name in [String::new(), "a".repeat(257), "\u{e9}".repeat(2_000)] {
        refused(&org.call(&key, &name, json!({})), 400, -32_600, "no name at all, or a long one");
    }
    // The composed name is the one that is allowed: it goes as far as the server, which has no such tool.
    let answer = org.call(&key, "caf\u{e9}", json!({}));
    assert_eq!(answer.upstream().len(), 1, "{}", answer.text());
    served(&org.call(&key, "query_users", json!({"limit": 1})), "the name itself");
}

// Proves: B2
fn ids_of_every_type_keep_it_or_are_refused(world: &World<'_>) {
    let (org, key) = analyst(world);
    let body = |id: &str, tool: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"limit":1}}}}}}"#
        )
    };
    let send =
        |id: &str, tool: &str| org.gateway.send(&Request::post(DEMO, body(id, tool)).bearer(&key));
    for id in ["0", "-1", "7", "9007199254740991", r#""""#, r#""0""#, r#""\u00fc\n""#] {
        let expected: Value = serde_json::from_str(id).unwrap();
        let denied = send(id, "delete_user");
        refused(&denied, 200, -32_602, id);
        assert_eq!(denied.message()["id"], expected);
        let answer = send(id, "query_users");
        served(&answer, id);
        assert_eq!(answer.message()["id"], expected);
    }
    for id in [
        "null",
        "1.5",
        "1.0",
        "1e3",
        "true",
        "{}",
        "[1]",
        "1e999",
        "-9223372036854775809",
        "18446744073709551616",
    ] {
        let answer = send(id, "query_users");
        let code = answer.error_code().unwrap_or_default();
        assert!(matches!(code, -32_600 | -32_700), "{id}: {}", answer.text());
        refused(&answer, 400, code, id);
        assert_eq!(answer.message().get("id"), Some(&Value::Null), "{id}");
    }
    // 2^63 is an integer. Whatever is made of it, it comes back as it is or not at all.
    let answer = send("9223372036854775808", "delete_user");
    assert!(answer.upstream().is_empty());
    let id = answer.message()["id"].clone();
    assert!(id.is_null() || id == json!(9_223_372_036_854_775_808_u64), "{id}");
}

// Proves: A12, X17
fn discovery_is_answered_when_the_quota_is_used_up(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key_in("analyst", "narrow").key;
    for _ in 0..3 {
        served(&org.post(&key, &allowed()), "within the quota");
    }
    let modern = |message: Value| org.gateway.send(&mcp::modern(DEMO, message).bearer(&key));
    refused(&modern(allowed()), 429, -31_429, "beyond it");
    // An automatic client takes any refusal of this one for a server that knows only `initialize`.
    for _ in 0..4 {
        let answer = modern(mcp::request("probe", "server/discover", json!({})));
        let versions = answer.result()["supportedVersions"].clone();
        assert!(
            versions.as_array().is_some_and(|known| known.contains(&json!(mcp::MODERN))),
            "{versions}"
        );
        assert_eq!(answer.upstream().len(), 1);
        assert_eq!(answer.audit()["status"], "success");
    }
    assert_eq!(modern(mcp::list()).tools().len(), 4);
    let client = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    assert_eq!(org.post(&key, &mcp::request(1, "initialize", client)).status(), 200);
    refused(&modern(allowed()), 429, -31_429, "still beyond it");
}
