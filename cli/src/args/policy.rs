//! The arguments of `portcullis policy`. Owns their form; what they ask for is in `crate::policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use portcullis_core::id::PolicyVersion;

use super::line;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a document without activating it; names every fault with its line.
    Check(CheckArgs),
    /// Activate a document for all organisations it names, from their next request on.
    Push(PushArgs),
    /// List what was activated when, by whom and why; newest first.
    History(HistoryArgs),
    /// Print a document as JSON; without VERSION the one activated last.
    Show(ShowPolicyArgs),
    /// Go back to an earlier version, from the next request on.
    Rollback(RollbackArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Policy document, YAML or JSON; `-` for standard input.
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Policy document, YAML or JSON; `-` for standard input.
    pub(crate) file: PathBuf,
    /// Why; kept in the history.
    #[arg(long, value_parser = line)]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// At most this many entries.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct ShowPolicyArgs {
    #[arg(value_parser = policy_version)]
    pub(crate) version: Option<PolicyVersion>,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// Version to go back to. Default: what was active before the last change, so that a second
    /// rollback undoes the first.
    #[arg(long, value_name = "VERSION", value_parser = policy_version)]
    pub(crate) to: Option<PolicyVersion>,
    /// Why; kept in the history.
    #[arg(long, value_parser = line)]
    pub(crate) reason: Option<String>,
}

fn policy_version(text: &str) -> Result<PolicyVersion, String> {
    PolicyVersion::new(text).ok_or_else(|| format!("expected {}", PolicyVersion::EXPECTED))
}
