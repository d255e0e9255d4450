//! The programs of Kubernetes, Istio, Envoy Gateway and Helm: built from pinned Go modules into `target/tools/mesh/`.
//!
//! Owns which packages are built and which files come from their sources. A stamp records the build, so that a second
//! run needs neither Go nor a network. Knows nothing about the use of the programs.

use crate::failure::{Failure, Result};
use crate::progress::step;
use portcullis_stack::{Workspace, process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Go module of `tools/mesh/`: its folder, the packages to build, the files to take from its sources.
pub(crate) struct Source {
    folder: &'static str,
    /// The folder of its results, below `target/tools/mesh`.
    into: &'static str,
    packages: &'static [&'static str],
    /// The module, the path in it, the name here.
    files: &'static [(&'static str, &'static str, &'static str)],
}

const ETCD: Source =
    Source { folder: "etcd", into: "etcd", packages: &["go.etcd.io/etcd/server/v3"], files: &[] };

const KUBERNETES: Source = Source {
    folder: "kubernetes",
    into: "kubernetes",
    packages: &["k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes/cmd/kubectl"],
    files: &[],
};

const REGISTRY: Source = Source {
    folder: "registry",
    into: "registry",
    packages: &["github.com/google/go-containerregistry/cmd/crane"],
    files: &[],
};

const ISTIO: Source = Source {
    folder: "istio",
    into: "istio",
    packages: &["istio.io/istio/pilot/cmd/pilot-discovery", "istio.io/istio/pilot/cmd/pilot-agent"],
    files: &[("istio.io/istio", "tools/packaging/common/envoy_bootstrap.json", "bootstrap.json")],
};

const ENVOY_GATEWAY: Source = Source {
    folder: "envoy-gateway",
    into: "envoy-gateway",
    packages: &["github.com/envoyproxy/gateway/cmd/envoy-gateway"],
    files: &[],
};

const EG: &str = "github.com/envoyproxy/gateway";

const HELM: Source =
    Source { folder: "helm", into: "helm", packages: &["helm.sh/helm/v4/cmd/helm"], files: &[] };

/// Helm.
pub(crate) struct HelmTools {
    pub(crate) helm: PathBuf,
}

impl HelmTools {
    pub(crate) fn install(workspace: &Workspace) -> Result<Self> {
        Ok(Self { helm: built(workspace, &HELM)?.join("helm") })
    }
}

/// The resource definitions of Istio, Gateway API and Envoy Gateway, from their sources: nothing is built.
const ISTIO_RESOURCES: Source = Source {
    folder: "istio",
    into: "istio-resources",
    packages: &[],
    files: &[("istio.io/istio", "manifests/charts/base/files/crd-all.gen.yaml", "crds.yaml")],
};

const GATEWAY_RESOURCES: Source = Source {
    folder: "envoy-gateway",
    into: "gateway-resources",
    packages: &[],
    files: &[
        (
            EG,
            "charts/gateway-crds-helm/templates/standard-gatewayapi-crds.yaml",
            "gateway-api.yaml",
        ),
        (EG, "charts/gateway-crds-helm/templates/generated/", "crds.yaml"),
    ],
};

const MONITORING_RESOURCES: Source = Source {
    folder: "monitoring",
    into: "monitoring-resources",
    packages: &[],
    files: &[
        (
            PROMETHEUS,
            "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
            "pods.yaml",
        ),
        (
            PROMETHEUS,
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
            "rules.yaml",
        ),
    ],
};

const PROMETHEUS: &str = "github.com/prometheus-operator/prometheus-operator";

/// Definitions of resources for an API server.
pub(crate) struct Resources {
    /// Every resource that Istio defines.
    pub(crate) istio: PathBuf,
    /// Every resource of Gateway API's standard channel, and every one that Envoy Gateway defines.
    pub(crate) gateway: [PathBuf; 2],
    /// PodMonitor and PrometheusRule of Prometheus's operator.
    pub(crate) monitoring: [PathBuf; 2],
}

impl Resources {
    pub(crate) fn install(workspace: &Workspace) -> Result<Self> {
        let istio = built(workspace, &ISTIO_RESOURCES)?.join("crds.yaml");
        let dir = built(workspace, &MONITORING_RESOURCES)?;
        let monitoring = [dir.join("pods.yaml"), dir.join("rules.yaml")];
        Ok(Self { istio, gateway: gateway_resources(workspace)?, monitoring })
    }
}

fn gateway_resources(workspace: &Workspace) -> Result<[PathBuf; 2]> {
    let dir = built(workspace, &GATEWAY_RESOURCES)?;
    Ok([dir.join("gateway-api.yaml"), dir.join("crds.yaml")])
}

/// A Kubernetes API server without nodes.
pub(crate) struct KubernetesTools {
    pub(crate) etcd: PathBuf,
    pub(crate) api_server: PathBuf,
    pub(crate) kubectl: PathBuf,
}

impl KubernetesTools {
    pub(crate) fn install(workspace: &Workspace) -> Result<Self> {
        let etcd = built(workspace, &ETCD)?;
        let kubernetes = built(workspace, &KUBERNETES)?;
        Ok(Self {
            etcd: etcd.join("server"),
            api_server: kubernetes.join("kube-apiserver"),
            kubectl: kubernetes.join("kubectl"),
        })
    }
}

