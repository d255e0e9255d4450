//! Upstream responses that must not pass.
//!
//! Owns their kinds. An immediate retry helps with none of them.

/// The fault of an upstream's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamFault {
    /// A redirect: MCP has none, and a client that follows it sends its credential to the target.
    Redirect,
    /// A 1xx status as the final one: the request asked for no other protocol.
    Upgrade,
    /// A response with a body that is neither JSON nor an event stream.
    ContentType,
    /// A content coding that the request did not accept.
    ContentEncoding,
    /// The content should be a JSON-RPC message, but cannot be read as one.
    Unreadable,
    /// A response to a request that was not judged yet (`split` mode).
    Early,
    /// The connection broke before the request was judged (`split` mode).
    GoneEarly,
    /// A session id that belongs to another caller.
    SessionTaken,
    /// An error status without a JSON-RPC message, or a status that HTTP does not have.
    Status,
    /// A response that ended without an answer to the request.
    NoAnswer,
}

impl UpstreamFault {
    /// Its name in the audit entry's rule.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Upgrade => "upgrade",
            Self::ContentType => "content_type",
            Self::ContentEncoding => "content_encoding",
            Self::Unreadable => "unreadable",
            Self::Early => "answered_early",
            Self::GoneEarly => "disconnected_early",
            Self::SessionTaken => "session_taken",
            Self::Status => "status",
            Self::NoAnswer => "no_answer",
        }
    }

    /// The client's message.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::Redirect => "The MCP server answered with a redirect, which is not followed",
            Self::Upgrade => "The MCP server answered with another protocol",
            Self::ContentType => {
                "The MCP server answered with neither application/json nor text/event-stream"
            }
            Self::ContentEncoding => {
                "The MCP server answered with a content coding that was not asked for"
            }
            Self::Unreadable => "The MCP server's answer is not a JSON-RPC message",
            Self::Early => "The MCP server answered before it had the request",
            Self::GoneEarly => {
                "The MCP server broke off before it had the request: the call was not made"
            }
            Self::SessionTaken => {
                "The MCP server opened a session under an id that another caller has"
            }
            Self::Status => "The MCP server answered with an HTTP error",
            Self::NoAnswer => "The MCP server's response ended without an answer",
        }
    }
}
