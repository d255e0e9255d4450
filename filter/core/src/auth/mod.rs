//! Who is calling: credentials as presented, records as stored, principals as proven.
//!
//! Owns the rules of each kind of credential. Fetches nothing; what a principal may do is
//! [`crate::authz`]'s business.

pub mod api_key;
pub mod certificate;
mod claimant;
pub mod credential;
pub mod denied;
mod principal;
pub mod record;
pub mod slowdown;
pub mod source;

pub use certificate::CertificateFailure;
pub use claimant::{Claimant, Proven};
pub use principal::{Identity, Narrowing, Principal, Scopes, Writes};

/// Why a credential was not accepted. The client hears [`AuthFailure::told`], no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthFailure {
    /// Neither `Authorization` nor `X-API-Key`.
    NoCredential,
    /// More than one credential: two headers, or one repeated.
    SeveralCredentials,
    /// A credential in the query string (RFC 6750 §2.3 advises against, MCP forbids).
    InQuery,
    /// An `Authorization` scheme other than `Bearer`.
    UnsupportedScheme,
    /// Not of the form `pck_<org>_<id>_<secret><check>`.
    Malformed,
    /// The check digits do not fit: a typo or a scanner.
    CheckDigits,
    /// No such key.
    UnknownKey,
    /// The key exists, the secret is another.
    WrongSecret,
    /// Right once, replaced by a rotation whose overlap is over.
    RotatedOut,
    /// Revoked.
    Revoked,
    /// Past its expiry.
    Expired,
    /// Before its first valid moment.
    NotYetValid,
    /// It proves itself, and somebody denied it.
    Denied,
    /// Right, and presented from an address that it may not be used from.
    SourceNotAllowed,
    /// The client certificate is missing, or does not hold.
    Certificate(CertificateFailure),
}

impl AuthFailure {
    /// The stable name for the audit log and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoCredential => "no_credential",
            Self::SeveralCredentials => "several_credentials",
            Self::InQuery => "credential_in_query",
            Self::UnsupportedScheme => "unsupported_scheme",
            Self::Malformed => "malformed_key",
            Self::CheckDigits => "check_digits",
            Self::UnknownKey => "unknown_key",
            Self::WrongSecret => "wrong_secret",
            Self::RotatedOut => "rotated_out",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Denied => "denied",
            Self::SourceNotAllowed => "source_not_allowed",
            Self::Certificate(failure) => failure.code(),
        }
    }

    /// Whether the secret was right, so that the key's owner may be named in the audit log.
    #[must_use]
    pub const fn proves_holder(self) -> bool {
        match self {
            Self::RotatedOut
            | Self::Revoked
            | Self::Expired
            | Self::NotYetValid
            | Self::Denied
            | Self::SourceNotAllowed => true,
            Self::NoCredential
            | Self::SeveralCredentials
            | Self::InQuery
            | Self::UnsupportedScheme
            | Self::Malformed
            | Self::CheckDigits
            | Self::UnknownKey
            | Self::WrongSecret => false,
            Self::Certificate(failure) => failure.proves_holder(),
        }
    }

    /// What the client is told. Whether a key exists is not told; that it expired is, because
    /// only its holder can get that far.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::NoCredential => "A credential is required",
            Self::SeveralCredentials => "More than one credential was presented",
            Self::InQuery => "Credentials in the URL are not accepted",
            Self::UnsupportedScheme => "Only the Bearer scheme is accepted",
            Self::Malformed | Self::CheckDigits => "The credential is malformed",
            Self::UnknownKey
            | Self::WrongSecret
            | Self::RotatedOut
            | Self::Revoked
            | Self::Denied => "The credential is not valid",
            Self::Expired => "The credential has expired",
            Self::NotYetValid => "The credential is not valid yet",
            Self::SourceNotAllowed => "The credential is not accepted from here",
            Self::Certificate(failure) => failure.told(),
        }
    }
}
