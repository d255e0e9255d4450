//! The common options of all commands: Redis, organisation, operator, output.
//!
//! Owns those options. Connects to nothing.

use clap::{ArgMatches, Args};
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
    /// The organisation of an operator who has one: commands look at no other, and refuse what names another. But
    /// `audit verify` of logs and `audit anchor` are about all: a gateway's chain has entries of each. Default: all.
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

/// The refusal of what is not of the organisation `only` of `--organisation`. `what` says why, of what is at `place`.
pub(crate) fn beyond(only: &OrgId, what: &str, place: impl Into<String>) -> CliError {
    CliError::new(format!("--organisation (or PORTCULLIS_ORG) is {only}, and {what}"), place)
        .expected(format!("no other organisation than {only}; nothing was changed"))
        .next("leave --organisation and PORTCULLIS_ORG out")
        .not_asked()
}

impl Session {
    /// Refuses an `--org` of the command that names another organisation than `--organisation`.
    pub(crate) fn agrees_with(&self, matches: &ArgMatches) -> Result<(), CliError> {
        let mut command = matches;
        while let Some((_, subcommand)) = command.subcommand() {
            command = subcommand;
        }
        // Commands that filter the entries of a log have patterns there, which the filter compares.
        let named = command.try_get_many::<OrgId>("org").ok().flatten().unwrap_or_default();
        self.within(&named.cloned().collect::<Vec<_>>(), "--org", "the command line").map_err(
            |refusal| refusal.next("leave --org out; or --organisation and PORTCULLIS_ORG"),
        )
    }

    /// Refuses organisations beside the one of `--organisation`. `by` names them, at `place`.
    pub(crate) fn within(&self, named: &[OrgId], by: &str, place: &str) -> Result<(), CliError> {
        let Some(only) = &self.organisation else { return Ok(()) };
        let others: Vec<&str> =
            named.iter().filter(|org| *org != only).map(OrgId::as_str).collect();
        if others.is_empty() {
            return Ok(());
        }
        let (also, next) = match others.len() < named.len() {
            true => {
                ("also ", format!("--org {only} beside it, which is about {only} alone; or leave"))
            }
            false => ("", "leave".to_owned()),
        };
        let found = format!("{by} {also}names {}", others.join(", "));
        Err(beyond(only, &found, place)
            .next(format!("{next} --organisation and PORTCULLIS_ORG out")))
    }

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
