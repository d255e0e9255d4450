//! Access tokens: JWTs of configured issuers (RFC 7519, RFC 9068), and the keys that verify them.
//!
//! Owns a token's form, its signature, its claims and a worker's cache of both. Fetches nothing and has no clock: key
//! sets and the time are arguments. [`crate::authz`] decides on the permissions of a token's subject.

pub mod claims;
pub mod issuer;
pub mod jwks;
pub mod jws;
pub mod keyring;
