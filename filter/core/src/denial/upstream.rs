//! What an upstream answered that must not pass.
//!
//! Owns the kinds of it. None of them gets better by trying again at once.

/// What is wrong with an upstream's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamFault {
    /// A redirect: MCP has none, and a client that follows it takes its credential along.
    Redirect,
    /// A 1xx status as the final one: nobody asked for another protocol.
    Upgrade,
    /// An answer that is neither JSON nor an event stream, nor without a body.
    ContentType,
    /// A content coding that nobody asked for.
    ContentEncoding,
    /// What should be a JSON-RPC message is none.
    Unreadable,
    /// An answer to a request that was not judged yet (`split` mode).
    Early,
    /// A session id that belongs to another caller.
    SessionTaken,
    /// An error status without a JSON-RPC message.
    Status,
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
            Self::SessionTaken => "session_taken",
            Self::Status => "status",
        }
    }

    /// What the client reads.
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
            Self::SessionTaken => {
                "The MCP server opened a session under an id that another caller has"
            }
            Self::Status => "The MCP server answered with an HTTP error",
        }
    }
}
