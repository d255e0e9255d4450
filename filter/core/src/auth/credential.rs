//! Finding the one credential of a request (RFC 6750 §2; never in the URL).
//!
//! Owns the allowed places of credentials. Verifies nothing.

use memchr::memchr_iter;

use super::AuthFailure;
use super::api_key::PresentedKey;
use super::token::jws::PresentedToken;
use crate::driver::event::Head;
use crate::http::query;

/// A credential from a request: well-formed as far as its kind is visible from its form, not yet verified.
#[derive(Debug)]
pub enum Presented<'h> {
    /// An API key.
    Key(PresentedKey),
    /// Three parts between dots: a JSON Web Token (RFC 7519 §3.1), unread.
    Token(PresentedToken<'h>),
}

/// The single credential in the headers of a request; a token has at most `token_max_bytes`.
///
/// # Errors
/// No credential, several, one in the URL, or one that is not well-formed.
pub fn extract(head: &Head, token_max_bytes: usize) -> Result<Presented<'_>, AuthFailure> {
    if is_in(head.query()) {
        return Err(AuthFailure::InQuery);
    }
    let bearers = head.values("authorization");
    let keys = head.values("x-api-key");
    match (bearers.as_slice(), keys.as_slice()) {
        ([], []) => Err(AuthFailure::NoCredential),
        ([value], []) => presented(bearer(value)?, token_max_bytes),
        ([], [value]) if value.trim_ascii().is_empty() => Err(AuthFailure::EmptyCredential),
        ([], [value]) => PresentedKey::parse(value.trim_ascii()).map(Presented::Key),
        _ => Err(AuthFailure::SeveralCredentials),
    }
}

/// The value after `Bearer`. An API key has no dot, a token exactly two.
fn presented(text: &[u8], token_max_bytes: usize) -> Result<Presented<'_>, AuthFailure> {
    match std::str::from_utf8(text) {
        Ok(token) if memchr_iter(b'.', token.as_bytes()).count() == 2 => {
            PresentedToken::parse(token.as_bytes(), token_max_bytes).map(Presented::Token)
        }
        _ => PresentedKey::parse(text).map(Presented::Key),
    }
}

/// The token of `Bearer <token>`; the scheme is case-insensitive (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Result<&[u8], AuthFailure> {
    const SCHEME: &[u8] = b"bearer ";
    let value = value.trim_ascii();
    // Usually an unset variable of a script.
    if value.is_empty() || value.eq_ignore_ascii_case(SCHEME.trim_ascii()) {
        return Err(AuthFailure::EmptyCredential);
    }
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => Ok(token.trim_ascii()),
        _ => Err(AuthFailure::UnsupportedScheme),
    }
}

/// Names of credentials in a query, as lenient servers read them.
const NAMES: [&[u8]; 3] = [b"accesstoken", b"apikey", b"xapikey"];

/// Whether a query has a credential.
pub(crate) fn is_in(query: &[u8]) -> bool {
    query::pairs(query).any(|pair| NAMES.contains(&pair.letters.as_slice()))
}

/// Whether a parameter of this name is a credential.
pub(crate) fn is_name(name: &[u8]) -> bool {
    NAMES.contains(&query::letters(name).as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(path: &str, headers: &[(&str, &str)]) -> AuthFailure {
        extract(&Head::for_tests("POST", path, headers), 1_024).unwrap_err()
    }

    // Proves: B4, B2
    #[test]
    fn exactly_one_well_placed_credential_is_taken() {
        use AuthFailure as F;
        assert_eq!(failure("/demo/mcp", &[]), F::NoCredential);
        assert_eq!(failure("/demo/mcp", &[("authorization", "Basic eDp5")]), F::UnsupportedScheme);
        assert_eq!(failure("/demo/mcp", &[("authorization", "Bearer")]), F::EmptyCredential);
        assert_eq!(failure("/demo/mcp", &[("authorization", " ")]), F::EmptyCredential);
        assert_eq!(failure("/demo/mcp", &[("x-api-key", "")]), F::EmptyCredential);
        assert_eq!(failure("/demo/mcp", &[("authorization", "Bearers")]), F::UnsupportedScheme);
        assert_eq!(failure("/demo/mcp", &[("authorization", "bearer x")]), F::Malformed);
        assert_eq!(failure("/demo/mcp", &[("x-api-key", "x")]), F::Malformed);
        let two = [("authorization", "Bearer a"), ("x-api-key", "b")];
        assert_eq!(failure("/demo/mcp", &two), F::SeveralCredentials);
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer a")];
        assert_eq!(failure("/demo/mcp", &twice), F::SeveralCredentials);
        for query in ["a=1&Access_Token=x", "access%5Ftoken=x", "a;api-key=x"] {
            assert_eq!(failure(&format!("/demo/mcp?{query}"), &two), F::InQuery, "{query}");
        }
    }
}
