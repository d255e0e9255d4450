//! The base of the end-to-end tests: a world of running stacks, a client that shows raw answers, the upstream's record
//! and the audit log.
//!
//! Owns the mechanics and no expectations: `e2e/` has those, one module per topic. Builds nothing and links no filter;
//! the tests run the results of `cargo xtask build`.

pub mod audit;
pub mod case;
pub mod clients;
pub mod crowd;
pub mod ext_proc;
pub mod fake;
pub mod fake_http2;
pub mod faulty_redis;
pub mod front;
pub mod gateway;
pub mod http2;
pub mod leaks;
pub mod log_service;
pub mod mcp;
pub mod memory;
pub mod moved_clock;
pub mod node;
pub mod organisation;
pub mod otlp_http;
pub mod pair;
pub mod patient_hop;
pub mod tls;
pub mod tokens;
pub mod wire;
pub mod world;

pub use audit::AuditLog;
pub use case::Case;
pub use gateway::{Answer, Gateway};
pub use organisation::Organisation;
pub use wire::{Request, Wire};
pub use world::World;
