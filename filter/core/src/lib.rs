//! The core of Portcullis: decides on one MCP request over HTTP.
//!
//! This crate is sans-IO. It knows no proxy, no clock, no socket, no randomness, no log. A driver
//! ([`portcullis-filter`] inside Envoy, a scenario file in the tests) turns what happened into an
//! [`driver::event::Event`], calls [`exchange::Exchange::step`], and executes the returned [`driver::step::Step`]:
//! effects in order, then one gate. Time, request ids and every reply of Redis, Vault or the upstream are arguments, so
//! the same events give the same steps.
//!
//! [`portcullis-filter`]: ../portcullis_filter/index.html
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::as_conversions))]

pub mod audit;
pub mod auth;
pub mod authz;
pub mod config;
pub mod connector_credential;
pub mod decode;
pub mod denial;
pub mod driver;
pub mod exchange;
pub mod glob;
pub mod guard;
pub mod hashing;
pub mod health;
mod hex;
pub mod http;
pub mod id;
pub mod json;
pub mod json_path;
pub mod limit;
pub mod mcp;
pub mod metric;
pub mod nearest;
pub mod observed;
pub mod order;
mod pattern;
pub mod pin;
pub mod policy;
pub mod redis;
pub mod relays;
pub mod resilience;
pub mod reviewed;
pub mod route;
pub mod schema;
pub mod secret;
pub mod streams;
pub mod time;
pub mod token_exchange;
pub mod unproven;
pub mod vault;
pub mod worker;
