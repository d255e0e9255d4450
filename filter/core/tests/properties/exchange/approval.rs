//! Calls that need an approval, several at once, with a Redis that is honest, lies or fails.
//!
//! Owns a model of the approvals in Redis. The properties: no call passes without using an approval, no call uses an
//! approval of another call, and with an honest Redis a granted call passes once and its entry names the request that
//! asked.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_core::driver::call::{CallFailure, CallId, DependencyCall, Reply};
use portcullis_core::driver::event::{Closing, End, Event, Head};
use portcullis_core::driver::step::{Effect, Gate, RequestGate};
use portcullis_core::exchange::Exchange;
use portcullis_core::id::RequestId;
use portcullis_core::policy::version_of;
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;
use portcullis_redis_lua::{GRANTED, ScriptCall, Value};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::secrets::is_clean;
use crate::fixtures::{self, CANARY, HOLDERS, bulk};
use crate::{cases, resp};

const SLOTS: usize = 3;
/// A record that draws from no window.
const RECORD: &str = "0m";

fn document() -> serde_json::Value {
    json!({
        "version": 1, "organisations": ["acme"],
        "connectors": {"open": {"path": "/open/mcp", "tools": {"pay": {"approval": "required"}}}},
        "roles": {"analyst": {"open": {"allow": ["*"]}}, "support": {"open": {"allow": ["pay"]}}},
        "tiers": {"open": {"limits": {}}}
    })
}

/// A call; another caller or amount makes another call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Made {
    holder: usize,
    amount: u8,
}

#[derive(Clone, Debug)]
enum Op {
    /// The exchange ends, and a new one begins with this call.
    Begin(usize, Made),
    /// The oldest pending call gets the true answer.
    Honest(usize),
    FaultyReply(usize, Value),
    Fail(usize, CallFailure),
    /// An operator decides on one of the waiting calls.
    Decide(usize, &'static str),
    /// Redis's entry of one of them expires.
    Expire(usize),
}

#[derive(Default)]
struct Slot {
    exchange: Exchange,
    made: Option<Made>,
    out: Vec<(CallId, DependencyCall)>,
    /// Redis's answer to the last attempt to use the approval.
    taken: bool,
    /// The request that an honest Redis names for the approval that was used.
    asked_by: Option<String>,
    /// Redis lied to it, or failed for it.
    fooled: bool,
    /// The final gate: passed, or the status of the refusal.
    verdict: Option<Result<(), u16>>,
}

struct Model {
    worker: Worker,
    now: UnixTime,
    slots: [Slot; SLOTS],
    version: String,
    /// By the key in Redis: `pending`, `granted` or `denied`.
    approvals: BTreeMap<String, &'static str>,
    /// The document of each.
    documents: BTreeMap<String, Vec<u8>>,
    /// How many honest exchanges passed, and how often an operator granted, by key.
    passed: BTreeMap<String, usize>,
    granted: BTreeMap<String, usize>,
    requests: u32,
}

impl Model {
    fn new() -> Self {
        Self {
            worker: fixtures::worker(Duration::ZERO),
            now: UnixTime::from_micros(fixtures::START * 1_000_000),
            slots: Default::default(),
            version: version_of(&document()).unwrap().to_string(),
            approvals: BTreeMap::new(),
            documents: BTreeMap::new(),
            passed: BTreeMap::new(),
            granted: BTreeMap::new(),
            requests: 0,
        }
    }

    fn run(&mut self, op: Op) {
        self.now = self.now.after(Duration::from_millis(1));
        match op {
            Op::Begin(slot, made) => self.begin(slot, made),
            Op::Honest(slot) => self.honest(slot),
            Op::FaultyReply(slot, value) => self.fool(slot, |id| {
                let taken = matches!(&value, Value::Array(items)
                    if matches!(items.as_slice(), [Value::Int(1), Value::Bulk(_) | Value::Nil]));
                (Event::CallDone { id, reply: Reply::Redis(value) }, taken)
            }),
            Op::Fail(slot, why) => self.fool(slot, |id| (Event::CallFailed { id, why }, false)),
            Op::Decide(nth, redis_reply) => {
                let mut waiting = self.approvals.iter_mut().filter(|(_, it)| **it == "pending");
                if let Some((key, state)) = waiting.nth(nth) {
                    *state = redis_reply;
                    if redis_reply == GRANTED {
                        *self.granted.entry(key.clone()).or_default() += 1;
                    }
                }
            }
            Op::Expire(nth) => {
                if let Some(key) = self.approvals.keys().nth(nth).cloned() {
                    self.approvals.remove(&key);
                }
            }
        }
    }

