//! Access tokens: JWTs of configured issuers (RFC 7519, RFC 9068), and the keys that prove them.
//!
//! Owns a token's form, its signature, its claims and what a worker remembers of both. Fetches
//! nothing and knows no clock: key sets and the time come in as arguments. What a token's subject
//! may do is [`crate::authz`]'s business.

pub mod claims;
pub mod issuer;
pub mod jwks;
pub mod jws;
pub mod keyring;
