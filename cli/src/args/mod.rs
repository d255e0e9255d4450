//! The command line: every command, option and help text.
//!
//! Owns the form of arguments. Whether what they name exists is for the commands to find out.

mod audit;
mod discover;
mod doctor;
mod key;
mod limits;
#[cfg(test)]
mod pages;
mod policy;
mod render;
mod rules;

use clap::{Parser, Subcommand};

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

pub(crate) use crate::session::Session;
pub(crate) use crate::values::Which;

use crate::restore::RedisCommand;
use crate::token::TokenCommand;
use crate::values::{key_id, line, org, policy_name};

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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
