//! Starts the real processes that the gateway needs (Valkey, OpenBao, MCP servers, Envoy) and stops them reliably.
//!
//! `cargo xtask`, the benchmarks and the end-to-end tests use it. Everything listens on loopback, needs no root, and
//! ends with the process that started it, even if that is killed. Knows nothing about the gateway's decisions.
//!
//! ```no_run
//! # fn main() -> portcullis_stack::Result<()> {
//! use portcullis_stack::{Stack, StackOptions, Workspace};
//! let workspace = Workspace::locate()?;
//! let dir = workspace.target.join("e2e/example");
//! let stack = Stack::start(StackOptions::new(&workspace, dir)?.set("REDIS_TIMEOUT_MS", 100))?;
//! println!("{} with {}", stack.mcp_url(), stack.analyst.key);
//! # Ok(()) }
//! ```

mod bootstrap;
mod certificates;
mod connector;
mod contextforge;
pub mod env_file;
pub mod envoy;
mod error;
pub mod failure;
pub mod files;
mod frameworks;
pub mod http;
mod issuer;
pub mod known_secrets;
mod node;
mod openbao;
mod operator;
pub mod ports;
pub mod process;
pub mod progress;
pub mod ready;
mod redis7;
mod redis_tls;
mod redis_users;
pub mod signals;
mod spawner;
mod stack;
mod tools;
mod valkey;
mod valkey_cluster;
mod workspace;

pub use bootstrap::Bootstrap;
pub use certificates::{Authority, Certificates, DEMO_AGENT, Identity, Names, Validity};
pub use connector::{Connector, PythonServer};
pub use contextforge::ContextForge;
pub use envoy::{Envoy, EnvoyOptions, Epoch};
pub use error::{During, Result, StackError};
pub use frameworks::Frameworks;
pub use issuer::DemoIssuer;
pub use node::Node;
pub use openbao::OpenBao;
pub use operator::{IssuedKey, KeySpec, Operator};
pub use ports::Ports;
pub use process::Process;
pub use redis_tls::{REDIS_TLS_NAME, RedisTls};
pub use redis_users::RedisUsers;
pub use stack::{CREDENTIAL_FIELD, CREDENTIAL_PATH, Stack, StackOptions, Topology};
pub use tools::{ENVOY_VERSION, Tools};
pub use valkey::{Valkey, ValkeyOptions};
pub use workspace::{Artifacts, Workspace, cargo};
