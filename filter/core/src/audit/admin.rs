//! One entry of an admin chain: who changed a key or the policy, when and why, and what changed.
//!
//! Owns its fields: those of a request's entry where they mean the same, so that both are searched
//! alike, and `actor`, `action`, `reason` and `changes` besides. A field that is not known is absent,
//! never null. Knows nothing of how a change is made.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Decision;

/// What an administrator did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAction {
    /// A key was issued.
    KeyIssue,
    /// What a key may do, or from where or when, was changed.
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
    /// What a key had drawn from windows was forgotten.
    LimitsReset,
    /// A token, or a subject's, was denied.
    TokenDeny,
    /// A denial was taken back.
    TokenAllow,
    /// Gateways serve an organisation again although they saw a later state of it.
    RestoreAccept,
}

impl AdminAction {
    /// `action` in the log; people search for it.
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
    /// RFC 3339, UTC, microseconds: when it was decided.
    pub timestamp: String,
    /// The same for everything that one command did.
    pub request_id: String,
    /// Whose key or policy.
    pub org_id: String,
    /// Which key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_id: Option<String>,
    /// Who is concerned and has no key: the subject of a token, the name in a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The key's name after the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Who did it: the ACL user of Redis, if there is one, or who the tool says it was.
    pub actor: String,
    /// Who the tool says it was, beside an ACL user: Redis did not prove it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_claim: Option<String>,
    /// What: see [`AdminAction::as_str`].
    pub action: &'static str,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Each field that changed, with its value `from` before and `to` now; no secret.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub changes: Map<String, Value>,
    /// The policy that is active now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<String>,
    /// `success`: an entry is written together with the change, or not at all.
    pub status: &'static str,
    /// `allow`, by `admin`: whoever may write to Redis.
    pub decision: Decision,
}

impl AdminEntry {
    /// The entry of a deed that succeeds, without what only some deeds have.
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
