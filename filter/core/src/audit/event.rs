//! Events: named conditions for alerts, inside the audit entry of the request in which they occurred.
//!
//! Owns their names and fields. An event is in one entry only; metrics count how often it happens.

use serde::Serialize;
use serde_json::Value;

use crate::id::RequestId;
use crate::json::{self, Object};

/// The canonical JSON of the events of one request. The events of every good request are constant text.
pub(super) fn canonical(events: &[AuditEvent]) -> String {
    match events {
        [AuditEvent::AuthSuccess { client_id }] => {
            let mut event = Object::with_capacity(client_id.len().saturating_add(48));
            event.text("client_id", client_id);
            event.text("event", "auth_success");
            ["[", &event.end(), "]"].concat()
        }
        events => json::canonical(events),
    }
}

/// One event of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AuditEvent {
    /// A credential is missing or invalid.
    AuthFailed {
        /// [`crate::auth::AuthFailure::code`].
        reason: &'static str,
        /// The client's address.
        address: String,
        /// The path of the request.
        path: String,
    },
    /// The token's signature is valid, but its claims do not map its subject to a caller.
    TokenNotMapped {
        /// [`crate::auth::Unmapped::name`]: the fact that the claims do not give.
        not_mapped: &'static str,
        /// The claim that should give it, as the issuer's configuration names it.
        #[serde(skip_serializing_if = "Option::is_none")]
        claim: Option<String>,
        /// The issuer.
        issuer: String,
        /// The subject, as the issuer asserts it.
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
    },
    /// A credential lacks scopes.
    InsufficientScope {
        /// The id of the key, or the subject of the token or certificate.
        client_id: String,
        /// The scopes that it lacks.
        missing_scopes: Vec<String>,
    },
    /// A credential was accepted.
    AuthSuccess {
        /// The id of the key, or the subject of the token or certificate.
        client_id: String,
    },
    /// A call of a tool that the caller may not call, whether the caller sees the tool or not.
    ToolAccessDenied {
        /// The id of the key, or the subject of the token or certificate.
        client_id: String,
        /// The tool.
        tool: String,
    },
    /// A rule in shadow mode would have refused the request.
    ShadowDenied {
        /// The kind of check.
        check: &'static str,
        /// The rule.
        rule: String,
    },
    /// An argument was lowered to the maximum that its rule allows.
    RecordsCapped {
        /// The argument.
        argument: String,
        /// The requested value, if the argument was present.
        #[serde(skip_serializing_if = "Option::is_none")]
        asked: Option<Value>,
        /// The value that was forwarded.
        max: u64,
    },
    /// The call waits for an approval.
    ApprovalRequested {
        /// The id with which it can be granted.
        id: String,
    },
    /// The call was made with an approval.
    ApprovalUsed {
        /// The id of the approval.
        id: String,
        /// The request that asked for it, if Redis names one.
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<RequestId>,
    },
    /// The caller does not back off, and all its calls are refused for a while. Until then further refusals are only
    /// counted; [`AuditEvent::CoolOffEnded`] has their number.
    CoolOffStarted {
        /// [`crate::limit::cool_off::Reason::rule`].
        rule: &'static str,
        /// The duration.
        for_ms: u64,
    },
    /// The first call after that.
    CoolOffEnded {
        /// How many calls were refused in that time without an entry of their own.
        refused: u64,
    },
    /// The active policy is missing, or this filter cannot read it: the last good policy stays in use.
    PolicyUnusable {
        /// The version that cannot be used.
        version: String,
    },
    /// Redis holds an older state than this worker saw: a restored backup, a stale replica, an emptied
    /// server. Calls of the organisation are refused; the first of them has this event.
    StateWentBack {
        /// The organisation.
        org: String,
        /// `organisation` or `key`: the object whose state is older.
        what: &'static str,
        /// The latest generation or revision that this worker saw.
        seen: String,
        /// The one that Redis has.
        now: String,
    },
    /// The router selected another cluster than the connector's policy names. The request was not forwarded.
    Misrouted {
        /// The connector.
        connector: String,
        /// The cluster of the selected route, if it has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        cluster: Option<String>,
        /// The host, as the client sent it.
        host: String,
    },
    /// The server returned the connector's credential in its response; Portcullis masked it.
    CredentialEchoed {
        /// The connector.
        connector: String,
    },
    /// A token endpoint issued no token for a connector.
    TokenRefused {
        /// The name of the authorization server in the plugin configuration.
        server: String,
        /// Its error code (RFC 6749 §5.2), or the fault in its response.
        error: String,
    },
    /// The upstream refused the connector's credential, and Portcullis read the credential again.
    CredentialReadAgain {
        /// The connector.
        connector: String,
        /// `another`: the next call has a new one. `same`: it has not changed. `none`: it could not be read.
        found: &'static str,
    },
    /// Vault's value at a reference cannot be a credential.
    SecretUnusable {
        /// The reference; never its value.
        secret: String,
        /// [`crate::vault::SecretFault::name`].
        reason: &'static str,
    },
    /// A tool in a list differs from its pin.
    SchemaDrift {
        /// The connector.
        connector: String,
        /// The tool.
        tool: String,
        /// [`crate::pin::Drift::name`].
        kind: &'static str,
        /// [`crate::pin::Action::name`]: the action that was taken.
        action: &'static str,
    },
    /// Items of a list were left out because they could not be read.
    UnreadableItems {
        /// The connector.
        connector: String,
        /// The member of the result that is the list.
        list: &'static str,
        /// Why.
        reason: &'static str,
        /// How many.
        items: u64,
    },
    /// An unreadable message of the server was replaced by an error.
    UnreadableMessage {
        /// The connector.
        connector: String,
    },
    /// The server issued the id of a session or a task that could not be bound to the caller. The caller cannot use it.
    NotBound {
        /// The connector.
        connector: String,
        /// `session` or `task`.
        kind: &'static str,
        /// `foreign`: the id is bound to another caller. `too_many`: one response had more ids than are bound.
        /// Otherwise the error.
        reason: String,
    },
    /// Envoy sent the request more than once, because the route has a retry policy. The tool may have run as often.
    Retried {
        /// The connector.
        connector: String,
        /// How often it was sent.
        attempts: u64,
    },
    /// A window was used up.
    RateLimitExceeded {
        /// The window's name.
        limit: String,
        /// The time until the same call would be admitted.
        retry_after_ms: u64,
    },
    /// A window is nearly used up, or refused a call for the first time. This event occurs once per window and length,
    /// over all gateways.
    BudgetAlert {
        /// The window's name.
        limit: String,
        /// Units in use, this call included.
        used: u64,
        /// The window's size in units.
        of: u64,
    },
    /// An open response was ended, because its caller may not receive it any more.
    StreamEnded {
        /// The rule that refuses it now.
        rule: String,
    },
    /// Leases of the organisation's secrets that were to be revoked last until their end: too many waited for Vault. The
    /// next call of the organisation on this worker has this event.
    LeasesNotRevoked {
        /// How many.
        leases: u64,
    },
    /// The clock of Redis went back by more than the length of a window: the units drawn from it count from now on.
    RedisClockWentBack {
        /// The window's name.
        limit: String,
    },
    /// This worker started to operate without a dependency.
    DegradedEntered {
        /// Its name.
        dependency: &'static str,
    },
    /// It has the dependency again.
    DegradedLeft {
        /// Its name.
        dependency: &'static str,
        /// The time since [`AuditEvent::DegradedEntered`].
        after_ms: u64,
    },
}
