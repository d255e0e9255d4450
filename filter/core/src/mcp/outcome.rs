//! What became of a call, as the server's answer says.
//!
//! Keeps no output: the audit log says how many rows came back, never which.

/// What an answer says about its call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolOutcome {
    /// No answer was recognised.
    #[default]
    Unseen,
    /// A result.
    Result {
        /// How many rows it carries, when that can be told.
        rows: Option<u64>,
    },
    /// A result with `isError: true`.
    ToolError,
    /// A JSON-RPC error with this code.
    ProtocolError(i64),
}
