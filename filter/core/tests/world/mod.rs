//! The world of a scenario: one exchange, one worker, records and policies by name.
//!
//! Turns a line of text into an event and a step into lines of text. Secrets appear by name, hashes
//! not at all, so that a scenario reads like a story.

mod certificates;
mod document;
mod leases;
mod limits;
mod rules;
mod shown;
mod tokens;

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_core::audit::Chain;
use portcullis_core::auth::api_key::{KeyDigest, SECRET_LENGTH, mint};
use portcullis_core::auth::certificate::PeerCertificate;
use portcullis_core::auth::throttle::ThrottleConfig;
use portcullis_core::config::{Config, Mode};
use portcullis_core::driver::call::{CallFailure, CallId, DependencyCall, Reply};
use portcullis_core::driver::event::{Closing, End, Event, Head, Origin, ResponseHead};
use portcullis_core::driver::step::{Effect, Gate, RequestGate, ResponseGate, Step};
use portcullis_core::exchange::Exchange;
use portcullis_core::id::{KeyId, OrgId, PolicyVersion, RequestId};
use portcullis_core::json;
use portcullis_core::policy::{self, Activation, Canary};
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;
use portcullis_redis_lua::Value;
use serde_json::json;

use document::document;

/// 2026-11-20T22:00:00Z.
const START: u64 = 1_795_212_000;

pub(crate) struct World {
    worker: Worker,
    exchange: Exchange,
    now: UnixTime,
    requests: u32,
    calls: Vec<CallId>,
    /// The policies that are asked for.
    policies: BTreeMap<CallId, PolicyVersion>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            worker: Worker::new(crate::config::config(), Chain::new("c".into())),
            exchange: Exchange::default(),
            now: UnixTime::from_micros(START * 1_000_000),
            requests: 0,
            calls: vec![CallId::FIRST],
            policies: BTreeMap::new(),
        }
    }
}

/// The text of the key that the record `name` belongs to.
fn key(name: &str) -> String {
    let (org, id) = (OrgId::new("acme").unwrap(), KeyId::new(&format!("k{name}")).unwrap());
    let secret = name.chars().next().unwrap().to_string().repeat(SECRET_LENGTH);
    mint(&org, &id, &secret).unwrap().expose().to_owned()
}

/// A stored record: `<name>`, or `<name>-revoked`, `<name>-expired`, `<name>-unreadable`.
fn record(name: &str) -> Vec<u8> {
    let (name, state) = name.split_once('-').unwrap_or((name, ""));
    let mut record = json!({
        "id": format!("k{name}"), "org": "acme", "name": format!("{name} bot"), "role": name,
        "tier": "free", "created_at": 1, "created_by": "ops",
        "secrets": [{"sha256": KeyDigest::of(key(name).as_bytes()).to_hex()}]
    });
    match state {
        "" => {}
        "revoked" => record["revoked"] = json!({"at": 1, "by": "ops", "reason": "leak"}),
        "expired" => record["expires_at"] = json!(START),
        "unreadable" => record["cidrs"] = json!([]),
        other => panic!("no such state of a record: {other}"),
    }
    record.to_string().into_bytes()
}

fn version(name: &str) -> String {
    policy::version_of(&document(name)).unwrap().to_string()
}

/// Names in the place of secrets and hashes.
fn readable(text: &str) -> String {
    let mut text = text.to_owned();
    const NAMES: [&str; 17] = [
        "v1",
        "v2",
        "v3",
        "patient",
        "v4",
        "v5",
        "v6",
        "v7",
        "v8",
        "rules",
        "reader",
        "trial",
        "mirrored",
        "capped",
        "repeated",
        "exchanged",
        "queried",
    ];
    for name in NAMES {
        text = text.replace(&version(name), name);
    }
    for name in ["analyst", "stranger"] {
        text = text.replace(&key(name), &format!("<key of {name}>"));
    }
    text
}

/// `STATUS [client-gone|upstream-gone|thrice]`
fn closing(line: &str) -> Closing {
    let (status, gone) = line.split_once(' ').unwrap_or((line, ""));
    let end = match gone {
        "client-gone" => End::ClientGone,
        "upstream-gone" => End::UpstreamGone,
        _ => End::Complete,
    };
    let upstream_ms = (end == End::Complete).then_some(3);
    let attempts = if gone == "thrice" { Some(3) } else { upstream_ms.map(|_| 1) };
    Closing { http_status: status.parse().ok(), latency_ms: 5, upstream_ms, attempts, end }
}

