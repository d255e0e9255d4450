//! `portcullis redis`: an operator's decisions about the state of Redis.

use clap::{ArgGroup, Args, Subcommand};
use portcullis_core::audit::AdminAction;
use portcullis_core::id::OrgId;
use serde_json::json;

use crate::admin_log::AdminLog;
use crate::report::{CliError, Report};
use crate::session::Session;
use crate::store::Store;
use crate::values::{line, org};

#[derive(Debug, Subcommand)]
pub(crate) enum RedisCommand {
    /// Let gateways serve organisations again after Redis was restored from an older copy.
    ///
    /// Gateways refuse an organisation (rule unavailable.redis.went_back) when Redis holds an older state of it than
    /// they saw: keys that were revoked since would be served again. Look for such changes first, with the audit log
    /// and `portcullis key list`, and make them again. This cannot be undone.
    AcceptRestore(AcceptArgs),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["org", "all"])))]
pub(crate) struct AcceptArgs {
    /// Only this organisation.
    #[arg(long, value_parser = org)]
    org: Option<OrgId>,
    /// All organisations that Redis knows, also those that no gateway refuses: Redis does not know which these are.
    /// `portcullis doctor` (envoy.went_back) names the refused ones.
    #[arg(long)]
    all: bool,
    /// Why; kept in the admin chain.
    #[arg(long, value_parser = line)]
    reason: String,
}

pub(crate) fn run(session: &Session, command: &RedisCommand) -> Result<Report, CliError> {
    match command {
        RedisCommand::AcceptRestore(args) => accept(session, args),
    }
}

fn accept(session: &Session, args: &AcceptArgs) -> Result<Report, CliError> {
    let mut store = Store::open(session)?;
    let admin_log = AdminLog::new(session, &mut store, Some(&args.reason))?;
    let known = match &session.organisation {
        Some(only) if store.is_known(only)? => vec![only.clone()],
        Some(_) => Vec::new(),
        None => store.organisations()?,
    };
    let accepted = match &args.org {
        Some(org) if known.contains(org) => vec![org.clone()],
        Some(org) => {
            return Err(CliError::new("no such organisation", format!("organisation {org}"))
                .expected("one that a policy or a key was ever written for")
                .next("portcullis key list; in an emptied Redis, push the organisation's policy first"));
        }
        None if known.is_empty() => {
            return Err(CliError::new("no organisation", "this Redis")
                .expected("the organisations that gateways refuse; nothing was accepted")
                .next("in an emptied Redis, push the policies first, then run this again"));
        }
        None => known,
    };
    for org in &accepted {
        let entry =
            |last: Option<&[u8]>| admin_log.of_organisation(AdminAction::RestoreAccept, org, last);
        store.accept_restore(org, entry)?;
    }
    let names: Vec<_> = accepted.iter().map(OrgId::as_str).collect();
    let text = format!(
        "accepted for {}: gateways serve them from the next request on, by what Redis holds now. Whom they refused \
         before, Redis does not know: portcullis doctor --envoy-admin URL names them (envoy.went_back)",
        names.join(", ")
    );
    Ok(Report::done(text, json!({ "accepted": names })))
}
