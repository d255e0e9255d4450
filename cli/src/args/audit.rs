//! Arguments of `portcullis audit`. Owns their form; what they ask for is in `crate::audit`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use portcullis_core::audit::{Anchor, Start};
use portcullis_core::id::{KeyId, OrgId};

use super::{key_id, org};
use crate::time::Time;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Verify that no entry was edited, dropped, swapped or repeated. Names each bad entry and counts gaps. Exit
    /// status: 0 intact, 1 not intact or no entry, 2 not found out: a file cannot be read, Redis does not answer.
    Verify(VerifyArgs),
    /// Sign how far every chain has come and append it to a log of anchors, which is kept elsewhere. For a cron
    /// job. Exit status: 0 signed, 1 a chain or the log of anchors went back or was changed, 2 not signed: an
    /// outage, a full disk.
    Anchor(AnchorArgs),
    /// Search logs for entries; newest last. Exit status: 0 found, 1 none found, 2 a log cannot be read.
    Search(SearchArgs),
    /// Show the last entries of logs; with --follow, also each new one, across rotation. Exit status as of `search`.
    Tail(TailArgs),
    /// Export entries for spreadsheets (csv) and security tools (cef, ocsf): one row an entry. Exit status as of
    /// `search`.
    Export(ExportArgs),
    /// Report what a weekly review looks at: callers, refusals, first uses, odd hours, slow tools, limits, drift.
    /// Exit status as of `search`.
    Report(ReportArgs),
    /// Show who changed which key or policy, when and why; newest first.
    Show(ShowAuditArgs),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("of_org").args(["admin", "intents"]))]
pub(crate) struct VerifyArgs {
    /// Logs, in any order, also compressed with gzip; `-` for standard input. Lines of other programs are skipped.
    /// Required without --admin.
    #[arg(required_unless_present = "admin")]
    pub(crate) files: Vec<PathBuf>,
    /// Where chains may start: with their first entry (genesis), or anywhere: older files were rotated away.
    #[arg(long, value_enum, default_value_t = ChainStart::Genesis)]
    pub(crate) start: ChainStart,
    /// An entry that has to be there, as an earlier `verify` showed it: its chain, LAST and HEAD. May be given
    /// several times. A chain that was cut off, or an older copy, is found so.
    #[arg(long, value_name = "CHAIN:SEQ:HASH", value_parser = anchor)]
    pub(crate) expect: Vec<Anchor>,
    /// Log of anchors, as `audit anchor` writes it: what each chain has to contain. May be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) anchors: Vec<PathBuf>,
    /// Public key of the anchors: PEM, or base64 as Vault shows it. Without it, their signatures are not checked.
    #[arg(long, value_name = "FILE", requires = "anchors")]
    pub(crate) public_key: Option<PathBuf>,
    /// Chains also have to contain the checkpoints that gateways noted in Redis.
    #[arg(long)]
    pub(crate) checkpoints: bool,
    /// Compare with the intents that gateways wrote to Redis before the calls (`audit.durable`): names each call that
    /// has no entry.
    #[arg(long, conflicts_with = "admin")]
    pub(crate) intents: bool,
    /// The logs are those of some gateways only: an anchored chain without an entry in them is counted, not missed.
    #[arg(long)]
    pub(crate) partial: bool,
    /// Verify the admin chains in Redis instead of files: who changed keys and policies.
    #[arg(long, conflicts_with = "files")]
    pub(crate) admin: bool,
    /// Only this organisation's admin chain, or intents.
    #[arg(long, requires = "of_org", value_parser = org)]
    pub(crate) org: Option<OrgId>,
}

#[derive(Debug, Args)]
pub(crate) struct AnchorArgs {
    /// Log of anchors; made if it is not there. Keep it where gateways and users of Redis cannot write.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: PathBuf,
    #[command(flatten)]
    pub(crate) signer: SignerArgs,
}

/// What signs.
#[derive(Debug, Args)]
pub(crate) struct SignerArgs {
    /// Ed25519 private key in PEM, as `openssl genpkey -algorithm ed25519` makes it. Required without
    /// --vault-key.
    #[arg(long, value_name = "FILE", required_unless_present = "vault_key")]
    pub(crate) key: Option<PathBuf>,
    /// Instead of a file: the name of an ed25519 key of Vault's transit engine.
    #[arg(long, value_name = "NAME", conflicts_with = "key")]
    pub(crate) vault_key: Option<String>,
    /// Mount of the transit engine.
    #[arg(long, value_name = "PATH", default_value = "transit")]
    pub(crate) vault_mount: String,
    /// Vault's address.
    #[arg(long, env = "VAULT_ADDR", value_name = "URL")]
    pub(crate) vault: Option<String>,
    /// Token for Vault. Also --vault-token, as doctor calls it.
    #[arg(
        long,
        alias = "vault-token",
        env = "VAULT_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
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

/// Logs to read.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Logs, in any order, also compressed with gzip; `-` for standard input. Lines of other programs are skipped.
    #[arg(required = true, value_name = "FILES")]
    pub(crate) files: Vec<PathBuf>,
}

