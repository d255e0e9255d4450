//! One audit entry: what is known about a request by its end.
//!
//! Owns the field names, which people search for and script against. A field that is not known is
//! absent, never null.

use serde::Serialize;
use serde_json::{Map, Value};

use super::chain::Place;
use super::event::{self, AuditEvent};
use super::link::hash_text;
use super::redact::{Redaction, redact, shown_name, shown_text, start};
use crate::auth::{IdentityKind, Principal};
use crate::authz::Shadowed;
use crate::denial::{Denial, ceil_ms};
use crate::driver::event::Head;
use crate::http::query::pairs;
use crate::id::OrgId;
use crate::json::{self, Object};
use crate::mcp::{Message, Operation};

/// The fields of an entry, filled as they become known.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// RFC 3339, UTC: when the entry was written, which is the end of a request.
    pub timestamp: String,
    /// Equal to the header `x-portcullis-request-id`.
    pub request_id: String,
    /// From `traceparent`.
    pub trace_id: Option<String>,
    /// Of the proven credential.
    pub org_id: Option<String>,
    /// Of the proven key.
    pub api_key_id: Option<String>,
    /// Who acts for the subject of the token, the last one first (RFC 8693 §4.1).
    pub actors: Vec<String>,
    /// The agent that the token names, where its issuer names one.
    pub agent_id: Option<String>,
    /// Which of the secrets of the proven key it was, where the key has had several: [`StoredSecret::label`].
    ///
    /// [`StoredSecret::label`]: crate::auth::record::StoredSecret::label
    pub secret: Option<String>,
    /// The OAuth client that the token was issued to (RFC 9068 §2.2; `azp` of OpenID Connect).
    pub oauth_client_id: Option<String>,
    /// The subject of the proven token or certificate.
    pub client_id: Option<String>,
    /// The name the credential was issued under.
    pub principal: Option<String>,
    /// `api_key`, `jwt` or `mtls`.
    pub auth_method: Option<&'static str>,
    /// SHA-256 of the client certificate that was presented, in hex, when certificates count.
    pub certificate_sha256: Option<String>,
    /// The role that decided.
    pub role: Option<String>,
    /// The connector that the path names.
    pub connector: Option<String>,
    /// The HTTP method.
    pub http_method: String,
    /// The path, without query.
    pub path: String,
    /// The names of the query's parameters; the first ones.
    pub query: Vec<String>,
    /// The JSON-RPC method.
    pub mcp_method: Option<String>,
    /// The tool that was called.
    pub tool_name: Option<String>,
    /// The prompt that was used, or whose argument was completed.
    pub prompt_name: Option<String>,
    /// The resource that was read or subscribed to, or whose template was completed; without secrets.
    pub resource_uri: Option<String>,
    /// The resources that a stream was opened for; the first ones.
    pub resource_uris: Vec<String>,
    /// The task that was asked for.
    pub task_id: Option<String>,
    /// The tasks that a stream was opened for; the first ones.
    pub task_ids: Vec<String>,
    /// What was said to the tool, the prompt or the completion, redacted and capped: canonical JSON.
    pub input: Option<String>,
    /// SHA-256 of its canonical JSON as it came, numbers as they were written.
    pub input_sha256: Option<String>,
    /// `success`, `tool_error`, `error`, `denied`, `limited`, `unavailable` or `aborted`; [`OPEN`] of a response that is
    /// not over.
    pub status: &'static str,
    /// What the client got.
    pub http_status: Option<u16>,
    /// The JSON-RPC error code, of the gateway or of the upstream.
    pub error_code: Option<i64>,
    /// What the gateway decided, and by which rule.
    pub decision: Decision,
    /// From the first byte of the request to the last of the response.
    pub latency_ms: u64,
    /// The upstream's part of it.
    pub upstream_ms: Option<u64>,
    /// Rows in the result, when they can be counted.
    pub rows_returned: Option<u64>,
    /// The policy that decided.
    pub policy_version: Option<String>,
    /// What the call cost, when it was made.
    pub credits: Option<u64>,
    /// The dependencies that this was decided without.
    pub degraded: Vec<&'static str>,
    /// What else happened on the way; people alert on these by name.
    pub events: Vec<AuditEvent>,
    /// When the response began, of one that is not over: RFC 3339, UTC.
    pub started_at: Option<String>,
    /// The client's address, without port.
    pub client_address: String,
    /// The header, shortened.
    pub user_agent: Option<String>,
}

