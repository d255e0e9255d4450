//! The command line: every command, option and help text.
//!
//! Owns the form of arguments. Whether what they name exists is for the commands to find out.

mod audit;
mod discover;
mod doctor;
mod key;
mod limits;
mod operator;
#[cfg(test)]
mod pages;
mod policy;
mod render;
mod rules;
mod top;
mod watch;

use clap::{Parser, Subcommand};

pub(crate) use audit::{
    AnchorArgs, AuditCommand, ChainStart, ExportArgs, ExportFormat, FilterArgs, LogArgs,
    ReportArgs, SearchArgs, ShowAuditArgs, SignerArgs, TailArgs, VerifyArgs,
};
pub(crate) use discover::{Class, DiscoverArgs};
pub(crate) use doctor::DoctorArgs;
pub(crate) use key::{
    IssueArgs, KeyCommand, ListArgs, OneKey, RevokeArgs, RotateArgs, SetArgs, Switch, Terms,
};
pub(crate) use render::{RenderArgs, Target};
pub(crate) use rules::{ApproveCommand, ApproveListArgs, DecideArgs, ExplainArgs};

pub(crate) use limits::{CallerArgs, LimitsCommand, ListLimitsArgs, ResetArgs};
pub(crate) use operator::{
    AclArgs, CreateOperatorArgs, Form, OperatorCommand, RemoveOperatorArgs, Rights,
};
pub(crate) use policy::{
    CanaryArgs, CanaryCommand, CanaryStartArgs, CanaryStopArgs, CanaryWidenArgs, CheckArgs,
    DiffArgs, HistoryArgs, PolicyCommand, PromoteArgs, PushArgs, ReviewArgs, RollbackArgs,
    ShowPolicyArgs, Side, TestArgs,
};

pub(crate) use top::TopArgs;
pub(crate) use watch::WatchArgs;

pub(crate) use crate::session::Session;
pub(crate) use crate::values::Which;

use crate::report::Kind;
use crate::restore::RedisCommand;
use crate::token::TokenCommand;
use crate::values::{key_id, line, org, policy_name};

/// The operator's tool of Portcullis: API keys, policy, audit log.
///
/// Exit status: 0 done, 1 refused or found wanting, 2 wrong usage or nothing found out (an outage, a file that cannot
/// be read), 3 done in part (some of several keys).
#[derive(Debug, Parser)]
#[command(name = "portcullis", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) session: Session,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Issue, list, show, change, rotate and revoke API keys.
    #[command(subcommand)]
    Key(Box<KeyCommand>),
    /// Check policies, activate them or try them on some callers, roll back to an earlier one.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show and reset what callers have drawn from their windows.
    #[command(subcommand)]
    Limits(LimitsCommand),
    /// Deny access tokens, or all tokens of a subject; allow them again; mint tokens for tests.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Give people who run Portcullis Redis users of their own: for one organisation, for one task.
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Compare the tools of live servers with the definitions that a policy pins. Exit status: 0 as pinned, 1 changed
    /// or not written, 2 not found out: a server does not answer, the policy has faults.
    Discover(DiscoverArgs),
    /// Let gateways serve again after Redis was restored from an older copy.
    #[command(subcommand)]
    Redis(RedisCommand),
    /// Verify, search, follow, export and review audit logs; show who changed keys and policies.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Approve or deny calls that wait for a person.
    #[command(subcommand)]
    Approve(ApproveCommand),
    /// Call a hook when a call begins to wait for a person, or a window comes near its end.
    Watch(WatchArgs),
    /// Show who calls what now: rates, durations, refusals, windows that are nearly used up.
    Top(TopArgs),
    /// Explain whether a call is allowed, and why. Exit status: 0 allowed, 1 refused, 2 not found out: no answer of Redis,
    /// no such key or policy.
    ///
    /// The answer is that of the policy, and of the key or token, windows and approvals where they are known. The
    /// connector's credential and the route to its server are not checked: `portcullis doctor` checks them. Whether the
    /// client has the certificate that a key or token is bound to is not checked either.
    Explain(Box<ExplainArgs>),
    /// Check Redis, Vault and Envoy, and suggest a fix for each problem. Exit status: 1 if anything is bad, also an
    /// outage.
    Doctor(DoctorArgs),
    /// Print guarded routes for Envoy, Istio or Envoy Gateway from a description of hosts and connectors.
    Render(RenderArgs),
    /// Print a completion script.
    Completions {
        /// Shell that the script is for
        shell: clap_complete::Shell,
    },
    /// Write a manual page for every command into a folder; read one with `man -l FILE`.
    Man { folder: std::path::PathBuf },
}

impl Command {
    /// What its exit status 1 says.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Key(command) => match **command {
                KeyCommand::List(_) | KeyCommand::Show(_) => Kind::Reading,
                KeyCommand::Issue(_)
                | KeyCommand::Set(_)
                | KeyCommand::Rotate(_)
                | KeyCommand::Revoke(_) => Kind::Change,
            },
            Self::Policy(command) => command.kind(),
            Self::Limits(LimitsCommand::List(_) | LimitsCommand::Show(_))
            | Self::Token(TokenCommand::List(_))
            | Self::Operator(OperatorCommand::List | OperatorCommand::Acl(_))
            | Self::Approve(ApproveCommand::List(_))
            | Self::Watch(_)
            | Self::Render(_) => Kind::Reading,
            Self::Limits(LimitsCommand::Reset(_))
            | Self::Token(
                TokenCommand::Deny(_)
                | TokenCommand::Allow(_)
                | TokenCommand::Keygen(_)
                | TokenCommand::Mint(_),
            )
            | Self::Operator(OperatorCommand::Create(_) | OperatorCommand::Remove(_))
            | Self::Redis(_)
            | Self::Approve(ApproveCommand::Grant(_) | ApproveCommand::Deny(_))
            | Self::Completions { .. }
            | Self::Man { .. } => Kind::Change,
            Self::Audit(AuditCommand::Show(_)) => Kind::Reading,
            Self::Audit(_)
            | Self::Discover(_)
            | Self::Top(_)
            | Self::Explain(_)
            | Self::Doctor(_) => Kind::Question,
        }
    }
}

impl PolicyCommand {
    fn kind(&self) -> Kind {
        match self {
            Self::Test(_) | Self::Diff(_) => Kind::Question,
            // A document that is no YAML has a fault.
            Self::Check(_) | Self::Schema | Self::History(_) | Self::Show(_) => Kind::Reading,
            Self::Push(PushArgs { dry_run: true, .. })
            | Self::Canary(CanaryCommand::Start(CanaryStartArgs { dry_run: true, .. })) => {
                Kind::Reading
            }
            Self::Push(_) | Self::Promote(_) | Self::Canary(_) | Self::Rollback(_) => Kind::Change,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
