//! Redis over one long-lived stream: the wire format and the life of the connection.
//!
//! Owns no socket: bytes and stream events come in, bytes and verdicts on commands go out.

pub mod connection;
pub mod resp;

pub use connection::{Cause, Connection, Output};
pub use resp::Command;
