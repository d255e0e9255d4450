//! What is not one unambiguous JSON-RPC message gets no further, and the reply says why.

use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["messages":
        ambiguous_or_unreadable_json_is_a_400_and_goes_no_further,
        messages_of_the_wrong_shape_are_a_400,
        refusals_echo_the_id_with_its_type,
        refused_notification_gets_no_id_back,
        unknown_method_is_refused_in_the_way_of_its_era,
        unknown_protocol_version_is_refused_with_the_known_ones,
        wrong_content_type_or_verb_is_refused,
    ]
}

fn send(org: &Organisation, key: &str, body: impl Into<Vec<u8>>) -> Answer {
    org.gateway.send(&Request::post(DEMO, body).bearer(key))
}

// Proves: B2, B18
fn ambiguous_or_unreadable_json_is_a_400_and_goes_no_further(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let call = mcp::call("query_users", json!({})).to_string();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let nested = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{deep}}}}}"#);
    let bad_utf8 = [call.replace("query_users", "query_\u{1}").as_bytes(), b"\xff"].concat();
    let invalid_inside = {
        let (front, back) = call.split_at(call.find("query").unwrap());
        [front.as_bytes(), b"\xff\xfe", back.as_bytes()].concat()
    };
    let bom = [b"\xef\xbb\xbf", call.as_bytes()].concat();
    let utf16: Vec<u8> = call.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: Vec<(&str, i64, Vec<u8>)> = vec![
        ("cut off", -32_700, call.as_bytes()[..call.len() - 1].to_vec()),
        ("no JSON", -32_700, b"hello".to_vec()),
        ("only blanks", -32_700, b"  \n".to_vec()),
        ("something after it", -32_700, format!("{call}x").into_bytes()),
        ("two messages", -32_700, format!("{call}{call}").into_bytes()),
        ("invalid UTF-8", -32_700, bad_utf8),
        ("invalid UTF-8 in a name", -32_700, invalid_inside),
        ("a lone surrogate", -32_700, call.replace("query_users", "\\ud800").into_bytes()),
        ("a byte order mark", -32_700, bom),
        ("UTF-16", -32_700, utf16),
        ("deep arrays", -32_700, deep.into_bytes()),
        ("deep parameters", -32_700, nested.into_bytes()),
        ("single quotes", -32_700, b"{'jsonrpc':'2.0'}".to_vec()),
        ("NaN", -32_700, br#"{"jsonrpc":"2.0","id":NaN,"method":"ping"}"#.to_vec()),
        ("a tool twice", -32_600, br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"query_users","name":"delete_user","arguments":{"id":1}}}"#.to_vec()),
        ("a tool twice, once escaped", -32_600, br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"query_users","n\u0061me":"delete_user","arguments":{"id":1}}}"#.to_vec()),
        ("a method twice", -32_600, br#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"delete_user","arguments":{"id":1}}}"#.to_vec()),
        ("parameters twice", -32_600, br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"query_users"},"params":{"name":"delete_user","arguments":{"id":1}}}"#.to_vec()),
        ("an argument twice", -32_600, br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"query_users","arguments":{"limit":1,"limit":1000}}}"#.to_vec()),
        ("a batch", -32_600, format!("[{call}]").into_bytes()),
        ("an empty batch", -32_600, b"[]".to_vec()),
    ];
    for (what, code, body) in cases {
        let answer = send(&org, &key, body);
        assert_eq!(answer.error_code(), Some(code), "{what}: {}", answer.text());
        answer.assert_refused(400, code);
    }
    assert_eq!(send(&org, &key, call).status(), 200);
}

