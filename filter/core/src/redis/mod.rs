//! Redis over one long-lived stream: the wire format and the state of the connection.
//!
//! Owns no socket: bytes and stream events come in, bytes and outcomes of commands go out.

pub mod connection;
pub mod documents;
pub mod resp;

pub use connection::{Cause, Connection, Output, Probed};
pub use documents::Documents;
pub use resp::Command;
