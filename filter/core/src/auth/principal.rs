//! A caller whose credential was proven.
//!
//! Owns what is known of a caller, whichever credential proved it. Decides nothing: what a principal
//! may do is [`crate::authz`]'s business.

use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::deny_list::digest_of;
use crate::connector_credential::{CallerFacts, CallerProof};
use crate::glob::Globs;
use crate::id::{KeyId, OrgId, PolicyName};

/// A caller whose credential was proven.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    /// The organisation the credential belongs to.
    pub org: OrgId,
    /// What makes this caller the same one next time.
    pub identity: Identity,
    /// The name the credential was issued under; what the upstream and the audit log see.
    pub name: String,
    /// The role that decides about tools.
    pub role: PolicyName,
    /// The tier that decides about limits.
    pub tier: PolicyName,
    /// What the credential was granted, where its kind knows scopes.
    pub scopes: Scopes,
    /// The agent that acts, as the token names it.
    pub agent: Option<String>,
    /// What the credential may do less than its role.
    pub restrictions: Restrictions,
}

/// What makes a caller the same one. A token or a certificate may be renewed; its subject stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    kind: IdentityKind,
    holder: Rc<str>,
}

/// What makes a caller the same one, by the kind of credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityKind {
    /// An API key.
    Key(KeyId),
    /// The subject of a token, as its issuer calls it (RFC 7519 §4.1.2).
    Token {
        /// `iss`.
        issuer: String,
        /// `sub`.
        subject: String,
    },
    /// The name in a client certificate that was matched.
    Certificate(String),
}

impl Principal {
    /// What a connector's credential may depend on; `claims` are those of the caller's token.
    #[must_use]
    pub fn facts<'a>(
        &'a self,
        claims: &'a Map<String, Value>,
        connector: &'a PolicyName,
    ) -> CallerFacts<'a> {
        let proof = match self.identity.kind() {
            IdentityKind::Key(id) => CallerProof::Key(id.as_str()),
            IdentityKind::Token { issuer, subject } => CallerProof::Token { issuer, subject },
            IdentityKind::Certificate(name) => CallerProof::Certificate(name),
        };
        let holder = self.identity.holder();
        CallerFacts { org: &self.org, holder, proof, claims, connector, token: None }
    }
}

impl Identity {
    /// By which credential, and whom it names.
    #[must_use]
    pub const fn kind(&self) -> &IdentityKind {
        &self.kind
    }

    /// `auth_method` in the audit log.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match &self.kind {
            IdentityKind::Key(_) => "api_key",
            IdentityKind::Token { .. } => "jwt",
            IdentityKind::Certificate(_) => "mtls",
        }
    }

    /// Names this caller in counters and bindings: within its organisation no other caller has it. Names
    /// that others chose are hashed, so that they are short and carry no separators.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }
}

impl From<IdentityKind> for Identity {
    fn from(kind: IdentityKind) -> Self {
        let holder = match &kind {
            IdentityKind::Key(id) => id.as_str().into(),
            // No key id has a colon.
            IdentityKind::Token { issuer, subject } => {
                format!("jwt:{}", digest_of([issuer, subject])).into()
            }
            IdentityKind::Certificate(name) => format!("mtls:{}", digest_of([name, ""])).into(),
        };
        Self { kind, holder }
    }
}

/// The scopes of a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scopes {
    /// This kind of credential has none: its role says all.
    #[default]
    Unknown,
    /// These, and no others.
    Granted(BTreeSet<String>),
}

impl Scopes {
    /// Those of `needed` that are missing, in their order.
    #[must_use]
    pub fn missing<'a>(&self, needed: &'a [String]) -> Vec<&'a str> {
        let Self::Granted(granted) = self else {
            return Vec::new();
        };
        needed.iter().map(String::as_str).filter(|scope| !granted.contains(*scope)).collect()
    }
}

/// What a credential may do less than its role: nothing here ever widens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restrictions {
    /// Only these connectors.
    pub connectors: Option<Globs>,
    /// Only these tools.
    pub tools: Option<Globs>,
    /// What tools it may call, by what they do.
    pub writes: Writes,
}

/// Whether tools that may change something are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writes {
    /// As the role says.
    #[default]
    Open,
    /// Only tools that the policy states to be read-only.
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_of_different_kinds_and_issuers_never_share_a_name() {
        let token = |issuer: &str, subject: &str| IdentityKind::Token {
            issuer: issuer.into(),
            subject: subject.into(),
        };
        let all = [
            IdentityKind::Key(KeyId::new("k1a2").unwrap()),
            token("https://a", "k1a2"),
            token("https://ak", "1a2"),
            token("k1a2", ""),
            IdentityKind::Certificate("k1a2".into()),
        ]
        .map(Identity::from);
        let names: BTreeSet<_> = all.iter().map(Identity::holder).collect();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn only_granted_scopes_can_be_missing() {
        let needed = ["read".to_owned(), "write".to_owned()];
        assert!(Scopes::Unknown.missing(&needed).is_empty());
        let granted = Scopes::Granted(BTreeSet::from(["read".to_owned()]));
        assert_eq!(granted.missing(&needed), ["write"]);
    }
}
