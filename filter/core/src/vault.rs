//! Credentials of connectors: where they are in Vault, whose they are, how they become headers.
//!
//! Owns references, templates, the reply of a KV read and how long its value is used. Fetches nothing. Values live in
//! [`Secret`](crate::secret::Secret)s only.

mod cached;
mod credential;
mod pattern;
mod reference;
mod template;
mod value;

use std::fmt;
use std::rc::Rc;

pub use cached::CachedSecret;
pub use credential::{ConnectorCredential, Injected, Missing, Stale};
pub(crate) use pattern::owner;
pub use pattern::{CallerFacts, CallerProof, SecretPattern, Unresolved};
pub use reference::{KvVersion, Mount, SecretRef};
pub use template::Template;
pub use value::{MAX_SECRET_BYTES, SecretFault};

/// What a connector's credential is fetched as, and remembered by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CredentialRef {
    /// Fields of a secret in Vault.
    Secret(Rc<SecretRef>),
}

impl CredentialRef {
    /// Whether it is of one caller alone.
    #[must_use]
    pub fn is_of(&self, owner: &str) -> bool {
        match self {
            Self::Secret(secret) => secret.owner() == Some(owner),
        }
    }

    /// What the circuit breaker knows it by. The secrets of single callers share one: of a Vault that hangs, not each
    /// caller is to find out alone.
    #[must_use]
    pub fn breaker(&self) -> String {
        match self {
            Self::Secret(secret) => secret.breaker(),
        }
    }
}

impl fmt::Display for CredentialRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(secret) => secret.fmt(f),
        }
    }
}

/// Segments that stay where they are: no `.`, no `..`, nothing that a URL would read otherwise.
pub(crate) fn is_plain(text: &str) -> bool {
    text.split('/').all(|segment| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    })
}

#[cfg(test)]
mod tests;
