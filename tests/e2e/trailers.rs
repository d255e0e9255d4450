//! Answers of an HTTP/2 upstream that end with trailers: the end is there all the same.

use std::time::Duration;

use portcullis_stack::ready::eventually;
use portcullis_tests::fake_http2::TrailingUpstream;
use portcullis_tests::http2::Http2;
use portcullis_tests::organisation::{Organisation, PYTHON};
use portcullis_tests::world::{Workers, replaced};
use portcullis_tests::{Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["trailers": what_an_answer_says_counts_also_when_trailers_end_it]
}

const HTTP1: &str = "    typed_extension_protocol_options: *closed_before_the_server_does\n";
const HTTP2: &str = r#"    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
"#;
const ENTRY_WITHIN: Duration = Duration::from_secs(10);
const ROWS: u64 = 7;
const PRICE: u64 = 2;
/// What a task costs whose tool has no cap: its rows come in another answer.
const MOST_ROWS: u64 = 1_000;

fn answer(request: &str) -> (&'static str, String) {
    let call: Value = serde_json::from_str(request).unwrap_or_default();
    let text = &call["params"]["arguments"]["message"];
    let (what, id) = text.as_str().and_then(|text| text.split_once(' ')).unwrap_or_default();
    let result = match what {
        "fails" => json!({"content": [], "isError": true}),
        "task" => json!({"task": {"taskId": id, "status": "working"}}),
        "unended" => {
            let result = json!({"content": [], "structuredContent": {"rows": [1]}});
            let message = json!({"jsonrpc": "2.0", "id": call["id"], "result": result});
            return ("text/event-stream", format!("data: {message}\n"));
        }
        "nothing" => return ("text/event-stream", ": ping\n".to_owned()),
        _ => json!({"content": [], "structuredContent": {"rows": vec![1; ROWS as usize]}}),
    };
    let message = json!({"jsonrpc": "2.0", "id": call["id"], "result": result}).to_string();
    match id.starts_with("sse") {
        true => ("text/event-stream", format!("data: {message}\n\n")),
        false => ("application/json", message),
    }
}

// Finding 5.3: `isError` was logged as a success, rows were not charged and tasks not bound.
// Proves: A17, X9, X17
fn what_an_answer_says_counts_also_when_trailers_end_it(world: &World<'_>) {
    let fake = TrailingUpstream::answering(answer);
    let own = world.envoy_changed(
        Workers::One,
        |settings| settings.python(fake.address()),
        |template| replaced(&template, HTTP1, HTTP2),
    );
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["connectors"]["python"]["tools"] = json!({"echo": {"price": PRICE, "row_price": 1}});
        policy["limits"] = json!({"credits": {
            "limit": 10_000, "window": "1h", "per": ["org"], "cost": "credits",
        }});
    })
    .through(&own.gateway);
    let (key, other) = (org.key("analyst").key, org.key("analyst").key);
    let ask = |key: &str, message: &Value| {
        org.gateway.send(&Request::post(PYTHON, message.to_string()).bearer(key))
    };
    let call = |what: &str| ask(&key, &mcp::call("echo", json!({"message": what}))).audit();
    for form in ["json", "sse"] {
        assert_eq!(call(&format!("fails {form}"))["status"], "tool_error", "{form}");
        let rows = call(&format!("rows {form}"));
        assert_eq!(
            (&rows["status"], &rows["credits"]),
            (&json!("success"), &json!(PRICE + ROWS)),
            "{form}"
        );
        let id = format!("{form}-of-{}", org.name);
        let task = call(&format!("task {id}"));
        assert_eq!(task["credits"], json!(PRICE + MOST_ROWS), "{form}");
        let poll = mcp::request(2, "tasks/get", json!({"taskId": id}));
        assert_eq!(ask(&key, &poll).error_code(), None, "{form}");
        assert_eq!(ask(&other, &poll).error_code(), Some(-32_602), "{form}");
    }

    // Over HTTP/2, trailers could reach the client: none does. Where an error cannot follow any more, the client gets a
    // reset instead of silence.
    let over_http2 = |what: &str| {
        let message = mcp::call("echo", json!({"message": what})).to_string();
        let client = Http2::connect(own.gateway.address()).unwrap();
        let request = Request::post(PYTHON, message).bearer(&key).without("user-agent");
        client.exchange(&request.header("user-agent", what))
    };
    let reply = over_http2("rows sse").unwrap();
    let trailers = |(name, _): &&(String, Vec<u8>)| name.starts_with("trailer ");
    assert_eq!(reply.headers.iter().find(trailers), None);
    assert!(String::from_utf8_lossy(&reply.body).contains("structuredContent"), "{reply:?}");
    // An answer that never went on is no success.
    for what in ["nothing sse", "unended sse"] {
        let reset = over_http2(what).unwrap_err();
        assert!(reset.to_string().contains("stream error"), "{what}: {reset}");
        let entry = eventually(what, ENTRY_WITHIN, || {
            let entries = own.gateway.audit().entries_where("user_agent", what);
            entries.into_iter().next()
        });
        let entry = entry.unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(entry["status"], "error", "{what}: {entry}");
        assert_eq!(entry["decision"]["rule"], "upstream.no_answer", "{what}: {entry}");
    }
}
