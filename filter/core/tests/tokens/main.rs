//! Access tokens: valid ones, invalid ones with the reason, and how often an issuer is asked.
//!
//! Owns the table of invalid tokens. All tests use [`Keyring::verify`], as in the filter.

mod bad;
mod config;
mod good;
mod keyring;
mod mint;

use portcullis_core::auth::AuthFailure;
use portcullis_core::auth::token::issuer::Issuer;
use portcullis_core::auth::token::jws::PresentedToken;
use portcullis_core::auth::token::keyring::{Keyring, Verification};

use mint::{RESOURCE, START, at};

/// The default of the configuration.
const MOST: usize = 16_384;

/// Verifies `token` at [`START`] with a keyring that has only `issuers`.
fn verify(token: &str, issuers: &[Issuer]) -> Verification {
    match PresentedToken::parse(token.as_bytes(), MOST) {
        Ok(token) => Keyring::new(0).verify(&token, issuers, Some(RESOURCE), at(START)),
        Err(failure) => Verification::Refused(failure, None),
    }
}

/// Why `token` is refused.
fn refusal(token: &str, issuers: &[Issuer]) -> AuthFailure {
    match verify(token, issuers) {
        Verification::Refused(failure, _) => failure,
        other => panic!("not refused: {other:?}\n{token}"),
    }
}
