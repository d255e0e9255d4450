//! A call that waits for a person: what it is, and what the person reads about it.
//!
//! Owns its identity. An approval is for exactly one organisation, caller, tool and set of arguments; whoever changes
//! any of them asks for another one.

use portcullis_redis_lua::ApprovalKey;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::auth::Principal;
use crate::auth::deny_list::digest_of;
use crate::id::{OrgId, PolicyName, RequestId};
use crate::json;
use crate::order;

/// What Redis holds of a call that waits, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// SHA-256 of organisation, caller, connector, tool and arguments.
    pub digest: String,
    /// The organisation.
    pub org: OrgId,
    /// The caller, as audit entries name it: the id of a key, the subject of a token or certificate.
    pub client_id: String,
    /// The name of the caller's credential.
    pub principal: String,
    /// The caller's role.
    pub role: PolicyName,
    /// The connector.
    pub connector: PolicyName,
    /// The tool.
    pub tool: String,
    /// The arguments, redacted and cut like those in the audit log.
    pub arguments: Value,
    /// The rule that wants a person to agree.
    pub rule: String,
    /// The request that asked first.
    pub request_id: String,
    /// When that was: RFC 3339, UTC.
    pub asked_at: String,
}

/// How much of a digest names an approval to people. Redis knows it by the whole.
const SHOWN: usize = 16;

/// What people call the approval `digest`.
#[must_use]
pub fn id(digest: &str) -> &str {
    digest.get(..SHOWN).unwrap_or(digest)
}

/// The request that asked first, by a document of [`Waiting`].
#[must_use]
pub fn asked_by(document: &[u8]) -> Option<RequestId> {
    let waiting = json::parse_reply(document).ok()?;
    RequestId::new(waiting.get("request_id")?.as_str()?)
}

/// The approval that a call of `tool` with these arguments needs.
#[must_use]
pub fn key(
    principal: &Principal,
    connector: &PolicyName,
    tool: &str,
    arguments: &Map<String, Value>,
) -> ApprovalKey {
    let arguments = exact(Value::Object(arguments.clone())).to_string();
    let holder = principal.identity.holder();
    let org = principal.org.as_str();
    // Two organisations may trust one issuer: without theirs, equal calls of both would have one id.
    let digest = digest_of([org, holder, connector.as_str(), tool, &arguments]);
    ApprovalKey::new(org, holder, &digest)
}

/// The value with its members in order. Not RFC 8785, which rounds numbers: what an approval is for must not
/// differ from what was approved in the last digit.
fn exact(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().collect();
            order::sort_by(&mut members, |(one, _), (other, _)| one.cmp(other));
            members.into_iter().map(|(name, value)| (name, exact(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(exact).collect(),
        scalar => scalar,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::auth::{IdentityKind, Restrictions, Scopes};
    use crate::id::KeyId;

    #[test]
    fn another_organisation_caller_tool_or_argument_needs_another_approval() {
        let name = |name: &str| PolicyName::new(name).unwrap();
        let digest_in = |org: &str, key: &str, connector: &str, tool: &str, arguments: Value| {
            let principal = Principal {
                org: OrgId::new(org).unwrap(),
                identity: IdentityKind::Key(KeyId::new(key).unwrap()).into(),
                name: "cursor".into(),
                role: name("analyst"),
                tier: name("free"),
                scopes: Scopes::Unknown,
                agent: None,
                restrictions: Restrictions::default(),
            };
            let arguments = arguments.as_object().unwrap();
            super::key(&principal, &name(connector), tool, arguments).digest().to_owned()
        };
        let digest = |key: &str, connector: &str, tool: &str, arguments: Value| {
            digest_in("acme", key, connector, tool, arguments)
        };
        let one = digest("k1a2", "demo", "pay", json!({"to": "a", "amount": 1}));
        assert_eq!(digest("k1a2", "demo", "pay", json!({"amount": 1, "to": "a"})), one);
        assert_eq!(id(&one), &one[..16]);
        let others = [
            // Finding 12.13: `approve grant ID` granted another organisation's call.
            digest_in("globex", "k1a2", "demo", "pay", json!({"to": "a", "amount": 1})),
            digest("k1a3", "demo", "pay", json!({"to": "a", "amount": 1})),
            digest("k1a2", "demo2", "pay", json!({"to": "a", "amount": 1})),
            digest("k1a2", "demo", "2pay", json!({"to": "a", "amount": 1})),
            digest("k1a2", "demo", "pay", json!({"to": "a", "amount": 2})),
            digest("k1a2", "demo", "pay", json!({"to": "a", "amount": "1"})),
            digest("k1a2", "demo", "pay", json!({"to": "a"})),
            digest("k1a2", "demo", "pay", json!({"to": "a", "amount": 9_007_199_254_740_993_u64})),
            digest("k1a2", "demo", "pay", json!({"to": "a", "amount": 9_007_199_254_740_992_u64})),
        ];
        let all: BTreeSet<_> = others.into_iter().chain([one]).collect();
        assert_eq!(all.len(), 10);
        // Finding 4.3: what was granted for …001 let …002 and …009 through.
        let written = |amount: &str| {
            let arguments =
                crate::json::parse_strict(format!(r#"{{"amount":{amount}}}"#).as_bytes());
            digest("k1a2", "demo", "pay", arguments.unwrap())
        };
        let amounts = [
            "100000000000000000000001",
            "100000000000000000000002",
            "100000000000000000000009",
            "0.10000000000000000001",
            "0.1",
        ];
        assert_eq!(amounts.map(written).into_iter().collect::<BTreeSet<_>>().len(), amounts.len());
    }
}