    fn begin(&mut self, slot: usize, made: Made) {
        self.close(slot);
        self.slots[slot] = Slot { made: Some(made), ..Slot::default() };
        self.requests += 1;
        let id = RequestId::new(&format!("r-{}", self.requests)).unwrap();
        let headers = [
            (":method", "POST"),
            (":path", "/open/mcp"),
            ("content-type", "application/json"),
            ("x-api-key", fixtures::key(HOLDERS[made.holder])),
        ];
        let headers = headers.map(|(name, value)| (name.into(), value.into())).to_vec();
        let head = Head::new(id, "192.0.2.7".into(), headers);
        self.step(slot, Event::Head { head, last: false });
        let body = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "pay", "arguments": {"amount": made.amount, "token": CANARY}}
        });
        self.step(slot, Event::Body(body.to_string().into_bytes()));
    }

    fn close(&mut self, slot: usize) {
        if self.slots[slot].made.is_some() {
            let closing = Closing {
                http_status: Some(200),
                latency_ms: 5,
                upstream_ms: None,
                end: End::Complete,
                attempts: None,
            };
            self.step(slot, Event::Closed(closing));
        }
    }

    fn fool(&mut self, slot: usize, answer: impl FnOnce(CallId) -> (Event, bool)) {
        // An unreadable policy has no holder for a while; another property tests that.
        if matches!(self.slots[slot].out.first(), None | Some((_, DependencyCall::Policy(_)))) {
            return;
        }
        let (id, call) = self.slots[slot].out.remove(0);
        let (event, taken) = answer(id);
        self.slots[slot].fooled = true;
        self.slots[slot].taken |= taken && is_take(&call);
        self.step(slot, event);
    }

    fn honest(&mut self, slot: usize) {
        if self.slots[slot].out.is_empty() {
            return;
        }
        let (id, call) = self.slots[slot].out.remove(0);
        let value = match &call {
            DependencyCall::Admit(script) => {
                self.admit(script, HOLDERS[self.slots[slot].made.unwrap().holder])
            }
            DependencyCall::Policy(version) => {
                assert_eq!(version.as_str(), self.version);
                let document = document().to_string();
                self.worker.policy_read(version, Some(document.as_bytes()), self.now);
                self.step(slot, Event::CallDone { id, reply: Reply::Policy });
                return;
            }
            DependencyCall::Approval(script) => {
                let key = script.keys[0].as_str().to_owned();
                if is_take(&call) {
                    if self.approvals.get(&key) == Some(&GRANTED) {
                        self.approvals.remove(&key);
                        let document = self.documents[&key].clone();
                        *self.passed.entry(key).or_default() += 1;
                        let waiting: serde_json::Value = serde_json::from_slice(&document).unwrap();
                        let it = &mut self.slots[slot];
                        it.taken = true;
                        it.asked_by = Some(waiting["request_id"].as_str().unwrap().to_owned());
                        Value::Array(vec![Value::Int(1), Value::Bulk(document)])
                    } else {
                        Value::Array(vec![Value::Int(0)])
                    }
                } else {
                    let new = !self.approvals.contains_key(&key);
                    if new {
                        self.documents.insert(key.clone(), script.args[1].clone());
                    }
                    let state = *self.approvals.entry(key).or_insert("pending");
                    Value::Array(vec![Value::Int(new.into()), bulk(state)])
                }
            }
            other => panic!("nothing here needs {other:?}"),
        };
        self.step(slot, Event::CallDone { id, reply: Reply::Redis(value) });
    }

    /// The answer of `admit.lua`.
    fn admit(&self, script: &ScriptCall, holder: &str) -> Value {
        let redis_reply = |at: usize| String::from_utf8_lossy(&script.args[at]).into_owned();
        let guards: usize = redis_reply(0).split(',').next().unwrap().parse().unwrap();
        let now = |at: usize| match at {
            0 => Some((RECORD.to_owned(), fixtures::record(holder, RECORD).to_string())),
            1 => Some((self.version.clone(), "{}".to_owned())),
            _ => {
                let state = self.approvals.get(script.keys[at].as_str())?;
                Some(((*state).to_owned(), "{}".to_owned()))
            }
        };
        let found: Vec<_> = (0..guards).map(now).collect();
        let rev = |at: usize| found[at].as_ref().map_or("-", |(rev, _)| rev).to_owned();
        if (0..guards).all(|at| rev(at) == redis_reply(at + 1)) {
            return Value::Array(vec![Value::Int(1)]);
        }
        let mut items = vec![Value::Int(0)];
        for (at, found) in found.iter().enumerate() {
            items.push(bulk(&rev(at)));
            items.push(match found {
                Some((rev, doc)) if *rev != redis_reply(at + 1) => bulk(doc),
                Some(_) | None => Value::Nil,
            });
        }
        Value::Array(items)
    }

    fn step(&mut self, slot: usize, event: Event) {
        let it = &mut self.slots[slot];
        let closing = matches!(event, Event::Closed(_));
        let step = it.exchange.step(&mut self.worker, self.now, event);
        let told = format!("{step:?}");
        is_clean(&told);
        for effect in step.effects {
            if let Effect::Start { id, call } = effect {
                it.out.push((id, call));
            } else if let (Effect::Audit(line), false) = (effect, it.fooled) {
                let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
                let events = entry["events"].as_array().into_iter().flatten();
                let used = events.filter(|event| event["event"] == "approval_used");
                let named: Vec<_> = used.map(|event| event["request_id"].as_str()).collect();
                let asked_by = it.asked_by.as_deref().map(Some);
                assert_eq!(named, Vec::from_iter(asked_by), "{line}");
            }
        }
        let verdict = match &step.gate {
            Gate::Hold => {
                let waits = closing || it.verdict.is_some() || !it.out.is_empty();
                assert!(waits || it.made.is_some(), "held, and nothing is outstanding");
                return;
            }
            Gate::Request(RequestGate::Pass) => {
                assert!(it.taken, "passed, and nothing was taken");
                Ok(())
            }
            Gate::Request(RequestGate::Refuse(denial)) => Err(it.exchange.reply(denial).status),
            gate => panic!("no gate of a request: {gate:?}"),
        };
        assert!(it.verdict.replace(verdict).is_none(), "{told}");
        if !it.fooled {
            let behind = !self.worker.surroundings().gone_back.is_empty();
            let expected = matches!(verdict, Ok(()) | Err(403)) || (behind && verdict == Err(503));
            assert!(expected, "{verdict:?}");
        }
    }

    /// Makes a call with an honest Redis.
    fn whole(&mut self, made: Made) -> Result<(), u16> {
        self.begin(0, made);
        while self.slots[0].verdict.is_none() {
            assert!(!self.slots[0].out.is_empty(), "held, and nothing is outstanding");
            self.honest(0);
        }
        self.slots[0].verdict.unwrap()
    }
}

