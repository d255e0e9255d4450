//! The command line of `portcullis doctor`.
//!
//! Owns the form of its arguments.

use std::path::PathBuf;

use clap::Args;
use ureq::http::uri::Authority;

/// What to look at; what is not given is not looked at.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// An Envoy's admin interface, such as http://127.0.0.1:9901; repeat it for several.
    #[arg(long, env = "PORTCULLIS_ENVOY_ADMIN", value_name = "URL", value_delimiter = ',')]
    pub(crate) envoy_admin: Vec<String>,
    /// An MCP endpoint as clients reach it, such as https://HOST/crm/mcp; repeat it for each listener, host and
    /// path. It is called without a credential and with a forged guard, and has to refuse.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(crate) probe: Vec<String>,
    /// The host to connect to for every `--probe`, instead of those of the URLs, such as the gateway's Service. Without a
    /// port, each probe connects to the port of its URL.
    #[arg(long, value_name = "HOST[:PORT]", requires = "probe")]
    pub(crate) probe_address: Option<Authority>,
    /// Let each `--probe` count as bad unless Portcullis itself refuses it: also one without an answer.
    #[arg(long, requires = "probe")]
    pub(crate) require_judged: bool,
    /// Vault or OpenBao, such as https://vault:8200.
    #[arg(long, env = "VAULT_ADDR", value_name = "URL")]
    pub(crate) vault: Option<String>,
    /// A token that may read the secrets which active policies name; better in the environment.
    #[arg(long, env = "VAULT_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) vault_token: Option<String>,
    /// KV mounts with a slash, as `vault.mounts` in the plugin configuration; may be given several times.
    #[arg(long, value_name = "MOUNT", value_delimiter = ',')]
    pub(crate) vault_mount: Vec<String>,
    /// KV mounts of version 1; may be given several times.
    #[arg(long, value_name = "MOUNT", value_delimiter = ',')]
    pub(crate) vault_mount_v1: Vec<String>,
    /// The module that every Envoy should run; its SHA-256 is compared.
    #[arg(long, value_name = "FILE")]
    pub(crate) module: Option<PathBuf>,
}
