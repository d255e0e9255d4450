//! Errors while a stack is set up, in words that a user can act on.
//!
//! Owns the error type and the `during` adapter that names the attempted step.
//! Knows nothing about any single component.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The result of every function in this crate.
pub type Result<T> = std::result::Result<T, StackError>;

/// Why a stack, or a part of it, failed.
#[derive(Debug)]
pub enum StackError {
    /// The operating system refused.
    Io { attempted: String, source: io::Error },
    /// The user has to provide or build something that is missing.
    Missing { what: String, next_step: String },
    /// A process ended before it was ready.
    Died { process: String, status: String, log: PathBuf, tail: String },
    /// A process lives but did not become ready in time.
    NotReady { awaited: String, waited: Duration, tail: String },
    /// A program or a server answered, but not as needed.
    Refused { attempted: String, answer: String },
    /// The stack is being stopped, so nothing new may start.
    Stopping,
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { attempted, source } => write!(f, "could not {attempted}: {source}"),
            Self::Missing { what, next_step } => write!(f, "{what}; {next_step}"),
            Self::Died { process, status, log, tail } => {
                write!(
                    f,
                    "{process} ended ({status}) before it was ready; its log {} ends with:\n{tail}",
                    log.display()
                )
            }
            Self::NotReady { awaited, waited, tail } => {
                write!(f, "waited {:.1} s in vain for {awaited}", waited.as_secs_f64())?;
                if tail.is_empty() { Ok(()) } else { write!(f, "; its log ends with:\n{tail}") }
            }
            Self::Refused { attempted, answer } => write!(f, "could not {attempted}: {answer}"),
            Self::Stopping => write!(f, "stopping, nothing new is started"),
        }
    }
}

impl std::error::Error for StackError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Missing { .. }
            | Self::Died { .. }
            | Self::NotReady { .. }
            | Self::Refused { .. }
            | Self::Stopping => None,
        }
    }
}

/// Names the purpose of an I/O operation: `fs::write(…).during(|| format!("write {path}"))?`.
pub trait During<T> {
    /// `attempted` completes the sentence "could not …".
    fn during(self, attempted: impl FnOnce() -> String) -> Result<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, attempted: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| StackError::Io { attempted: attempted(), source })
    }
}
