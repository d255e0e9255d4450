//! What a person sees before a push: the cases beside the policy, calls of an audit log under both policies, and the
//! question.
//!
//! Owns who is asked and what refuses. What differs is in `diff` and `replay`, what cases are in `test`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use portcullis_core::policy::Policy;

use super::count;
use super::test::{self, Tally};
use crate::args::{ReviewArgs, Session};
use crate::document::files_of_cases;
use crate::report::{CliError, Output, progress};

/// What came of the cases beside `policy`, which was read from `place`; nothing where there are none.
pub(super) fn cases(
    place: &Path,
    policy: &Policy,
    args: &ReviewArgs,
) -> Result<Option<Tally>, CliError> {
    let files = match place.is_dir() {
        true => files_of_cases(place).unwrap_or_default(),
        false => beside(place).into_iter().collect(),
    };
    match files.is_empty() {
        true => Ok(None),
        false => test::tally(&files, place, policy, args.failing_cases),
    }
}

/// `crm.test.yaml` of `crm.yaml`.
fn beside(policy: &Path) -> Option<PathBuf> {
    let stem = policy.file_stem()?.to_str()?;
    let name = |end: &str| policy.with_file_name(format!("{stem}.test.{end}"));
    ["yaml", "yml", "json"].map(name).into_iter().find(|file| file.is_file())
}

/// Refuses what the cases refuse, unless that was asked for.
pub(super) fn refuse(cases: &Tally, args: &ReviewArgs, place: &str) -> Result<(), CliError> {
    if cases.failed == 0 || args.failing_cases {
        return Ok(());
    }
    cases.failures.iter().for_each(|line| progress(line));
    let verb = if cases.failed == 1 { "is" } else { "are" };
    let of = count(cases.cases, "case");
    let found = format!("{} of {of} {verb} not as expected", cases.failed);
    Err(CliError::new(found, format!("the cases beside {place}"))
        .expected("cases that are all as expected; nothing was changed")
        .next("repair the policy or the case; --failing-cases pushes it all the same"))
}

/// Whether the command asks: standard input and standard error are terminals, and no pipeline runs it. Some pipelines
/// give their commands a terminal, and no person answers there.
pub(super) fn asks(session: &Session, args: &ReviewArgs) -> bool {
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let pipeline = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty());
    terminal && !pipeline && !args.yes && session.output == Output::Table
}

/// Shows `text` and asks; anything but a yes is a no.
pub(super) fn confirm(text: &str, place: &str) -> Result<(), CliError> {
    text.lines().for_each(progress);
    let mut answer = String::new();
    let asked = write!(std::io::stderr(), "push this? [y/N] ")
        .and_then(|()| std::io::stderr().flush())
        .and_then(|()| std::io::stdin().read_line(&mut answer));
    let yes = ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str());
    match asked.is_ok() && yes {
        true => Ok(()),
        false => Err(CliError::new("the answer was not yes", place)
            .expected("y; nothing was changed")
            .next("run the command again and answer y, or pass --yes")),
    }
}
