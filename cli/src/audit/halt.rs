//! Why reading a log ends before the log does.
//!
//! Owns the difference between a fault and a reader of our output who has seen enough (`| head`).

use std::io::{Error, ErrorKind};

use crate::report::{CliError, Report, Verdict};

#[derive(Debug)]
pub(super) enum Halt {
    Refused(CliError),
    /// Standard output takes no more.
    Output(Error),
}

impl From<CliError> for Halt {
    fn from(refusal: CliError) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Output(error)
    }
}

impl Halt {
    /// What the command reports therefore.
    pub(super) fn outcome(self) -> Result<Report, CliError> {
        match self {
            Self::Refused(refusal) => Err(refusal),
            // Nobody is there to read a word about it.
            Self::Output(error) if error.kind() == ErrorKind::BrokenPipe => {
                Ok(Report::written(Verdict::Good))
            }
            Self::Output(error) => Err(unwritable("standard output", &error)),
        }
    }
}

pub(super) fn unwritable(place: &str, error: &Error) -> CliError {
    CliError::new(format!("cannot be written: {error}"), place)
        .expected("a file or a pipe that takes all output")
        .next("free space or name another place, and run the command again")
}
