//! `portcullis limits`: its arguments.

use clap::{ArgGroup, Args, Subcommand};
use portcullis_core::id::{KeyId, OrgId, PolicyName};

use crate::values::share;

use super::{key_id, line, org, policy_name};

#[derive(Debug, Subcommand)]
pub(crate) enum LimitsCommand {
    /// Show a caller's windows: what is used, what is left, and when units come back.
    Show(CallerArgs),
    /// List the windows that are used most, of all callers: also of those without a key.
    List(ListLimitsArgs),
    /// Empty a caller's own windows, or those of one limit.
    Reset(ResetArgs),
}

/// Whose windows: a key's, or those of a caller without one. No record says what a token or certificate is mapped to.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("caller").required(true).args(["id", "subject", "certificate"])))]
pub(crate) struct CallerArgs {
    /// Id of a key: the third part of pck_ORG_ID_…. One of ID, --subject and --certificate is required.
    #[arg(value_parser = key_id)]
    pub(crate) id: Option<KeyId>,
    /// Subject of tokens, by its `sub`: the `client_id` of audit entries.
    #[arg(long, value_name = "SUB", value_parser = line)]
    #[arg(requires_all = ["issuer", "org", "role", "tier"])]
    pub(crate) subject: Option<String>,
    /// Issuer of the tokens: their exact `iss`.
    #[arg(long, value_name = "ISS", value_parser = line, requires = "subject")]
    pub(crate) issuer: Option<String>,
    /// Holder of a client certificate, by the name that it was mapped to: the `client_id` of audit entries.
    #[arg(long, value_name = "NAME", value_parser = line, requires_all = ["org", "role", "tier"])]
    pub(crate) certificate: Option<String>,
    /// Organisation; that of a key is looked for if not given.
    #[arg(long, value_parser = org)]
    pub(crate) org: Option<OrgId>,
    /// Role of a caller without a key, as in audit entries.
    #[arg(long, value_parser = policy_name, conflicts_with = "id")]
    pub(crate) role: Option<PolicyName>,
    /// Tier of a caller without a key: the second part of names such as tiers.free.calls in `RateLimit-Policy`.
    #[arg(long, value_parser = policy_name, conflicts_with = "id")]
    pub(crate) tier: Option<PolicyName>,
}

#[derive(Debug, Args)]
pub(crate) struct ListLimitsArgs {
    /// Only windows that are used at least this much, such as 80%.
    #[arg(long, value_name = "PERCENT", value_parser = share, default_value = "1%")]
    pub(crate) over: u8,
    /// Only this organisation's. Default: all.
    #[arg(long, value_parser = org)]
    pub(crate) org: Option<OrgId>,
}

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    pub(crate) caller: CallerArgs,
    /// Only this limit, such as limits.month. Windows that other callers share are reset only by name; those of all
    /// organisations not with --organisation.
    #[arg(long, value_name = "NAME", value_parser = line)]
    pub(crate) limit: Option<String>,
    /// Why; kept in the admin chain.
    #[arg(long, value_parser = line)]
    pub(crate) reason: String,
}
