//! The cost of a warm `tools/call` in the core: its number of allocations, and how much of what it gives back is wiped.
//!
//! Owns the counts, which are the same on every machine, so that a small increase is visible where no clock would show
//! it. `cargo xtask bench` measures times.
#![allow(unsafe_code, reason = "an allocator that counts")]

#[expect(dead_code, reason = "the tests of tokens make other ones, too")]
#[path = "tokens/mint.rs"]
mod mint;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

use portcullis_core::audit::Chain;
use portcullis_core::auth::api_key::{KeyDigest, SECRET_LENGTH, mint as mint_key};
use portcullis_core::config::Config;
use portcullis_core::driver::call::{CallId, DependencyCall, Reply};
use portcullis_core::driver::event::{Closing, Event, Head, Origin, ResponseHead};
use portcullis_core::driver::step::{Effect, Gate, RequestGate, ResponseGate, Step};
use portcullis_core::exchange::Exchange;
use portcullis_core::id::{KeyId, OrgId, PolicyVersion, RequestId};
use portcullis_core::json;
use portcullis_core::policy::version_of;
use portcullis_core::secret::wipes;
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;
use portcullis_redis_lua::Value;
use serde_json::json;

/// How often this thread allocated and reallocated, and what the module's allocator wipes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Allocations {
    allocations: u32,
    reallocations: u32,
    wiped: u32,
    wiped_bytes: usize,
}

thread_local! {
    static ASKED: Cell<Allocations> = const {
        Cell::new(Allocations { allocations: 0, reallocations: 0, wiped: 0, wiped_bytes: 0 })
    };
    /// Whether the allocator wipes, as the module's does, or counts only.
    static WIPES: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn note(more: impl FnOnce(&mut Allocations)) {
    // A thread that ends has no count any more.
    let _ = ASKED.try_with(|cell| {
        let mut asked = cell.get();
        more(&mut asked);
        cell.set(asked);
    });
}

fn note_wiped(layout: Layout) {
    note(|asked| {
        asked.wiped += 1;
        asked.wiped_bytes += layout.size();
    });
}

// SAFETY: all calls go to the system's allocator; a number of this thread is counted in addition, without memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(|asked| asked.allocations += 1);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if wipes() {
            note_wiped(layout);
            if WIPES.try_with(Cell::get).unwrap_or(false) {
                // SAFETY: the caller gives it back.
                unsafe { block.write_bytes(0, layout.size()) };
                black_box(block);
            }
        }
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(|asked| asked.reallocations += 1);
        // The module's moves to another block, but within a class of sizes, and wipes the one before.
        if wipes() {
            note_wiped(layout);
        }
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(block, layout, size) }
    }
}

const ANSWER: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":""#,
    r#"[{\"id\":4711,\"name\":\"Ada Lovelace\",\"city\":\"London\",\"since\":\"1835-06-01\"},"#,
    r#"{\"id\":4712,\"name\":\"Grace Hopper\",\"city\":\"Arlington\",\"since\":\"1944-07-02\"}]"#,
    r#""}],"isError":false}}"#
);

/// The policy of `cargo xtask bench`.
fn policy(windows: bool) -> serde_json::Value {
    let window = |per: &[&str]| json!({"limit": 100_000, "window": "1s", "per": per});
    let mut policy = json!({
        "version": 1, "organisations": ["acme"], "connectors": {"demo": {"path": "/demo/mcp"}},
        "roles": {"analyst": {"demo": {"allow": ["search_contacts", "query_users"]}}},
        "tiers": {"pro": {"limits": {}}},
    });
    if windows {
        policy["tiers"]["pro"]["limits"] = json!({"calls": {"limit": 100_000, "window": "1s"}});
        policy["limits"] = json!({"all": window(&["org"]), "each_tool": window(&["key", "tool"])});
    }
    policy
}

/// One worker, and the client's credential.
struct Caller {
    worker: Worker,
    authorization: String,
    version: PolicyVersion,
    replies: VecDeque<(CallId, Reply)>,
    calls: u32,
}

impl Caller {
    /// A caller with an access token; the policy and the issuer's keys are in the configuration.
    fn with_token() -> Self {
        let issuer = mint::inline(json!({"audiences": [mint::RESOURCE]}));
        let document = json!({
            "auth": {"external_url": "https://mcp.example", "issuers": [issuer]},
            "policy": policy(false),
        });
        let worker = Worker::new(Config::parse(&document).unwrap(), Chain::new("c".into()));
        let authorization = format!("Bearer {}", mint::token(&mint::claims()));
        let version = version_of(&policy(true)).unwrap();
        Self { worker, authorization, version, replies: VecDeque::new(), calls: 0 }
    }

