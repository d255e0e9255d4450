//! `cargo xtask mesh`: the shipped files on the real control planes, with a real Envoy, on one machine without root's help.
//!
//! Owns the order: build, start, apply, try, report. It needs Go and time, so the test command does not include it: the
//! control planes' output for our files is committed (`rendered`), and the test command serves that.

mod beside;
mod calls;
pub(crate) mod cluster;
pub(crate) mod doctor;
pub(crate) mod envoy_gateway;
mod envoy_gateway_doctor;
mod envoy_gateway_operations;
mod envoy_gateway_trials;
mod front;
pub(crate) mod gateway;
pub(crate) mod here;
pub(crate) mod istio;
mod istio_doctor;
mod istio_inbound;
mod istio_inbound_operations;
mod istio_page;
mod istio_sharing;
mod istio_sidecar;
mod istio_trials;
mod istio_waypoint;
mod manifest_trials;
pub(crate) mod operations;
mod plain_operations;
pub(crate) mod rendered;
pub(crate) mod report;
mod streams;
pub(crate) mod tools;
mod upgrades;

use self::cluster::{Cluster, FRAMING, MODULE, Registry};
use self::front::Front;
use self::report::{Guards, Report, Table};
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
    /// No control plane: an Envoy with envoy/envoy.yaml, changed as people change it; operations only
    Plain,
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
    /// Take the guards out of files and policy first, to see what they are for; records operations only
    #[arg(long, requires = "operations")]
    without_guards: bool,
    /// Beyond the install itself, only the trials with one of these texts in their names
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
}

impl Options {
    /// Whether the options select this trial.
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text))
    }

    /// The text whose lines are removed from the shipped files.
    fn left_out(&self) -> Option<&'static str> {
        self.without_guards.then_some("YOUR-GUARD")
    }

    /// Whether the run records the control planes' output.
    fn records_configurations(&self) -> bool {
        self.record && !self.without_guards
    }

    /// A part of the names of files and folders, so that two different runs do not collide.
    fn name(&self) -> &'static str {
        match self.which {
            Which::Manifests => "manifests",
            Which::Istio => "istio",
            Which::EnvoyGateway => "envoy-gateway",
            Which::Plain => "plain",
            Which::All => "all",
        }
    }
}

/// The parts that every trial needs.
pub(crate) struct Ground<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) tools: Tools,
    pub(crate) stack: Stack,
    /// The demo's MCP server, with streams.
    pub(crate) front: Front,
    pub(crate) cluster: Cluster,
    pub(crate) registry: Registry,
    /// The digest of the image `portcullis:1`.
    pub(crate) digest: String,
    /// The digest of the image `redis-framing:1`.
    pub(crate) framing_digest: String,
    pub(crate) dir: PathBuf,
    pub(crate) logs: PathBuf,
}

/// Tables of operations: the title, the installs in it, its file.
const TABLES: [(&str, &[&str], &str); 4] = [
    ("Istio", &["Istio, EnvoyFilter", "Istio, WasmPlugin"], "istio"),
    ("Istio's sidecars and waypoints", &["Istio, sidecar", "Istio, waypoint"], "istio-inbound"),
    ("Envoy Gateway", &["Envoy Gateway"], "envoy-gateway"),
    ("plain Envoy", &["plain Envoy"], "plain"),
];

/// `cargo xtask mesh`.
pub(crate) fn mesh(workspace: &Workspace, options: &Options) -> Result<()> {
    let what =
        Prepare { name: options.name(), built: options.built, is_guarded: !options.without_guards };
    let ground = Ground::prepare(workspace, &what)?;
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
    if options.operations && matches!(options.which, Which::Plain | Which::All) {
        plain_operations::run(&ground, options, &mut report)?;
    }
    let tables = if options.record {
        workspace.root.join("envoy/rendered")
    } else {
        workspace.target.join("mesh")
    };
    for (of, installs, name) in TABLES {
        let guards = if options.without_guards { Guards::LeftOut } else { Guards::Shipped };
        let file = tables.join(format!("operations-{name}{}.md", guards.suffix()));
        let about = Table { of, command: "mesh --operations --record" };
        report.write(&about, installs, guards, &file)?;
    }
    // Without guards, calls are executed that must not be: the table shows them.
    if options.without_guards { Ok(()) } else { report.conclude() }
}

