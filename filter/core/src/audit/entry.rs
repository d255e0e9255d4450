//! One audit entry: what is known about a request by its end.
//!
//! Owns the field names, which people search for and script against. A field that is not known is
//! absent, never null.

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::event::AuditEvent;
use super::redact::{Redaction, redact, shown_text};
use crate::auth::{IdentityKind, Principal};
use crate::authz::Shadowed;
use crate::denial::{Denial, ceil_ms};
use crate::event::Head;
use crate::json;
use crate::mcp::{Message, Operation};

/// The fields of an entry, filled as they become known.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Entry {
    /// RFC 3339, UTC: when the request ended.
    pub timestamp: String,
    /// Equal to the header `x-portcullis-request-id`.
    pub request_id: String,
    /// From `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Of the proven credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
    /// Of the proven key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_id: Option<String>,
    /// The subject of the proven token or certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The name the credential was issued under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// `api_key`, `jwt` or `mtls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_method: Option<&'static str>,
    /// SHA-256 of the client certificate that was presented, in hex, when certificates count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_sha256: Option<String>,
    /// The role that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The connector that the path names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// The HTTP method.
    pub http_method: String,
    /// The path, without query.
    pub path: String,
    /// The JSON-RPC method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_method: Option<String>,
    /// The tool that was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
    /// The prompt that was used, or whose argument was completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_name: Option<String>,
    /// The resource that was read or subscribed to, or whose template was completed; without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_uri: Option<String>,
    /// The resources that a stream was opened for; the first ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_uris: Vec<String>,
    /// The task that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// The tasks that a stream was opened for; the first ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub task_ids: Vec<String>,
    /// What was said to the tool, the prompt or the completion, redacted and capped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// SHA-256 of its canonical JSON as it came, numbers as they were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_sha256: Option<String>,
    /// `success`, `tool_error`, `error`, `denied`, `limited` or `aborted`.
    pub status: &'static str,
    /// What the client got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// The JSON-RPC error code, of the gateway or of the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<i64>,
    /// What the gateway decided, and by which rule.
    pub decision: Decision,
    /// From the first byte of the request to the last of the response.
    pub latency_ms: u64,
    /// The upstream's part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<u64>,
    /// Rows in the result, when they can be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_returned: Option<u64>,
    /// The policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<String>,
    /// What the call cost, when it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credits: Option<u64>,
    /// The dependencies that this was decided without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<&'static str>,
    /// What else happened on the way; people alert on these by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<AuditEvent>,
    /// The client's address, without port.
    pub client_address: String,
    /// The header, shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

/// The gateway's verdict.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Decision {
    /// `allow`, `deny` or `shadow_deny`: let go, although a rule on trial says no.
    pub effect: &'static str,
    /// The rule that was decisive.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rule: String,
}

/// Free text from a client is cut here.
const LONGEST_TEXT: usize = 256;
/// Of a list of names, so many are written down.
const MOST_NAMED: usize = 16;

impl Entry {
    /// What is known from the headers.
    #[must_use]
    pub fn of(head: &Head) -> Self {
        let user_agent = head.single("user-agent").map(shortened);
        Self {
            request_id: head.request_id.to_string(),
            trace_id: head.single("traceparent").and_then(trace_id),
            http_method: shortened(head.method()),
            path: shortened(head.path().as_bytes()),
            client_address: head.client_address.clone(),
            user_agent,
            ..Self::default()
        }
    }

    /// Notes who called.
    pub fn identify(&mut self, principal: &Principal) {
        self.org_id = Some(principal.org.to_string());
        match principal.identity.kind() {
            IdentityKind::Key(id) => self.api_key_id = Some(id.to_string()),
            IdentityKind::Token { subject: client, .. } | IdentityKind::Certificate(client) => {
                self.client_id = Some(client.chars().take(LONGEST_TEXT).collect());
            }
        }
        self.principal = Some(principal.name.clone());
        self.auth_method = Some(principal.identity.method());
        self.role = Some(principal.role.to_string());
    }

    /// Notes what a refusal has to be known for by itself.
    pub fn note_denial(&mut self, denial: &Denial) {
        match denial {
            Denial::Unauthenticated(failure) => self.events.push(AuditEvent::AuthFailed {
                reason: failure.code(),
                address: self.client_address.clone(),
                path: self.path.clone(),
            }),
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
                self.decision.effect = "shadow_deny";
                self.decision.rule.clone_from(&first.rule);
            }
            None => self.decision.effect = "allow",
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
        if !message.method.is_empty() {
            self.mcp_method = Some(message.method.chars().take(128).collect());
        }
        let some = |all: &[String], shown: fn(&str) -> String| {
            all.iter().take(MOST_NAMED).map(|one| shown(one)).collect()
        };
        match &message.operation {
            Operation::CallTool(call) => self.tool_name = Some(call.name.clone()),
            Operation::Prompt(name) => self.prompt_name = Some(shortened(name.as_bytes())),
            Operation::Resource(uri) => self.resource_uri = Some(shown_text(uri)),
            Operation::Subscriptions { resources, tasks } => {
                self.resource_uris = some(resources, shown_text);
                self.task_ids = some(tasks, |id| shortened(id.as_bytes()));
            }
            Operation::Task(id) => self.task_id = Some(shortened(id.as_bytes())),
            Operation::Initialize
            | Operation::Housekeeping
            | Operation::List(_)
            | Operation::Response
            | Operation::Listen
            | Operation::EndSession
            | Operation::Unknown => {}
        }
        if let Some(input) = message.said() {
            self.note_digest(input);
        }
    }

    /// Notes that a call has these arguments, without showing any.
    fn note_digest(&mut self, arguments: &Map<String, Value>) {
        let canonical = json::canonical_exact(arguments);
        let digest = Sha256::digest(canonical.as_bytes());
        self.input_sha256 = Some(base16ct::lower::encode_string(&digest));
    }

    /// Notes the arguments of a call, redacted and capped. Which names are secret besides the
    /// built-in ones only the policy tells: before it is known, nothing may be shown.
    pub fn note_input(
        &mut self,
        arguments: &Map<String, Value>,
        names: &[String],
        max_bytes: usize,
    ) {
        self.input = Some(redact(arguments, Redaction { names, max_bytes }));
    }
}

/// The trace id of a W3C `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`.
fn trace_id(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let [_, trace, span, _] = parts.as_slice() else {
        return None;
    };
    let hex = |text: &str, length| {
        text.len() == length
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            && text.bytes().any(|b| b != b'0')
    };
    (hex(trace, 32) && hex(span, 16)).then(|| (*trace).to_owned())
}

fn shortened(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(LONGEST_TEXT).collect()
}
