//! The arguments of `explain` and `approve`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use portcullis_core::id::{KeyId, OrgId, PolicyName};
use serde_json::{Map, Value};

use super::{key_id, line, org, policy_name};
use crate::time::Time;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("who").required(true).args(["key", "role", "token", "request"])))]
pub(crate) struct ExplainArgs {
    /// Id of the key whose holder calls. One of --key, --role, --token and --request is required.
    #[arg(long, value_name = "ID", value_parser = key_id)]
    pub(crate) key: Option<KeyId>,
    /// File with the access token of the caller; `-` for standard input. The token is not shown.
    #[arg(long, value_name = "FILE", requires = "issuers")]
    pub(crate) token: Option<PathBuf>,
    /// Issuers of tokens: the list of `auth.issuers` of the plugin configuration, or the whole of it; as `portcullis token
    /// keygen` prints it.
    #[arg(long, value_name = "FILE", requires = "token")]
    pub(crate) issuers: Option<PathBuf>,
    /// Key set of the token's issuer, where --issuers has no `jwks_inline`. Without it, the claims are believed.
    #[arg(long, value_name = "FILE", requires = "token")]
    pub(crate) jwks: Option<PathBuf>,
    /// URL of the MCP endpoint as clients reach it, which the token's audience has to be.
    #[arg(long, value_name = "URL", requires = "token")]
    pub(crate) endpoint: Option<String>,
    /// Role of a caller without a key.
    #[arg(long, value_parser = policy_name, requires = "org")]
    pub(crate) role: Option<PolicyName>,
    /// Id of a call that was made, from `x-portcullis-request-id`: why it was decided as it was. It is looked for in
    /// --log, and decided by the version and at the time that its entry names.
    #[arg(long, value_name = "ID", value_parser = line, requires = "log")]
    pub(crate) request: Option<String>,
    /// Audit logs with that call, also compressed with gzip.
    #[arg(long, value_name = "LOG", num_args = 1.., requires = "request")]
    pub(crate) log: Vec<PathBuf>,
    /// Organisation of the key or the role.
    #[arg(long, value_parser = org)]
    pub(crate) org: Option<OrgId>,
    /// Tier of a caller given by --role. Default: the policy's first.
    #[arg(long, value_parser = policy_name, requires = "role")]
    pub(crate) tier: Option<PolicyName>,
    /// Scopes of a caller given by --role, whose token then has no others.
    #[arg(long, value_delimiter = ',', requires = "role")]
    pub(crate) scopes: Option<Vec<String>>,
    /// Agent that the token of a caller given by --role names: `principal.agent` in conditions.
    #[arg(long, value_name = "NAME", value_parser = line, requires = "role")]
    pub(crate) agent: Option<String>,
    /// Claims of a caller given by --role: a JSON object.
    #[arg(long, value_name = "JSON", value_parser = object, requires = "role")]
    pub(crate) claims: Option<Object>,
    /// Tool that is called. Required without --request.
    #[arg(long, required_unless_present = "request", conflicts_with = "request")]
    pub(crate) tool: Option<String>,
    /// Its arguments: a JSON object.
    #[arg(long, value_name = "JSON", value_parser = object, default_value = "{}")]
    pub(crate) arguments: Object,
    /// Connector of the tool. Default: the only one of the role.
    #[arg(long, value_parser = policy_name)]
    pub(crate) connector: Option<PolicyName>,
    /// When: a time (2027-01-31T00:00:00Z), or a duration from now. Default: now.
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub(crate) at: Option<Time>,
    /// Address that the call comes from.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) source: String,
    /// Policy document, or a folder of them, to use instead of the active one; with --role no Redis is needed.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
}

/// A JSON object on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Object(pub(crate) Map<String, Value>);

fn object(text: &str) -> Result<Object, String> {
    match portcullis_core::json::parse_strict(text.as_bytes()) {
        Ok(Value::Object(members)) => Ok(Object(members)),
        Ok(_) => Err("expected a JSON object, such as {\"limit\": 10}".to_owned()),
        Err(fault) => Err(format!("{fault}; expected a JSON object, such as {{\"limit\": 10}}")),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApproveCommand {
    /// List the calls that wait for a person, and those that were decided but not made yet.
    List(ApproveListArgs),
    /// Allow a waiting call, once.
    Grant(DecideArgs),
    /// Deny a waiting call.
    Deny(DecideArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ApproveListArgs {
    /// Only this organisation's calls.
    #[arg(long, value_parser = org)]
    pub(crate) org: Option<OrgId>,
}

#[derive(Debug, Args)]
pub(crate) struct DecideArgs {
    /// Id of the call, from the refusal or `approve list`.
    #[arg(value_parser = approval_id)]
    pub(crate) id: String,
    /// Only what this request asked for, from REQUEST in `approve list`: a call that waits again under the same id is
    /// another request.
    #[arg(long, value_name = "REQUEST", value_parser = line)]
    pub(crate) request: Option<String>,
    /// Organisation of the call; looked for in all if not given.
    #[arg(long, value_parser = org)]
    pub(crate) org: Option<OrgId>,
    /// Why; kept in the admin chain.
    #[arg(long, value_parser = line)]
    pub(crate) reason: String,
    /// For how long the decision holds: a duration (10m, 1h) or a time.
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, default_value = "15m")]
    pub(crate) expires: Time,
}

fn approval_id(text: &str) -> Result<String, String> {
    let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match (16..=64).contains(&text.len()) && hex {
        true => Ok(text.to_owned()),
        false => Err("expected 16 to 64 lower-case hex digits".to_owned()),
    }
}
