//! The driver: operations to events, for several exchanges on one worker.
//!
//! Owns the messages with marked secrets, and the answers of Redis and Vault, honest or not.

use std::time::Duration;

use portcullis_core::driver::call::Reply;
use portcullis_core::driver::event::{Closing, End, Event, Head, ResponseHead};
use portcullis_core::id::{PolicyVersion, RequestId};
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;
use portcullis_redis_lua::Value;
use serde_json::json;

use super::history::History;
use super::op::{Admission, Ask, BodyOp, FaultyReply, HeadOp, Op, Turn, Which};
use super::watch::{Kind, Watch};
use crate::fixtures::{self, CANARY, HOLDERS, Truth};

/// More calls than an exchange ever starts.
const FAR: usize = 1_000;
/// The length of a body that is parsed only for a verified caller.
const LARGE: usize = (16 << 10) + 1;

pub(super) struct Bench {
    worker: Worker,
    now: UnixTime,
    truth: Truth,
    history: History,
    slots: [Watch; 3],
    requests: u32,
}

/// A request body: its arguments carry secrets by built-in and by policy names.
pub(super) fn message(ask: &Ask, modern: bool) -> Vec<u8> {
    let mut message = match ask {
        Ask::Call(tool) => json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": tool, "arguments": {
                "limit": 3, "Api-Key": CANARY, "who": [{"ssn": CANARY}], "half": 0.5
            }}
        }),
        Ask::List => json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}),
        Ask::Ping => json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}),
        Ask::Other(bytes) => return bytes.0.clone(),
    };
    if modern {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        message["params"]["_meta"] = meta;
    }
    message.to_string().into_bytes()
}

/// Vault's answer to the read of a field.
pub(super) fn vault(value: &str) -> Vec<u8> {
    json!({"data": {"data": {"api_key": value}}}).to_string().into_bytes()
}

impl Bench {
    pub(super) fn new(cache: Duration) -> Self {
        let good = || Some("0g".to_owned());
        Self {
            worker: fixtures::worker(cache),
            now: UnixTime::from_micros(fixtures::START * 1_000_000),
            truth: Truth { records: [good(), good(), None], policy: Some("v1") },
            history: History::default(),
            slots: Default::default(),
            requests: 0,
        }
    }

    pub(super) fn run(&mut self, turn: Turn) {
        self.now = self.now.after(Duration::from_millis(turn.millis));
        let slot = turn.slot;
        match turn.op {
            Op::Request(head, body, honest) => {
                let whole = head.last;
                self.fresh(slot);
                self.head(slot, head);
                if !whole {
                    self.body(slot, body);
                }
                (0..honest).for_each(|_| self.honest(slot));
            }
            Op::Fresh => self.fresh(slot),
            Op::Move { holder, record, policy } => {
                self.truth.records[holder] = record;
                self.truth.policy = policy;
            }
            Op::Head(op) => self.head(slot, op),
            Op::Body(op) => self.body(slot, op),
            Op::BodyTooLarge => self.step(slot, Event::BodyTooLarge),
            Op::Honest(many) => (0..many).for_each(|_| self.honest(slot)),
            Op::Answer(which, faulty_reply) => {
                if let Some(at) = self.call(slot, &which) {
                    let reply = self.faulty_reply(slot, at, faulty_reply);
                    self.answer(slot, at, reply);
                }
            }
            Op::Fail(which, why) => {
                if let Some(at) = self.call(slot, &which) {
                    let id = self.slots[slot].id(at);
                    self.step(slot, Event::CallFailed { id, why });
                }
            }
            Op::ResponseHead { status, media, coding, origin, last } => {
                let (content_type, content_encoding) = (media.into(), coding.into());
                let session_id = Vec::new();
                let head = ResponseHead {
                    status,
                    content_type,
                    content_encoding,
                    session_id,
                    others: Vec::new(),
                    origin,
                    last,
                };
                self.step(slot, Event::ResponseHead(head));
            }
            Op::Chunk { bytes, last } => self.step(slot, Event::ResponseBody { bytes, last }),
            Op::Close(end) => self.close(slot, end),
        }
    }

    pub(super) fn has_passed(&self, slot: usize) -> bool {
        self.slots[slot].passed
    }

    /// Ends every exchange.
    pub(super) fn end(&mut self) {
        (0..self.slots.len()).for_each(|slot| self.close(slot, End::Complete));
    }

    fn fresh(&mut self, slot: usize) {
        self.close(slot, End::Complete);
        self.slots[slot] = Watch::default();
    }

    fn close(&mut self, slot: usize, end: End) {
        let closing = Closing {
            http_status: Some(200),
            latency_ms: 5,
            upstream_ms: None,
            attempts: None,
            end,
        };
        self.step(slot, Event::Closed(closing));
    }

    fn step(&mut self, slot: usize, event: Event) {
        self.slots[slot].step(&mut self.worker, self.now, event, &mut self.history);
    }