// Proves: B2, B18
fn messages_of_the_wrong_shape_are_a_400(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let ping = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
    let bad_ids = ["null", "1.5", "true", "[]", "{}", "1e400", "18446744073709551616"];
    let mut bodies: Vec<String> = bad_ids.map(ping).to_vec();
    bodies.extend(
        [
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"query_users","arguments":[]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"METHOD":"tools/call","method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
            r#""ping""#,
            "1",
            "null",
        ]
        .map(str::to_owned),
    );
    for body in bodies {
        let answer = send(&org, &key, body.clone());
        assert_eq!(answer.status(), 400, "{body}: {}", answer.text());
        let code = answer.error_code().unwrap_or_default();
        assert!(code == -32_600 || code == -32_602 || code == -32_700, "{body}: {code}");
        answer.assert_refused(400, code);
    }
}

// Proves: B2
fn refusals_echo_the_id_with_its_type(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    for id in [
        json!(0),
        json!(-1),
        json!(9_007_199_254_740_991_u64),
        json!("0"),
        json!(""),
        json!("ü\"\n"),
    ] {
        for tool in ["delete_user", "create_note"] {
            let message =
                mcp::request(id.clone(), "tools/call", json!({"name": tool, "arguments": {}}));
            let answer = org.post(&key, &message);
            assert_eq!(answer.message()["id"], id, "{}", answer.text());
        }
    }
    // Where no id can be read there is a null one: official clients drop an error body without the member.
    let answer = send(&org, &key, "{");
    assert_eq!(answer.message().get("id"), Some(&Value::Null));
    let answer = org.gateway.send(&Request::post(DEMO, mcp::list().to_string()));
    assert_eq!(answer.status(), 401);
    assert!(answer.message().as_object().unwrap().contains_key("id"), "{}", answer.text());
}

// Proves: B2
fn refused_notification_gets_no_id_back(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/made_up"});
    let answer = org.post(&key, &notification);
    assert!(answer.message()["error"].is_object(), "{}", answer.text());
    assert!(answer.message().get("id").is_none(), "{}", answer.text());
    assert!(answer.upstream().is_empty());
    let known = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(org.post(&key, &known).status(), 202);
}

// Proves: C3
fn unknown_method_is_refused_in_the_way_of_its_era(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("admin").key;
    for method in ["tasks/list", "sampling/createMessage", "tools/CALL", "made/up"] {
        let message = mcp::request(5, method, json!({}));
        let legacy = org.post(&key, &message);
        legacy.assert_refused(200, -32_601);
        assert_eq!(legacy.message()["id"], 5);
        let modern = org.gateway.send(&mcp::modern(DEMO, message).bearer(&key));
        modern.assert_refused(404, -32_601);
    }
}

// Proves: B2
fn unknown_protocol_version_is_refused_with_the_known_ones(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let mut message = mcp::list();
    message["params"]["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2099-01-01"});
    let request = Request::post(DEMO, message.to_string())
        .bearer(&key)
        .header("mcp-protocol-version", "2099-01-01")
        .header("mcp-method", "tools/list");
    let answer = org.gateway.send(&request);
    answer.assert_refused(400, -32_022);
    let data = &answer.message()["error"]["data"];
    assert_eq!(data["requested"], "2099-01-01");
    assert!(data["supported"].as_array().is_some_and(|known| known.contains(&json!(mcp::MODERN))));
}

// Proves: B2
fn wrong_content_type_or_verb_is_refused(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let post = Request::post(DEMO, mcp::list().to_string()).bearer(&key);
    let typed = |value: &str| post.clone().without("content-type").header("content-type", value);
    for request in [
        post.clone().without("content-type"),
        typed("text/plain"),
        typed("application/json; charset=utf-16"),
        typed("application/jsonp"),
        typed("application/json").header("content-encoding", "gzip"),
        post.clone().header("content-type", "text/plain"),
    ] {
        org.gateway.send(&request).assert_refused(415, -32_600);
    }
    assert_eq!(org.gateway.send(&typed("Application/JSON; charset=UTF-8")).status(), 200);
    for verb in ["PUT", "PATCH", "OPTIONS", "TRACE"] {
        let answer = org.gateway.send(&Request::bare(verb, DEMO).header("host", "x").bearer(&key));
        assert_eq!(answer.status(), 405, "{verb}: {}", answer.text());
        assert!(answer.upstream().is_empty(), "{verb}");
    }
}
