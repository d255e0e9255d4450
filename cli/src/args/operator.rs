//! Arguments of `portcullis operator`. Owns their form; what they ask for is in `crate::operator`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use portcullis_core::id::OrgId;
use portcullis_redis_lua::Task;

use super::org;

#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Create a Redis user for an operator, as a Redis administrator. The password is shown once.
    Create(CreateOperatorArgs),
    /// Print the rules of such a user, for an aclfile, a redis-cli or a managed Redis. Asks no Redis.
    Acl(AclArgs),
    /// List the Redis users that are operators, with their organisations and tasks.
    List,
    /// Remove an operator's Redis user. Redis closes the user's connections.
    Remove(RemoveOperatorArgs),
}

/// What an operator may do.
#[derive(Debug, Args)]
pub(crate) struct Rights {
    /// Organisation whose keys, policy and calls the operator works on; may be given several times. Required
    /// without --all.
    #[arg(long, value_parser = org, required_unless_present = "all")]
    pub(crate) org: Vec<OrgId>,
    /// All organisations.
    #[arg(long, conflicts_with = "org")]
    pub(crate) all: bool,
    /// What the operator does; may be given several times, or separated by commas. Each includes `read`.
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    pub(crate) task: Vec<TaskName>,
}

/// A task on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TaskName {
    /// Look, and change nothing.
    Read,
    /// Issue, change, rotate and revoke keys.
    Keys,
    /// Push, try, promote and roll back policies.
    Policy,
    /// Grant and deny calls that wait.
    Approve,
    /// Reset what was drawn from windows.
    Limits,
    /// Deny tokens, and allow them again.
    Tokens,
}

impl From<TaskName> for Task {
    fn from(name: TaskName) -> Self {
        match name {
            TaskName::Read => Self::Read,
            TaskName::Keys => Self::Keys,
            TaskName::Policy => Self::Policy,
            TaskName::Approve => Self::Approve,
            TaskName::Limits => Self::Limits,
            TaskName::Tokens => Self::Tokens,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CreateOperatorArgs {
    /// Name of the user: one for each person. It is the actor in the admin chain.
    #[arg(value_parser = user)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) rights: Rights,
    /// Replace a user of this name: rights and password.
    #[arg(long)]
    pub(crate) replace: bool,
    /// Write the user's URL to this new file (mode 0600) instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AclArgs {
    /// Name of the user: one for each person. It is the actor in the admin chain.
    #[arg(value_parser = user)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) rights: Rights,
    /// For what the rules are.
    #[arg(long, value_enum, default_value_t = Form::Setuser)]
    pub(crate) form: Form,
    /// SHA-256 of the password, 64 hex digits. Default: PASSWORD, to be replaced.
    #[arg(long, value_name = "SHA256", value_parser = sha256)]
    pub(crate) password_sha256: Option<String>,
}

/// Where rules are to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A command for redis-cli or valkey-cli.
    Setuser,
    /// A line of an aclfile.
    Aclfile,
    /// The rules alone, for a managed Redis that makes users by itself.
    AccessString,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveOperatorArgs {
    /// Name of the user.
    #[arg(value_parser = user)]
    pub(crate) name: String,
}

/// What needs no quotes anywhere, and is not the user that every Redis has.
fn user(text: &str) -> Result<String, String> {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    let fits = !text.is_empty() && text.len() <= 64 && text.bytes().all(plain);
    match fits && text != "default" {
        true => Ok(text.to_owned()),
        false => {
            Err("expected 1 to 64 letters, digits, or one of -_.@, and not default".to_owned())
        }
    }
}

fn sha256(text: &str) -> Result<String, String> {
    match text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("expected 64 hex digits".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_needs_no_quotes() {
        assert_eq!(user("alice@acme.example"), Ok("alice@acme.example".to_owned()));
        for bad in ["", "default", "a b", "a\"", "~x", "a>b", &"x".repeat(65)] {
            assert!(user(bad).is_err(), "{bad:?}");
        }
    }
}
