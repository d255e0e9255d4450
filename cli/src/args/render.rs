//! The command line of `portcullis render`.
//!
//! Owns the form of its arguments.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// From what to make manifests, and for what.
#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// Description of hosts, gateway and connectors, YAML or JSON; `-` for standard input. docs/reference/render.md has
    /// its fields.
    pub(crate) file: PathBuf,
    /// What to print.
    #[arg(long = "for", value_enum, value_name = "TARGET")]
    pub(crate) target: Target,
    /// JSON file with a guard for each path, which is a secret. It is created for its owner only if it does not
    /// exist; paths that it does not have are added.
    #[arg(long, value_name = "FILE")]
    pub(crate) guards: PathBuf,
    /// File with the old guards, during a change: routes accept the old value and the new one.
    #[arg(long, value_name = "FILE")]
    pub(crate) previous_guards: Option<PathBuf>,
}

/// What manifests are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// The content of a `route_config` of Envoy.
    Envoy,
    /// The seal for Envoy: an HTTP filter between Portcullis and the router.
    Seal,
    /// A VirtualService and an EnvoyFilter of Istio.
    Istio,
    /// HTTPRoutes of the Gateway API, with the resources of Envoy Gateway that they need.
    GatewayApi,
    /// The `guards` of the plugin configuration.
    Plugin,
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Seal => "seal",
            Self::Istio => "istio",
            Self::GatewayApi => "gateway-api",
            Self::Plugin => "plugin",
        }
    }
}
