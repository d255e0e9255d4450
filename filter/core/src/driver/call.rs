//! Calls to the systems that a decision depends on.
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

/// Names one call of one exchange; the exchange mints them, in order.
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

/// What to ask, and of whom.
#[derive(Debug)]
pub enum DependencyCall {
    /// Redis: is what was decided on still current, and draw from every window.
    Admit(ScriptCall),
    /// Redis: a session or a task belongs to the caller.
    Bind(ScriptCall),
    /// Redis: what became due after the admission is drawn. Nobody waits for it.
    Charge(ScriptCall),
    /// Redis: where the audit entry of a call is. Nobody waits for it.
    Complete(ScriptCall),
    /// Redis: what a list showed of tools. Nobody waits for it.
    Observe(ScriptCall),
    /// Redis: a call waits for a person, or takes what one granted.
    Approval(ScriptCall),
    /// Redis: the policy document of a version. The worker takes it before the call is done.
    Policy(PolicyVersion),
    /// Vault: a connector's credential.
    Credential(CredentialRef, Asker),
    /// An authorization server: a token for a connector's server.
    Token(Rc<TokenRef>, Box<TokenRequest>, Asker),
    /// An issuer of tokens: its keys. The worker's keyring takes them before the call is done.
    Keys(IssuerId),
}

/// Whose question for a credential it is.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The id of the request, which goes along, so that the log of who is asked has it.
    pub request_id: String,
    /// The organisation, which has a share of all questions.
    pub org: Option<OrgId>,
}

/// A reply that came back in time and was not an error of the transport.
pub enum Reply {
    /// Redis answered.
    Redis(Value),
    /// Vault answered with a 2xx status.
    Vault {
        /// The response body, shared by all who waited for it.
        body: Rc<Zeroizing<Vec<u8>>>,
    },
    /// An authorization server answered, with whatever status.
    Token {
        /// The status.
        status: u16,
        /// The response body.
        body: Rc<Zeroizing<Vec<u8>>>,
    },
    /// The worker's keyring knows more than before, if only that nothing came.
    Keys,
    /// The worker has the policy document that was asked for, or knows that it cannot be used.
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

    /// The same for another who waits: of an answer about a credential, all have one copy.
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

/// Only whose it is: one of Vault is a credential.
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

/// A system that a decision depends on.
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
    /// Whom a credential comes from.
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

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// It could not be started: no connection, no healthy host, too many waiting.
    Refused,
    /// It was not started: the last ones failed, and the next probe is not due.
    NotAsked,
    /// No reply came in time.
    TimedOut,
    /// The connection was lost before the reply.
    Disconnected,
    /// An HTTP status outside 2xx.
    Status(u16),
    /// The reply cannot be read, or says something it must not.
    Unreadable,
    /// The reply is of an older state than one before.
    WentBack,
    /// The secret does not have the field that the policy names.
    NoSuchField,
    /// The secret's value is nothing that a header can carry.
    Unusable,
    /// The caller's credential lacks a fact that the secret's path is made of.
    Unresolved,
    /// The authorization server gives this caller no token.
    NotGranted,
}

impl CallFailure {
    /// What a secret that is none means for who waits for it.
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

    /// Whether it only says that the dependency cannot be asked now. Else it is there, and this is its answer.
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

    /// Whether Vault gave no word on the credential: it cannot be asked, asks for a pause, or something else answered.
    /// Else it is there, and an old credential was taken away.
    #[must_use]
    pub const fn leaves_credential_open(self) -> bool {
        self.is_outage() || matches!(self, Self::Status(429) | Self::Unreadable)
    }

    /// Whether the caller has no credential, as far as Vault and the caller's own say.
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
