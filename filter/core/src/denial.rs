//! Refusals: the client's error message, and the audit entry.
//!
//! Owns the table of statuses and codes. The two differ on purpose: a client learns how to correct its request, but an
//! unauthenticated client never learns which check failed.

mod audit;
mod connection;
mod credential_missing;
mod in_message;
mod relayed;
mod text;
mod tool_error;
mod upstream;

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::auth::{AuthFailure, CertificateFailure};
use crate::driver::call::{CallFailure, Dependency};
use crate::http::local_reply::LocalReply;
use crate::json::JsonError;
use crate::mcp::{Era, MODERN_VERSION, MessageFault, SUPPORTED_VERSIONS, Sender};
use crate::route::Misrouted;
pub use audit::AuditStatus;
pub use connection::{HostFault, Unsupported};
pub use credential_missing::CredentialMissing;
pub use relayed::{Relayed, relayed};
pub use text::{LimitCause, Requested};
pub use tool_error::InvalidArguments;
pub use upstream::UpstreamFault;

/// The decision on a call that needs approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalState {
    /// No decision yet.
    Pending,
    /// The call was denied.
    Denied,
    /// There is no request for approval, because too many calls wait already.
    Full,
    /// There is no request for approval, because too many calls of this caller wait already.
    CallerFull,
}

impl ApprovalState {
    /// The name in refusals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Denied => "denied",
            Self::Full => "full",
            Self::CallerFull => "caller_full",
        }
    }
}

/// Scopes that an operation needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsufficientScope {
    /// All of them, for the client.
    pub needed: Vec<String>,
    /// Those that the credential lacks, for the audit log.
    pub missing: Vec<String>,
}

