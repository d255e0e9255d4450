//! Events: what people alert on, by name, inside the audit entry of the request that met them.
//!
//! Owns their names and fields. An event is in one entry only; how often something happened is a
//! metric's business.

use serde::Serialize;
use serde_json::Value;

use crate::json::{self, Object};

/// The canonical JSON of what happened to one request. What happens to all that are good is known beforehand.
pub(super) fn canonical(events: &[AuditEvent]) -> String {
    match events {
        [AuditEvent::AuthSuccess { client_id }] => {
            let mut event = Object::with_capacity(client_id.len().saturating_add(48));
            event.text("client_id", client_id);
            event.text("event", "auth_success");
            format!("[{}]", event.end())
        }
        events => json::canonical(events),
    }
}

/// One event of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AuditEvent {
    /// A credential was missing or did not hold.
    AuthFailed {
        /// [`crate::auth::AuthFailure::code`].
        reason: &'static str,
        /// The client's address.
        address: String,
        /// The path that was asked for.
        path: String,
    },
    /// The signature of a token holds, and its claims make no caller of its subject.
    TokenNotMapped {
        /// [`crate::auth::Unmapped::name`]: what could not be told.
        not_mapped: &'static str,
        /// The claim that should say so, as the issuer's configuration names it.
        #[serde(skip_serializing_if = "Option::is_none")]
        claim: Option<String>,
        /// The issuer.
        issuer: String,
        /// The subject, whom the issuer vouches for.
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
    /// A credential held.
    AuthSuccess {
        /// The id of the key, or the subject of the token or certificate.
        client_id: String,
    },
    /// A call of a tool that the caller may not call, whether it sees it or not.
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
    /// An argument went on as the most that its rule allows.
    RecordsCapped {
        /// The argument.
        argument: String,
        /// What was asked for, if it was there.
        #[serde(skip_serializing_if = "Option::is_none")]
        asked: Option<Value>,
        /// What went on.
        max: u64,
    },
    /// A person is asked to agree to the call.
    ApprovalRequested {
        /// Under which id it can be granted.
        id: String,
    },
    /// The call was made because a person had agreed to it.
    ApprovalUsed {
        /// Under which id it was granted.
        id: String,
    },
    /// The caller does not back off, and is refused for a while. Further refusals until then are counted, and
    /// told by [`AuditEvent::CoolOffEnded`].
    CoolOffStarted {
        /// [`crate::limit::cool_off::Reason::rule`].
        rule: &'static str,
        /// For how long.
        for_ms: u64,
    },
    /// The first call after that.
    CoolOffEnded {
        /// How many calls were refused meanwhile without an entry of their own.
        refused: u64,
    },
    /// The active policy is missing, or this filter cannot read it: the last good one goes on deciding.
    PolicyUnusable {
        /// The one that cannot be used.
        version: String,
    },
    /// Redis holds an older state than this worker saw: a restored backup, a stale replica, an emptied
    /// server. Calls of the organisation are refused; the first of them has this event.
    StateWentBack {
        /// The organisation.
        org: String,
        /// `organisation` or `key`: what is older.
        what: &'static str,
        /// The latest generation or revision that this worker saw.
        seen: String,
        /// What Redis has.
        now: String,
    },
    /// The router would take the request elsewhere than the connector's policy says. Nothing went anywhere.
    Misrouted {
        /// The connector.
        connector: String,
        /// The cluster of the selected route, if it has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        cluster: Option<String>,
        /// The host, as the client sent it.
        host: String,
    },
    /// The server said the connector's credential back; it was masked.
    CredentialEchoed {
        /// The connector.
        connector: String,
    },
    /// An authorization server gave no token for a connector's server.
    TokenRefused {
        /// The server's name in the plugin configuration.
        server: String,
        /// Its error code (RFC 6749 §5.2), or what was wrong with its answer.
        error: String,
    },
    /// The connector's server refused its credential, and it was read again.
    CredentialReadAgain {
        /// The connector.
        connector: String,
        /// `another`: the next call has a new one. `same`: nobody changed it. `none`: it could not be read.
        found: &'static str,
    },
    /// What Vault holds at a reference is no credential.
    SecretUnusable {
        /// The reference; never its value.
        secret: String,
        /// [`crate::vault::SecretFault::name`].
        reason: &'static str,
    },
    /// A tool in a list is not as it was pinned.
    SchemaDrift {
        /// The connector.
        connector: String,
        /// The tool.
        tool: String,
        /// [`crate::pin::Drift::name`].
        kind: &'static str,
        /// [`crate::pin::Action::name`]: what was done about it.
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
    /// A message of the server was replaced by an error because it could not be read.
    UnreadableMessage {
        /// The connector.
        connector: String,
    },
    /// The server handed out the id of a session or a task that could not be bound to the caller, who
    /// cannot use it therefore.
    NotBound {
        /// The connector.
        connector: String,
        /// `session` or `task`.
        kind: &'static str,
        /// `foreign`: it is another caller's. `too_many`: one answer had more than are bound. Or what
        /// failed.
        reason: String,
    },
    /// The proxy sent the request more than once: a route of its own accord. The tool may have run as often.
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
        /// How long until the same call would be admitted.
        retry_after_ms: u64,
    },
    /// A window nears its end, or the first call did not fit it. Once for each window and length of
    /// it, over all gateways.
    BudgetAlert {
        /// The window's name.
        limit: String,
        /// Units in use, this call included.
        used: u64,
        /// Units that there are.
        of: u64,
    },
    /// An open response was ended: its caller may not listen any more.
    StreamEnded {
        /// The rule that refuses it now.
        rule: String,
    },
    /// The clock of Redis went back by more than the length of a window: what was drawn from it counts from now on.
    RedisClockWentBack {
        /// The window's name.
        limit: String,
    },
    /// This worker went on without a dependency, for the first time since it had it.
    DegradedEntered {
        /// Its name.
        dependency: &'static str,
    },
    /// It has the dependency again.
    DegradedLeft {
        /// Its name.
        dependency: &'static str,
        /// How long after the event above.
        after_ms: u64,
    },
}
