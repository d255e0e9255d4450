//! Ways around the gateway through HTTP: how a body is announced, where a credential stands, how a path is spelt.

use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};

use super::bypass::{allowed, analyst, forbidden, refused, served};

pub(crate) fn cases() -> Vec<Case> {
    cases!["bypass":
        bodies_that_others_may_read_otherwise_are_refused,
        credentials_out_of_place_are_refused,
        paths_and_methods_are_what_the_upstream_gets,
    ]
}

// Proves: B2, B18
fn bodies_that_others_may_read_otherwise_are_refused(world: &World<'_>) {
    let (org, key) = analyst(world);
    for body in [forbidden(), allowed()] {
        let text = body.to_string();
        let post = Request::post(DEMO, text.clone()).bearer(&key);
        let typed =
            |value: &str| post.clone().without("content-type").header("content-type", value);
        for (what, request) in [
            ("UTF-16", typed("application/json; charset=utf-16")),
            ("UTF-7", typed("application/json;charset=utf-7")),
            ("text", typed("text/plain")),
            ("a form", typed("application/x-www-form-urlencoded")),
            ("two in one", typed("application/json, text/plain")),
            ("absent", post.clone().without("content-type")),
            ("twice", post.clone().header("content-type", "application/json")),
            ("gzip", post.clone().header("content-encoding", "gzip")),
            ("gzip behind identity", post.clone().header("content-encoding", "identity, gzip")),
        ] {
            refused(&org.gateway.send(&request), 415, -32_600, what);
        }
        let bytes = |body: Vec<u8>| Request { body: Some(body), ..post.clone() };
        let utf16 = text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
        for (what, request) in [
            ("byte order mark", bytes([b"\xef\xbb\xbf", text.as_bytes()].concat())),
            ("UTF-16 without a word", bytes(utf16)),
            ("a NUL behind it", bytes([text.as_bytes(), b"\0"].concat())),
            ("another message behind it", bytes(format!("{}\n{text}", allowed()).into())),
            ("a comment", bytes(format!("{text}//").into())),
        ] {
            refused(&org.gateway.send(&request), 400, -32_700, what);
        }
        let padded = bytes([text.as_bytes(), &b" ".repeat(1 << 20)].concat());
        refused(&org.gateway.send(&padded), 413, -32_600, "over the cap");
    }
    chunks_that_end_early_reach_nobody(&org, &key);
    let plain = Request::post(DEMO, allowed().to_string()).bearer(&key);
    served(&org.gateway.send(&plain.clone().header("content-encoding", "identity")), "identity");
    let charset =
        plain.without("content-type").header("content-type", "application/json;charset=UTF-8");
    served(&org.gateway.send(&charset), "UTF-8 by name");
}

/// A whole message, but not a whole body: the connection ends where the next chunk should be.
fn chunks_that_end_early_reach_nobody(org: &Organisation, key: &str) {
    let before = org.gateway.recorded().len();
    let text = mcp::call("query_users", json!({"name_contains": "early end"})).to_string();
    let head =
        Request::post(DEMO, "").bearer(key).header("transfer-encoding", "chunked").head(None);
    for tail in ["", "5\r\nab", "zz\r\n"] {
        let mut wire = Wire::connect(org.gateway.address()).unwrap();
        let chunk = format!("{:x}\r\n{text}\r\n{tail}", text.len());
        wire.write(&[head.as_slice(), chunk.as_bytes()].concat()).unwrap();
        wire.half_close().unwrap();
        if let Ok(reply) = wire.read_reply() {
            assert_eq!(reply.status, 400, "{tail:?}");
        }
    }
    let reached = org.gateway.recorded().split_off(before);
    assert!(
        !reached.iter().any(|request| request.to_string().contains("early end")),
        "{reached:?}"
    );
}

