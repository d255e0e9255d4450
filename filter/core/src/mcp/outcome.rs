//! The outcome of a call, according to the server's response.
//!
//! Keeps no output: the audit log has the number of rows, never their content.

/// The outcome in a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolOutcome {
    /// No response was recognised.
    #[default]
    Unseen,
    /// A result.
    Result {
        /// How many rows it has, if known.
        rows: Option<u64>,
    },
    /// A task, whose result comes in another response.
    Task,
    /// A result with `isError: true`.
    ToolError,
    /// A JSON-RPC error with this code.
    ProtocolError(i64),
}
