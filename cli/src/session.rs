//! The common options of all commands: Redis, organisation, operator, output.
//!
//! Owns those options. Connects to nothing.

use clap::Args;
use portcullis_core::id::OrgId;

use crate::report::{CliError, Output};
use crate::values::{line, org};

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
    /// The organisation of an operator who has one: commands look at no other. Default: all.
    #[arg(long, global = true, env = "PORTCULLIS_ORG", value_name = "NAME", value_parser = org)]
    pub(crate) organisation: Option<OrgId>,
    /// Name of the operator; kept with every change, as a claim beside the ACL user of Redis where there is one.
    /// Default: the operating system's user.
    #[arg(long, global = true, value_name = "NAME", value_parser = line)]
    pub(crate) actor: Option<String>,
    /// A table for people, or one JSON document for scripts.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

impl Session {
    /// The operator's name, as far as this machine knows it.
    pub(crate) fn actor_name(&self) -> Result<String, CliError> {
        if let Some(actor) = &self.actor {
            return Ok(actor.clone());
        }
        let user = whoami::username().ok();
        user.and_then(|user| line(&user).ok()).ok_or_else(|| {
            CliError::usage("the operating system does not say who you are")
                .expected("--actor NAME")
        })
    }
}
