//! The gateway's behaviour while Redis or Vault does not answer.
//!
//! Owns when a circuit breaker opens and probes, what the operator's fallback admits, and how a bound is shared. Makes
//! no calls.

pub(crate) mod backoff;
pub mod breaker;
pub mod failover;
pub mod shares;
