//! What a warm, allowed call costs the core: `cargo run --release -p portcullis-core --example warm`.
//!
//! Owns one caller with a key and three windows, the same with a token, and with a token where there is
//! no Redis; an answer of a few hundred bytes; and tells the time of each event. A figure to compare
//! with the one before a change, on the same machine; no test.

#[expect(dead_code, reason = "the tests make more of it")]
#[path = "../tests/tokens/mint.rs"]
mod mint;

use std::hint::black_box;
use std::time::{Duration, Instant};

use portcullis_core::audit::Chain;
use portcullis_core::auth::api_key::{KeyDigest, SECRET_LENGTH, mint};
use portcullis_core::config::Config;
use portcullis_core::driver::call::{CallId, Reply};
use portcullis_core::driver::event::{Closing, End, Event, Head, Origin, ResponseHead};
use portcullis_core::driver::step::{Effect, Gate, RequestGate};
use portcullis_core::exchange::Exchange;
use portcullis_core::id::{KeyId, OrgId, RequestId};
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;
use portcullis_core::{json, policy};
use portcullis_redis_lua::Value;
use serde_json::json;

const START: u64 = 1_795_212_000;
const STEPS: [&str; 5] = ["head", "body", "admitted", "response", "close"];

/// What a caller shows, and whether Redis is asked about it.
#[derive(Clone, Copy)]
enum Case {
    Key,
    Token,
    TokenAlone,
}

impl Case {
    const ALL: [(Self, &str); 3] = [
        (Self::Key, "API key, three windows"),
        (Self::Token, "token, three windows"),
        (Self::TokenAlone, "token, no Redis"),
    ];

    fn worker(self) -> Worker {
        let auth = json!({
            "issuers": [mint::inline(json!({"tier": "free"}))],
            "external_url": "https://mcp.example"});
        let config = match self {
            Self::Key | Self::Token => json!({"redis": {"cluster": "redis"}, "auth": auth}),
            Self::TokenAlone => {
                let mut policy = document();
                policy["tiers"] = json!({"free": {"limits": {}}});
                policy["limits"] = json!({});
                json!({"policy": policy, "auth": auth})
            }
        };
        let config = Config::parse(&config).unwrap_or_else(|faults| panic!("{faults}"));
        Worker::new(config, Chain::new("0123456789abcdef".into()))
    }
}

fn document() -> serde_json::Value {
    json!({
        "version": 1, "organisations": ["acme"],
        "connectors": {"demo": {"path": "/demo/mcp"}},
        "roles": {"analyst": {"demo": {"allow": ["query_users", "create_note"]}}},
        "tiers": {"free": {"limits": {"minute": {"limit": 100_000, "window": "1m"}}}},
        "limits": {
            "hour": {"limit": 100_000, "window": "1h", "per": ["org"]},
            "tool": {"limit": 100_000, "window": "1m", "per": ["key", "tool"]}}
    })
}

struct World {
    worker: Worker,
    credential: (&'static str, String),
    record: String,
    body: Vec<u8>,
    answer: Vec<u8>,
}

impl World {
    fn new(case: Case) -> Self {
        let (org, id) = (OrgId::new("acme").unwrap(), KeyId::new("k1a2b3c4").unwrap());
        let key = mint(&org, &id, &"s".repeat(SECRET_LENGTH)).unwrap().expose().to_owned();
        let record = json!({
            "id": "k1a2b3c4", "org": "acme", "name": "analyst bot", "role": "analyst",
            "tier": "free", "created_at": 1, "created_by": "ops",
            "secrets": [{"sha256": KeyDigest::of(key.as_bytes()).to_hex()}]
        });
        let body = json!({
            "jsonrpc": "2.0", "id": 7, "method": "tools/call",
            "params": {"name": "query_users",
                "arguments": {"team": "platform", "limit": 25, "active": true}}
        });
        let users: Vec<_> =
            (0..8).map(|at| json!({"id": at, "name": format!("user {at}")})).collect();
        let text = json!({"users": users}).to_string();
        let answer = json!({
            "jsonrpc": "2.0", "id": 7, "result": {
                "content": [{"type": "text", "text": text}],
                "structuredContent": {"rows": users}, "isError": false}
        });
        Self {
            worker: case.worker(),
            credential: match case {
                Case::Key => ("x-api-key", key),
                Case::Token | Case::TokenAlone => {
                    ("authorization", format!("Bearer {}", mint::signed("ES256")))
                }
            },
            record: record.to_string(),
            body: body.to_string().into_bytes(),
            answer: answer.to_string().into_bytes(),
        }
    }

    fn head(&self) -> Head {
        let header = |name: &str, value: &str| (name.into(), value.as_bytes().to_vec());
        let headers = vec![
            header(":authority", "127.0.0.1:10000"),
            header(":path", "/demo/mcp"),
            header(":method", "POST"),
            header(":scheme", "http"),
            header("content-type", "application/json"),
            header("accept", "application/json, text/event-stream"),
            header(self.credential.0, &self.credential.1),
            header("mcp-protocol-version", "2025-11-25"),
            header("user-agent", "portcullis-bench"),
            header("content-length", "150"),
            header("x-forwarded-proto", "http"),
            header("x-request-id", "0b7dbd5c-8b5c-4f4e-8f3f-0123456789ab"),
        ];
        let id = RequestId::new("0b7dbd5c-8b5c-4f4e-8f3f-0123456789ab").unwrap();
        Head::new(id, "127.0.0.1".into(), headers)
    }

