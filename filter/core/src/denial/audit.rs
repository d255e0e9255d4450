//! The audit entry's part of a refusal.
//!
//! Owns its status, effect and rule. The client's message says less.

use super::{Denial, INSUFFICIENT_SCOPE, UpstreamFault};
use crate::mcp::Era;

/// The `status` of an audit entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditStatus {
    /// The call was made and succeeded.
    Success,
    /// The call was made and the tool reported an error.
    ToolError,
    /// The call failed, or could not be made.
    Error,
    /// Refused.
    Denied,
    /// Refused because the gateway could not decide: a dependency failed, or has an older state.
    Unavailable,
    /// Refused because a limit was reached.
    Limited,
    /// The client closed the connection.
    Aborted,
}

impl AuditStatus {
    /// The value in the entry.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ToolError => "tool_error",
            Self::Error => "error",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Limited => "limited",
            Self::Aborted => "aborted",
        }
    }
}

impl Denial {
    /// The `status` of the audit entry.
    #[must_use]
    pub fn audit_status(&self) -> AuditStatus {
        match self {
            Self::Limited { .. } => AuditStatus::Limited,
            Self::UpstreamRefused
            | Self::UpstreamUnavailable
            | Self::UpstreamGone
            | Self::UpstreamTimedOut
            | Self::UpstreamAnswer(_) => AuditStatus::Error,
            Self::Unavailable(..)
            | Self::NoSession(_)
            | Self::PolicyUnusable
            | Self::Internal(_) => AuditStatus::Unavailable,
            _ => AuditStatus::Denied,
        }
    }

    /// The `decision.effect` of the audit entry: whether the gateway let the request go upstream.
    #[must_use]
    pub fn effect(&self) -> &'static str {
        match self {
            // Its body never went upstream.
            Self::UpstreamAnswer(UpstreamFault::Early | UpstreamFault::GoneEarly) => "deny",
            Self::UpstreamRefused
            | Self::UpstreamUnavailable
            | Self::UpstreamGone
            | Self::UpstreamTimedOut
            | Self::UpstreamAnswer(_) => "allow",
            _ => "deny",
        }
    }

    /// The `decision.rule` of the audit entry: the rule that decided.
    #[must_use]
    pub fn rule(&self) -> String {
        match self {
            Self::Unauthenticated(failure) => format!("auth.{}", failure.code()),
            Self::ForeignOrigin => "request.origin".to_owned(),
            Self::UnknownPath => "request.path".to_owned(),
            Self::MethodNotAllowed => "request.http_method".to_owned(),
            Self::Unsupported(unsupported) => unsupported.rule().to_owned(),
            Self::Host(fault) => fault.rule().to_owned(),
            Self::ContentType => "request.content_type".to_owned(),
            Self::BodyTooLarge(_) => "request.max_body_bytes".to_owned(),
            Self::Unreadable(_) => "request.json".to_owned(),
            Self::NotOneMessage(_) => "request.message".to_owned(),
            Self::Query => "request.query".to_owned(),
            Self::HeaderMismatch(_) => "request.header_mismatch".to_owned(),
            Self::BadMeta(_) => "request.meta".to_owned(),
            Self::UnsupportedVersion(_) => "request.protocol_version".to_owned(),
            Self::UnknownMethod(_) => "request.mcp_method".to_owned(),
            Self::UnknownTool(_) => "tool.not_visible".to_owned(),
            Self::UnknownSession => "session.not_bound".to_owned(),
            Self::UnknownTask(_) => "task.not_bound".to_owned(),
            Self::UnknownPrompt(_) => "prompt.not_visible".to_owned(),
            Self::UnknownResource(_) => "resource.not_visible".to_owned(),
            Self::Forbidden { rule }
            | Self::Condition { rule, .. }
            | Self::Arguments { rule, .. } => rule.clone(),
            Self::CredentialMissing(missing) => missing.rule(),
            Self::Approval { rule, .. } => rule.to_string(),
            Self::InvalidArguments(unfit) => format!("tools.{}.input_schema", unfit.tool),
            Self::InsufficientScope(_) => INSUFFICIENT_SCOPE.to_owned(),
            Self::Limited { limit, .. } => limit.to_string(),
            Self::Unavailable(dependency, why) => {
                format!("unavailable.{}.{why}", dependency.name())
            }
            Self::NoSession(why) => format!("unavailable.redis.{why}"),
            Self::PolicyUnusable => "policy.unusable".to_owned(),
            Self::Misrouted(what) => format!("upstream.{}", what.name()),
            Self::UpstreamRefused => "upstream.credential_refused".to_owned(),
            Self::UpstreamUnavailable => "upstream.unavailable".to_owned(),
            Self::UpstreamGone => "upstream.disconnected".to_owned(),
            Self::UpstreamTimedOut => "upstream.timed_out".to_owned(),
            Self::UpstreamAnswer(fault) => format!("upstream.{}", fault.name()),
            Self::Internal(place) => format!("internal.{place}"),
        }
    }

    /// The `error_code` of the audit entry: the code of the JSON-RPC error, when the client gets one.
    #[must_use]
    pub fn error_code(&self, era: Era) -> Option<i64> {
        match self {
            Self::Arguments { .. } | Self::InvalidArguments(_) => None,
            denial => Some(denial.code(era)),
        }
    }
}
