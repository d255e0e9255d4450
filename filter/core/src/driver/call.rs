//! Calls to the dependencies of a decision.
//!
//! Owns which calls exist and how they can fail. Knows nothing of the host's tokens or transports.

use std::fmt;
use std::rc::Rc;

use portcullis_redis_lua::{ScriptCall, Value};

use crate::auth::token::issuer::IssuerId;
use crate::connector_credential::CredentialRef;
use crate::id::{OrgId, PolicyVersion};
use crate::token_exchange::{TokenRef, TokenRequest};
use crate::vault::SecretFault;
use zeroize::Zeroizing;

/// Identifies one call of one exchange; the exchange numbers them in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u32);

impl CallId {
    /// The first id of an exchange.
    pub const FIRST: Self = Self(0);

    /// The id after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The dependency and the question.
#[derive(Debug)]
pub enum DependencyCall {
    /// Redis: checks that the records of the decision are still current, and draws from every window.
    Admit(ScriptCall),
    /// Redis: binds a session or a task to the caller.
    Bind(ScriptCall),
    /// Redis: draws the costs that are known only after the admission. The exchange does not wait for it.
    Charge(ScriptCall),
    /// Redis: records the position of a call's audit entry. The exchange does not wait for it.
    Complete(ScriptCall),
    /// Redis: records the tools that a list showed. The exchange does not wait for it.
    Observe(ScriptCall),
    /// Redis: requests an approval, or uses a granted one.
    Approval(ScriptCall),
    /// Redis: reads the policy document of a version. The worker stores it before the call is done.
    Policy(PolicyVersion),
    /// Vault: reads a connector's credential.
    Credential(CredentialRef, Asker),
    /// An authorization server: requests a token for a connector's server.
    Token(Rc<TokenRef>, Box<TokenRequest>, Asker),
    /// An issuer of tokens: fetches its keys. The worker's keyring stores them before the call is done.
    Keys(IssuerId),
}

/// The request that needs a credential.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The id of the request, which is sent along, so that the dependency's log has it.
    pub request_id: String,
    /// The organisation. Each has a share of the pending calls.
    pub org: Option<OrgId>,
}

/// A reply that arrived in time without a transport error.
pub enum Reply {
    /// Redis answered.
    Redis(Value),
    /// Vault answered with a 2xx status.
    Vault {
        /// The response body, shared by all exchanges that waited for it.
        body: Rc<Zeroizing<Vec<u8>>>,
    },
    /// An authorization server answered, with any status.
    Token {
        /// The status.
        status: u16,
        /// The response body.
        body: Rc<Zeroizing<Vec<u8>>>,
    },
    /// The worker's keyring was updated, with keys or with the failure of the fetch.
    Keys,
    /// The worker has the requested policy document, or knows that it cannot be used.
    Policy,
}

impl Reply {
    /// Vault answered with a 2xx status and this body.
    #[must_use]
    pub fn vault(body: Vec<u8>) -> Self {
        Self::Vault { body: Rc::new(Zeroizing::new(body)) }
    }
}

impl Reply {
    /// An authorization server answered.
    #[must_use]
    pub fn token(status: u16, body: Vec<u8>) -> Self {
        Self::Token { status, body: Rc::new(Zeroizing::new(body)) }
    }

    /// The same reply for another exchange that waits: all share one copy of a credential.
    #[must_use]
    pub fn shared(&self) -> Self {
        match self {
            Self::Redis(value) => Self::Redis(value.clone()),
            Self::Vault { body } => Self::Vault { body: body.clone() },
            Self::Token { status, body } => Self::Token { status: *status, body: body.clone() },
            Self::Keys => Self::Keys,
            Self::Policy => Self::Policy,
        }
    }
}

/// Only the dependency: a reply of Vault contains a credential.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(_) => f.write_str("Redis(..)"),
            Self::Vault { .. } => f.write_str("Vault { .. }"),
            Self::Token { status, .. } => write!(f, "Token {{ {status}, .. }}"),
            Self::Keys => f.write_str("Keys"),
            Self::Policy => f.write_str("Policy"),
        }
    }
}