/// The gateway's verdict.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Decision {
    /// `allow`, `deny` or `shadow_deny`: let go, although a rule in shadow mode says no.
    pub effect: &'static str,
    /// The rule that was decisive.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rule: String,
}

/// The effect of what is let go although a rule in shadow mode says no.
const SHADOW_DENY: &str = "shadow_deny";

impl Decision {
    fn canonical(&self) -> String {
        let mut decision = Object::with_capacity(64);
        decision.text("effect", self.effect);
        decision.some_text("rule", Some(self.rule.as_str()).filter(|rule| !rule.is_empty()));
        decision.end()
    }
}

/// The status in the entry of a response that began and is not over.
pub(crate) const OPEN: &str = "open";

/// Most lines have room in so many bytes, with their hash.
const ROOM: usize = 2_048;
/// Free text from a client is cut here.
const LONGEST_TEXT: usize = 256;
/// Of a name in an intent, of which Redis has many, so many bytes stay.
const LONGEST_OF_INTENT: usize = 128;
/// Of a list of names, so many are written down.
const MOST_NAMED: usize = 16;

/// Who acts for the subject of a token with these claims: the chain of `act` (RFC 8693 §4.1), the last one first.
#[must_use]
pub fn actors(claims: &Map<String, Value>) -> Vec<String> {
    let mut chain = Vec::new();
    let mut act = claims.get("act");
    while let (Some(actor), true) = (act, chain.len() < MOST_NAMED) {
        let name = ["sub", "client_id"].iter().find_map(|name| actor.get(name)?.as_str());
        chain.extend(name.map(shown_text));
        act = actor.get("act");
    }
    chain
}

/// The OAuth client that a token with these claims was issued to.
#[must_use]
pub fn oauth_client(claims: &Map<String, Value>) -> Option<String> {
    let client = ["client_id", "azp"].iter().find_map(|name| claims.get(*name)?.as_str());
    client.map(shown_text)
}

impl Entry {
    /// Its canonical JSON (RFC 8785) in that place, without its hash. Members are written in the order of their names.
    pub(super) fn canonical(&self, place: Place<'_>) -> String {
        let mut line = Object::with_capacity(ROOM);
        line.texts("actors", &self.actors);
        line.some_text("agent_id", self.agent_id.as_deref());
        line.some_text("api_key_id", self.api_key_id.as_deref());
        line.some_text("auth_method", self.auth_method);
        line.some_text("certificate_sha256", self.certificate_sha256.as_deref());
        line.text("chain", place.chain);
        line.text("client_address", &self.client_address);
        line.some_text("client_id", self.client_id.as_deref());
        line.some_text("connector", self.connector.as_deref());
        line.number("credits", self.credits);
        line.written("decision", &self.decision.canonical());
        line.texts("degraded", &self.degraded);
        if let Some(code) = self.error_code {
            line.written("error_code", &json::canonical(&code));
        }
        if !self.events.is_empty() {
            line.written("events", &event::canonical(&self.events));
        }
        line.text("http_method", &self.http_method);
        line.number("http_status", self.http_status.map(u64::from));
        if let Some(input) = &self.input {
            line.written("input", input);
        }
        line.some_text("input_sha256", self.input_sha256.as_deref());
        line.number("latency_ms", Some(self.latency_ms).filter(|_| self.status != OPEN));
        line.some_text("mcp_method", self.mcp_method.as_deref());
        line.some_text("module", Some(place.build).filter(|build| !build.is_empty()));
        line.some_text("oauth_client_id", self.oauth_client_id.as_deref());
        line.some_text("org_id", self.org_id.as_deref());
        line.text("path", &self.path);
        line.some_text("policy_version", self.policy_version.as_deref());
        line.text("prev_hash", place.prev_hash);
        line.some_text("principal", self.principal.as_deref());
        line.some_text("prompt_name", self.prompt_name.as_deref());
        line.texts("query", &self.query);
        line.text("request_id", &self.request_id);
        line.some_text("resource_uri", self.resource_uri.as_deref());
        line.texts("resource_uris", &self.resource_uris);
        line.some_text("role", self.role.as_deref());
        line.number("rows_returned", self.rows_returned);
        line.some_text("secret", self.secret.as_deref());
        line.number("seq", Some(place.seq));
        line.some_text("started_at", self.started_at.as_deref());
        line.text("status", self.status);
        line.some_text("task_id", self.task_id.as_deref());
        line.texts("task_ids", &self.task_ids);
        line.text("timestamp", &self.timestamp);
        line.some_text("tool_name", self.tool_name.as_deref());
        line.some_text("trace_id", self.trace_id.as_deref());
        line.number("upstream_ms", self.upstream_ms);
        line.some_text("user_agent", self.user_agent.as_deref());
        line.end()
    }