    fn head(&mut self, slot: usize, op: HeadOp) {
        self.requests += 1;
        let request_id = RequestId::new(&format!("r-{}", self.requests)).unwrap();
        let mut headers: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut header = |name: &str, value: &str| headers.push((name.into(), value.into()));
        header(":method", op.method);
        header(":path", op.path);
        header("content-type", "application/json");
        if let Some(holder) = HOLDERS.get(op.holder) {
            header("x-api-key", fixtures::key(holder));
        }
        if let Some((name, value)) = op.further {
            header(name, value);
        }
        let mirrored = match &op.mirrors {
            Some(Ask::Call(tool)) => Some(("tools/call", Some(*tool))),
            Some(Ask::List) => Some(("tools/list", None)),
            Some(Ask::Ping) => Some(("ping", None)),
            Some(Ask::Other(_)) | None => None,
        };
        if let Some((method, tool)) = mirrored {
            header("mcp-protocol-version", "2026-07-28");
            header("mcp-method", method);
            tool.into_iter().for_each(|tool| header("mcp-name", tool));
        }
        let head = Head::new(request_id.clone(), "192.0.2.7".into(), headers);
        let last = op.last;
        self.slots[slot].heads(op, request_id);
        self.step(slot, Event::Head { head, last });
    }

    fn body(&mut self, slot: usize, BodyOp { ask, modern, large }: BodyOp) {
        let mut body = message(&ask, modern);
        if large {
            body.resize(body.len().max(LARGE), b' ');
        }
        self.slots[slot].asks(ask, modern);
        self.step(slot, Event::Body(body));
    }

    /// The index of the call that an answer is for.
    fn call(&self, slot: usize, which: &Which) -> Option<usize> {
        let calls = &self.slots[slot].calls;
        let pick = |answered: bool| -> Vec<usize> {
            (0..calls.len()).filter(|at| calls[*at].answered == answered).collect()
        };
        let nth = |of: Vec<usize>, number: usize| of.get(number.checked_rem(of.len())?).copied();
        match which {
            Which::Out(number) => nth(pick(false), *number),
            Which::Again(number) => nth(pick(true), *number),
            Which::Unknown => Some(FAR),
        }
    }

    fn answer(&mut self, slot: usize, at: usize, reply: Reply) {
        let id = self.slots[slot].id(at);
        let fresh = self.slots[slot].calls.get(at).is_some_and(|call| !call.answered);
        self.slots[slot].observe_reply(at, &reply, self.now, &mut self.history);
        let reply = if fresh { self.worker_gets(slot, at, reply) } else { reply };
        self.step(slot, Event::CallDone { id, reply });
    }

    /// A policy document reaches the worker before its waiters.
    fn worker_gets(&mut self, slot: usize, at: usize, reply: Reply) -> Reply {
        let call = self.slots[slot].calls.get_mut(at);
        let Some(Kind::Policy(version)) = call.map(|call| &call.kind) else { return reply };
        let version = PolicyVersion::new(version).unwrap();
        match reply {
            Reply::Redis(Value::Bulk(bytes)) => {
                self.worker.policy_read(&version, Some(&bytes), self.now);
                Reply::Policy
            }
            Reply::Redis(_) => {
                self.worker.policy_read(&version, None, self.now);
                Reply::Policy
            }
            reply => reply,
        }
    }

    /// Gives the oldest pending call the true answer.
    fn honest(&mut self, slot: usize) {
        let calls = &self.slots[slot].calls;
        let Some(at) = calls.iter().position(|call| !call.answered) else {
            return;
        };
        let reply = match &calls[at].kind {
            Kind::Admit { expected, windows } => {
                let [record, policy] = expected;
                let holder = self.slots[slot].holder().unwrap();
                Reply::Redis(self.truth.admit(holder, [record, policy], *windows))
            }
            Kind::Policy(version) => Reply::Redis(match fixtures::policy_of(version) {
                Some(policy) => fixtures::bulk(&fixtures::document(policy).to_string()),
                None => Value::Nil,
            }),
            Kind::Secret(place) => Reply::vault(vault(&format!("{place} {CANARY}"))),
        };
        self.answer(slot, at, reply);
    }

    fn faulty_reply(&self, slot: usize, at: usize, faulty_reply: FaultyReply) -> Reply {
        let watch = &self.slots[slot];
        let kind = watch.calls.get(at).map(|call| &call.kind);
        match (kind, faulty_reply.crossed) {
            (Some(Kind::Admit { expected: [record, policy], windows }), false) => {
                let holder = watch.holder().unwrap();
                let expected = [record.as_str(), policy.as_str()];
                Reply::Redis(admission(faulty_reply.admission, holder, expected, *windows))
            }
            (Some(Kind::Policy(_)), false) | (Some(Kind::Secret(_)), true) => {
                Reply::Redis(fixtures::bulk(&fixtures::document(faulty_reply.document).to_string()))
            }
            (Some(Kind::Policy(_)), true) => {
                Reply::Redis(admission(faulty_reply.admission, "analyst", ["?", "?"], 1))
            }
            (Some(Kind::Secret(_)), false) | (Some(Kind::Admit { .. }), true) | (None, _) => {
                Reply::vault(faulty_reply.vault)
            }
        }
    }
}

fn admission(faulty_reply: Admission, holder: &str, expected: [&str; 2], drawn: usize) -> Value {
    let states = |windows: Option<usize>| fixtures::states(windows.unwrap_or(drawn));
    match faulty_reply {
        Admission::Admitted { windows } => {
            Value::Array([vec![Value::Int(1)], states(windows)].concat())
        }
        Admission::Stale { record, policy } => {
            fixtures::moved(holder, expected, record.as_deref(), policy.map(fixtures::version))
        }
        Admission::Limited { micros, window, windows } => {
            let head = [2, micros, window].map(Value::Int).to_vec();
            Value::Array([head, states(windows)].concat())
        }
        Admission::Value(value) => value,
    }
}
