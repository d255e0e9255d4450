//! Reasons why a body is no MCP message.
//!
//! Owns the kinds of fault. `denial` owns the client's response.

use crate::json::JsonError;

/// The fault of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageFault {
    /// It is not JSON with a single meaning.
    Unreadable(JsonError),
    /// It is not one message of JSON-RPC 2.0, or lacks something that its method needs.
    NotOneMessage(&'static str),
    /// Its `params._meta` is invalid.
    BadMeta(&'static str),
}
