//! `cargo xtask chart`: tests the Helm chart with Helm itself and on a real API server.
//!
//! Owns the order: build Helm, lint, render, refuse, apply. It needs Go, so the test command does not include it:
//! Helm's output is committed (`charts/rendered`), and the test command compares it (`compare`).

mod admission;
mod cases;
mod compare;
mod documents;
mod gateways;
mod on_envoy_gateway;
mod on_istio;
mod page;
mod probe;
mod refusals;
mod releases;

use self::cases::{CASES, Helm};
use crate::build;
use crate::failure::{Failure, Result};
use crate::mesh::cluster::{self, Cluster};
use crate::mesh::report::{Guards, Report, Table};
use crate::mesh::tools::{HelmTools, KubernetesTools, Resources};
use crate::mesh::{Ground, Prepare};
use crate::progress::step;
use clap::ValueEnum;
use portcullis_stack::{Tools, Workspace};
use std::fs;

pub(crate) use self::compare::current;

/// How.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write what Helm makes of the chart to charts/rendered/
    #[arg(long)]
    record: bool,
    /// Helm alone, without the API server: lint, render, refuse
    #[arg(long)]
    templates_only: bool,
    /// Only releases on a running gateway of this control plane: helm test, upgrade, rollback, uninstall under load
    #[arg(long, value_enum, value_name = "CONTROL-PLANE", conflicts_with = "templates_only")]
    only_gateway: Option<ControlPlane>,
    /// Use the programs that are built already, of whatever profile
    #[arg(long)]
    built: bool,
}

/// A control plane with a gateway on this machine.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ControlPlane {
    Istio,
    EnvoyGateway,
}

/// Tables of operations: the title, the install in it, its file.
const TABLES: [(&str, &str, &str); 2] = [
    ("Istio, by Helm", "Helm, Istio", "istio"),
    ("Envoy Gateway, by Helm", "Helm, Envoy Gateway", "envoy-gateway"),
];

/// The namespaces that the manifests use.
const NAMESPACES: [&str; 10] = [
    "istio-system",
    "istio-ingress",
    "mcp",
    "edge",
    "sales",
    "portcullis",
    "vault",
    "agents",
    "monitoring",
    "envoy-gateway-system",
];

/// `cargo xtask chart`.
pub(crate) fn chart(workspace: &Workspace, options: &Options) -> Result<()> {
    let helm = Helm::new(workspace, HelmTools::install(workspace)?.helm)?;
    let mut report = Report::default();
    if options.only_gateway.is_none() {
        without_gateways(workspace, &helm, options, &mut report)?;
    }
    if !options.templates_only {
        let all = [ControlPlane::Istio, ControlPlane::EnvoyGateway];
        for plane in
            all.into_iter().filter(|it| options.only_gateway.is_none_or(|only| only == *it))
        {
            on_a_gateway(workspace, &helm, (plane, options.built), &mut report)?;
        }
        let tables = if options.record {
            workspace.root.join("envoy/rendered")
        } else {
            workspace.target.join("chart")
        };
        for (of, install, name) in TABLES {
            let about = Table { of, command: "chart --record" };
            let file = tables.join(format!("operations-helm-{name}.md"));
            report.write(&about, &[install], Guards::Shipped, &file)?;
        }
    }
    report.conclude()
}

fn without_gateways(
    workspace: &Workspace,
    helm: &Helm,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    for case in &CASES {
        report.trial("helm", &format!("lint --strict, {}", case.name), || helm.lint(case));
    }
    refusals::run(helm, report);
    if options.record {
        for case in &CASES {
            compare::write(workspace, case, &helm.template(case)?)?;
        }
    }
    if options.templates_only {
        return Ok(());
    }
    if !options.built {
        build::cli(workspace)?;
    }
    report.trial("test command", "charts/rendered, shipped files, portcullis render", || {
        current(workspace)
    });
    on_an_api_server(workspace, helm, report)
}

/// Everything that a gateway needs, and the trials on it. Each has an API server of its own.
fn on_a_gateway(
    workspace: &Workspace,
    helm: &Helm,
    (plane, built): (ControlPlane, bool),
    report: &mut Report,
) -> Result<()> {
    let name = match plane {
        ControlPlane::Istio => "chart-istio",
        ControlPlane::EnvoyGateway => "chart-envoy-gateway",
    };
    let ground = Ground::prepare(workspace, &Prepare { name, built, is_guarded: true })?;
    match plane {
        ControlPlane::Istio => on_istio::run(&ground, helm, report),
        ControlPlane::EnvoyGateway => on_envoy_gateway::run(&ground, helm, report),
    }
}

fn on_an_api_server(workspace: &Workspace, helm: &Helm, report: &mut Report) -> Result<()> {
    let kubernetes = KubernetesTools::install(workspace)?;
    let resources = Resources::install(workspace)?;
    let tools = step("installing Python's packages", || Tools::install(workspace))?;
    let dir = workspace.target.join("chart/run");
    if dir.exists() {
        fs::remove_dir_all(&dir)
            .map_err(|error| Failure::new(format!("could not empty {}: {error}", dir.display())))?;
    }
    cluster::made(&dir)?;
    let cluster = step("starting etcd and the API server", || {
        Cluster::start(&kubernetes, &tools, &dir, &dir.join("logs"))
    })?;
    step("defining the resources of Istio, Envoy Gateway and Prometheus's operator", || {
        cluster.define(&resources.istio)?;
        let files = resources.gateway.iter().chain(&resources.monitoring);
        files.into_iter().try_for_each(|file| cluster.define(file))
    })?;
    for namespace in NAMESPACES {
        cluster.namespace(namespace)?;
    }
    releases::run(helm, &cluster, &dir, report)?;
    admission::run(helm, &cluster, &dir, report)?;
    page::run(workspace, helm, &cluster, &dir, report)
}
