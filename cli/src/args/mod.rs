//! The command line: every command, option and help text.
//!
//! Owns the form of arguments. Whether what they name exists is for the commands to find out.

mod audit;
mod discover;
mod doctor;
mod key;
mod limits;
mod policy;
mod render;
mod rules;

use clap::{Args, Parser, Subcommand, ValueEnum};
use portcullis_core::id::{KeyId, OrgId, PolicyName};

pub(crate) use audit::{AuditCommand, ChainStart, ShowAuditArgs, VerifyArgs};
pub(crate) use discover::{Class, DiscoverArgs};
pub(crate) use doctor::DoctorArgs;
pub(crate) use key::{
    IssueArgs, KeyCommand, ListArgs, RevokeArgs, RotateArgs, SetArgs, ShowKeyArgs, Switch, Terms,
};
pub(crate) use render::{RenderArgs, Target};
pub(crate) use rules::{ApproveCommand, ApproveListArgs, DecideArgs, ExplainArgs};

pub(crate) use limits::{CallerArgs, LimitsCommand, ResetArgs};
pub(crate) use policy::{
    CanaryArgs, CheckArgs, DiffArgs, HistoryArgs, PolicyCommand, PromoteArgs, PushArgs,
    RollbackArgs, ShowPolicyArgs, Side,
};

use crate::report::Refusal;
use crate::restore::RedisCommand;
use crate::token::TokenCommand;

/// The operator's tool of Portcullis: API keys, policy, audit log.
///
/// Exit status: 0 done, 1 refused or found wanting, 2 usage, 3 done in part (some of several keys).
#[derive(Debug, Parser)]
#[command(name = "portcullis", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) session: Session,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What all commands share.
#[derive(Debug, Args)]
pub(crate) struct Session {
    /// Redis, Valkey or a Cluster of them, such as redis://127.0.0.1:6379/ or rediss://user:password@host/.
    #[arg(
        long,
        global = true,
        env = "PORTCULLIS_REDIS",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) redis: Option<String>,
    /// Who is doing this; kept with every change. Default: the operating system's user.
    #[arg(long, global = true, value_name = "NAME", value_parser = line)]
    pub(crate) actor: Option<String>,
    /// A table for people, or one JSON document for scripts.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

impl Session {
    /// Who is to be named in what is written.
    pub(crate) fn actor_name(&self) -> Result<String, Refusal> {
        if let Some(actor) = &self.actor {
            return Ok(actor.clone());
        }
        let user = whoami::username().ok();
        user.and_then(|user| line(&user).ok()).ok_or_else(|| {
            Refusal::usage("the operating system does not say who you are").expected("--actor NAME")
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Issue, list, show, change, rotate and revoke API keys.
    #[command(subcommand)]
    Key(Box<KeyCommand>),
    /// Check policy documents, activate them or try them on some callers, go back to an earlier one.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// What callers have drawn from their windows; forgetting it.
    #[command(subcommand)]
    Limits(LimitsCommand),
    /// Deny access tokens, or all of a subject; allow them again.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Compare the tools of live servers with the definitions that a policy pins.
    Discover(DiscoverArgs),
    /// Have gateways serve again after Redis was restored from an older copy.
    #[command(subcommand)]
    Redis(RedisCommand),
    /// Verify audit logs; read who changed keys and policies.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Decide on calls that wait for a person.
    #[command(subcommand)]
    Approve(ApproveCommand),
    /// Tell whether a call would be allowed, and why. Exit status: 0 allowed, 1 refused.
    Explain(Box<ExplainArgs>),
    /// Look at Redis, Vault and Envoy: what is wrong, what will be, what to do. Exit status: 1 if anything is bad.
    Doctor(DoctorArgs),
    /// Print routes that want a guard: for Envoy, Istio or Envoy Gateway, from a description of hosts and connectors.
    Render(RenderArgs),
    /// Print a completion script.
    Completions { shell: clap_complete::Shell },
}

/// Which organisations a change is for.
#[derive(Debug, Default, Args)]
pub(crate) struct Which {
    /// Only this organisation; may be given several times.
    #[arg(long, value_parser = org)]
    pub(crate) org: Vec<OrgId>,
    /// All organisations that this concerns, when they are several.
    #[arg(long, conflicts_with = "org")]
    pub(crate) all: bool,
}

impl Which {
    /// Whether a change of `org` is asked for; nobody in particular means everybody.
    pub(crate) fn means(&self, org: &OrgId) -> bool {
        self.org.is_empty() || self.org.contains(org)
    }

    /// Refuses a change that reaches several organisations when neither they nor all were asked for.
    pub(crate) fn covers(&self, concerned: &[OrgId]) -> Result<(), Refusal> {
        if concerned.len() < 2 || self.all || !self.org.is_empty() {
            return Ok(());
        }
        let names = concerned.iter().map(OrgId::as_str).collect::<Vec<_>>().join(", ");
        let found = format!("this concerns {} organisations: {names}", concerned.len());
        Err(Refusal::usage(found)
            .expected("--org ORG for each that is meant, or --all; nothing was changed")
            .next("the same command with --org or --all"))
    }
}

pub(crate) fn org(text: &str) -> Result<OrgId, String> {
    OrgId::new(text).ok_or_else(|| format!("expected {}", OrgId::EXPECTED))
}

fn key_id(text: &str) -> Result<KeyId, String> {
    KeyId::new(text).ok_or_else(|| {
        format!("expected the id of a key: {}; never the whole key", KeyId::EXPECTED)
    })
}

fn policy_name(text: &str) -> Result<PolicyName, String> {
    PolicyName::new(text).ok_or_else(|| format!("expected {}", PolicyName::EXPECTED))
}

/// One line of free text that is kept and shown again.
pub(crate) fn line(text: &str) -> Result<String, String> {
    const LONGEST: usize = 200;
    let text = text.trim();
    if text.is_empty() || text.chars().count() > LONGEST || text.chars().any(char::is_control) {
        return Err(format!("expected one line of 1 to {LONGEST} characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn free_text_is_one_line() {
        assert_eq!(line("  key leaked "), Ok("key leaked".to_owned()));
        for bad in ["", "  ", "two\nlines", "\u{1b}[31m", &"x".repeat(201)] {
            assert!(line(bad).is_err(), "{bad:?}");
        }
    }
}