    /// A caller with an API key; its record, the policy and three windows are in Redis.
    fn with_key() -> Self {
        Self::under(&policy(true))
    }

    /// The same, of a connector with a credential of Vault, which is in memory; `echo` is what is said of its echoes.
    fn with_credential(echo: &str) -> Self {
        let mut policy = policy(true);
        policy["connectors"]["demo"]["credential"] = json!({
            "secret": "vault://secret/crm#token", "header": "authorization", "template": "Bearer {secret}",
            "echo": echo,
        });
        Self::under(&policy)
    }

    fn under(policy: &serde_json::Value) -> Self {
        let config = json!({"redis": {"cluster": "redis"}, "vault": {"cluster": "vault"}});
        let mut worker = Worker::new(Config::parse(&config).unwrap(), Chain::new("c".into()));
        let (document, version) = (json::canonical_exact(policy), version_of(policy).unwrap());
        worker.policy_read(&version, Some(document.as_bytes()), now());
        let authorization = format!("Bearer {}", key());
        Self { worker, authorization, version, replies: VecDeque::new(), calls: 0 }
    }

    /// One call that passes and gets a result.
    fn call(&mut self) {
        self.calls += 1;
        let mut exchange = Exchange::default();
        let step = self.step(&mut exchange, Event::Head { head: self.head(), last: false });
        assert!(matches!(step.gate, Gate::Hold), "{step:?}");
        let mut step = self.step(&mut exchange, Event::Body(self.body()));
        loop {
            let started = step.effects.iter().filter_map(started);
            self.replies.extend(started.map(|(id, call)| (id, reply(call, &self.version))));
            let Some((id, reply)) = self.replies.pop_front() else { break };
            step = self.step(&mut exchange, Event::CallDone { id, reply });
        }
        assert!(matches!(step.gate, Gate::Request(RequestGate::Pass)), "{step:?}");
        let step = self.step(&mut exchange, Event::ResponseHead(response()));
        assert!(matches!(step.gate, Gate::Response(ResponseGate::Observe)), "{step:?}");
        for (bytes, last) in [(ANSWER, false), ("", true)] {
            let event = Event::ResponseBody { bytes: bytes.into(), last };
            let step = self.step(&mut exchange, event);
            assert!(matches!(step.gate, Gate::Response(ResponseGate::Observe)), "{step:?}");
        }
        let closing = Closing { http_status: Some(200), ..Closing::default() };
        let step = self.step(&mut exchange, Event::Closed(closing));
        assert!(step.effects.iter().any(|effect| matches!(effect, Effect::Audit(_))));
    }

    fn step(&mut self, exchange: &mut Exchange, event: Event) -> Step {
        exchange.step(&mut self.worker, now(), event)
    }

