//! Beside an ext_proc filter that has every frame of a body sent to a server and back (`FULL_DUPLEX_STREAMED`).
//!
//! Owns what arrives: at the ext_proc server and at the MCP server, byte for byte, in front of Portcullis and behind it.

use std::thread;
use std::time::Duration;

use portcullis_tests::ext_proc::{ExtProc, Pace};
use portcullis_tests::fake::FakeUpstream;
use portcullis_tests::organisation::DEMO;
use portcullis_tests::wire::Reply;
use portcullis_tests::world::{OwnEnvoy, Workers, replaced};
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    cases!["ext_proc":
        in_front_of_hold_mode_bodies_arrive_byte_for_byte,
        behind_hold_mode_bodies_arrive_byte_for_byte,
        in_front_of_split_mode_nothing_unjudged_and_nothing_changed_arrives,
        behind_split_mode_nothing_unjudged_and_nothing_changed_arrives,
    ]
}

const FILTER: &str = "          - name: portcullis\n            typed_config:";
const ROUTER: &str = "          - name: envoy.filters.http.router\n";
const CLUSTERS: &str = "  clusters:\n";
/// Of bodies, up to a little below `max_body_bytes`.
const SIZES: [usize; 4] = [200, 20_000, 300_000, 1_000_000];
/// Between two pieces of a slow body.
const PAUSE: Duration = Duration::from_millis(30);
/// How many pieces a slow body has.
const PIECES: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    InFront,
    Behind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Hold,
    Split,
}

// envoyproxy/envoy#46841, finding 11.17.
// Proves: X30
fn in_front_of_hold_mode_bodies_arrive_byte_for_byte(world: &World<'_>) {
    arrives(world, Place::InFront, Mode::Hold);
}

// envoyproxy/envoy#46841, finding 11.17.
// Proves: X30
fn behind_hold_mode_bodies_arrive_byte_for_byte(world: &World<'_>) {
    arrives(world, Place::Behind, Mode::Hold);
}

// envoyproxy/envoy#41654, finding 11.17.
// Proves: X30
fn in_front_of_split_mode_nothing_unjudged_and_nothing_changed_arrives(world: &World<'_>) {
    arrives(world, Place::InFront, Mode::Split);
}

// envoyproxy/envoy#41654, finding 11.17.
// Proves: X30
fn behind_split_mode_nothing_unjudged_and_nothing_changed_arrives(world: &World<'_>) {
    arrives(world, Place::Behind, Mode::Split);
}

/// An Envoy with an ext_proc filter beside Portcullis.
fn beside(
    world: &World<'_>,
    (place, mode): (Place, Mode),
    inspector: &ExtProc,
    server: &FakeUpstream,
) -> OwnEnvoy {
    let address = inspector.address();
    let filter = "          - name: inspect\n            typed_config:\n              \
         \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor\n              \
         grpc_service: {envoy_grpc: {cluster_name: inspect}, timeout: 20s}\n              message_timeout: 10s\n              \
         processing_mode: {request_header_mode: SEND, request_body_mode: FULL_DUPLEX_STREAMED, request_trailer_mode: SEND, \
         response_header_mode: SKIP}\n";
    let cluster = format!(
        "  - name: inspect\n    type: STATIC\n    connect_timeout: 1s\n    typed_extension_protocol_options: \
         {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{\"@type\": \
         type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: \
         {{http2_protocol_options: {{}}}}}}}}\n    load_assignment: {{cluster_name: inspect, endpoints: [{{lb_endpoints: [{{endpoint: \
         {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]}}\n",
        address.port()
    );
    let adjust = |settings: portcullis_stack::Bootstrap| {
        let settings = settings.demo(server.address());
        match mode {
            Mode::Hold => settings.set("MODE", "hold").set("HOLD_HEADERS", true),
            Mode::Split => settings.set("MODE", "split").set("HOLD_HEADERS", false),
        }
    };
    world.envoy_changed(Workers::One, adjust, |template| {
        let at = match place {
            Place::InFront => FILTER,
            Place::Behind => ROUTER,
        };
        let template = replaced(&template, at, &format!("{filter}{at}"));
        replaced(&template, CLUSTERS, &format!("{CLUSTERS}{cluster}"))
    })
}

fn body(tool: &str, size: usize) -> String {
    let padding = "portcullis-".repeat(size / 11);
    let params = json!({"name": tool, "arguments": {"limit": 1}, "_meta": {"padding": padding}});
    mcp::request("1", "tools/call", params).to_string()
}