    /// What the call is about to do, before it is done: canonical JSON. Its input by its digest alone, of its names the
    /// beginning. `shadowed` are the rules in shadow mode that it is made in spite of.
    #[must_use]
    pub fn intent(&self, timestamp: String, chain: &str, shadowed: &[Shadowed]) -> String {
        let mut intent = Object::with_capacity(512);
        intent.some_text("api_key_id", self.api_key_id.as_deref());
        intent.text("chain", chain);
        intent.some_text("client_id", beginning(self.client_id.as_deref()));
        intent.some_text("connector", self.connector.as_deref());
        if let Some(first) = shadowed.first() {
            let rule = start(&first.rule, LONGEST_OF_INTENT).to_owned();
            intent.written("decision", &Decision { effect: SHADOW_DENY, rule }.canonical());
        }
        intent.some_text("input_sha256", self.input_sha256.as_deref());
        intent.some_text("mcp_method", beginning(self.mcp_method.as_deref()));
        intent.some_text("principal", beginning(self.principal.as_deref()));
        intent.some_text("prompt_name", beginning(self.prompt_name.as_deref()));
        intent.text("request_id", &self.request_id);
        intent.some_text("resource_uri", beginning(self.resource_uri.as_deref()));
        intent.some_text("task_id", beginning(self.task_id.as_deref()));
        intent.text("timestamp", &timestamp);
        intent.some_text("tool_name", beginning(self.tool_name.as_deref()));
        intent.end()
    }

    /// What is known from the headers.
    #[must_use]
    pub fn of(head: &Head) -> Self {
        let user_agent = head.single("user-agent").map(shown);
        Self {
            request_id: head.request_id.as_str().to_owned(),
            trace_id: head.single("traceparent").and_then(trace_id),
            http_method: shortened(head.method()),
            path: shown(head.path().as_bytes()),
            query: parameters(head.query()),
            client_address: head.client_address.clone(),
            user_agent,
            ..Self::default()
        }
    }

    /// Notes who called.
    pub fn identify(&mut self, principal: &Principal) {
        self.org_id = Some(principal.org.as_str().to_owned());
        match principal.identity.kind() {
            IdentityKind::Key(id) => self.api_key_id = Some(id.as_str().to_owned()),
            IdentityKind::Token { subject: client, .. } | IdentityKind::Certificate(client) => {
                self.client_id = Some(first(client, LONGEST_TEXT).to_owned());
            }
        }
        self.principal = Some(principal.name.clone());
        self.auth_method = Some(principal.identity.method());
        self.role = Some(principal.role.as_str().to_owned());
        self.agent_id = principal.agent.as_deref().map(shown_text);
    }

    /// The entry of a response that began with this status. It says what is known so far, without the arguments, which may
    /// be large, and without events, since each event is in one entry.
    #[must_use]
    pub fn opened(&mut self, started_at: String, http_status: u16) -> Self {
        let (input, events) = (self.input.take(), std::mem::take(&mut self.events));
        let (status, http_status, started_at) = (OPEN, Some(http_status), Some(started_at));
        let opened = Self { status, http_status, started_at, ..self.clone() };
        (self.input, self.events) = (input, events);
        opened
    }