    /// One request; adds to `spent` what each event took. The first ones teach the worker.
    fn request(&mut self, nth: u64, spent: &mut [Duration; 5]) {
        let mut exchange = Exchange::default();
        let now = UnixTime::from_micros((START * 1_000_000).saturating_add(nth * 100));
        let mut at = 0;
        let mut step = |worker: &mut Worker, event: Event, next: bool| {
            let since = Instant::now();
            let step = black_box(exchange.step(worker, now, event));
            spent[at] += since.elapsed();
            at += usize::from(next);
            step
        };
        let head = self.head();
        let _ = step(&mut self.worker, Event::Head { head, last: false }, true);
        let mut gate = step(&mut self.worker, Event::Body(self.body.clone()), true);
        let mut id = CallId::FIRST;
        while !matches!(gate.gate, Gate::Request(RequestGate::Pass)) {
            let call = gate.effects.iter().find_map(|effect| match effect {
                Effect::Start { id, call } => Some((*id, call)),
                _ => None,
            });
            let value = match call {
                Some((asked, portcullis_core::driver::call::DependencyCall::Admit(script))) => {
                    id = asked;
                    self.admit(script)
                }
                Some((asked, portcullis_core::driver::call::DependencyCall::Policy(version))) => {
                    let document = json::canonical_exact(&document());
                    self.worker.policy_read(version, Some(document.as_bytes()), now);
                    let done = Event::CallDone { id: asked, reply: Reply::Policy };
                    gate = step(&mut self.worker, done, false);
                    continue;
                }
                other => panic!("{other:?}"),
            };
            gate =
                step(&mut self.worker, Event::CallDone { id, reply: Reply::Redis(value) }, false);
        }
        let _ = id;
        at_response(&mut step, self);
    }

    fn admit(&self, script: &portcullis_redis_lua::ScriptCall) -> Value {
        let args: Vec<_> =
            script.args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
        let version = policy::version_of(&document()).unwrap().to_string();
        let known = args.contains(&version);
        if known {
            let state = [Value::Int(5), Value::Int(1_000), Value::Int(0)];
            let states = (0..3).flat_map(|_| state.clone());
            return Value::Array([Value::Int(1)].into_iter().chain(states).collect());
        }
        let bulk = |text: &str| Value::Bulk(text.as_bytes().to_vec());
        let activation = [bulk(&version), bulk("{}")];
        let standing = match self.credential.0 {
            "x-api-key" => vec![bulk("1"), bulk(&self.record)],
            // Neither the token nor its subject is denied.
            _ => vec![bulk("-"), Value::Nil, bulk("-"), Value::Nil],
        };
        Value::Array([Value::Int(0)].into_iter().chain(standing).chain(activation).collect())
    }
}

/// The rest, once the request went upstream.
fn at_response(
    step: &mut impl FnMut(&mut Worker, Event, bool) -> portcullis_core::driver::step::Step,
    world: &mut World,
) {
    let head = ResponseHead {
        status: 200,
        content_type: b"application/json".to_vec(),
        content_encoding: Vec::new(),
        session_id: Vec::new(),
        others: Vec::new(),
        origin: Origin::Upstream,
        last: false,
    };
    // The admission's events share a place; this moves on from it.
    let _ = step(
        &mut world.worker,
        Event::CallFailed {
            id: CallId::FIRST,
            why: portcullis_core::driver::call::CallFailure::Refused,
        },
        true,
    );
    let _ = step(&mut world.worker, Event::ResponseHead(head), false);
    let bytes = world.answer.clone();
    let _ = step(&mut world.worker, Event::ResponseBody { bytes, last: true }, true);
    let closing = Closing {
        http_status: Some(200),
        latency_ms: 3,
        upstream_ms: Some(2),
        attempts: Some(1),
        end: End::Complete,
    };
    let done = step(&mut world.worker, Event::Closed(closing), false);
    assert!(done.effects.iter().any(|effect| matches!(effect, Effect::Audit(_))));
}

fn main() {
    if let Err(faults) = policy::compile(&document()) {
        panic!("{faults}");
    }
    for (case, name) in Case::ALL {
        println!("{name}");
        measure(&mut World::new(case));
    }
}

fn measure(world: &mut World) {
    let (rounds, each) = (40, 500);
    let mut best = [Duration::MAX; 5];
    for round in 0..rounds {
        let mut spent = [Duration::ZERO; 5];
        for nth in 0..each {
            world.request(round * each + nth, &mut spent);
        }
        for (best, spent) in best.iter_mut().zip(spent) {
            *best = (*best).min(spent);
        }
    }
    let micros = |spent: Duration| spent.as_secs_f64() * 1e6 / each as f64;
    for (step, spent) in STEPS.iter().zip(best) {
        println!("{step:>9} {:8.2} µs", micros(spent));
    }
    println!("{:>9} {:8.2} µs", "all", micros(best.iter().sum()));
}