/// The reason for a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No credential, or an invalid one.
    Unauthenticated(AuthFailure),
    /// A page of another origin, or a host name that is not served (DNS rebinding).
    ForeignOrigin,
    /// No connector has this path.
    UnknownPath,
    /// An HTTP method that MCP does not use.
    MethodNotAllowed,
    /// The request asks for something on its connection that the gateway does not support.
    Unsupported(Unsupported),
    /// The body is not announced as plain JSON.
    ContentType,
    /// The body is larger than this many bytes.
    BodyTooLarge(usize),
    /// The body has no single meaning.
    Unreadable(JsonError),
    /// JSON, but not one JSON-RPC message.
    NotOneMessage(&'static str),
    /// The query has a parameter that the connector's policy does not name.
    Query,
    /// A header disagrees with the body (MCP 2026-07-28).
    HeaderMismatch(&'static str),
    /// `params._meta` is not what the protocol asks for (MCP 2026-07-28).
    BadMeta(&'static str),
    /// An unknown protocol version.
    UnsupportedVersion(String),
    /// A method that is not open on this connector.
    UnknownMethod(String),
    /// A tool that this caller cannot see, or that does not exist.
    UnknownTool(String),
    /// A prompt that this caller cannot see, or that does not exist.
    UnknownPrompt(String),
    /// A resource that this caller cannot see, or that does not exist.
    UnknownResource(String),
    /// A session that is not the caller's, or that does not exist.
    UnknownSession,
    /// A task that is not the caller's, or that does not exist.
    UnknownTask(String),
    /// The credential lacks scopes that the operation needs.
    InsufficientScope(Box<InsufficientScope>),
    /// The caller sees the object, but the policy refuses the request.
    Forbidden {
        /// The deciding rule of the policy.
        rule: String,
    },
    /// The caller sees the object, but a condition without arguments refuses the request.
    Condition {
        /// The condition.
        rule: String,
        /// The policy's message for the caller.
        message: Option<Box<str>>,
    },
    /// Refused for its arguments; another call of the same tool may be fine.
    Arguments {
        /// The deciding rule of the policy.
        rule: String,
        /// The faulty arguments, or the policy's message for the caller.
        detail: Box<str>,
    },
    /// The call needs an approval first.
    Approval {
        /// The rule that requires it.
        rule: Box<str>,
        /// The id with which it can be granted.
        id: Box<str>,
        /// The decision so far.
        state: ApprovalState,
    },
    /// The arguments violate the pinned input schema: a result, so that the model can repair its call.
    InvalidArguments(InvalidArguments),
    /// A window is used up.
    Limited {
        /// The window's name.
        limit: Box<str>,
        /// The reason of the limit.
        cause: Box<LimitCause>,
        /// The time until the same call would be admitted.
        retry_after: Duration,
    },
    /// The caller has no credential for the connector's server, and the policy says where to get one.
    CredentialMissing(Box<CredentialMissing>),
    /// A dependency of the decision did not answer.
    Unavailable(Dependency, CallFailure),
    /// The upstream opened a session, but Redis could not bind it to the caller. The client does not get its id.
    NoSession(CallFailure),
    /// Redis holds no policy for the organisation, or one that this filter cannot read.
    PolicyUnusable,
    /// The router selected another cluster than the connector's policy names.
    Misrouted(Misrouted),
    /// The upstream refused the connector's credential. The client gets no 401, because its own credential is fine and
    /// it would look for another one.
    UpstreamRefused,
    /// The upstream is unreachable: the request was not sent.
    UpstreamUnavailable,
    /// The upstream closed the connection before it answered. It may have executed the request.
    UpstreamGone,
    /// The upstream did not answer in time. It may still execute the request.
    UpstreamTimedOut,
    /// The upstream's response must not pass.
    UpstreamAnswer(UpstreamFault),
    /// The host's configuration prevents the filter from serving the request.
    Host(HostFault),
    /// An internal invariant is broken; the only safe reaction is a refusal.
    Internal(&'static str),
}

/// The rule of a refusal because of missing scopes.
pub(crate) const INSUFFICIENT_SCOPE: &str = "credential.scopes";

/// `Retry-After` for a failure of a dependency.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);

impl From<MessageFault> for Denial {
    fn from(fault: MessageFault) -> Self {
        match fault {
            MessageFault::Unreadable(error) => Self::Unreadable(error),
            MessageFault::NotOneMessage(detail) => Self::NotOneMessage(detail),
            MessageFault::BadMeta(detail) => Self::BadMeta(detail),
        }
    }
}

impl Denial {
    /// A call of a tool that no list has shown recently. The caller can solve this by listing the tools.
    pub(crate) fn unverified(rule: String) -> Self {
        let message = "This tool is not compared with its review yet. List the tools (tools/list), then repeat the call";
        Self::Condition { rule, message: Some(message.into()) }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self, era: Era) -> u16 {
        match self {
            // The credential is valid; another one would not help from this address.
            Self::Unauthenticated(AuthFailure::SourceNotAllowed) => 403,
            Self::Unauthenticated(_) => 401,
            // On a request with a session, 404 has one meaning: open a new one.
            Self::UnknownPath | Self::UnknownSession => 404,
            Self::ForeignOrigin => 403,
            Self::MethodNotAllowed => 405,
            Self::Unsupported(unsupported) => unsupported.status(),
            Self::Host(fault) => fault.status(),
            Self::ContentType => 415,
            Self::BodyTooLarge(_) => 413,
            Self::Unreadable(_)
            | Self::NotOneMessage(_)
            | Self::Query
            | Self::HeaderMismatch(_)
            | Self::BadMeta(_)
            | Self::UnsupportedVersion(_) => 400,
            // Clients of the legacy era interpret 404 as a lost session (MCP 2025-11-25 transports).
            Self::UnknownMethod(_) => match era {
                Era::Modern => 404,
                Era::Legacy => 200,
            },
            Self::UnknownTool(_)
            | Self::UnknownPrompt(_)
            | Self::UnknownResource(_)
            | Self::UnknownTask(_) => 200,
            // The model reads it, and may repair its call (MCP 2025-11-25 tools, error handling).
            Self::Arguments { .. } | Self::InvalidArguments(_) | Self::CredentialMissing(_) => 200,
            Self::Forbidden { .. }
            | Self::InsufficientScope(_)
            | Self::Condition { .. }
            | Self::Approval { .. } => 403,
            Self::Limited { .. } => 429,
            Self::Unavailable(..)
            | Self::NoSession(_)
            | Self::PolicyUnusable
            | Self::UpstreamRefused
            | Self::UpstreamUnavailable
            | Self::Internal(_) => 503,
            // RFC 9110 §15.6.3 and §15.6.5: the gateway works, and a retry later does not help.
            Self::UpstreamGone | Self::UpstreamAnswer(_) => 502,
            Self::UpstreamTimedOut => 504,
            // RFC 9110 §15.5.20: no server answers for the connector on this host.
            Self::Misrouted(Misrouted::Host) => 421,
            Self::Misrouted(Misrouted::Cluster | Misrouted::Unguarded) => 503,
        }
    }

    /// The JSON-RPC error code.
    #[must_use]
    pub fn code(&self, era: Era) -> i64 {
        match self {
            Self::Unauthenticated(AuthFailure::SourceNotAllowed) => -31_403,
            Self::Unauthenticated(_) => -31_401,
            Self::Unreadable(JsonError::DuplicateMember(_))
            | Self::ForeignOrigin
            | Self::UnknownPath
            | Self::MethodNotAllowed
            | Self::Unsupported(_)
            | Self::ContentType
            | Self::BodyTooLarge(_)
            | Self::Misrouted(Misrouted::Host)
            | Self::Host(HostFault::BufferLimit)
            | Self::Query
            | Self::NotOneMessage(_) => -32_600,
            // The official TypeScript server's code; openai-agents opens another session for it. All other clients use
            // the status.
            Self::UnknownSession => -32_001,
            Self::Unreadable(_) => -32_700,
            Self::HeaderMismatch(_) => -32_020,
            Self::UnsupportedVersion(_) => -32_022,
            Self::UnknownMethod(_) => -32_601,
            Self::BadMeta(_)
            | Self::UnknownTool(_)
            | Self::UnknownPrompt(_)
            | Self::UnknownTask(_)
            // Only for the audit log: the reply is a result.
            | Self::InvalidArguments(_) => -32_602,
            Self::UnknownResource(_) => match era {
                Era::Modern => -32_602,
                Era::Legacy => -32_002,
            },
            Self::Forbidden { .. }
            | Self::InsufficientScope(_)
            | Self::Condition { .. }
            | Self::Arguments { .. }
            | Self::Approval { .. } => -31_403,
            Self::CredentialMissing(missing) => missing.code(era),
            Self::Limited { .. } => -31_429,
            Self::Unavailable(..)
            | Self::NoSession(_)
            | Self::PolicyUnusable
            | Self::Misrouted(Misrouted::Cluster | Misrouted::Unguarded)
            | Self::UpstreamRefused
            | Self::UpstreamUnavailable
            | Self::Host(HostFault::CannotHold)
            | Self::Internal(_) => -31_503,
            Self::UpstreamGone | Self::UpstreamAnswer(_) => -31_502,
            Self::UpstreamTimedOut => -31_504,
        }
    }

    /// The `data` member of the JSON-RPC error.
    fn data(&self, era: Era) -> Option<Value> {
        match self {
            Self::Forbidden { rule } | Self::Condition { rule, .. } => Some(json!({"rule": rule})),
            Self::Unauthenticated(AuthFailure::SourceNotAllowed) => {
                Some(json!({"rule": self.rule()}))
            }
            Self::InsufficientScope(scopes) => {
                Some(json!({"rule": INSUFFICIENT_SCOPE, "scopes": scopes.needed}))
            }
            Self::CredentialMissing(missing) => Some(missing.data(era)),
            Self::Approval { rule, id, state } => {
                Some(json!({"rule": rule, "approval": id, "state": state.name()}))
            }
            Self::Limited { limit, retry_after, cause } => {
                let retry_after = ceil_ms(*retry_after);
                let mut data =
                    json!({"limit": limit, "cause": cause.name(), "retryAfterMs": retry_after});
                if let (LimitCause::Budget { until, .. }, Some(data)) =
                    (&**cause, data.as_object_mut())
                {
                    data.insert("until".to_owned(), (**until).into());
                }
                Some(data)
            }
            // Only the versions that are valid in the same place: a legacy one in `_meta` would be refused as well.
            Self::UnsupportedVersion(requested) => {
                let supported = match era {
                    Era::Modern => &[MODERN_VERSION],
                    Era::Legacy => SUPPORTED_VERSIONS.as_slice(),
                };
                Some(json!({"supported": supported, "requested": requested}))
            }
            _ => None,
        }
    }

    /// The value of `Retry-After`, in whole seconds.
    fn retry_after_seconds(&self) -> Option<u64> {
        let wait = match self {
            Self::Limited { retry_after, .. } => *retry_after,
            Self::Unavailable(..)
            | Self::NoSession(_)
            | Self::PolicyUnusable
            | Self::Misrouted(Misrouted::Cluster | Misrouted::Unguarded)
            | Self::UpstreamRefused
            | Self::UpstreamUnavailable
            | Self::Internal(_) => UNAVAILABLE_RETRY,
            _ => return None,
        };
        Some(ceil_ms(wait).div_ceil(1_000).max(1))
    }

    /// The challenge of a 401 (RFC 6750 §3), without an error code when none was sent; of a 403 for scopes.
    fn challenge(&self) -> Option<String> {
        match self {
            Self::Unauthenticated(AuthFailure::SourceNotAllowed) => None,
            Self::Unauthenticated(
                AuthFailure::NoCredential | AuthFailure::Certificate(CertificateFailure::Missing),
            ) => Some(r#"Bearer realm="portcullis""#.to_owned()),
            Self::Unauthenticated(failure) => Some(format!(
                r#"Bearer realm="portcullis", error="invalid_token", error_description="{}""#,
                failure.told()
            )),
            Self::InsufficientScope(scopes) => Some(format!(
                r#"Bearer realm="portcullis", error="insufficient_scope", scope="{}""#,
                scopes.needed.join(" ")
            )),
            _ => None,
        }
    }

    /// The JSON-RPC message for `sender`: an error, or a tool result about the arguments.
    #[must_use]
    pub fn body(&self, sender: &Sender, era: Era, requested: Requested<'_>) -> Vec<u8> {
        if let (Self::InvalidArguments(unfit), Sender::Request(id)) = (self, sender) {
            return unfit.result(id, era);
        }
        let mut message = Map::new();
        message.insert("jsonrpc".to_owned(), "2.0".into());
        match sender {
            Sender::Request(id) => message.insert("id".to_owned(), id.clone()),
            // JSON-RPC 2.0 §5: null when the id could not be detected.
            Sender::Unknown => message.insert("id".to_owned(), Value::Null),
            Sender::NoReplyExpected => None,
        };
        match self {
            Self::Arguments { .. } => {
                message.insert("result".to_owned(), self.result(era, requested))
            }
            // A client takes a result only with the id of its request: without it, the body was not read.
            Self::CredentialMissing(missing) => match (sender, missing.result(era, requested)) {
                (Sender::Request(_), Some(result)) => message.insert("result".to_owned(), result),
                _ => message.insert("error".to_owned(), self.error(era, requested)),
            },
            _ => message.insert("error".to_owned(), self.error(era, requested)),
        };
        Value::from(message).to_string().into_bytes()
    }

    fn error(&self, era: Era, requested: Requested<'_>) -> Value {
        let mut error = Map::new();
        error.insert("code".to_owned(), self.code(era).into());
        error.insert("message".to_owned(), self.client_message(requested).into());
        if let Some(data) = self.data(era) {
            error.insert("data".to_owned(), data);
        }
        error.into()
    }

    fn result(&self, era: Era, requested: Requested<'_>) -> Value {
        let content = json!([{"type": "text", "text": self.client_message(requested)}]);
        match era {
            Era::Modern => json!({"resultType": "complete", "content": content, "isError": true}),
            Era::Legacy => json!({"content": content, "isError": true}),
        }
    }

    /// The whole response.
    #[must_use]
    pub fn reply(
        &self,
        sender: &Sender,
        era: Era,
        requested: Requested<'_>,
        request_id: &str,
    ) -> LocalReply {
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("cache-control", "no-store".to_owned()),
            ("x-portcullis-request-id", request_id.to_owned()),
        ];
        headers.extend(self.challenge().map(|value| ("www-authenticate", value)));
        let seconds = self.retry_after_seconds();
        headers.extend(seconds.map(|seconds| ("retry-after", seconds.to_string())));
        if matches!(self, Self::MethodNotAllowed | Self::Unsupported(Unsupported::Connect)) {
            headers.push(("allow", "POST, GET, DELETE".to_owned()));
        }
        // Clients ignore the body of the response to a notification: only an error status shows that it was not
        // accepted (MCP 2025-11-25, Streamable HTTP, "Sending Messages to the Server").
        let status = match (self.status(era), sender) {
            (200, Sender::NoReplyExpected) => 400,
            (status, _) => status,
        };
        LocalReply { status, headers, body: self.body(sender, era, requested) }
    }
}

/// Whole milliseconds, rounded up.
pub(crate) fn ceil_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
