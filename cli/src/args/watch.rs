//! Arguments of `portcullis watch`.

use std::path::PathBuf;

use clap::Args;
use portcullis_core::id::OrgId;

use super::org;
use crate::time::Span;
use crate::values::share;

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Only this organisation. Default: all.
    #[arg(long, value_parser = org)]
    pub(crate) org: Option<OrgId>,
    /// Report windows that are used at least this much.
    #[arg(long, value_name = "PERCENT", value_parser = share, default_value = "80%")]
    pub(crate) over: u8,
    /// Run this program for each event, which is a JSON object on its standard input. It is run without a shell.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) exec: Option<PathBuf>,
    /// Post each event, a JSON object, to this URL.
    #[arg(long, value_name = "URL")]
    pub(crate) post: Option<String>,
    /// How often to look.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "10s")]
    pub(crate) every: Span,
    /// Look once, report everything that waits or is near its end, and end.
    #[arg(long)]
    pub(crate) once: bool,
}