/// A dependency of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependency {
    /// Key records, policies and windows.
    Redis,
    /// Connector credentials.
    Vault,
    /// Keys of an issuer of tokens.
    Issuer,
    /// Tokens for connectors' servers.
    AuthorizationServer,
}

impl Dependency {
    /// The source of a credential.
    #[must_use]
    pub const fn of(reference: &CredentialRef) -> Self {
        match reference {
            CredentialRef::Secret(_) => Self::Vault,
            CredentialRef::Token(_) => Self::AuthorizationServer,
        }
    }

    /// The name in audit entries and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Vault => "vault",
            Self::Issuer => "issuer",
            Self::AuthorizationServer => "authorization_server",
        }
    }
}

/// The reason for a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// It could not be started: no connection, no healthy host, too many waiting.
    Refused,
    /// It was not started: the previous calls failed, and the next probe is not due.
    NotAsked,
    /// No reply came in time.
    TimedOut,
    /// The connection was lost before the reply.
    Disconnected,
    /// An HTTP status outside 2xx.
    Status(u16),
    /// The reply cannot be read, or has content that is not allowed.
    Unreadable,
    /// The reply has an older state than a previous one.
    WentBack,
    /// The secret does not have the field that the policy names.
    NoSuchField,
    /// The secret's value cannot be a header value.
    Unusable,
    /// The caller's credential lacks a fact that the secret's path needs.
    Unresolved,
    /// The authorization server issues no token to this caller.
    NotGranted,
}

impl CallFailure {
    /// The failure for calls that wait for a faulty secret.
    #[must_use]
    pub const fn of(fault: SecretFault) -> Self {
        match fault {
            SecretFault::NotJson | SecretFault::NotKv => Self::Unreadable,
            SecretFault::NoSuchField => Self::NoSuchField,
            SecretFault::NotText
            | SecretFault::Empty
            | SecretFault::TooLong
            | SecretFault::NotAscii => Self::Unusable,
        }
    }

    /// Whether the failure only means that the dependency is unreachable. Otherwise the dependency is available, and
    /// this is its answer.
    #[must_use]
    pub const fn is_outage(self) -> bool {
        match self {
            Self::Refused
            | Self::NotAsked
            | Self::TimedOut
            | Self::Disconnected
            | Self::Status(500..) => true,
            Self::Status(_)
            | Self::Unreadable
            | Self::WentBack
            | Self::NoSuchField
            | Self::Unusable
            | Self::Unresolved
            | Self::NotGranted => false,
        }
    }

    /// Whether Vault did not decide on the credential: it is unreachable, asks for a pause, or another server answered.
    /// Otherwise Vault is available, and an old credential is no longer valid.
    #[must_use]
    pub const fn leaves_credential_open(self) -> bool {
        self.is_outage() || matches!(self, Self::Status(429) | Self::Unreadable)
    }

    /// Whether the failure means that the caller has no credential, according to Vault or the caller's own credential.
    #[must_use]
    pub const fn says_there_is_none(self) -> bool {
        matches!(self, Self::Status(404) | Self::NoSuchField | Self::Unresolved | Self::NotGranted)
    }
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::NotAsked => f.write_str("not_asked"),
            Self::TimedOut => f.write_str("timed_out"),
            Self::Disconnected => f.write_str("disconnected"),
            Self::Status(status) => write!(f, "status_{status}"),
            Self::Unreadable => f.write_str("unreadable"),
            Self::WentBack => f.write_str("went_back"),
            Self::NoSuchField => f.write_str("no_such_field"),
            Self::Unusable => f.write_str("unusable"),
            Self::Unresolved => f.write_str("unresolved"),
            Self::NotGranted => f.write_str("not_granted"),
        }
    }
}
