//! What a connector's server gets instead of the client's credential: where it comes from, and whose it is.
//!
//! Owns the names under which credentials are fetched and remembered. Fetches nothing.

mod pattern;
mod statement;

use std::fmt;
use std::rc::Rc;

use crate::id::OrgId;
use crate::token_exchange::TokenRef;
use crate::vault::{LeaseId, Revocation, SecretRef};
pub(crate) use pattern::owner;
pub use pattern::{CallerFacts, CallerProof, SecretPattern, Unresolved};
pub use statement::{ConnectorCredential, Injected, Missing, Source, Stale};

/// What a connector's credential is fetched as, and remembered by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CredentialRef {
    /// Fields of a secret in Vault.
    Secret(Rc<SecretRef>),
    /// A token of an authorization server.
    Token(Rc<TokenRef>),
}

impl CredentialRef {
    /// Whether it is of one caller alone.
    #[must_use]
    pub fn is_of(&self, owner: &str) -> bool {
        match self {
            Self::Secret(secret) => secret.owner() == Some(owner),
            Self::Token(token) => token.owner.as_deref() == Some(owner),
        }
    }

    /// The organisation that it is of alone, if it is.
    #[must_use]
    pub fn org(&self) -> Option<OrgId> {
        match self {
            Self::Secret(secret) => OrgId::new(secret.owner()?.split_once('/')?.0),
            Self::Token(token) => Some(token.org.clone()),
        }
    }

    /// What the circuit breaker knows it by. The secrets of single callers share one: of a Vault that hangs, not each
    /// caller is to find out alone.
    #[must_use]
    pub fn breaker(&self) -> String {
        match self {
            Self::Secret(secret) => secret.breaker(),
            Self::Token(token) => format!("token of {}", token.server()),
        }
    }
}

impl fmt::Display for CredentialRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(secret) => secret.fmt(f),
            Self::Token(token) => {
                write!(f, "token of {} for {}", token.server(), token.connector)
            }
        }
    }
}

/// A question to Vault that no call waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseCall {
    /// The secret is to last longer.
    Renew(CredentialRef, LeaseId),
    /// Another secret is made before this one ends.
    Replace(CredentialRef),
    /// The secret is not wanted any more.
    Revoke(Revocation),
}

impl LeaseCall {
    /// Whose share it is of.
    #[must_use]
    pub fn org(&self) -> Option<OrgId> {
        match self {
            Self::Renew(reference, _) | Self::Replace(reference) => reference.org(),
            Self::Revoke(revocation) => revocation.org.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
