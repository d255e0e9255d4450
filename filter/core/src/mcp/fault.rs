//! Why a body is no MCP message.
//!
//! Owns the kinds of fault. What the client gets for one is `denial`'s.

use crate::json::JsonError;

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageFault {
    /// It is not JSON of one meaning.
    Unreadable(JsonError),
    /// It is not one message of JSON-RPC 2.0, or one without what its method needs.
    NotOneMessage(&'static str),
    /// Its `params._meta` is none.
    BadMeta(&'static str),
}