/// A status, or a pattern of some: a misspelt one would find nothing, which reads like an all-clear.
fn status(text: &str) -> Result<String, String> {
    const KNOWN: [&str; 8] =
        ["success", "tool_error", "error", "denied", "limited", "unavailable", "aborted", "open"];
    match text.contains(['*', '?']) || KNOWN.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("expected {}, or a pattern", KNOWN.join(", "))),
    }
}

/// Which entries are meant: all that match every option. An option given several times, or with a list, matches any.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct FilterArgs {
    /// Organisation. As in all patterns here, `*` stands for any characters and `?` for one.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) org: Vec<String>,
    /// Id of the API key.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) key: Vec<String>,
    /// Secret of a key that was replaced or replaced one: its name in `portcullis key show`, never the key.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) secret: Vec<String>,
    /// Id of the request, from `x-portcullis-request-id`.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) request: Vec<String>,
    /// Caller: subject of the token or certificate, or the name of the key.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) client: Vec<String>,
    /// Agent that the caller's token names.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) agent: Vec<String>,
    /// Tool.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) tool: Vec<String>,
    /// URI of a resource that was read or subscribed to.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) resource: Vec<String>,
    /// MCP method, such as tools/call, or the action of an administrator, such as key.rotate.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) method: Vec<String>,
    /// Status: success, tool_error, error, denied, limited, unavailable, aborted or open.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = status)]
    pub(crate) status: Vec<String>,
    /// Rule that decided, such as auth.expired or tiers.*.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) rule: Vec<String>,
    /// Event of the entry, such as schema_drift.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) event: Vec<String>,
    /// Only since then: a duration before now (2h, 7d) or a time (2026-11-28T00:00:00Z).
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub(crate) since: Option<Time>,
    /// Only before then: a duration before now or a time.
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub(crate) until: Option<Time>,
    /// Text that the line contains, in any case of ASCII letters.
    #[arg(long, value_name = "TEXT")]
    pub(crate) text: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    pub(crate) logs: LogArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Only the newest N, sorted by time. Without it, all, in the order of the logs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// File of Vault's audit device: below each entry, what Vault answered for it. Vault has to write x-request-id.
    #[arg(long, value_name = "FILE")]
    pub(crate) vault_log: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(crate) logs: LogArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// So many of the last entries that match.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub(crate) lines: u32,
    /// Goes on with each new entry until it is interrupted. Rotated and truncated logs are followed.
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) logs: LogArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Form of the rows
    #[arg(long, value_enum)]
    pub(crate) format: ExportFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// The entries as they are, one JSON object a line.
    Json,
    /// Comma-separated values (RFC 4180) with a header; no cell is a formula.
    Csv,
    /// Common Event Format, CEF:0.
    Cef,
    /// OCSF 1.6.0, class API Activity (6003), one JSON object a line.
    Ocsf,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    pub(crate) logs: LogArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Also writes the report as one page with plots.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// So many rows in each list.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) top: u32,
    /// Working hours from Monday to Friday, in UTC; all other hours are odd ones.
    #[arg(long, value_name = "FROM-TO", default_value = "7-19", value_parser = hours)]
    pub(crate) hours: Hours,
}

/// Full hours of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hours {
    pub(crate) from: u8,
    pub(crate) to: u8,
}

fn hours(text: &str) -> Result<Hours, String> {
    let read = || {
        let (from, to) = text.split_once('-')?;
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        (from < to && to <= 24).then_some(Hours { from, to })
    };
    read().ok_or_else(|| "expected two full hours of a day, such as 7-19".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct ShowAuditArgs {
    /// The admin chains in Redis, which it shows also without this; requests are in the access log that Envoy writes.
    #[arg(long)]
    pub(crate) admin: bool,
    /// Only this organisation's.
    #[arg(long, value_parser = org)]
    pub(crate) org: Option<OrgId>,
    /// Only changes of this key.
    #[arg(long, value_name = "ID", value_parser = key_id)]
    pub(crate) key: Option<KeyId>,
    /// Only what happened since: a duration before now (7d) or a time.
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub(crate) since: Option<Time>,
    /// At most this many entries.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}
