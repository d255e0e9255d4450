//! The properties of every step of an exchange.
//!
//! Owns an independent model: it derives from Redis's answers whether a request may pass, by looking up revisions
//! instead of parsing records. Never asks the core.

use portcullis_core::denial::Denial;
use portcullis_core::driver::call::{CallFailure, CallId, Dependency, DependencyCall, Reply};
use portcullis_core::driver::event::Event;
use portcullis_core::driver::step::{Effect, Gate, RequestGate, ResponseGate, Step};
use portcullis_core::exchange::Exchange;
use portcullis_core::id::RequestId;
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;
use portcullis_redis_lua::Value;

use super::history::History;
use super::op::{Ask, HeadOp};
use super::redis_reply::{RedisReply, understood};
use super::secrets::is_clean;
use crate::fixtures::{self, HOLDERS};

const HEALTH: &str = "/portcullis/health";
/// Input is capped at 256 bytes here; the rest of an entry is bounded text.
const LONGEST_LINE: usize = 4_096;
/// After this many failures in a row Vault is not asked for a while.
const FAILURES: usize = 3;

/// A call that was started.
pub(super) struct Started {
    id: CallId,
    pub(super) kind: Kind,
    pub(super) answered: bool,
}

pub(super) enum Kind {
    Admit { expected: [String; 2], windows: usize },
    Policy(String),
    Secret(String),
}

/// One exchange under observation.
pub(super) struct Watch {
    exchange: Exchange,
    pub(super) calls: Vec<Started>,
    head: Option<(HeadOp, RequestId)>,
    body: Option<(Ask, bool)>,
    /// The revisions on which the core judges, at its last verdict, and Redis's answer about them.
    belief: [String; 2],
    judged: UnixTime,
    redis_reply: RedisReply,
    verdicts: usize,
    pub(super) passed: bool,
    replaced: bool,
    /// Envoy answered instead of the gateway and the upstream.
    bypassed: bool,
    closed: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            exchange: Exchange::default(),
            calls: Vec::new(),
            head: None,
            body: None,
            belief: ["?".into(), "?".into()],
            judged: UnixTime::from_micros(0),
            redis_reply: RedisReply::None,
            verdicts: 0,
            passed: false,
            replaced: false,
            bypassed: false,
            closed: false,
        }
    }
}

/// The direction of a step, where the rules differ.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Request,
    Response,
    End,
}

impl Watch {
    pub(super) fn heads(&mut self, head: HeadOp, request_id: RequestId) {
        // Only the first one counts, and only before any decision.
        if self.head.is_none() && !self.bypassed && self.verdicts == 0 && !self.closed {
            self.head = Some((head, request_id));
        }
    }

    pub(super) fn asks(&mut self, ask: Ask, modern: bool) {
        let waits = self.head.as_ref().is_some_and(|(head, _)| !head.last);
        if waits && self.body.is_none() {
            self.body = Some((ask, modern));
        }
    }

