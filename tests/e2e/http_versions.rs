//! The same request over HTTP/1.1 and HTTP/2 has the same answer, whatever its size.

use portcullis_tests::fake::{FakeUpstream, json_answer};
use portcullis_tests::http2::Http2;
use portcullis_tests::organisation::PYTHON;
use portcullis_tests::wire::Reply;
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["http_versions":
        bodies_of_all_sizes_are_answered_alike,
        answers_of_all_sizes_come_alike,
    ]
}

const MOST: usize = 1 << 20;

/// A call whose whole body has `size` bytes.
fn call_of(size: usize) -> Vec<u8> {
    let body = |filler: usize| mcp::call("echo", json!({"message": "x".repeat(filler)}));
    let bare = body(0).to_string().len();
    body(size.saturating_sub(bare)).to_string().into_bytes()
}

fn message(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body)
        .unwrap_or_else(|_| panic!("no JSON: {} {:?}", reply.status, reply.body))
}

// Finding 11.3: over HTTP/2, 100 KB was a 413 and 900 KB a reset stream; over HTTP/1.1 both were 200.
// Proves: B18, X17
fn bodies_of_all_sizes_are_answered_alike(world: &World<'_>) {
    let fake = FakeUpstream::answering(|request| {
        let body = request.split("\r\n\r\n").nth(1).unwrap_or_default().len();
        let result = json!({"content": [], "structuredContent": {"bytes": body}});
        json_answer(&json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string())
    });
    let own = world.with_python_as(&fake);
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let address = own.gateway.address();
    let kib = [1, 16, 48, 63, 64, 65, 100, 128, 255, 256, 257, 512, 900, 1023];
    let sizes = kib.into_iter().map(|kib| kib << 10).chain([65_535, 65_536, 65_537, MOST]);
    for size in sizes.chain([MOST + 1, MOST + 70_000, 2 * MOST]) {
        let request = Request::post(PYTHON, call_of(size)).bearer(&key);
        let replies = [
            ("HTTP/1.1", Wire::connect(address).unwrap().exchange(&request)),
            ("HTTP/2", Http2::connect(address).unwrap().exchange(&request)),
        ];
        for (version, reply) in replies {
            let what = format!("{size} bytes over {version}");
            let reply = reply.unwrap_or_else(|fault| panic!("{what}: {fault}"));
            let message = message(&reply);
            if size <= MOST {
                assert_eq!(reply.status, 200, "{what}: {message}");
                assert!(message["result"]["structuredContent"].is_object(), "{what}: {message}");
            } else {
                assert_eq!(reply.status, 413, "{what}: {message}");
                assert_eq!(message["error"]["code"], -32_600, "{what}: {message}");
            }
        }
    }
    // In pieces on one connection, beside others that never end.
    let client = Http2::connect(address).unwrap();
    let body = call_of(300_000);
    let request = Request::post(PYTHON, body.clone()).bearer(&key);
    let stuck: Vec<_> = (0..4)
        .map(|_| {
            let mut open = client.open(&request).unwrap();
            client.send(&mut open, &body[..100_000], false).unwrap();
            open
        })
        .collect();
    let mut open = client.open(&request).unwrap();
    for piece in body.chunks(10_000) {
        client.send(&mut open, piece, false).unwrap();
    }
    client.send(&mut open, &[], true).unwrap();
    assert_eq!(client.reply(open).unwrap().status, 200);
    for open in stuck {
        client.reset(open).unwrap();
    }
    assert_eq!(client.exchange(&request).unwrap().status, 200);
}

// Finding 11.3, the other way: what is held to be filtered is bounded by the same window.
// Proves: C3
fn answers_of_all_sizes_come_alike(world: &World<'_>) {
    let fake = FakeUpstream::answering(|_| {
        let tool = |number: usize| {
            let name = if number == 0 { "echo".to_owned() } else { format!("hidden{number}") };
            json!({"name": name, "description": "x".repeat(1_000), "inputSchema": {"type": "object"}})
        };
        let tools: Vec<Value> = (0..300).map(tool).collect();
        json_answer(&json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).to_string())
    });
    let own = world.with_python_as(&fake);
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let request = Request::post(PYTHON, mcp::list().to_string()).bearer(&key);
    let address = own.gateway.address();
    let first = Wire::connect(address).unwrap().exchange(&request).unwrap();
    let second = Http2::connect(address).unwrap().exchange(&request).unwrap();
    for reply in [&first, &second] {
        let message = message(reply);
        assert_eq!(reply.status, 200, "{message}");
        assert_eq!(message["result"]["tools"].as_array().map(Vec::len), Some(1), "{message}");
    }
}