/// `v1~v2`: `v1` is active, `v2` is tried on the analyst's key.
fn canary(names: &str) -> [Vec<u8>; 2] {
    let (active, tried) = names.split_once('~').unwrap();
    let (active, version) =
        [active, tried].map(version).map(|v| PolicyVersion::new(&v).unwrap()).into();
    let canary = Canary { version, percent: 0, callers: ["kanalyst".to_owned()].into() };
    let doc = json!({"canary": canary});
    [Activation::revision(&active, Some(&canary)).into_bytes(), doc.to_string().into_bytes()]
}

/// The same request on a connection with the certificate of `name`.
fn with_certificate(head: Head, name: &str) -> Head {
    let (subject, sha256) = (format!("CN={name}"), "5a".repeat(32));
    head.with_certificate(PeerCertificate::told(&[], &[], subject.as_bytes(), sha256.as_bytes()))
}

impl World {
    /// Carries out one line; says what came of it.
    pub(crate) fn event(&mut self, line: &str) -> Vec<String> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        if self.is_set(verb, rest) {
            return Vec::new();
        }
        if verb == "bytes" {
            let bytes = rest.parse().unwrap();
            let step = self.exchange.receive(&mut self.worker, self.now, bytes);
            return self.describe(step);
        }
        if verb == "recheck" {
            if self.exchange.recheck_due().is_none_or(|due| due > self.now) {
                return vec!["not due".into()];
            }
            let step = self.exchange.recheck(&mut self.worker, self.now);
            return self.describe(step);
        }
        let event = match verb {
            "keys" => {
                let (id, state) = rest.split_once(' ').unwrap();
                tokens::fetched(&mut self.worker, self.now, state);
                Event::CallDone { id: self.call(id), reply: Reply::Keys }
            }
            "head" | "head-only" => {
                Event::Head { head: self.head(rest), last: verb == "head-only" }
            }
            "body" => Event::Body(rest.as_bytes().to_vec()),
            "large-body" => Event::Body(format!("{rest:20000}").into_bytes()),
            "body-too-large" => Event::BodyTooLarge,
            "body-withheld" => Event::BodyWithheld,
            "redis" => self.redis(rest),
            "vault" => {
                let (id, value) = rest.split_once(' ').unwrap();
                let body = json!({"data": {"data": {"api_key": value}}}).to_string().into_bytes();
                Event::CallDone { id: self.call(id), reply: Reply::vault(body) }
            }
            "token" => {
                let [id, life, token] = rest.split(' ').collect::<Vec<_>>()[..] else {
                    panic!("no such answer: {rest}")
                };
                let life: serde_json::Value = life.parse().unwrap();
                let body =
                    json!({"access_token": token, "token_type": "Bearer", "expires_in": life});
                let reply = Reply::token(200, body.to_string().into_bytes());
                Event::CallDone { id: self.call(id), reply }
            }
            "fail" => {
                let (id, why) = rest.split_once(' ').unwrap();
                let why = match why {
                    "refused" => CallFailure::Refused,
                    "timed_out" => CallFailure::TimedOut,
                    "disconnected" => CallFailure::Disconnected,
                    status => CallFailure::Status(status.parse().unwrap()),
                };
                Event::CallFailed { id: self.call(id), why }
            }
            "response" | "proxy-response" | "filter-response" | "cut-response" => {
                let origin = match verb {
                    "response" => Origin::Upstream,
                    "cut-response" => Origin::Disconnected,
                    "filter-response" => Origin::Filter,
                    _ => Origin::Proxy,
                };
                let mut words = rest.split(' ');
                let status = words.next().unwrap().parse().unwrap();
                let content_type = words.next().unwrap_or_default();
                Event::ResponseHead(ResponseHead {
                    status,
                    content_type: content_type.into(),
                    content_encoding: Vec::new(),
                    session_id: words.next().unwrap_or_default().into(),
                    others: words.map(str::to_owned).collect(),
                    origin,
                    last: content_type.is_empty(),
                })
            }
            "chunk" | "last" => {
                let bytes = rest.replace("\\n", "\n").into_bytes();
                Event::ResponseBody { bytes, last: verb == "last" }
            }
            "closed" => Event::Closed(closing(rest)),
            other => panic!("no such event: {other}"),
        };
        let step = self.exchange.step(&mut self.worker, self.now, event);
        for effect in &step.effects {
            if let Effect::Start { id, call: DependencyCall::Policy(version) } = effect {
                self.policies.insert(*id, version.clone());
            }
        }
        self.describe(step)
    }

    /// Whether the line says what the world is like, and not what happens.
    fn is_set(&mut self, verb: &str, rest: &str) -> bool {
        match verb {
            "request" => {
                self.exchange = Exchange::default();
                self.calls = vec![CallId::FIRST];
                self.policies.clear();
            }
            "mode" => {
                self.worker.config.mode = if rest == "split" { Mode::Split } else { Mode::Hold };
            }
            "certificates" => {
                self.worker.config.auth.certificates = certificates::of_agents(rest);
            }
            "slowdown" => {
                let failures = rest.parse().unwrap();
                let config = ThrottleConfig { failures, ..ThrottleConfig::default() };
                self.worker.throttle.reconfigure(config);
            }
            "issuer" => {
                tokens::configure(&mut self.worker, rest);
            }
            "dependencies" => {
                let document = serde_json::from_str(rest).unwrap();
                let config = Config::parse(&document).unwrap();
                (self.worker.config.redis, self.worker.config.vault) = (config.redis, config.vault);
                self.worker.config.policy = config.policy;
                self.worker.config.authorization_servers = config.authorization_servers;
                self.worker.config.durable_audit = config.durable_audit;
                self.worker.config.open_after = config.open_after;
            }
            // A new plugin configuration, of which `audit` counts.
            "reconfigure" => {
                let document = serde_json::from_str(rest).unwrap();
                let open_after = Config::parse(&document).unwrap().open_after;
                self.worker.reconfigure(Config { open_after, ..self.worker.config.clone() });
            }
            "sharded" => {
                self.worker.config.redis.as_mut().unwrap().sharded = rest == "yes";
            }
            "hosts" => {
                self.worker.config.hosts = vec![rest.to_owned()];
            }
            // Vault made so many users for a key that is revoked then.
            "revoked-leases" => leases::revoke(&mut self.worker, self.now, rest.parse().unwrap()),
            // `PATH VALUE`.
            "guard" => {
                let (path, value) = rest.split_once(' ').unwrap();
                let document = json!({"redis": {"cluster": "redis"}, "guards": {path: value}});
                self.worker.config.guards = Config::parse(&document).unwrap().guards;
            }
            "after" => {
                self.now = self.now.after(Duration::from_millis(rest.parse().unwrap()));
            }
            _ => return false,
        }
        true
    }

    /// `METHOD PATH [key=NAME] [certificate=NAME] [cluster=NAME] [header=value …]`; the router selected that cluster.
    fn head(&mut self, line: &str) -> Head {
        self.requests += 1;
        let mut words = line.split(' ');
        let header = |name: &str, value: &str| (name.into(), value.as_bytes().to_vec());
        let mut headers: Vec<(Vec<u8>, Vec<u8>)> = vec![
            header(":method", words.next().unwrap()),
            header(":path", words.next().unwrap()),
            header("content-type", "application/json"),
        ];
        let (mut certificate, mut cluster) = (None, None);
        for word in words {
            let (name, value) = word.split_once('=').unwrap();
            match name {
                "certificate" => certificate = Some(value),
                "cluster" => cluster = Some(value.to_owned()),
                "key" => headers.push(header("x-api-key", &key(value))),
                "token" => headers.push(header("authorization", &tokens::bearer(value))),
                "content-type" => headers[2] = header(name, value),
                name => headers.push(header(name, value)),
            }
        }
        let request_id = RequestId::new(&format!("r-{}", self.requests)).unwrap();
        let head = Head::new(request_id, "192.0.2.7".into(), headers).with_cluster(cluster);
        match certificate {
            Some(name) => with_certificate(head, name),
            None => head,
        }
    }

    /// `#n moved RECORD POLICY`, `#n admitted`, `#n limited MICROS`, `#n limited MICROS INDEX STATE ..`,
    /// `#n drawn STATE ..`, `#n document V`, `#n nil`. A state is `remaining/reset_us`, with `!` if it
    /// raises the alert.
    fn redis(&mut self, line: &str) -> Event {
        let words: Vec<&str> = line.split(' ').collect();
        let bulk = |bytes: Vec<u8>| Value::Bulk(bytes);
        let value = match words[1..] {
            ["moved", record_state, policy_state, ref bound @ ..] => {
                let mut items = vec![Value::Int(0)];
                // A token has two: whether it was denied, and whether its subject was.
                for state in record_state.split(',') {
                    items.extend(match state.split_once('@') {
                        Some((rev, "denied")) => [bulk(rev.into()), bulk(tokens::denial())],
                        Some((rev, name)) => [bulk(rev.into()), bulk(record(name))],
                        None => [bulk(state.into()), Value::Nil],
                    });
                }
                items.extend(match policy_state.strip_prefix('+') {
                    Some(names) if names.contains('~') => canary(names).map(bulk),
                    Some(name) => [bulk(version(name).into()), bulk(b"{}".to_vec())],
                    None if policy_state == "-" => [bulk(b"-".to_vec()), Value::Nil],
                    None => [bulk(version(policy_state).into()), Value::Nil],
                });
                // `-` was never bound, `+name` is another holder's, a name is as expected.
                for holder in bound {
                    items.extend(match holder.strip_prefix('+') {
                        Some(other) => [bulk(other.into()), bulk(Vec::new())],
                        None => [bulk((*holder).into()), Value::Nil],
                    });
                }
                Value::Array(items)
            }
            ["admitted" | "drawn" | "limited", ..] => limits::reply(&words[1..]),
            ["document", name] => bulk(json::canonical_exact(&document(name)).into_bytes()),
            ["asked", state] => Value::Array(vec![Value::Int(1), bulk(state.into())]),
            ["known", state] => Value::Array(vec![Value::Int(0), bulk(state.into())]),
            ["bound"] => Value::Array(vec![Value::Int(1)]),
            ["taken", request] => {
                let document = serde_json::json!({ "request_id": request }).to_string();
                Value::Array(vec![Value::Int(1), bulk(document.into_bytes())])
            }
            ["foreign"] => Value::Array(vec![Value::Int(0)]),
            ["nil"] => Value::Nil,
            ["error"] => Value::Error("ERR broken".into()),
            _ => panic!("no such reply: {line}"),
        };
        let id = self.call(words[0]);
        let reply = match self.policies.remove(&id) {
            Some(version) => {
                let document = match &value {
                    Value::Bulk(bytes) => Some(bytes.as_slice()),
                    _ => None,
                };
                self.worker.policy_read(&version, document, self.now);
                Reply::Policy
            }
            None => Reply::Redis(value),
        };
        Event::CallDone { id, reply }
    }

    fn call(&self, name: &str) -> CallId {
        let number: usize = name.strip_prefix('#').unwrap().parse().unwrap();
        let mut id = CallId::FIRST;
        for _ in 0..number {
            id = id.next();
        }
        id
    }

    fn describe(&self, step: Step) -> Vec<String> {
        let told = step.effects.into_iter().filter(|effect| !matches!(effect, Effect::Measure(..)));
        let mut lines: Vec<_> = told.map(effect).collect();
        match step.gate {
            Gate::Hold => lines.push("hold".into()),
            Gate::Request(RequestGate::Pass) | Gate::Response(ResponseGate::Pass) => {
                lines.push("PASS".into());
            }
            Gate::Response(ResponseGate::Observe) => lines.push("observe".into()),
            Gate::Response(ResponseGate::Pause) => lines.push("pause".into()),
            Gate::Request(RequestGate::Refuse(denial))
            | Gate::Response(ResponseGate::Replace(denial)) => {
                let reply = self.exchange.reply(&denial);
                let shown =
                    ["retry-after", "www-authenticate", "allow", "access-control-allow-origin"];
                let headers: String = reply
                    .headers
                    .iter()
                    .filter(|(name, _)| shown.contains(name))
                    .map(|(name, value)| format!(" [{name}: {value}]"))
                    .collect();
                let body = String::from_utf8_lossy(&reply.body).into_owned();
                lines.push(format!("REFUSE {}{headers} {}", reply.status, readable(&body)));
            }
            Gate::Request(RequestGate::LocalReply(reply)) => {
                let body = String::from_utf8_lossy(&reply.body).into_owned();
                let cors = reply.headers.iter().filter(|(name, _)| name.starts_with("access-"));
                lines.extend(cors.map(|(name, value)| format!("{name}: {value}")));
                lines.push(format!("LOCAL REPLY {} {body}", reply.status).trim_end().to_owned());
            }
        }
        lines
    }
}

