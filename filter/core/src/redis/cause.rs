//! Why a stream is given up, for the log.
//!
//! Owns the words. What counts as a cause is the connection's business.

use std::fmt;

/// Why a stream is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No byte came for too long.
    Silent,
    /// The first command on it was answered with this error: no right to use it, or still loading.
    Unusable(String),
    /// What came is not an answer to what was asked.
    Unreadable,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("it does not answer"),
            Self::Unusable(error) => write!(f, "it answered {error:?} to PING"),
            Self::Unreadable => f.write_str("what it sends is not RESP2, or answers nothing"),
        }
    }
}
