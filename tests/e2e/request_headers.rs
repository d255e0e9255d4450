//! Headers of a hop are not believed: what a client adds to a call neither repeats it nor reaches the server.

use portcullis_stack::{Bootstrap, ready};
use portcullis_tests::fake::{FakeUpstream, json_answer};
use portcullis_tests::gateway::sent_header;
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::world::{OwnEnvoy, Workers, replaced};
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    cases!["request_headers":
        what_the_router_obeys_runs_no_call_twice,
        no_address_is_internal_in_the_shipped_configuration,
        only_known_headers_reach_the_server,
        request_ids_are_the_gateways_own,
        every_admitted_call_runs_once_whatever_its_headers,
        requests_that_envoy_refuses_are_written_down,
    ]
}

const SHIPPED_RANGES: &str = "cidr_ranges: [{address_prefix: 255.255.255.255, prefix_len: 32}]";
const LOOPBACK: &str = "cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]";
const FILTER: &str = "          - name: portcullis\n            typed_config:";
const NO_FILTER: &str =
    "          - name: portcullis\n            disabled: true\n            typed_config:";

/// A route that wants no guard, so that a request gets to the server without the filter.
const OPEN: &str = "              routes:\n              - {match: {path: /python/mcp}, route: {cluster: python}}\n";

/// An Envoy that takes the client's address for an internal one, in front of `fake`.
pub(super) fn internal(world: &World<'_>, fake: &FakeUpstream) -> OwnEnvoy {
    changed(world, fake, |template| replaced(&template, SHIPPED_RANGES, LOOPBACK))
}

fn changed(
    world: &World<'_>,
    fake: &FakeUpstream,
    change: impl FnOnce(String) -> String,
) -> OwnEnvoy {
    let address = fake.address();
    let adjust = |settings: Bootstrap| settings.python(address).set("ANSWER_IDLE_TIMEOUT", "2s");
    world.envoy_changed(Workers::One, adjust, change)
}

fn without_filter(template: &str) -> String {
    replaced(&replaced(template, FILTER, NO_FILTER), "              routes:\n", OPEN)
}

fn echo_result() -> String {
    let result = json!({"content": [], "structuredContent": {"rows": [1, 2, 3]}});
    json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string()
}

/// A server that has every call done, and says so with a status that a client may have named as one to retry.
fn server() -> FakeUpstream {
    FakeUpstream::answering(|_| json_answer(&echo_result()))
}

fn echo(mark: &str) -> Request {
    let message = mcp::call("echo", json!({"message": mark})).to_string();
    Request::post(PYTHON, message)
}

fn retried(request: Request) -> Request {
    request
        .header("x-envoy-retry-on", "retriable-status-codes,5xx,reset")
        .header("x-envoy-retriable-status-codes", "200")
        .header("x-envoy-max-retries", "5")
}

// Finding 1.1: a call with these headers ran 101 times, with one entry, one draw and one credit.
// Proves: B2, A5
fn what_the_router_obeys_runs_no_call_twice(world: &World<'_>) {
    let fake = server();
    let own = internal(world, &fake);
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    for (what, request) in [
        ("retries", retried(echo("a"))),
        (
            "hedging",
            echo("a")
                .header("x-envoy-hedge-on-per-try-timeout", "true")
                .header("x-envoy-upstream-rq-per-try-timeout-ms", "1")
                .header("x-envoy-retry-on", "5xx"),
        ),
        ("a name for stats", echo("a").header("x-envoy-upstream-alt-stat-name", "mine")),
        ("a timeout", echo("a").header("x-envoy-upstream-rq-timeout-ms", "1")),
    ] {
        let before = fake.requests().len();
        let answer = org.gateway.send(&request.bearer(&key));
        assert_eq!(answer.status(), 200, "{what}: {}", answer.text());
        assert_eq!(answer.audit()["status"], "success", "{what}");
        let reached = fake.requests().split_off(before);
        assert_eq!(reached.len(), 1, "{what}: {reached:?}");
        assert!(!reached[0].to_ascii_lowercase().contains("x-envoy-"), "{what}: {reached:?}");
    }
    let stats = own.envoy.admin("stats?filter=mine").unwrap().text();
    assert_eq!(stats.trim(), "", "a client made a statistic");
}

