//! The command line of `portcullis discover`.
//!
//! Owns the form of its arguments.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use portcullis_core::id::PolicyName;
use portcullis_core::pin::Drift;

use super::{line, policy_name};

/// Where definitions come from: one of three.
#[derive(Debug, Args)]
pub(crate) struct DiscoverArgs {
    /// Policy document, YAML or JSON, whose pins are compared.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,
    /// Only this connector. Default: all.
    #[arg(long, value_name = "NAME", value_parser = policy_name)]
    pub(crate) connector: Option<PolicyName>,
    /// Only this tool; may be given several times. Default: all.
    #[arg(long = "tool", value_name = "NAME", value_parser = line)]
    pub(crate) tools: Vec<String>,
    /// Ask through the gateway at this URL, with --key. Shows what that key sees.
    #[arg(long, env = "PORTCULLIS_URL", value_name = "URL")]
    pub(crate) gateway: Option<String>,
    /// The key to ask through the gateway with; better in the environment than on the command line.
    #[arg(long, env = "PORTCULLIS_KEY", value_name = "KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Ask the server of --connector directly, at this URL of its MCP endpoint.
    #[arg(long, value_name = "URL", requires = "connector", conflicts_with = "from")]
    pub(crate) direct: Option<String>,
    /// With --direct, a header whose value is in an environment variable: authorization=UPSTREAM_AUTH.
    #[arg(long, value_name = "NAME=VARIABLE", value_parser = header)]
    pub(crate) header_env: Vec<(String, String)>,
    /// Read the result of a `tools/list` of --connector from a file; `-` for standard input.
    #[arg(long, value_name = "FILE", requires = "connector")]
    pub(crate) from: Option<PathBuf>,
    /// Write the live definitions into the policy file, except for changes that --fail-on names, and for those that
    /// would take away or loosen what is pinned.
    #[arg(long)]
    pub(crate) write: bool,
    /// Write those that take away or loosen what is pinned, too: constraints of arguments, tools that are gone.
    #[arg(long, requires = "write")]
    pub(crate) relax: bool,
    /// Exit with 1 when something changed at least this much. Default: text; with --write suspicious.
    #[arg(long, value_enum, value_name = "CLASS")]
    pub(crate) fail_on: Option<Class>,
}

/// How much something changed; the worse, the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Class {
    /// Only texts.
    Text,
    /// It accepts or may do more; also a new tool.
    Widening,
    /// Calls that held may not hold any more; also a tool that is gone.
    Breaking,
    /// A new text hides characters or speaks to the model.
    Suspicious,
    /// Nothing fails.
    Never,
}

impl From<Drift> for Class {
    fn from(drift: Drift) -> Self {
        match drift {
            Drift::Text => Self::Text,
            Drift::Widening => Self::Widening,
            Drift::Breaking => Self::Breaking,
            Drift::Suspicious => Self::Suspicious,
        }
    }
}

impl DiscoverArgs {
    pub(crate) fn fails_on(&self) -> Class {
        let default = if self.write { Class::Suspicious } else { Class::Text };
        self.fail_on.unwrap_or(default)
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let parts =
        text.split_once('=').filter(|(name, variable)| !name.is_empty() && !variable.is_empty());
    let (name, variable) =
        parts.ok_or("expected NAME=VARIABLE, such as authorization=UPSTREAM_AUTH")?;
    Ok((name.to_ascii_lowercase(), variable.to_owned()))
}
