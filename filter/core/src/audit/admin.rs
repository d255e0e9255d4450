//! One entry of an admin chain: who changed a key or the policy, when and why, and what changed.
//!
//! Owns the entry's fields: those of a request's entry where they have the same meaning, so that the same searches find
//! both, and in addition `actor`, `action`, `reason` and `changes`. An unknown field is absent, never null. Does not
//! know how a change is made.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Decision;

/// An administrator's action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAction {
    /// A new key.
    KeyIssue,
    /// A change of a key's permissions, its source ranges or its times.
    KeySet,
    /// A key got a new secret.
    KeyRotate,
    /// A key was revoked.
    KeyRevoke,
    /// A call that waited for a person was granted.
    CallGrant,
    /// A call that waited for a person was denied.
    CallDeny,
    /// A policy was pushed.
    PolicyPush,
    /// A policy is tried on some callers.
    PolicyCanary,
    /// A policy that was tried on some callers was made the active one.
    PolicyPromote,
    /// A policy is no longer tried on some callers.
    PolicyCanaryStop,
    /// An earlier policy was made the active one again.
    PolicyRollback,
    /// The windows of a key were reset.
    LimitsReset,
    /// A token, or a subject's, was denied.
    TokenDeny,
    /// A denial was taken back.
    TokenAllow,
    /// Gateways serve an organisation again although they saw a later state of it.
    RestoreAccept,
}

impl AdminAction {
    /// The value of `action` in the log, which operators search for.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeyIssue => "key.issue",
            Self::KeySet => "key.set",
            Self::KeyRotate => "key.rotate",
            Self::KeyRevoke => "key.revoke",
            Self::CallGrant => "call.grant",
            Self::CallDeny => "call.deny",
            Self::PolicyPush => "policy.push",
            Self::PolicyCanary => "policy.canary",
            Self::PolicyPromote => "policy.promote",
            Self::PolicyCanaryStop => "policy.canary_stop",
            Self::PolicyRollback => "policy.rollback",
            Self::LimitsReset => "limits.reset",
            Self::TokenDeny => "token.deny",
            Self::TokenAllow => "token.allow",
            Self::RestoreAccept => "restore.accept",
        }
    }
}

/// The fields of an entry.
#[derive(Clone, Debug, Serialize)]
pub struct AdminEntry {
    /// The time of the decision: RFC 3339, UTC, microseconds.
    pub timestamp: String,
    /// The same for everything that one command did.
    pub request_id: String,
    /// The organisation whose key or policy changed.
    pub org_id: String,
    /// The key's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_id: Option<String>,
    /// The client without a key whom the change concerns: the subject of a token, or the name in a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The key's name after the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The operator: the ACL user of Redis, if there is one, otherwise the name that the tool reports.
    pub actor: String,
    /// The operator's name that the tool reports in addition to an ACL user. Redis does not prove it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_claim: Option<String>,
    /// The action: see [`AdminAction::as_str`].
    pub action: &'static str,
    /// The operator's reason.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Each field that changed, with its value `from` before and `to` after; no secret.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub changes: Map<String, Value>,
    /// The policy that is active now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<String>,
    /// `success`: an entry is written together with the change, or not at all.
    pub status: &'static str,
    /// `allow`, by `admin`: write access to Redis is the permission.
    pub decision: Decision,
}

impl AdminEntry {
    /// The entry of an action that succeeds, without the fields that only some actions have.
    #[must_use]
    pub fn of(action: AdminAction, timestamp: String, org: String) -> Self {
        Self {
            timestamp,
            request_id: String::new(),
            org_id: org,
            api_key_id: None,
            client_id: None,
            principal: None,
            actor: String::new(),
            actor_claim: None,
            action: action.as_str(),
            reason: String::new(),
            changes: Map::new(),
            policy_version: None,
            status: "success",
            decision: Decision { effect: "allow", rule: "admin".to_owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Chain, Start, Verifier};
    use super::*;

    // Proves: A18, A23
    #[test]
    fn a_chain_goes_on_where_its_last_line_ends() {
        let mut lines: Vec<String> = Vec::new();
        for action in [
            AdminAction::KeyIssue,
            AdminAction::KeyRotate,
            AdminAction::PolicyPush,
            AdminAction::KeyRevoke,
        ] {
            let last = lines.last().and_then(|line| Chain::after(line));
            let mut chain = last.unwrap_or_else(|| Chain::new("admin:acme".into()));
            let now = "2026-11-21T09:00:00.000000Z".to_owned();
            lines.push(chain.append_action(&AdminEntry::of(action, now, "acme".into())));
        }
        let mut verifier = Verifier::new(Start::Genesis);
        assert!(lines.iter().all(|line| verifier.line(line).is_ok()));
        assert_eq!(verifier.chains().next().unwrap().last, 4);
        lines.swap(1, 2);
        let mut verifier = Verifier::new(Start::Genesis);
        assert!(lines.iter().any(|line| verifier.line(line).is_err()));
        assert!(Chain::after("rubbish").is_none());
    }
}