// Finding 1.1, the other half: the host's own settings hold without the filter.
// Proves: B2
fn no_address_is_internal_in_the_shipped_configuration(world: &World<'_>) {
    let fake = server();
    // As shipped, but for the filter: what reaches the router is what the client sent.
    let own = changed(world, &fake, |template| without_filter(&template));
    let answer = Wire::connect(own.gateway.address()).unwrap().exchange(&retried(echo("a")));
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!(fake.requests().len(), 1, "an address is internal");
    // That the trial would see it: the same with loopback as an internal range.
    let other = server();
    let own = changed(world, &other, |template| {
        replaced(&without_filter(&template), SHIPPED_RANGES, LOOPBACK)
    });
    let answer = Wire::connect(own.gateway.address()).unwrap().exchange(&retried(echo("a")));
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!(other.requests().len(), 6, "the trial shows nothing");
}

// Finding 1.3.
// Proves: B2, A5
fn only_known_headers_reach_the_server(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["connectors"]["demo"]["request_headers"] = json!(["X-Tenant", "cookie"]);
    });
    let key = org.key("analyst").key;
    let list = || Request::post(DEMO, mcp::list().to_string()).bearer(&key);
    let strange = [
        "cf-access-jwt-assertion",
        "x-forwarded-access-token",
        "api-key",
        "x-original-url",
        "x-rewrite-url",
        "forwarded",
        "x-real-ip",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-http-method-override",
        "_method",
        "x-ordinary",
        "mcp-method",
        "mcp-name",
        "mcp-param-limit",
        "x-envoy-retry-on",
        "x-envoy-original-path",
        "expect-ct",
    ];
    let strange = strange.into_iter().filter(|name| !name.contains('_'));
    let mut request = list().header("x-tenant", "blue").header("cookie", "a=b");
    for name in strange.clone() {
        request = request.header(name, "tools/delete");
    }
    let request = request
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("accept-language", "de")
        .header("accept-encoding", "gzip, br");
    let answer = org.gateway.send(&request);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let upstream = answer.upstream();
    let sent = |name: &str| sent_header(&upstream[0], name);
    for name in strange {
        assert_eq!(sent(name), Vec::<&str>::new(), "{name} reached the server");
    }
    // What MCP and HTTP need, and what the policy names.
    assert_eq!(sent("x-tenant"), ["blue"]);
    assert_eq!(sent("cookie"), ["a=b"]);
    assert_eq!(sent("accept-language"), ["de"]);
    assert_eq!(sent("traceparent").len(), 1);
    assert_eq!(sent("user-agent"), ["portcullis-tests"]);
    // Finding 5.9: no content coding that the gateway cannot read.
    assert_eq!(sent("accept-encoding"), ["identity"]);
    assert_eq!(sent("x-forwarded-for").len(), 1);
    // Nothing else: what a new client or Envoy adds has to be thought of first.
    let known = [
        "host",
        "content-type",
        "content-length",
        "accept",
        "accept-language",
        "accept-encoding",
        "user-agent",
        "traceparent",
        "authorization",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-request-id",
        "x-portcullis-org",
        "x-portcullis-principal",
        "x-portcullis-request-id",
        "x-tenant",
        "cookie",
    ];
    let all = upstream[0]["headers"].as_array().unwrap().iter();
    let unknown: Vec<&Value> =
        all.filter(|pair| !known.contains(&pair[0].as_str().unwrap_or_default())).collect();
    assert_eq!(unknown, Vec::<&Value>::new());
    // A modern request keeps the headers that were compared with its body.
    let answer = org.gateway.send(&mcp::modern(DEMO, mcp::list()).bearer(&key));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(sent_header(&answer.upstream()[0], "mcp-method"), ["tools/list"]);
}