fn effect(effect: Effect) -> String {
    match effect {
        Effect::Start { id, call } => format!("start {id} {}", shown::call(call)),
        Effect::RemoveRequestHeader(name) => format!("request header {name}: removed"),
        Effect::SetRequestHeader { name, value } => {
            format!("request header {name}: {}", readable(value.expose()))
        }
        Effect::ReplaceRequestBody(body) => {
            let body = String::from_utf8_lossy(body.bytes());
            let message = body.trim_end_matches(' ');
            match body.len() - message.len() {
                0 => format!("request body becomes {message}"),
                blanks => format!("request body becomes {message} and {blanks} blanks"),
            }
        }
        Effect::SetResponseHeader { name, value } => format!("response header {name}: {value}"),
        Effect::RemoveResponseHeader(name) => format!("response header {name}: removed"),
        Effect::ReplaceResponseBody(bytes) if bytes.is_empty() => "body becomes nothing".to_owned(),
        Effect::ReplaceResponseBody(bytes) => {
            format!("body becomes {}", String::from_utf8_lossy(&bytes).replace('\n', "\\n"))
        }
        Effect::Measure(metric, value) => format!("{} +{value}", metric.name()),
        Effect::Audit(line) => {
            let mut entry: serde_json::Value = serde_json::from_str(&line).unwrap();
            let members = entry.as_object_mut().unwrap();
            for known in ["chain", "prev_hash", "hash", "input_sha256", "client_address"] {
                members.remove(known);
            }
            readable(&shown::entry(&entry))
        }
    }
}
