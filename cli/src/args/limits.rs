//! `portcullis limits`: its arguments.

use clap::{Args, Subcommand};

use super::{ShowKeyArgs, line};

#[derive(Debug, Subcommand)]
pub(crate) enum LimitsCommand {
    /// What calls of a key draw from, what of it is used, and when it comes back.
    Show(ShowKeyArgs),
    /// Forget what a key has drawn: from its own windows, or from those of one limit.
    Reset(ResetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    pub(crate) key: ShowKeyArgs,
    /// Only this limit, such as limits.month. Windows that other callers share are reset only by name.
    #[arg(long, value_name = "NAME", value_parser = line)]
    pub(crate) limit: Option<String>,
    /// Why; kept in the admin chain.
    #[arg(long, value_parser = line)]
    pub(crate) reason: String,
}