// Finding 1.2: a client wrote `request_id` of the audit, the same for two calls.
// Proves: A1
fn request_ids_are_the_gateways_own(world: &World<'_>) {
    let fake = server();
    let own = internal(world, &fake);
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let forged = "00000000-0000-4000-8000-000000000000";
    let asked = || echo("id").bearer(&key).header("x-request-id", forged);
    let ids: Vec<String> = (0..2).map(|_| org.gateway.send(&asked()).request_id()).collect();
    assert!(ids[0] != ids[1] && !ids.contains(&forged.to_owned()), "{ids:?}");
    for (id, request) in ids.iter().zip(fake.requests()) {
        assert!(request.contains(&format!("x-request-id: {id}\r\n")), "{id}: {request}");
        assert!(!request.contains(forged), "{request}");
    }
    // The operator may trust the hop in front.
    let address = fake.address();
    let own = world.envoy(Workers::One, |settings| {
        settings.python(address).set("PRESERVE_EXTERNAL_REQUEST_ID", "true")
    });
    let answer = org.through(&own.gateway).gateway.send(&asked());
    assert_eq!(answer.request_id(), forged);
}

/// Request headers that Envoy's router or connection manager reads, and values that could do something.
pub(super) const OBEYED: [(&str, &[&str]); 22] = [
    (
        "x-envoy-retry-on",
        &["5xx", "retriable-status-codes", "gateway-error,reset", "envoy-ratelimited"],
    ),
    ("x-envoy-retry-grpc-on", &["cancelled", "internal", "unavailable"]),
    ("x-envoy-max-retries", &["1", "3", "100", "-1", "x"]),
    ("x-envoy-retriable-status-codes", &["200", "200,202", "500"]),
    ("x-envoy-retriable-header-names", &["content-type", "content-length"]),
    ("x-envoy-hedge-on-per-try-timeout", &["true", "false", "1"]),
    ("x-envoy-upstream-rq-timeout-ms", &["1", "0", "100000"]),
    ("x-envoy-upstream-rq-per-try-timeout-ms", &["1", "0", "5"]),
    ("x-envoy-upstream-rq-timeout-alt-response", &["1"]),
    ("x-envoy-upstream-alt-stat-name", &["a", "b", "demo"]),
    ("x-envoy-expected-rq-timeout-ms", &["1", "99999"]),
    ("x-envoy-decorator-operation", &["op"]),
    ("x-envoy-force-trace", &["true"]),
    ("x-envoy-original-path", &["/demo/mcp"]),
    ("x-envoy-internal", &["true"]),
    ("x-envoy-external-address", &["192.0.2.1"]),
    ("x-envoy-attempt-count", &["7"]),
    ("x-envoy-ip-tags", &["a"]),
    ("grpc-timeout", &["1m", "1n"]),
    ("x-forwarded-for", &["10.0.0.1", "192.0.2.1, 10.0.0.1", "::1"]),
    ("x-forwarded-proto", &["https", "http", "ftp"]),
    ("x-request-id", &["a", "00000000-0000-4000-8000-000000000000"]),
];

/// Numbers that look random and are the same each time.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// Below `sides`.
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap_or_default()
    }
}

