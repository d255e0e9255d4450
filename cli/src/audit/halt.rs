//! Reasons why reading a log ends early.
//!
//! Owns the difference between a fault and a reader of the output that closes the pipe (`| head`).

use std::io::{Error, ErrorKind};

use crate::report::{CliError, Report, Verdict};

#[derive(Debug)]
pub(super) enum Halt {
    Refused(CliError),
    /// Standard output accepts no more data.
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
    /// The command's report for this reason.
    pub(super) fn outcome(self) -> Result<Report, CliError> {
        match self {
            Self::Refused(refusal) => Err(refusal),
            // The reader is gone, so there is no message.
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