    /// Notes whom a token names that makes no caller of its holder.
    pub fn name_holder(&mut self, org: Option<&OrgId>, subject: Option<&str>) {
        self.org_id = org.map(|org| org.as_str().to_owned());
        self.client_id = subject.map(|subject| first(subject, LONGEST_TEXT).to_owned());
        self.auth_method = Some("jwt");
    }

    /// Notes what a refusal has to be known for by itself.
    pub fn note_denial(&mut self, denial: &Denial) {
        match denial {
            Denial::Unauthenticated(failure) => {
                let event = AuditEvent::AuthFailed {
                    reason: failure.code(),
                    address: self.client_address.clone(),
                    path: self.path.clone(),
                };
                // The refusal stands before what explains it.
                self.events.insert(0, event);
            }
            Denial::UnknownTool(_)
            | Denial::Forbidden { .. }
            | Denial::Condition { .. }
            | Denial::Arguments { .. }
            | Denial::Approval { .. } => {
                let client_id = self.api_key_id.as_ref().or(self.client_id.as_ref());
                if let (Some(client_id), Some(tool)) = (client_id, &self.tool_name) {
                    let (client_id, tool) = (client_id.clone(), tool.clone());
                    self.events.push(AuditEvent::ToolAccessDenied { client_id, tool });
                }
            }
            Denial::InsufficientScope(scopes) => {
                let client_id = self.api_key_id.as_ref().or(self.client_id.as_ref());
                let client_id = client_id.cloned().unwrap_or_default();
                let missing_scopes = scopes.missing.clone();
                self.events.push(AuditEvent::InsufficientScope { client_id, missing_scopes });
            }
            Denial::Limited { limit, retry_after, .. } => {
                self.events.push(AuditEvent::RateLimitExceeded {
                    limit: limit.to_string(),
                    retry_after_ms: ceil_ms(*retry_after),
                });
            }
            _ => {}
        }
    }

    /// Notes that the request goes on, and what would have kept it from doing so.
    pub fn pass(&mut self, shadowed: &[Shadowed]) {
        match shadowed.first() {
            Some(first) => {
                self.decision.effect = SHADOW_DENY;
                self.decision.rule.clone_from(&first.rule);
            }
            None => self.decision.effect = "allow",
        }
    }

    /// Notes why the answer to a request that went on failed; a rule in shadow mode stays.
    pub fn failed_upstream(&mut self, rule: String) {
        if self.decision.effect == "allow" && self.decision.rule.is_empty() {
            self.decision.rule = rule;
        }
    }

    /// Notes that the credential held, if it did.
    pub fn note_success(&mut self) {
        let failed = |event: &AuditEvent| matches!(event, AuditEvent::AuthFailed { .. });
        let client_id = self.api_key_id.as_ref().or(self.client_id.as_ref());
        if let Some(client_id) = client_id.filter(|_| !self.events.iter().any(failed)) {
            self.events.push(AuditEvent::AuthSuccess { client_id: client_id.clone() });
        }
    }

    /// Notes what a message asks for, by name; nothing of what it says.
    pub fn note_message(&mut self, message: &Message) {
        self.note_names(message);
        if let Some(input) = message.said() {
            self.note_digest(input);
        }
    }

    /// Forgets what the headers named: the body decides what is asked for.
    pub fn forget_names(&mut self) {
        self.mcp_method = None;
        self.tool_name = None;
        self.prompt_name = None;
        self.resource_uri = None;
    }

    /// Notes the method and the object of a message. Of one that only the headers announce, no more is known.
    pub fn note_names(&mut self, message: &Message) {
        if !message.method.is_empty() {
            self.mcp_method = Some(shown_name(first(&message.method, 128)));
        }
        let some = |all: &[String], shown: fn(&str) -> String| {
            all.iter().take(MOST_NAMED).map(|one| shown(one)).collect()
        };
        match &message.operation {
            Operation::CallTool(call) => self.tool_name = Some(shown_name(&call.name)),
            Operation::Prompt(name) => {
                self.prompt_name = Some(shown_name(first(name, LONGEST_TEXT)));
            }
            Operation::Resource(uri) => self.resource_uri = Some(shown_text(uri)),
            Operation::Subscriptions { resources, tasks } => {
                self.resource_uris = some(resources, shown_text);
                self.task_ids = some(tasks, |id| shown(id.as_bytes()));
            }
            Operation::Task(id) => self.task_id = Some(shown(id.as_bytes())),
            Operation::Initialize
            | Operation::Housekeeping
            | Operation::List(_)
            | Operation::Response
            | Operation::Listen
            | Operation::EndSession
            | Operation::Unknown => {}
        }
    }

