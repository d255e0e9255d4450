//! Arguments of `portcullis audit`. Owns their form; what they ask for is in `crate::audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use portcullis_core::audit::{Anchor, Start};
use portcullis_core::id::{KeyId, OrgId};

use super::{key_id, org};
use crate::moment::Moment;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Verify that no entry was edited, dropped, swapped or repeated. Names each bad entry and counts gaps.
    Verify(VerifyArgs),
    /// Show who changed which key or policy, when and why; newest first.
    Show(ShowAuditArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Logs, in any order, also compressed with gzip; `-` for standard input. Lines of others are passed over.
    #[arg(required_unless_present = "admin")]
    pub(crate) files: Vec<PathBuf>,
    /// Where chains may start: with their first entry (genesis), or anywhere: older files were rotated away.
    #[arg(long, value_enum, default_value_t = ChainStart::Genesis)]
    pub(crate) start: ChainStart,
    /// An entry that has to be there, as an earlier `verify` showed it: its chain, LAST and HEAD. May be given
    /// several times. A chain that was cut off, or an older copy, is found so.
    #[arg(long, value_name = "CHAIN:SEQ:HASH", value_parser = anchor)]
    pub(crate) expect: Vec<Anchor>,
    /// Verify the admin chains in Redis instead of files: who changed keys and policies.
    #[arg(long, conflicts_with = "files")]
    pub(crate) admin: bool,
    /// Only this organisation's admin chain.
    #[arg(long, requires = "admin", value_parser = org)]
    pub(crate) org: Option<OrgId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChainStart {
    Genesis,
    Anywhere,
}

fn anchor(text: &str) -> Result<Anchor, String> {
    Anchor::parse(text).ok_or_else(|| format!("expected {}", Anchor::EXPECTED))
}

impl From<ChainStart> for Start {
    fn from(start: ChainStart) -> Self {
        match start {
            ChainStart::Genesis => Start::Genesis,
            ChainStart::Anywhere => Start::Anywhere,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ShowAuditArgs {
    /// The admin chains in Redis; requests are in the access log that Envoy writes.
    #[arg(long, required = true)]
    pub(crate) admin: bool,
    /// Only this organisation's.
    #[arg(long, value_parser = org)]
    pub(crate) org: Option<OrgId>,
    /// Only changes of this key.
    #[arg(long, value_name = "ID", value_parser = key_id)]
    pub(crate) key: Option<KeyId>,
    /// Only what happened since: a duration before now (7d) or a time.
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<Moment>,
    /// At most this many entries.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}
