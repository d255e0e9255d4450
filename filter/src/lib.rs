//! The Envoy filter: a thin driver of [`portcullis_core`].
//!
//! Turns host callbacks into events and executes steps; it makes no decision. The host calls only [`abi`], and only
//! [`host`] calls the host; memory comes from [`alloc`], and [`compare`] owns `memcmp`. The same module serves, under
//! the root id `frame` and in a VM of its own, as the upstream filter that takes gRPC's framing off the Redis stream.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod abi;
mod alloc;
mod compare;
mod credential_calls;
mod exchanges;
mod frame;
mod gateway;
mod guarded;
mod host;
mod http_call;
mod http_context;
mod jwks_fetches;
mod metrics;
mod pending_events;
mod redis_stream;
mod root;
mod stream;
mod ticker;
mod vault_probe;
mod waiter;
mod withheld;
