//! MCP messages, as far as a gateway has to understand them.
//!
//! Owns the reading of messages, versions, lists and event streams. Decides nothing.

pub mod amend;
pub mod body;
pub mod fault;
pub mod filter;
pub mod headers;
mod line_breaks;
pub mod list;
pub mod message;
pub mod operation;
pub mod outcome;
mod rows;
pub mod sse;

pub use amend::Body;
pub use fault::MessageFault;
pub use message::{Message, Sender};
pub use operation::{Listing, Operation, ToolCall, is_of_mcp, methods};

/// Every supported protocol revision, oldest first. Compared by equality, never by order.
pub const SUPPORTED_VERSIONS: [&str; 5] =
    ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", MODERN_VERSION];
/// The first revision without handshake and session.
pub const MODERN_VERSION: &str = "2026-07-28";

/// Whether a client declared `elicitation: {url: {}}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UrlElicitation {
    /// It did not, or it is not known.
    #[default]
    Undeclared,
    /// It did.
    Declared,
}

/// The rules of a request; determined per request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Era {
    /// Up to 2025-11-25: handshake, sessions.
    #[default]
    Legacy,
    /// From 2026-07-28: stateless, headers mirror the body.
    Modern,
}
