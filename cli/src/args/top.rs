//! Arguments of `portcullis top`.

use clap::Args;

use super::audit::{FilterArgs, LogArgs};
use crate::time::Span;
use crate::values::share;

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) logs: LogArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// How much time is summed up.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "60s")]
    pub(crate) window: Span,
    /// How often the picture changes.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "2s")]
    pub(crate) every: Span,
    /// So many rows in each list.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rows: u32,
    /// Show windows that are used at least this much.
    #[arg(long, value_name = "PERCENT", value_parser = share, default_value = "80%")]
    pub(crate) over: u8,
    /// Show one picture and end.
    #[arg(long)]
    pub(crate) once: bool,
}