/// How many requests a random trial makes.
pub(crate) fn requests(standard: usize) -> usize {
    let asked = std::env::var("PORTCULLIS_TEST_REQUESTS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(standard)
}

// Finding 1.1. The same seed each time; PORTCULLIS_TEST_REQUESTS=10000 for more of them.
// Proves: B2, A5, B10
fn every_admitted_call_runs_once_whatever_its_headers(world: &World<'_>) {
    const LIMIT: usize = 100_000;
    let count = requests(400);
    let fake = server();
    let own = internal(world, &fake);
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["tiers"]["wide"]["limits"]["calls"] = json!({"limit": LIMIT, "window": "1h"});
    })
    .through(&own.gateway);
    let key = org.key("analyst").key;
    let mut dice = Dice(1);
    let mut wire = Wire::connect(org.gateway.address()).unwrap();
    let mut admitted = 0;
    for number in 0..count {
        // Now and then one that is refused, so that refusals are seen to run nothing.
        let tool = if dice.roll(10) == 0 { "forbidden" } else { "echo" };
        let message = mcp::call(tool, json!({"message": format!("mark-{number}-")})).to_string();
        let mut request = Request::post(PYTHON, message).bearer(&key);
        for _ in 0..dice.roll(8) {
            let (name, values) = OBEYED[dice.roll(OBEYED.len())];
            let name = if dice.roll(4) == 0 { name.to_ascii_uppercase() } else { name.to_owned() };
            request = request.header(&name, values[dice.roll(values.len())]);
        }
        let reply = wire.exchange(&request).unwrap_or_else(|e| panic!("{request:?}: {e}"));
        let passed = String::from_utf8_lossy(&reply.body).contains("\"rows\"");
        assert_eq!(passed, tool == "echo", "{request:?}: {reply:?}");
        admitted += usize::from(passed);
    }
    let mut executions: BTreeMap<String, usize> = BTreeMap::new();
    for request in fake.requests() {
        assert!(!request.to_ascii_lowercase().contains("x-envoy-"), "{request}");
        let mark = request.split("mark-").nth(1).and_then(|rest| rest.split('-').next());
        *executions.entry(mark.unwrap_or_default().to_owned()).or_default() += 1;
    }
    let repeated: Vec<_> = executions.iter().filter(|(_, times)| **times != 1).collect();
    assert!(repeated.is_empty(), "ran more than once: {repeated:?}");
    assert_eq!(executions.len(), admitted, "executions and admitted calls");
    // Draws: one more call tells what is left.
    let last = org.gateway.send(&echo("last").bearer(&key));
    let left = last.header("ratelimit").unwrap();
    let left = left.split(";r=").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    assert_eq!(left.parse::<usize>().unwrap(), LIMIT - admitted - 1, "draws");
    last.audit();
    let entries = org.gateway.audit().entries_where("org_id", &org.name);
    let charged = entries.iter().filter(|entry| entry["credits"] == 1).count();
    assert_eq!((entries.len(), charged), (count + 1, admitted + 1), "entries");
    eprintln!("{count} requests: {admitted} admitted, {} executions", executions.len());
}

// Finding 6.4: requests that Envoy refuses itself left no line anywhere.
// Proves: A1
fn requests_that_envoy_refuses_are_written_down(world: &World<'_>) {
    let own = world.single_worker();
    let send = |bytes: &[u8]| {
        let mut wire = Wire::connect(own.gateway.address()).unwrap();
        wire.write(bytes).unwrap();
        wire.read_reply().unwrap().status
    };
    let large = format!("GET /large HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n", "a".repeat(70_000));
    let cases: [(&str, u16, Vec<u8>); 4] = [
        (
            "/demo%2fmcp",
            400,
            b"POST /demo%2fmcp?api_key=secret HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
                .to_vec(),
        ),
        ("/underscore", 400, b"GET /underscore HTTP/1.1\r\nhost: x\r\nx_a: 1\r\n\r\n".to_vec()),
        ("/old", 426, b"GET /old HTTP/1.0\r\nhost: x\r\n\r\n".to_vec()),
        ("/large", 431, large.into_bytes()),
    ];
    for (path, status, bytes) in &cases {
        assert_eq!(send(bytes), *status, "{path}");
    }
    // Answered by the filter, so not Envoy's business.
    assert_eq!(send(b"GET /portcullis/health HTTP/1.1\r\nhost: x\r\n\r\n"), 200);
    assert_eq!(send(b"GET /demo/mcp HTTP/1.1\r\nhost: x\r\n\r\n"), 401);
    let lines = ready::eventually("a line for each", Duration::from_secs(10), || {
        let text = fs::read_to_string(own.envoy.rejected_log()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<Value> = lines.collect();
        (lines.len() >= cases.len()).then_some(lines)
    })
    .unwrap_or_else(|fault| panic!("{fault}: {:?}", fs::read_to_string(own.envoy.rejected_log())));
    assert_eq!(lines.len(), cases.len(), "{lines:?}");
    for (line, (path, status, _)) in lines.iter().zip(&cases) {
        let line = &line["envoy"];
        assert_eq!(line["http_status"], *status, "{line}");
        // Envoy undoes the escape before it refuses it; the others it refuses before it has read them whole.
        let written = if path.contains("%2f") { json!("/demo/mcp") } else { Value::Null };
        assert_eq!(line["path"], written, "{line}");
        assert!(line["details"].as_str().is_some_and(|text| !text.is_empty()), "{line}");
        assert_eq!(line["client_address"], "127.0.0.1", "{line}");
        assert!(!line.to_string().contains("secret"), "{line}");
    }
}