    fn head(&self) -> Head {
        let headers = [
            (":authority", "localhost"),
            (":path", "/demo/mcp"),
            (":method", "POST"),
            (":scheme", "http"),
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("mcp-protocol-version", "2025-11-25"),
            ("user-agent", "portcullis-bench/1"),
            ("authorization", &self.authorization),
            ("content-length", "195"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-request-id", "3f1c7e0a-58d4-4a3e-9a3e-0123456789ab"),
        ];
        let headers: portcullis_core::driver::event::Headers = headers.into_iter().collect();
        let id = RequestId::numbered(7, self.calls);
        Head::new(id, "127.0.0.1".into(), headers).with_cluster(Some("demo".into()))
    }

    fn body(&self) -> Vec<u8> {
        let arguments = format!(
            r#"{{"query":"customer {:010}","fields":["name","city","since"],"limit":25,"include_archived":false}}"#,
            self.calls
        );
        let params = format!(r#"{{"name":"search_contacts","arguments":{arguments}}}"#);
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#).into()
    }

    /// The allocations of one more call, once the caches are warm, including those for the driver's own parts.
    fn warm(&mut self) -> Allocations {
        for _ in 0..64 {
            self.call();
        }
        let before = ASKED.get();
        self.call();
        let after = ASKED.get();
        Allocations {
            allocations: after.allocations - before.allocations,
            reallocations: after.reallocations - before.reallocations,
            wiped: after.wiped - before.wiped,
            wiped_bytes: after.wiped_bytes - before.wiped_bytes,
        }
    }
}

fn now() -> UnixTime {
    mint::at(mint::START)
}

fn key() -> String {
    let (org, id) = (OrgId::new("acme").unwrap(), KeyId::new("k1a2b3c4").unwrap());
    mint_key(&org, &id, &"s".repeat(SECRET_LENGTH)).unwrap().expose().to_owned()
}

fn started(effect: &Effect) -> Option<(CallId, &DependencyCall)> {
    match effect {
        Effect::Start { id, call } => Some((*id, call)),
        _ => None,
    }
}

/// Redis knows the key and the policy, and has room in every window; Vault has a token.
fn reply(call: &DependencyCall, version: &PolicyVersion) -> Reply {
    let call = match call {
        DependencyCall::Admit(call) => call,
        DependencyCall::Credential(..) => {
            let secret =
                json!({"data": {"data": {"token": "live-credential-of-the-connector-0123456789"}}});
            return Reply::vault(secret.to_string().into_bytes());
        }
        other => panic!("{other:?}"),
    };
    let bulk = |text: String| Value::Bulk(text.into_bytes());
    if call.args.iter().any(|argument| argument == b"?") {
        let record = json!({
            "id": "k1a2b3c4", "org": "acme", "name": "bench", "role": "analyst", "tier": "pro",
            "created_at": 1, "created_by": "ops",
            "secrets": [{"sha256": KeyDigest::of(key().as_bytes()).to_hex()}],
        });
        let record = [bulk("1".into()), bulk(record.to_string())];
        let policy = [bulk(version.to_string()), bulk("{}".into())];
        let moved = [vec![Value::Int(0)], record.into(), policy.into()].concat();
        return Reply::Redis(Value::Array(moved));
    }
    let windows = (0..3).flat_map(|_| [99_999, 1_000, 0]);
    Reply::Redis(Value::Array([1].into_iter().chain(windows).map(Value::Int).collect()))
}

fn response() -> ResponseHead {
    ResponseHead {
        status: 200,
        content_type: "application/json".into(),
        content_encoding: Vec::new(),
        session_id: Vec::new(),
        others: Vec::new(),
        origin: Origin::Upstream,
        last: false,
    }
}

#[test]
fn a_warm_call_with_a_token_asks_for_memory_no_more_often_than_this() {
    let asked = Caller::with_token().warm();
    assert!(asked.allocations <= 122 && asked.reallocations <= 12, "{asked:?}");
}

#[test]
fn a_warm_call_with_a_key_and_three_windows_asks_for_memory_no_more_often_than_this() {
    let asked = Caller::with_key().warm();
    assert!(asked.allocations <= 184 && asked.reallocations <= 9, "{asked:?}");
}

#[test]
fn a_warm_call_wipes_memory_where_echoes_are_masked_and_nowhere_else() {
    let wiped = |mut caller: Caller| {
        let asked = caller.warm();
        (asked.wiped, asked.wiped_bytes)
    };
    assert_eq!(wiped(Caller::with_token()), (0, 0));
    assert_eq!(wiped(Caller::with_key()), (0, 0));
    assert_eq!(wiped(Caller::with_credential("pass")), (0, 0));
    assert_eq!(wiped(Caller::with_credential("mask")), (18, 1_652));
}

#[test]
#[ignore = "measures time, with --release: for docs/explanation/audit-chain.md"]
fn what_wiping_costs() {
    const CALLS: u32 = 20_000;
    for echo in ["pass", "mask"] {
        let mut caller = Caller::with_credential(echo);
        let mut nanoseconds = |wipes: bool| {
            WIPES.set(wipes);
            let started = Instant::now();
            (0..CALLS).for_each(|_| caller.call());
            started.elapsed().as_nanos() / u128::from(CALLS)
        };
        nanoseconds(true);
        let mut rounds: Vec<_> = (0..9).map(|_| [nanoseconds(false), nanoseconds(true)]).collect();
        WIPES.set(false);
        let signed = |nanoseconds: u128| i64::try_from(nanoseconds).unwrap();
        rounds.sort_by_key(|[without, with]| signed(*with) - signed(*without));
        println!("echo: {echo}: ns a call without and with, by their difference: {rounds:?}");
    }
}
