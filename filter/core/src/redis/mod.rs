//! Redis over one long-lived stream: the wire format and the life of the connection.
//!
//! Owns no socket: bytes and stream events come in, bytes and verdicts on commands go out.

mod cause;
pub mod connection;
pub mod documents;
mod not_now;
pub mod resp;

pub use cause::Cause;
pub use connection::{Connection, Output, Probed};
pub use documents::Documents;
pub use resp::Command;
