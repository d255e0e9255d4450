//! What can go wrong while a stack is set up, in words that a user can act on.
//!
//! Owns the error type and the `during` adapter that says what was being attempted.
//! Knows nothing about any single component.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, StackError>;

/// Why a stack, or a part of it, could not do what was asked.
#[derive(Debug)]
pub enum StackError {
    /// The operating system refused.
    Io { attempted: String, source: io::Error },
    /// Something that the user has to provide or build is not there.
    Missing { what: String, next_step: String },
    /// A process ended while somebody waited for it to be ready.
    Died { process: String, status: String, log: PathBuf, tail: String },
    /// A process lives but did not become ready in time.
    NotReady { awaited: String, waited: Duration, tail: String },
    /// A program or a server answered, but not what was needed.
    Refused { attempted: String, answer: String },
    /// Everything is being stopped, nothing new may start.
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

/// Says what an I/O operation was for: `fs::write(…).during(|| format!("write {path}"))?`.
pub trait During<T> {
    /// `attempted` completes the sentence "could not …".
    fn during(self, attempted: impl FnOnce() -> String) -> Result<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, attempted: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| StackError::Io { attempted: attempted(), source })
    }
}
