//! The failure of a command: one sentence for the user.

use crate::error::StackError;
use std::fmt;

/// The sentence.
#[derive(Debug)]
pub struct Failure(String);

/// The result of every command.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure whose message is `sentence`.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<StackError> for Failure {
    fn from(error: StackError) -> Self {
        Self(error.to_string())
    }
}
