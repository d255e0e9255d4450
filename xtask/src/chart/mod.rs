//! `cargo xtask chart`: tests the Helm chart with Helm itself and on a real API server.
//!
//! Owns the order: build Helm, lint, render, refuse, apply. It needs Go, so the test command does not include it:
//! Helm's output is committed (`charts/rendered`), and the test command compares it (`compare`).

mod admission;
mod cases;
mod compare;
mod documents;
mod page;
mod refusals;
mod releases;

use self::cases::{CASES, Helm};
use crate::build;
use crate::failure::{Failure, Result};
use crate::mesh::cluster::{self, Cluster};
use crate::mesh::report::Report;
use crate::mesh::tools::{HelmTools, KubernetesTools, Resources};
use crate::progress::step;
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
    /// Use the programs that are built already, of whatever profile
    #[arg(long)]
    built: bool,
}

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
    for case in &CASES {
        report.trial("helm", &format!("lint --strict, {}", case.name), || helm.lint(case));
    }
    refusals::run(&helm, &mut report);
    if options.record {
        for case in &CASES {
            compare::write(workspace, case, &helm.template(case)?)?;
        }
    }
    if !options.templates_only {
        if !options.built {
            build::cli(workspace)?;
        }
        report.trial("test command", "charts/rendered, shipped files, portcullis render", || {
            current(workspace)
        });
        on_an_api_server(workspace, &helm, &mut report)?;
    }
    report.conclude()
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
