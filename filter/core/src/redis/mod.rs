//! Redis over one long-lived stream: the wire format and the life of the connection.
//!
//! Owns no socket: bytes and stream events come in, bytes and verdicts on commands go out.

pub mod connection;
pub mod documents;
pub mod resp;

pub use connection::{Cause, Connection, Output, Probed};
pub use documents::Documents;
pub use resp::Command;