    /// Notes that a call has these arguments, without showing any.
    fn note_digest(&mut self, arguments: &Map<String, Value>) {
        let canonical = json::canonical_exact_members(arguments);
        self.input_sha256 = Some(hash_text(&canonical));
    }

    /// Notes the arguments of a call, redacted and capped. Which names are secret besides the
    /// built-in ones only the policy tells: before it is known, nothing may be shown.
    pub fn note_input(&mut self, arguments: &Map<String, Value>, redaction: Redaction<'_>) {
        self.input = Some(redact(arguments, redaction).canonical());
    }
}

/// The trace id of a W3C `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`.
fn trace_id(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split('-');
    let (Some(_), Some(trace), Some(span), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let hex = |text: &str, length| {
        text.len() == length
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            && text.bytes().any(|b| b != b'0')
    };
    (hex(trace, 32) && hex(span, 16)).then(|| trace.to_owned())
}

/// The names of a query's parameters, as written: values may be secrets.
fn parameters(query: &[u8]) -> Vec<String> {
    let names = pairs(query).map(|pair| pair.name).filter(|name| !name.is_empty());
    names.take(MOST_NAMED).map(shown).collect()
}

fn shortened(bytes: &[u8]) -> String {
    first(&String::from_utf8_lossy(bytes), LONGEST_TEXT).to_owned()
}

/// The same, without secrets.
fn shown(bytes: &[u8]) -> String {
    shown_text(first(&String::from_utf8_lossy(bytes), LONGEST_TEXT))
}

/// What an intent has of a name.
fn beginning(text: Option<&str>) -> Option<&str> {
    text.map(|text| start(text, LONGEST_OF_INTENT))
}

/// The first letters of a text, most of which are not as long.
fn first(text: &str, letters: usize) -> &str {
    if text.len() <= letters {
        return text;
    }
    let end = text.char_indices().nth(letters).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::Check;

    // Proves: A16, A18
    #[test]
    fn every_field_is_in_the_line_in_canonical_order() {
        let text = |value: &str| Some(value.to_owned());
        let entry = Entry {
            timestamp: "t".into(),
            request_id: "r".into(),
            trace_id: text("trace"),
            org_id: text("acme"),
            secret: text("b6f6a1b2c3d4"),
            actors: vec!["agent".into(), "job".into()],
            agent_id: text("bot-7"),
            api_key_id: text("k"),
            client_id: text("c"),
            oauth_client_id: text("o"),
            principal: text("a \"bot\"\n"),
            auth_method: Some("jwt"),
            certificate_sha256: text("f"),
            role: text("analyst"),
            connector: text("demo"),
            http_method: "POST".into(),
            path: "/ä".into(),
            query: vec!["q".into()],
            mcp_method: text("tools/call"),
            tool_name: text("pay"),
            prompt_name: text("p"),
            resource_uri: text("a:b"),
            resource_uris: vec!["a:b".into(), "\\".into()],
            task_id: text("1"),
            task_ids: vec!["1".into()],
            input: Some(json::canonical(&json!({"b": 1.0, "a": [2]}))),
            input_sha256: text("d"),
            status: "success",
            http_status: Some(200),
            error_code: Some(-32_000),
            decision: Decision { effect: "deny", rule: "r".into() },
            latency_ms: u64::MAX,
            upstream_ms: Some(2),
            rows_returned: Some(0),
            policy_version: text("v"),
            credits: Some(1),
            degraded: vec!["redis"],
            events: vec![
                AuditEvent::AuthSuccess { client_id: "c".into() },
                AuditEvent::DegradedEntered { dependency: "redis" },
            ],
            started_at: text("s"),
            client_address: "192.0.2.7".into(),
            user_agent: text("u"),
        };
        let mut expected = json!({
            "timestamp": "t", "request_id": "r", "trace_id": "trace", "org_id": "acme",
            "actors": ["agent", "job"], "agent_id": "bot-7", "api_key_id": "k", "client_id": "c", "principal": "a \"bot\"\n", "auth_method": "jwt",
            "certificate_sha256": "f", "role": "analyst", "connector": "demo",
            "http_method": "POST", "path": "/ä", "mcp_method": "tools/call", "tool_name": "pay",
            "prompt_name": "p", "resource_uri": "a:b", "resource_uris": ["a:b", "\\"],
            "task_id": "1", "task_ids": ["1"], "input": {"a": [2], "b": 1}, "input_sha256": "d",
            "status": "success", "http_status": 200, "error_code": -32_000,
            "decision": {"effect": "deny", "rule": "r"}, "latency_ms": u64::MAX, "upstream_ms": 2,
            "rows_returned": 0, "secret": "b6f6a1b2c3d4", "policy_version": "v", "credits": 1, "degraded": ["redis"],
            "events": [
                {"event": "auth_success", "client_id": "c"},
                {"event": "degraded_entered", "dependency": "redis"},
            ],
            "client_address": "192.0.2.7", "user_agent": "u",
            "chain": "n", "seq": 1, "prev_hash": "h",
        });
        expected["module"] = "m".into();
        expected["oauth_client_id"] = "o".into();
        expected["query"] = json!(["q"]);
        expected["started_at"] = "s".into();
        let place = Place { chain: "n", seq: 1, prev_hash: "h", build: "m" };
        assert_eq!(entry.canonical(place), json::canonical(&expected));
    }

    // Proves: A15
    #[test]
    fn the_entry_of_an_open_response_has_no_arguments_and_leaves_them_to_the_end() {
        let events = vec![AuditEvent::AuthSuccess { client_id: "c".into() }];
        let input = Some("{}".to_owned());
        let mut entry = Entry { input, events, input_sha256: Some("d".into()), ..Entry::default() };
        let opened = entry.opened("s".into(), 200);
        assert_eq!((opened.input, opened.events.len()), (None, 0));
        assert_eq!(opened.input_sha256.as_deref(), Some("d"));
        assert_eq!((entry.input.as_deref(), entry.events.len()), (Some("{}"), 1));
    }

    // Proves: A16
    #[test]
    fn an_intent_has_the_beginning_of_long_names() {
        let long = "é".repeat(400);
        let entry = Entry {
            client_id: Some(long.clone()),
            principal: Some(long.clone()),
            prompt_name: Some(long.clone()),
            resource_uri: Some(long.clone()),
            task_id: Some(long.clone()),
            tool_name: Some(long),
            ..Entry::default()
        };
        let shadowed = [Shadowed { check: Check::Limits, rule: "é".repeat(400) }];
        let intent = entry.intent("t".into(), "c", &shadowed);
        assert!(intent.len() < 1_400, "{}: {intent}", intent.len());
        assert_eq!(intent.matches('é').count(), 7 * 64);
        let mark = r#","decision":{"effect":"shadow_deny","rule":"é"#;
        assert!(intent.contains(mark), "{intent}");
        let intent = entry.intent("t".into(), "c", &[]);
        assert!(intent.len() < 1_200 && !intent.contains("decision"), "{intent}");
    }

    // Proves: A16
    #[test]
    fn ordinary_names_of_tools_are_shown_and_tokens_are_not() {
        for name in [
            "npm_package_vulnerabilities",
            "hf_list_all_public_models",
            "sk-learn.model/evaluation",
            "token:create",
            "session:list",
        ] {
            assert_eq!(shown_name(name), name);
        }
        let name = "ghp_0123456789abcdefghij0123456789ABCDEFGHIJ";
        assert_eq!(shown_name(name), "[redacted]");
        assert!(shown_name(&"a".repeat(1_000)).len() < 600);
    }

    #[test]
    fn what_happens_to_every_good_request_is_written_as_all_else_is() {
        let events = [AuditEvent::AuthSuccess { client_id: "a\"b".into() }];
        assert_eq!(event::canonical(&events), json::canonical(&events[..]));
    }
}