    pub(super) fn holder(&self) -> Option<&'static str> {
        HOLDERS.get(self.head.as_ref()?.0.holder).copied()
    }

    /// The id of the call at an index, also of one that was never started.
    pub(super) fn id(&self, at: usize) -> CallId {
        (0..at).fold(CallId::FIRST, |id, _| id.next())
    }

    /// Records a reply before the core gets it.
    pub(super) fn observe_reply(
        &mut self,
        at: usize,
        reply: &Reply,
        now: UnixTime,
        history: &mut History,
    ) {
        let newest = self.calls.iter().rposition(|call| matches!(call.kind, Kind::Admit { .. }));
        let Some(call) = self.calls.get(at).filter(|call| !call.answered) else {
            return;
        };
        match (&call.kind, reply) {
            (Kind::Admit { windows, .. }, Reply::Redis(value)) if newest == Some(at) => {
                self.redis_reply = understood(value, &mut self.belief, *windows);
                // The request in an admission was judged when the call started.
                if self.redis_reply == RedisReply::Stale {
                    self.judged = now;
                }
            }
            (Kind::Policy(version), reply) => {
                self.judged = now;
                let versions = match reply {
                    Reply::Redis(Value::Bulk(bytes)) if fixtures::is_policy(bytes, version) => {
                        &mut history.read
                    }
                    _ => &mut history.spoilt,
                };
                versions.insert(version.clone());
            }
            (Kind::Secret(place), Reply::Vault { body }) => {
                let reply: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
                match reply.pointer("/data/data/api_key").and_then(|value| value.as_str()) {
                    Some(value) => {
                        history.credentials.insert((place.clone(), value.to_owned()));
                    }
                    None => history.failed_reads += 1,
                }
            }
            _ => {}
        }
    }

    pub(super) fn step(
        &mut self,
        worker: &mut Worker,
        now: UnixTime,
        event: Event,
        history: &mut History,
    ) {
        let side = match event {
            Event::ResponseHead(_) | Event::ResponseBody { .. } => Side::Response,
            Event::Closed(_) => Side::End,
            _ => Side::Request,
        };
        history.failed_reads += usize::from(self.fails_a_read(&event));
        let quiet = match &event {
            Event::CallDone { id, .. } | Event::CallFailed { id, .. } => !self.answered(*id),
            _ => false,
        };
        let step = self.exchange.step(worker, now, event);
        self.hides_secrets(&step);
        if quiet || self.closed {
            assert!(step.effects.is_empty(), "{step:?}");
            let passing =
                side == Side::Response && matches!(step.gate, Gate::Response(ResponseGate::Pass));
            assert!(passing || matches!(step.gate, Gate::Hold), "{step:?}");
        }
        self.note_calls(&step, now);
        match side {
            Side::Request => self.request(&step, history),
            Side::Response => self.response(&step),
            Side::End => self.end(step, history),
        }
    }

    /// Whether a pending read of a credential ends without one.
    fn fails_a_read(&self, event: &Event) -> bool {
        let Event::CallFailed { id, .. } = event else { return false };
        let mut out = self.calls.iter().filter(|call| !call.answered);
        out.any(|call| call.id == *id && matches!(call.kind, Kind::Secret(_)))
    }

    /// Marks a call as answered; returns whether it was pending.
    fn answered(&mut self, id: CallId) -> bool {
        let call = self.calls.iter_mut().find(|call| call.id == id);
        call.is_some_and(|call| !std::mem::replace(&mut call.answered, true))
    }

    fn note_calls(&mut self, step: &Step, now: UnixTime) {
        for effect in &step.effects {
            let Effect::Start { id, call } = effect else {
                continue;
            };
            assert!(self.calls.iter().all(|call| call.id != *id), "{id} twice");
            let kind = match call {
                DependencyCall::Admit(script) => {
                    let words = script.args.iter().map(|arg| String::from_utf8_lossy(arg).into());
                    let [_, record, policy, ..] = &words.collect::<Vec<String>>()[..] else {
                        panic!("{script:?}")
                    };
                    let expected = [record.clone(), policy.clone()];
                    (self.belief, self.judged, self.redis_reply) =
                        (expected.clone(), now, RedisReply::None);
                    let windows =
                        script.keys.iter().filter(|key| key.as_str().contains(":window:"));
                    Kind::Admit { expected, windows: windows.count() }
                }
                DependencyCall::Complete(_) => panic!("no call is durable"),
                DependencyCall::Charge(_) => panic!("nothing costs by the row"),
                DependencyCall::Observe(_) => panic!("nothing is asked for what is not verified"),
                DependencyCall::Bind(_) => panic!("nothing was opened"),
                DependencyCall::Keys(_) | DependencyCall::Token(..) => panic!("nobody has a token"),
                DependencyCall::Approval(_) => panic!("no policy here wants one"),
                DependencyCall::Policy(version) => Kind::Policy(version.to_string()),
                DependencyCall::Credential(reference, _) => Kind::Secret(reference.to_string()),
            };
            self.calls.push(Started { id: *id, kind, answered: false });
        }
    }

    fn request(&mut self, step: &Step, history: &History) {
        match &step.gate {
            Gate::Hold => {
                let whole = self.body.is_some() || self.head.as_ref().is_some_and(|(h, _)| h.last);
                let open = self.verdicts == 0 && !self.bypassed && !self.closed;
                let waiting = self.calls.iter().any(|call| !call.answered);
                assert!(!(whole && open) || waiting, "held, and nothing is outstanding");
                return;
            }
            Gate::Request(RequestGate::Pass) => {
                self.may_pass(step, history);
                self.passed = true;
            }
            Gate::Request(RequestGate::Refuse(denial)) => {
                self.refusal(&self.exchange.reply(denial));
                match denial {
                    // Earlier questions failed: Vault is not asked for a while.
                    Denial::Unavailable(Dependency::Vault, CallFailure::NotAsked) => {
                        assert!(history.failed_reads >= FAILURES, "only {}", history.failed_reads);
                    }
                    Denial::Unavailable(Dependency::Vault, _) => self.vault_failed(history),
                    _ => {}
                }
            }
            Gate::Request(RequestGate::LocalReply(reply)) => {
                assert_eq!(self.head.as_ref().unwrap().0.path, HEALTH);
                assert_eq!(reply.status, 200);
            }
            Gate::Response(_) => panic!("no gate of a request: {step:?}"),
        }
        self.verdicts += 1;
        assert_eq!(self.verdicts, 1, "{step:?}");
        assert!(!self.bypassed, "{step:?}");
    }

    /// The main property: verified, allowed, and confirmed by Redis in this exchange.
    fn may_pass(&self, step: &Step, history: &History) {
        let (head, _) = self.head.as_ref().unwrap();
        let path = head.path.split('?').next().unwrap();
        let tool = match (&self.body, head.last) {
            (Some((Ask::Call(tool), _)), false) => Some(*tool),
            (Some((Ask::List | Ask::Ping, _)), false) => None,
            (None, true) => {
                assert!(["GET", "DELETE"].contains(&head.method));
                None
            }
            (body, _) => panic!("passed with {body:?}"),
        };
        if let Some((ask, modern)) = &self.body {
            let mirrored = modern.then(|| ask.clone());
            assert_eq!(head.mirrors, mirrored, "headers and body disagree");
        }
        let [rev, version] = &self.belief;
        assert!(fixtures::proves(rev, self.judged), "{rev} does not prove the key");
        let holder = self.holder().unwrap();
        let deciding = history.deciding(version);
        let passes = deciding.iter().filter(|policy| {
            let due = fixtures::windows(policy, rev, tool);
            fixtures::allows(policy, holder, path, tool)
                && match self.redis_reply {
                    RedisReply::Admitted(drawn) => drawn == due,
                    RedisReply::Stale => due == 0,
                    RedisReply::None => false,
                }
        });
        let passes: Vec<_> = passes.collect();
        assert!(!passes.is_empty(), "{deciding:?} {holder} {path} {tool:?} {:?}", self.redis_reply);
        if let ([policy], [_]) = (passes.as_slice(), deciding.as_slice()) {
            self.as_the_gateways_own(step, path, policy, history);
        }
    }

    /// The request is forwarded without the client's credential, and with the connector's.
    fn as_the_gateways_own(&self, step: &Step, path: &str, policy: &str, history: &History) {
        // A header that is set replaces the client's.
        let removed = |header: &str| {
            let mut effects = step.effects.iter();
            effects.any(|e| {
                matches!(e, Effect::RemoveRequestHeader(name) | Effect::SetRequestHeader { name, .. }
                    if name == header)
            })
        };
        let further = self.head.as_ref().unwrap().0.further.map(|(name, _)| name);
        assert!(removed("x-api-key"), "{step:?}");
        for name in ["authorization", "x-portcullis-org"] {
            assert!(removed(name) || further != Some(name), "{name}: {step:?}");
        }
        let added: Vec<(&str, &str)> = step
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::SetRequestHeader { name, value } => Some((&**name, value.expose())),
                _ => None,
            })
            .collect();
        assert!(added.contains(&("x-portcullis-org", "acme")));
        let given = added.iter().find(|(name, _)| *name == "authorization");
        let field = fixtures::document(policy);
        let field = &field["connectors"]["demo"]["credential"]["secret"];
        match (path, given) {
            ("/demo/mcp", Some((_, value))) => {
                let value = value.strip_prefix("Bearer ").unwrap().to_owned();
                let read = (field.as_str().unwrap().to_owned(), value);
                assert!(history.credentials.contains(&read), "{read:?}");
            }
            (path, given) => assert!(path == "/open/mcp" && given.is_none(), "{path}"),
        }
    }

    /// Only the credential that this request needs may be missing, under a policy that may decide.
    fn vault_failed(&self, history: &History) {
        let needed = |policy: &&str| {
            let document = fixtures::document(policy);
            let secret = document["connectors"]["demo"]["credential"]["secret"].as_str();
            secret.unwrap().to_owned()
        };
        let deciding = history.deciding(&self.belief[1]);
        let needed: Vec<String> = deciding.iter().map(needed).collect();
        let mut asked = self.calls.iter().filter(|call| call.answered);
        assert!(
            asked.any(|call| matches!(&call.kind, Kind::Secret(place) if needed.contains(place))),
            "none of {needed:?} was asked for"
        );
    }

    /// Checks each form of a refusal: an error with a status, the same as an ordinary message, and a tool result.
    fn refusal(&self, reply: &portcullis_core::http::local_reply::LocalReply) {
        let body = String::from_utf8(reply.body.clone()).unwrap();
        is_clean(&body);
        let message: serde_json::Value = serde_json::from_str(&body).unwrap();
        let code = match message.get("error") {
            Some(error) => &error["code"],
            None => &message["result"]["_meta"]["portcullis/refusal"]["code"],
        };
        assert!(message["jsonrpc"] == "2.0" && code.is_i64(), "{body}");
        let has = |header: &str| reply.headers.iter().any(|(name, _)| *name == header);
        let later = match reply.status {
            200 => [-31_429, -31_503].contains(&code.as_i64().unwrap()),
            status => [429, 503].contains(&status),
        };
        assert_eq!(has("retry-after"), later, "{} {:?} {body}", reply.status, reply.headers);
        assert_eq!(has("www-authenticate"), reply.status == 401);
        assert!((200..=503).contains(&reply.status) && reply.status != 500);
    }

    fn response(&mut self, step: &Step) {
        match &step.gate {
            Gate::Response(ResponseGate::Pass) if !self.passed => self.bypassed = true,
            Gate::Hold | Gate::Response(ResponseGate::Pass | ResponseGate::Observe)
                if self.passed => {}
            Gate::Response(ResponseGate::Replace(denial)) => {
                assert!(self.passed && !self.replaced, "{step:?}");
                self.replaced = true;
                self.refusal(&self.exchange.reply(denial));
            }
            gate => panic!("no gate of a response here: {gate:?}"),
        }
    }

    fn end(&mut self, step: Step, history: &mut History) {
        let lines: Vec<_> = step
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Audit(line) => Some(line),
                Effect::Measure(..) => None,
                other => panic!("too late: {other:?}"),
            })
            .collect();
        assert!(matches!(step.gate, Gate::Hold));
        let due = match &self.head {
            Some((head, _)) => head.path != HEALTH,
            // A request that was refused before it was complete, here or by Envoy, also gets a reply.
            None => self.bypassed || self.verdicts > 0,
        };
        assert_eq!(lines.len(), usize::from(due && !self.closed), "{lines:?}");
        self.closed = true;
        for line in lines {
            is_clean(line);
            assert_eq!(history.audit.line(line), Ok(()), "{line}");
            assert!(line.len() <= LONGEST_LINE, "{} bytes: {line}", line.len());
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            let effect = entry["decision"]["effect"].as_str().unwrap();
            assert!(self.passed || effect == "deny", "{line}");
            assert!(!self.passed || self.replaced || effect == "allow", "{line}");
            if let Some((_, request_id)) = &self.head {
                assert_eq!(entry["request_id"], request_id.as_str());
            }
        }
    }

    /// No secret is visible in the debug output of the effects or of the worker's memory.
    fn hides_secrets(&self, step: &Step) {
        is_clean(&format!("{step:?}"));
        is_clean(&format!("{:?}", self.exchange));
    }
}
