//! What the gateway does while Redis or Vault does not answer.
//!
//! Owns when a circuit breaker opens and probes, and what the operator's fallback admits. Calls nothing.

pub(crate) mod backoff;
pub mod breaker;
pub mod failover;