/// How a client sends a request.
#[derive(Clone, Copy, Debug)]
enum Sent {
    AtOnce,
    Slowly,
}

/// Sends a request. `None`: Envoy closed the connection without an answer.
fn sent(own: &OwnEnvoy, request: &Request, (sent, chunked): (Sent, bool)) -> Option<Reply> {
    let body = request.body.clone().unwrap_or_default();
    let mut wire = Wire::connect(own.gateway.address()).expect("a connection");
    let head = match chunked {
        true => request.clone().header("transfer-encoding", "chunked").head(None),
        false => request.head(Some(body.len())),
    };
    let mut pieces = vec![head];
    for piece in body.chunks(body.len().div_ceil(PIECES)) {
        let mut framed = Vec::new();
        if chunked {
            framed.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        }
        framed.extend_from_slice(piece);
        if chunked {
            framed.extend_from_slice(b"\r\n");
        }
        pieces.push(framed);
    }
    if chunked {
        pieces.push(b"0\r\n\r\n".to_vec());
    }
    match sent {
        // A refusal may come before the end of the body.
        Sent::AtOnce => drop(wire.write(&pieces.concat())),
        Sent::Slowly => {
            for piece in pieces {
                if wire.write(&piece).is_err() {
                    break;
                }
                thread::sleep(PAUSE);
            }
        }
    }
    wire.read_reply().ok()
}

fn at_server(server: &FakeUpstream, from: usize) -> Vec<String> {
    let all = server.requests();
    all.get(from..).unwrap_or_default().iter().map(|text| dechunked(text)).collect()
}

/// The body of a request as it came.
fn dechunked(request: &str) -> String {
    let (head, body) = request.split_once("\r\n\r\n").expect("a head");
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        whole.push_str(after.get(..size).expect("a whole chunk"));
        rest = after.get(size + 2..).unwrap_or_default();
    }
    whole
}

fn arrives(world: &World<'_>, place: Place, mode: Mode) {
    for pace in [Pace::AtOnce, Pace::AtTheEnd] {
        arrives_at(world, (place, mode), pace);
    }
}

fn arrives_at(world: &World<'_>, (place, mode): (Place, Mode), pace: Pace) {
    let (inspector, server) = (ExtProc::start(pace), FakeUpstream::of_one_row());
    let own = beside(world, (place, mode), &inspector, &server);
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let mut failed = Vec::new();
    for size in SIZES {
        for how in [Sent::AtOnce, Sent::Slowly].into_iter().flat_map(|it| [(it, false), (it, true)])
        {
            let what = format!("{pace:?}, {size} bytes, (sent, chunked) {how:?}");
            let text = body("query_users", size);
            let (before, seen_before) = (server.requests().len(), inspector.bodies().len());
            let reply = sent(&own, &Request::post(DEMO, text.clone()).bearer(&key), how);
            let status = reply.as_ref().map(|reply| reply.status);
            let arrived = at_server(&server, before);
            if mode == Mode::Split && status != Some(200) {
                // Envoy ends it (envoyproxy/envoy#41654); what arrives must not be something else.
                assert_eq!(arrived, Vec::<String>::new(), "{what}: {status:?}");
                failed.push(format!("{what}: {status:?}"));
                continue;
            }
            assert_eq!(status, Some(200), "{what}: {reply:?}");
            assert_eq!(arrived.len(), 1, "{what}");
            assert!(arrived[0] == text, "{what}: {} of {} bytes", arrived[0].len(), text.len());
            let seen = portcullis_stack::ready::eventually("the inspector's", PAUSE * 300, || {
                inspector.bodies().get(seen_before).cloned()
            });
            let seen = seen.expect("a body at the ext_proc server");
            assert!(seen.bytes == text.as_bytes(), "{what}: {} bytes inspected", seen.bytes.len());
        }
        // What is refused goes to no server, whatever is beside us.
        let (before, text) = (server.requests().len(), body("delete_user", size));
        let reply = sent(&own, &Request::post(DEMO, text).bearer(&key), (Sent::Slowly, false));
        assert_eq!(at_server(&server, before), Vec::<String>::new(), "{size}: {reply:?}");
        let before = server.requests().len();
        let reply =
            sent(&own, &Request::post(DEMO, body("query_users", size)), (Sent::Slowly, false));
        assert_eq!(reply.map(|reply| reply.status), Some(401), "{size}");
        assert_eq!(at_server(&server, before), Vec::<String>::new(), "{size}");
    }
    println!("{pace:?}: requests that Envoy ended: {failed:?}");
}
