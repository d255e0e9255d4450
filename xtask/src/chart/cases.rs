//! The value files, and calls of Helm with them.
//!
//! Owns which files make a case. Knows nothing about the content of a manifest.

use crate::failure::Result;
use crate::mesh::cluster::succeeded;
use portcullis_stack::Workspace;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A set of value files, and the name of the rendered file.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The file that `portcullis render` reads as well.
    pub(super) description: &'static str,
    /// Files of `charts/values` that follow the description.
    files: &'static [&'static str],
    /// The namespace of the release and of its resources.
    pub(super) namespace: &'static str,
    /// Whether the case has the file of previous guards.
    pub(super) previous: bool,
}

/// The names of the control planes: in the chart, and in `portcullis render`.
pub(super) const ISTIO: [&str; 2] = ["istio", "istio"];
pub(super) const ENVOY_GATEWAY: [&str; 2] = ["envoy-gateway", "gateway-api"];

const fn istio(
    name: &'static str,
    description: &'static str,
    files: &'static [&'static str],
) -> Case {
    Case { name, description, files, namespace: "istio-ingress", previous: false }
}

const fn envoy_gateway(
    name: &'static str,
    description: &'static str,
    files: &'static [&'static str],
) -> Case {
    Case { name, description, files, namespace: "mcp", previous: false }
}

const ONE_ISTIO: &str = "one-istio.yaml";
const ONE_ENVOY_GATEWAY: &str = "one-envoy-gateway.yaml";
const SEVERAL: &str = "several.yaml";

/// Five for each control plane.
pub(super) const CASES: [Case; 10] = [
    istio("istio", ONE_ISTIO, &["istio.yaml"]),
    istio("istio-tls", ONE_ISTIO, &["istio.yaml", "tls.yaml"]),
    Case {
        previous: true,
        ..istio("istio-several", SEVERAL, &["istio.yaml", "several-more.yaml"])
    },
    istio("istio-split", ONE_ISTIO, &["istio.yaml", "split.yaml"]),
    istio("istio-monitoring", ONE_ISTIO, &["istio.yaml", "monitoring.yaml", "own-port.yaml"]),
    envoy_gateway("envoy-gateway", ONE_ENVOY_GATEWAY, &["envoy-gateway.yaml"]),
    envoy_gateway("envoy-gateway-tls", ONE_ENVOY_GATEWAY, &["envoy-gateway.yaml", "tls.yaml"]),
    Case {
        previous: true,
        ..envoy_gateway(
            "envoy-gateway-several",
            SEVERAL,
            &["envoy-gateway.yaml", "several-more.yaml"],
        )
    },
    envoy_gateway("envoy-gateway-split", ONE_ENVOY_GATEWAY, &["envoy-gateway.yaml", "split.yaml"]),
    envoy_gateway(
        "envoy-gateway-monitoring",
        ONE_ENVOY_GATEWAY,
        &["envoy-gateway.yaml", "monitoring.yaml"],
    ),
];

impl Case {
    /// Whether the patches apply only to the ports of the listeners.
    pub(super) fn has_own_port(&self) -> bool {
        self.files.contains(&"own-port.yaml")
    }

    /// The names of the control plane: the chart's, and that of `portcullis render`.
    pub(super) fn control_plane(&self) -> [&'static str; 2] {
        if self.name.starts_with(ISTIO[0]) { ISTIO } else { ENVOY_GATEWAY }
    }
}

/// Helm, with the paths of the chart and its value files.
pub(super) struct Helm {
    pub(super) program: PathBuf,
    pub(super) chart: PathBuf,
    pub(super) values: PathBuf,
    /// The home of Helm's own files.
    pub(super) home: PathBuf,
}

impl Helm {
    pub(super) fn new(workspace: &Workspace, program: PathBuf) -> Result<Self> {
        let charts = workspace.root.join("charts");
        let home = workspace.target.join("chart/helm");
        crate::mesh::cluster::made(&home)?;
        Ok(Self { program, chart: charts.join("portcullis"), values: charts.join("values"), home })
    }

    /// Helm without the machine's own settings.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("HOME", &self.home).env_remove("KUBECONFIG");
        command
    }

    /// The value files of a case, as options.
    pub(super) fn values_of(&self, case: &Case) -> Vec<String> {
        let file = |name: &str| self.values.join(name).display().to_string();
        let mut options = Vec::new();
        for name in ["images.yaml", case.description].iter().chain(case.files) {
            options.extend(["--values".to_owned(), file(name)]);
        }
        options.extend(["--set-file".to_owned(), format!("guards={}", file("guards.json"))]);
        if case.previous {
            options.push("--set-file".to_owned());
            options.push(format!("previous_guards={}", file("previous.json")));
        }
        options
    }

    pub(super) fn lint(&self, case: &Case) -> Result<()> {
        let mut command = self.command();
        command.args(["lint", "--strict", "--namespace", case.namespace]);
        command.arg(&self.chart).args(self.values_of(case));
        succeeded("helm lint", command).map(drop)
    }

    /// All manifests of a case except hooks, including those that need the API of Prometheus's operator.
    pub(super) fn template(&self, case: &Case) -> Result<String> {
        self.render(case, &["--no-hooks", "--api-versions", "monitoring.coreos.com/v1"])
    }

    /// As [`Helm::template`], with hooks and further options.
    pub(super) fn render(&self, case: &Case, more: &[&str]) -> Result<String> {
        let mut command = self.command();
        command.args(["template", "portcullis", "--namespace", case.namespace]);
        command.arg(&self.chart).args(self.values_of(case)).args(more);
        succeeded("helm template", command)
    }

    /// Makes a release of a case on an API server: `install` or `upgrade`, with further options.
    pub(super) fn release(
        &self,
        verb: &str,
        case: &Case,
        more: &[&str],
        kubeconfig: &Path,
    ) -> Result<()> {
        let mut command = self.command();
        command.env("KUBECONFIG", kubeconfig).args([verb, "portcullis"]).arg(&self.chart);
        command.args(["--namespace", case.namespace]).args(self.values_of(case)).args(more);
        succeeded(&format!("helm {verb}"), command).map(drop)
    }
}