/// How the ground is prepared.
pub(crate) struct Prepare {
    /// The name of the folder of the run.
    pub(crate) name: &'static str,
    /// Whether to use the module and the programs that are built already.
    pub(crate) built: bool,
    /// Whether policy and routes have guards.
    pub(crate) is_guarded: bool,
}

impl<'a> Ground<'a> {
    /// Builds or reuses all programs, and starts what both control planes need.
    pub(crate) fn prepare(workspace: &'a Workspace, what: &Prepare) -> Result<Self> {
        let registry_tools = RegistryTools::install(workspace)?;
        let kubernetes = KubernetesTools::install(workspace)?;
        let tools = step("installing Envoy, OpenBao, Valkey and Python's packages", || {
            Tools::install(workspace)
        })?;
        if what.built {
            workspace.built_artifacts()?
        } else {
            build::all(workspace)?
        };
        let dir = workspace.target.join("mesh/run").join(what.name);
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|error| {
                Failure::new(format!("could not empty {}: {error}", dir.display()))
            })?;
        }
        cluster::made(&dir)?;
        let logs = dir.join("logs");
        let stack = step("starting Redis, OpenBao and the MCP servers", || {
            Stack::start(stack_options(workspace, what.is_guarded, &dir)?)
        })?;
        let front = Front::start(&tools, stack.connector.address(), &dir, &logs)?;
        let cluster = step("starting etcd and the API server", || {
            Cluster::start(&kubernetes, &tools, &dir, &logs)
        })?;
        let registry = Registry::start(&registry_tools, &dir, &logs)?;
        let artifacts = workspace.artifacts();
        let digest = registry.push(&tools, &artifacts.filter, (MODULE, "1"))?;
        let framing_digest = registry.push(&tools, &artifacts.framing, (FRAMING, "1"))?;
        Ok(Self {
            workspace,
            tools,
            stack,
            front,
            cluster,
            registry,
            digest,
            framing_digest,
            dir,
            logs,
        })
    }
}

impl Ground<'_> {
    /// Applies a manifest that is not a shipped file.
    fn apply_own(&self, name: &str, manifest: &str) -> Result<()> {
        let file = self.dir.join(name);
        fs::write(&file, manifest).map_err(|error| {
            Failure::new(format!("could not write {}: {error}", file.display()))
        })?;
        self.cluster.apply(&file)
    }

    /// Another file with the same code, like a new version of the module.
    pub(crate) fn newer_module(&self) -> Result<PathBuf> {
        let fault = |error| Failure::new(format!("could not copy the module: {error}"));
        let mut bytes = fs::read(self.workspace.artifacts().filter).map_err(fault)?;
        // An empty custom section with a name of one letter.
        bytes.extend([0, 2, 1, b'x']);
        let newer = self.dir.join("newer.wasm");
        fs::write(&newer, bytes).map_err(fault)?;
        Ok(newer)
    }
}

/// The demo's policy without cool-off, and settings without slowdown: the load sends refused calls from one address.
fn stack_options(
    workspace: &Workspace,
    is_guarded: bool,
    dir: &std::path::Path,
) -> portcullis_stack::Result<StackOptions> {
    use portcullis_stack::During;
    let mut options = StackOptions::new(workspace, dir.join("stack"))?
        .set("SLOWDOWN_FAILURES", 0)
        .set("REDIS_TIMEOUT_MS", 1_000);
    let policy =
        std::fs::read_to_string(&options.policy).during(|| "read the policy".to_owned())?;
    // That cluster only exists in a plain Envoy.
    let binds = |line: &str| !is_guarded && line.starts_with("    upstream:");
    let kept = |line: &&str| !line.starts_with("cool_off:") && !binds(line);
    let policy: Vec<&str> = policy.lines().filter(kept).collect();
    // Beside the stack's own folder, which the stack empties at its start.
    let file = dir.join("policy.yaml");
    std::fs::write(&file, policy.join("\n")).during(|| format!("write {}", file.display()))?;
    options.policy = file;
    Ok(options)
}
