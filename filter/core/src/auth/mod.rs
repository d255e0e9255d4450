//! Authentication: presented credentials, stored records, verified principals.
//!
//! Owns the rules of each kind of credential. Fetches nothing; [`crate::authz`] decides on a principal's permissions.

pub mod api_key;
pub mod certificate;
pub mod credential;
pub mod deny_list;
mod presented_identity;
mod principal;
pub mod record;
pub mod source;
pub mod throttle;
pub mod token;
mod unmapped;

pub use certificate::CertificateFailure;
pub use presented_identity::{PresentedIdentity, VerifiedCredential};
pub use principal::{Identity, IdentityKind, Principal, Restrictions, Scopes, Writes};
pub use unmapped::Unmapped;

/// The reason for refusing a credential. The client gets only [`AuthFailure::told`].
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
    /// A header for a credential without one: `Bearer` and nothing after it.
    EmptyCredential,
    /// Not of the form `pck_<org>_<id>_<secret><check>`.
    Malformed,
    /// The check digits do not fit: a typo or a scanner.
    CheckDigits,
    /// No such key.
    UnknownKey,
    /// The key exists, but the secret is wrong.
    WrongSecret,
    /// The secret was valid until a rotation whose overlap is over.
    RotatedOut,
    /// Revoked.
    Revoked,
    /// Past its expiry.
    Expired,
    /// Before its first valid moment.
    NotYetValid,
    /// The credential is valid, but is on the deny list.
    Denied,
    /// The credential is valid, but its source address is not allowed.
    SourceNotAllowed,
    /// The client certificate is missing or not accepted.
    Certificate(CertificateFailure),
    /// A token that is not three segments of base64url with a JSON object in the first two.
    TokenMalformed,
    /// A token, or its header, that exceeds the size limit.
    TokenTooLarge,
    /// A token without a signature, or with an algorithm that its issuer or its key is not allowed to use.
    TokenAlgorithm,
    /// A token header that requires an extension, contains a key, or has the type of another token.
    TokenHeader,
    /// No issuer of this name is configured.
    UnknownIssuer,
    /// The issuer publishes no key of this name.
    UnknownSigner,
    /// The signature is not the key's.
    BadSignature,
    /// A claim is missing, or has the wrong type.
    TokenClaims,
    /// Issued for longer than the configuration allows.
    TokenLifetime,
    /// The token is for another audience.
    WrongAudience,
    /// Its claims name no organisation, role or tier that the configuration knows of.
    TokenUnmapped(Unmapped),
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
            Self::EmptyCredential => "empty_credential",
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
            Self::TokenMalformed => "malformed_token",
            Self::TokenTooLarge => "token_too_large",
            Self::TokenAlgorithm => "token_algorithm",
            Self::TokenHeader => "token_header",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UnknownSigner => "unknown_signing_key",
            Self::BadSignature => "bad_signature",
            Self::TokenClaims => "token_claims",
            Self::TokenLifetime => "token_lifetime",
            Self::WrongAudience => "wrong_audience",
            Self::TokenUnmapped(_) => "token_not_mapped",
        }
    }

    /// Whether the secret was right, so that the audit log may name the key's owner.
    #[must_use]
    pub const fn proves_holder(self) -> bool {
        match self {
            Self::RotatedOut
            | Self::Revoked
            | Self::Expired
            | Self::NotYetValid
            | Self::Denied
            | Self::SourceNotAllowed
            | Self::TokenLifetime
            | Self::WrongAudience
            | Self::TokenUnmapped(_) => true,
            Self::NoCredential
            | Self::SeveralCredentials
            | Self::InQuery
            | Self::UnsupportedScheme
            | Self::EmptyCredential
            | Self::Malformed
            | Self::CheckDigits
            | Self::UnknownKey
            | Self::WrongSecret
            | Self::TokenMalformed
            | Self::TokenTooLarge
            | Self::TokenAlgorithm
            | Self::TokenHeader
            | Self::UnknownIssuer
            | Self::UnknownSigner
            | Self::BadSignature
            | Self::TokenClaims => false,
            Self::Certificate(failure) => failure.proves_holder(),
        }
    }

    /// The client's error message. It does not reveal whether a key exists; it reveals expiry, because only the key's
    /// holder gets that far.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::NoCredential => "A credential is required",
            Self::SeveralCredentials => "More than one credential was presented",
            Self::InQuery => "Credentials in the URL are not accepted",
            Self::UnsupportedScheme => "Only the Bearer scheme is accepted",
            Self::EmptyCredential => "The header has no credential in it",
            Self::Malformed | Self::CheckDigits => "The credential is malformed",
            Self::UnknownKey
            | Self::WrongSecret
            | Self::RotatedOut
            | Self::Revoked
            | Self::Denied
            | Self::UnknownIssuer
            | Self::UnknownSigner
            | Self::BadSignature
            | Self::TokenAlgorithm
            | Self::TokenHeader
            | Self::TokenClaims => "The credential is not valid",
            Self::TokenMalformed => "The token is malformed",
            Self::TokenTooLarge => "The token is too large",
            Self::TokenLifetime => "The token is issued for longer than is accepted here",
            Self::WrongAudience => "The token is meant for another resource",
            Self::TokenUnmapped(_) => "The token names no organisation, role or tier known here",
            Self::Expired => "The credential has expired",
            Self::NotYetValid => "The credential is not valid yet",
            Self::SourceNotAllowed => "The credential is not accepted from here",
            Self::Certificate(failure) => failure.told(),
        }
    }
}