fn is_take(call: &DependencyCall) -> bool {
    matches!(call, DependencyCall::Approval(script) if script.script.name == "use_approval")
}

fn op() -> impl Strategy<Value = Op> {
    let slot = || 0..SLOTS;
    let made = (0..2_usize, 0..2_u8).prop_map(|(holder, amount)| Made { holder, amount });
    let yes = Just(Value::Array(vec![Value::Int(1)]));
    let granted = Just(Value::Array(vec![Value::Int(0), bulk(GRANTED)]));
    let documents = ["{}", "", "{\"request_id\":\"r-9\"}", "{\"request_id\":\"no id\"}"];
    let taken = select(documents.map(bulk).to_vec());
    let taken = taken.prop_map(|document| Value::Array(vec![Value::Int(1), document]));
    let faulty_reply = prop_oneof![2 => yes, 2 => taken, 1 => granted, 3 => resp::reply()];
    let why = select(vec![CallFailure::TimedOut, CallFailure::Disconnected, CallFailure::Refused]);
    let redis_reply = prop_oneof![4 => Just(GRANTED), 1 => Just("denied")];
    prop_oneof![
        6 => (slot(), made).prop_map(|(slot, made)| Op::Begin(slot, made)),
        20 => slot().prop_map(Op::Honest),
        2 => (slot(), faulty_reply).prop_map(|(slot, value)| Op::FaultyReply(slot, value)),
        1 => (slot(), why).prop_map(|(slot, why)| Op::Fail(slot, why)),
        5 => (0..3_usize, redis_reply).prop_map(|(nth, redis_reply)| Op::Decide(nth, redis_reply)),
        1 => (0..3_usize).prop_map(Op::Expire),
    ]
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn what_a_person_agreed_to_passes_once_and_nothing_else_does(
        ops in vec(op(), 1..120),
        holder in 0..2_usize,
    ) {
        let mut model = Model::new();
        ops.into_iter().for_each(|op| model.run(op));
        for (key, passed) in &model.passed {
            let granted = model.granted.get(key).copied().unwrap_or(0);
            prop_assert!(*passed <= granted, "{key}: {passed} of {granted}");
        }
        // Independent of earlier answers: a new call has to wait, and passes once after it is granted.
        model.approvals.clear();
        let made = Made { holder, amount: 0 };
        let first = model.whole(made);
        if first == Err(503) {
            // An earlier answer named a later generation of Redis: the honest one is a restored copy, and is refused.
            prop_assert!(!model.worker.surroundings().gone_back.is_empty());
            return Ok(());
        }
        prop_assert_eq!(first, Err(403));
        model.run(Op::Decide(0, GRANTED));
        let other = Made { amount: 1, ..made };
        prop_assert_eq!(model.whole(other), Err(403), "it is not for another amount");
        prop_assert_eq!(model.whole(made), Ok(()));
        prop_assert_eq!(model.whole(made), Err(403), "it was taken");
    }
}