// Proves: A1, B2, B4
fn credentials_out_of_place_are_refused(world: &World<'_>) {
    let (org, key) = analyst(world);
    let admin = org.key("admin").key;
    let at = |path: &str| Request::post(path, forbidden().to_string());
    let query = |name: &str| format!("{DEMO}?{name}={admin}");
    // Signed, but not by and for this gateway.
    let elsewhere = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL290aGVyLmV4YW1wbGUvbWNwIn0.c2ln";
    for (what, request) in [
        ("in the query", at(&query("access_token"))),
        ("in the query, beside a good one", at(&query("access_token")).bearer(&key)),
        ("in the query, in capitals", at(&query("API_KEY")).bearer(&key)),
        ("in the query, escaped", at(&query("access%5Ftoken")).bearer(&key)),
        ("for another audience", at(DEMO).bearer(elsewhere)),
        ("without signature", at(DEMO).bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.")),
        ("two bearers", at(DEMO).bearer(&key).bearer(&admin)),
        (
            "two bearers in one line",
            at(DEMO).header("authorization", format!("Bearer {key}, Bearer {admin}")),
        ),
        ("a key and a bearer", at(DEMO).bearer(&key).header("x-api-key", &admin)),
        ("the same twice", at(DEMO).bearer(&key).header("x-api-key", &key)),
        ("two keys", at(DEMO).header("x-api-key", &key).header("x-api-key", &admin)),
        ("in a cookie", at(DEMO).header("cookie", format!("authorization=Bearer {admin}"))),
        ("for a proxy", at(DEMO).header("proxy-authorization", format!("Bearer {admin}"))),
        ("none", at(DEMO)),
    ] {
        let answer = org.gateway.send(&request);
        refused(&answer, 401, -31_401, what);
        assert!(answer.header("www-authenticate").is_some(), "{what}");
        let entry = answer.audit().to_string();
        assert!(!entry.contains(&admin) && !entry.contains(&key), "{what}: {entry}");
    }
    served(&org.post(&key, &allowed()), "one, where it belongs");
}

// Proves: B2, C3
fn paths_and_methods_are_what_the_upstream_gets(world: &World<'_>) {
    let (org, key) = analyst(world);
    // One spelling reaches filter, router and upstream.
    for path in
        ["//demo//mcp", "/./demo/mcp", "/x/../demo/mcp", "/x/%2e%2E/demo/mcp", "/%2e/demo/mcp"]
    {
        let post = |message: Value| Request::post(path, message.to_string()).bearer(&key);
        refused(&org.gateway.send(&post(forbidden())), 200, -32_602, path);
        let answer = org.gateway.send(&post(allowed()));
        served(&answer, path);
        assert_eq!(answer.upstream()[0]["path"], "/mcp", "{path}");
    }
    // An empty query would be written behind one that the operator's route sets.
    for path in ["/demo/mcp?", "/demo/mcp?&", "/demo/mcp?;"] {
        let request = Request::post(path, allowed().to_string()).bearer(&key);
        refused(&org.gateway.send(&request), 400, -32_600, path);
    }
    // Others are no endpoint, not even for who may do everything.
    let admin = org.key("admin").key;
    for path in [
        "/demo/mcp/",
        "/DEMO/mcp",
        "/Demo/Mcp",
        "/demo/mcp/.",
        "/demo/mcp;x=1",
        "/demo/mcp%20",
        "/demo/mcp%00",
        "/mcp",
        "/",
        "/python/../mcp",
        "/demo/mcp/x",
        "/demo%252fmcp",
        "/demo/mcp%3f",
    ] {
        let request = Request::post(path, forbidden().to_string()).bearer(&admin);
        let answer = org.gateway.send(&request);
        if answer.header("x-portcullis-request-id").is_none() {
            assert_eq!(answer.status(), 400, "{path}: Envoy itself takes it for no path");
            continue;
        }
        refused(&answer, 404, -32_600, path);
    }
    for path in ["/demo%2fmcp", "/demo%2Fmcp", "/demo%5cmcp", "/demo%5Cmcp"] {
        let answer = org.gateway.send(&Request::post(path, forbidden().to_string()).bearer(&admin));
        assert_eq!(answer.status(), 400, "{path}: {}", answer.text());
    }
    // What a request asks for is its method, whatever its headers wish.
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        let over = |message: Value| {
            Request::post(DEMO, message.to_string()).bearer(&key).header(name, "DELETE")
        };
        refused(&org.gateway.send(&over(forbidden())), 200, -32_602, name);
        let answer = org.gateway.send(&over(allowed()));
        for request in answer.upstream() {
            assert_eq!(request["method"], "POST");
            assert!(!request["headers"].to_string().contains(name), "{name} went on: {request}");
        }
    }
    for name in ["x-original-url", "x-rewrite-url", "x-envoy-original-path"] {
        let request =
            Request::post("/nowhere", forbidden().to_string()).bearer(&admin).header(name, DEMO);
        refused(&org.gateway.send(&request), 404, -32_600, name);
    }
}