/// An OCI registry, and the program that pushes images to it.
pub(crate) struct RegistryTools {
    pub(crate) crane: PathBuf,
}

impl RegistryTools {
    pub(crate) fn install(workspace: &Workspace) -> Result<Self> {
        Ok(Self { crane: built(workspace, &REGISTRY)?.join("crane") })
    }
}

/// Istio's control plane and its agent.
pub(crate) struct IstioTools {
    pub(crate) istiod: PathBuf,
    pub(crate) agent: PathBuf,
    /// Every resource that Istio defines.
    pub(crate) crds: PathBuf,
    /// The template from which the agent makes an Envoy's bootstrap.
    pub(crate) bootstrap: PathBuf,
}

impl IstioTools {
    pub(crate) fn install(workspace: &Workspace) -> Result<Self> {
        let dir = built(workspace, &ISTIO)?;
        Ok(Self {
            istiod: dir.join("pilot-discovery"),
            agent: dir.join("pilot-agent"),
            crds: built(workspace, &ISTIO_RESOURCES)?.join("crds.yaml"),
            bootstrap: dir.join("bootstrap.json"),
        })
    }
}

/// Envoy Gateway's controller.
pub(crate) struct EnvoyGatewayTools {
    pub(crate) program: PathBuf,
    /// Every resource of Gateway API's standard channel, and every one that Envoy Gateway defines.
    pub(crate) crds: [PathBuf; 2],
}

impl EnvoyGatewayTools {
    pub(crate) fn install(workspace: &Workspace) -> Result<Self> {
        let dir = built(workspace, &ENVOY_GATEWAY)?;
        let crds = gateway_resources(workspace)?;
        Ok(Self { program: dir.join("envoy-gateway"), crds })
    }
}

/// The folder with the programs and files of `source`; builds them when the stamp differs.
fn built(workspace: &Workspace, source: &Source) -> Result<PathBuf> {
    let module = workspace.root.join("tools/mesh").join(source.folder);
    let dir = workspace.tools_dir().join("mesh").join(source.into);
    fs::create_dir_all(&dir)
        .map_err(|error| Failure::new(format!("could not create {}: {error}", dir.display())))?;
    let lock = dir.join(".lock");
    let locked = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let _lock = locked
        .map_err(|error| Failure::new(format!("could not lock {}: {error}", lock.display())))?;
    let (stamp, stamp_file) = (stamp(&module, source)?, dir.join("stamp"));
    if fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp) {
        return Ok(dir);
    }
    for package in source.packages {
        let name = format!("building {package}");
        step(&name, || go(&module, &["build", "-ldflags=-s -w", "-o", &slashed(&dir), package]))?;
    }
    for (of, path, name) in source.files {
        go(&module, &["mod", "download", of])?;
        let root = go(&module, &["list", "-m", "-f", "{{.Dir}}", of])?;
        let from = Path::new(root.trim()).join(path);
        let copied = taken(&from).and_then(|text| fs::write(dir.join(name), text));
        copied.map_err(|error| {
            Failure::new(format!("could not copy {} from {of}: {error}", from.display()))
        })?;
    }
    fs::write(&stamp_file, stamp).map_err(|error| {
        Failure::new(format!("could not write {}: {error}", stamp_file.display()))
    })?;
    Ok(dir)
}

/// A file, or all files of a folder as one. Removes the template lines of a chart's YAML.
fn taken(from: &Path) -> std::io::Result<String> {
    let mut files = vec![from.to_owned()];
    if from.is_dir() {
        files =
            fs::read_dir(from)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        files.sort();
    }
    let mut text = String::new();
    for file in files {
        if from.is_dir() {
            text.push_str("---\n");
        }
        let all = fs::read_to_string(&file)?;
        let is_chart = file.extension().is_some_and(|extension| extension == "yaml");
        for line in all.split_inclusive('\n') {
            if !(is_chart && line.starts_with("{{")) {
                text.push_str(line);
            }
        }
    }
    Ok(text)
}

/// Everything that affects the build, in full.
fn stamp(module: &Path, source: &Source) -> Result<String> {
    let mut stamp = source.packages.join("\n");
    for (of, path, name) in source.files {
        stamp.push_str(&format!("\n{of} {path} {name}"));
    }
    for file in ["go.mod", "go.sum"] {
        let file = module.join(file);
        let text = fs::read_to_string(&file)
            .map_err(|error| Failure::new(format!("could not read {}: {error}", file.display())))?;
        stamp.push_str(&text);
    }
    Ok(stamp)
}

/// `go build -o` accepts a folder only with a slash at its end.
fn slashed(dir: &Path) -> String {
    format!("{}/", dir.display())
}

fn go(module: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("go");
    // These versions name their toolchain: Go must not download another one silently.
    command.args(arguments).current_dir(module).env("GOTOOLCHAIN", "local").env("GOWORK", "off");
    let output = process::output("go", command).map_err(|error| {
        Failure::new(format!(
            "`cargo xtask mesh` and `cargo xtask chart` build Kubernetes, the control planes and Helm with Go 1.26 or newer: {error}; install Go, then try again"
        ))
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure::new(format!(
        "`go {}` in {} failed:\n{}",
        arguments.join(" "),
        module.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}
