//! Istio: istiod on the API server, and an ingress gateway as in a pod: Istio's agent and the real Envoy.
//!
//! Everything listens on loopback, except the agent's port for probes, which has no setting for it. Owns the
//! configuration of both. Knows nothing about the applied resources.

use super::cluster::{Cluster, Registry, made};
use super::tools::IstioTools;
use crate::failure::{Failure, Result};
use portcullis_stack::http::{self, Reply};
use portcullis_stack::ports::{free_port, loopback};
use portcullis_stack::{Authority, Process, ready};
use serde_json::json;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Both wait for each other and for many kinds of resources.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// The folder in which Istio's agent keeps modules; it is a constant there.
const AGENT_DATA: &str = "/var/lib/istio/data";
/// The version that the agent reports to istiod.
const VERSION: &str = "1.31.0";

/// The address of the gateway. No endpoint has it: istiod would use that endpoint's labels for the gateway.
const GATEWAY_ADDRESS: &str = "127.0.0.99";
const SIDECAR_ADDRESS: &str = "127.0.0.98";
const WAYPOINT_ADDRESS: &str = "127.0.0.97";
/// The path of a workload's certificate, below the agent's working directory. With this file the agent requests no
/// certificate.
const CREDENTIALS: &str = "var/run/secrets/workload-spiffe-credentials";
pub(crate) const NAMESPACE: &str = "istio-ingress";
/// The file with the demo's MCP server as a service.
pub(super) const DEMO_SERVER: &str = "demo-server.yaml";
/// A host of another team.
pub(super) const OTHER_HOST: &str = "other.example.com";

/// Turns off features that only Istio's own build of Envoy has.
const FOR_STOCK_ENVOY: [(&str, &str); 4] = [
    ("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
    ("PILOT_ENABLE_TELEMETRY_LABEL", "false"),
    ("PILOT_ENDPOINT_TELEMETRY_LABEL", "false"),
    ("PILOT_ENABLE_ALPN_FILTER", "false"),
];

/// telemetry.yaml names this provider.
const MESH: &str = "enableAutoMtls: false
extensionProviders:
- name: portcullis-audit
  envoyFileAccessLog:
    path: /dev/stdout
    logFormat: {text: \"%FILTER_STATE(wasm.portcullis.audit:PLAIN)%\\n\"}
";

/// Labels in the names of the filter's metrics; Istio makes a pattern of each.
const TAGS: [&str; 12] = [
    "connector",
    "method",
    "tool",
    "outcome",
    "reason",
    "limit",
    "check",
    "kind",
    "dependency",
    "org",
    "version",
    "build",
];

/// The kind of proxies that a control plane configures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dataplane {
    /// Gateways and sidecars.
    Sidecars,
    /// Waypoints as well.
    Ambient,
}

impl Dataplane {
    fn name(self) -> &'static str {
        match self {
            Self::Sidecars => "istiod",
            Self::Ambient => "istiod-ambient",
        }
    }
}

/// A running control plane.
pub(crate) struct Istiod {
    dataplane: Dataplane,
    grpc: SocketAddr,
    process: Process,
}

impl Istiod {
    /// Starts it; `cluster` has Istio's definitions already.
    pub(crate) fn start(
        dataplane: Dataplane,
        tools: &IstioTools,
        cluster: &Cluster,
        (dir, logs): (&Path, &Path),
    ) -> Result<Self> {
        Self::start_on(loopback(free_port()?), dataplane, tools, cluster, (dir, logs))
    }

    /// Stops it.
    pub(crate) fn stop(&self) {
        self.process.stop();
    }

    /// Restarts it at the same address, where the agents look for it.
    pub(crate) fn restart(
        &mut self,
        tools: &IstioTools,
        cluster: &Cluster,
        places: (&Path, &Path),
    ) -> Result<()> {
        self.process.stop();
        *self = Self::start_on(self.grpc, self.dataplane, tools, cluster, places)?;
        Ok(())
    }

    fn start_on(
        grpc: SocketAddr,
        dataplane: Dataplane,
        tools: &IstioTools,
        cluster: &Cluster,
        (dir, logs): (&Path, &Path),
    ) -> Result<Self> {
        let home = dir.join(dataplane.name());
        mesh_configuration(&home)?;
        let (http, monitoring) = (loopback(free_port()?), loopback(free_port()?));
        let mut command = Command::new(&tools.istiod);
        command
            .arg("discovery")
            .arg(format!("--kubeconfig={}", cluster.kubeconfig().display()))
            .arg(format!("--grpcAddr={grpc}"))
            .arg(format!("--httpAddr={http}"))
            .arg(format!("--monitoringAddr={monitoring}"))
            .args(["--secureGRPCAddr=", "--httpsAddr=", "--ctrlz_port=0"])
            // It looks for configuration and keys below its working directory.
            .current_dir(&home)
            .env("POD_NAMESPACE", "istio-system")
            .env("POD_NAME", format!("{}-1", dataplane.name()))
            .env("PILOT_ENABLE_AMBIENT", (dataplane == Dataplane::Ambient).to_string())
            .envs(FOR_STOCK_ENVOY);
        let log = logs.join(format!("{}.log", dataplane.name()));
        let process = Process::spawn(dataplane.name(), command, &log)?;
        let live = format!("http://{http}/ready");
        ready::process_is_ready(&process, READY_WITHIN, || ready::answers_200(&live))?;
        Ok(Self { dataplane, grpc, process })
    }
}

/// The kind of proxy that an agent starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Ingress,
    /// Beside the demo's MCP server.
    Sidecar,
    /// In front of the service of the demo's MCP server.
    Waypoint,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Sidecar => "sidecar",
            Self::Waypoint => "waypoint",
        }
    }

    /// Type, namespace, labels and address.
    fn node(self) -> (&'static str, &'static str, serde_json::Value, &'static str) {
        match self {
            Self::Ingress => {
                ("router", NAMESPACE, json!({"istio": "ingressgateway"}), GATEWAY_ADDRESS)
            }
            Self::Sidecar => ("sidecar", "mcp", json!({"app": "demo"}), SIDECAR_ADDRESS),
            Self::Waypoint => {
                let labels = json!({"gateway.networking.k8s.io/gateway-name": "waypoint"});
                ("waypoint", "mcp", labels, WAYPOINT_ADDRESS)
            }
        }
    }

    /// The version that the agent reports. A newer waypoint gets a kind of filter state that only Istio's own build of
    /// Envoy has.
    fn version(self) -> &'static str {
        match self {
            Self::Ingress | Self::Sidecar => VERSION,
            Self::Waypoint => "1.28.0",
        }
    }

    /// How traffic reaches a proxy. Redirection to a sidecar needs rules in a pod's network, which does not exist here.
    fn interception(self) -> &'static str {
        match self {
            Self::Ingress | Self::Waypoint => "REDIRECT",
            Self::Sidecar => "NONE",
        }
    }
}

/// A running proxy of the mesh with its agent.
pub(crate) struct Ingress {
    admin: SocketAddr,
    process: Process,
}

impl Ingress {
    /// Starts the agent, which starts Envoy. The role gives the pod its name.
    pub(crate) fn start(
        role: Role,
        (tools, envoy): (&IstioTools, &Path),
        istiod: &Istiod,
        registry: &Registry,
        authority: &Authority,
        (dir, logs): (&Path, &Path),
    ) -> Result<Self> {
        fs::create_dir_all(AGENT_DATA).map_err(|error| {
            Failure::new(format!(
                "Istio's agent keeps modules in {AGENT_DATA}, and that cannot be created ({error}); create it for this user, then try again"
            ))
        })?;
        let home = dir.join(role.name());
        let (kind, namespace, labels, address) = role.node();
        made(&home)?;
        // The agent needs the root certificate of the mesh.
        let secrets = home.join("var/run/secrets/istio");
        made(&secrets)?;
        copied(authority.certificate(), &secrets.join("root-cert.pem"))?;
        let credentials = home.join(CREDENTIALS);
        made(&credentials)?;
        let uri = format!("spiffe://cluster.local/ns/{namespace}/sa/{}", role.name());
        let identity = authority.workload(&format!("workload-{}", role.name()), &uri)?;
        copied(authority.certificate(), &credentials.join("root-cert.pem"))?;
        copied(&identity.certificate, &credentials.join("cert-chain.pem"))?;
        copied(&identity.private_key, &credentials.join("key.pem"))?;
        let admin = loopback(free_port()?);
        let configuration = json!({
            "discoveryAddress": istiod.grpc.to_string(), "controlPlaneAuthPolicy": "NONE",
            "binaryPath": envoy, "configPath": home, "concurrency": 2,
            "proxyAdminPort": admin.port(), "statusPort": free_port()?, "fileFlushInterval": "0.1s",
            "extraStatTags": TAGS,
        });
        let mut command = Command::new(&tools.agent);
        command
            .args(["proxy", kind, "--domain", &format!("{namespace}.svc.cluster.local")])
            .arg(format!("--templateFile={}", on_loopback(&tools.bootstrap, &home)?.display()))
            .current_dir(&home)
            .env("POD_NAME", format!("{}-1", role.name()))
            .env("POD_NAMESPACE", namespace)
            .env("INSTANCE_IP", address)
            .env("ISTIO_META_CLUSTER_ID", "Kubernetes")
            .env("ISTIO_META_ISTIO_VERSION", role.version())
            .env("ISTIO_METAJSON_LABELS", labels.to_string())
            .env("ISTIO_META_INTERCEPTION_MODE", role.interception())
            .env("WASM_INSECURE_REGISTRIES", registry.address().to_string())
            .env("JWT_POLICY", "none")
            .env("ENVOY_STATUS_PORT", free_port()?.to_string())
            .env("ENVOY_PROMETHEUS_PORT", free_port()?.to_string())
            .env("MINIMUM_DRAIN_DURATION", "0s")
            .env("PROXY_CONFIG", configuration.to_string());
        let log = logs.join(format!("{}.log", role.name()));
        let process = Process::spawn("pilot-agent", command, &log)?;
        let ingress = Self { admin, process };
        let live = format!("http://{admin}/server_info");
        ready::process_is_ready(&ingress.process, READY_WITHIN, || ready::answers_200(&live))?;
        Ok(ingress)
    }

    /// A page of Envoy's admin interface.
    pub(crate) fn admin(&self, page: &str) -> Result<Reply> {
        Ok(http::get(&format!("{}/{page}", self.admin_url()))?)
    }

    /// The URL of the admin interface.
    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// The log with the output of the agent and of Envoy, which includes the audit log.
    pub(crate) fn log(&self) -> &Path {
        self.process.log()
    }
}

/// The demo's MCP server, which listens on `port` of this machine, as the service of the shipped routes.
pub(crate) fn demo_server(port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: demo, namespace: mcp}}\nspec:\n  \
         hosts: [demo.mcp.svc.cluster.local]\n  ports: [{{number: 8080, name: http, protocol: HTTP}}]\n  \
         resolution: STATIC\n  endpoints: [{{address: 127.0.0.1, ports: {{http: {port}}}}}]\n"
    )
}

fn copied(from: &Path, to: &Path) -> Result<()> {
    let copied = fs::copy(from, to);
    copied
        .map(drop)
        .map_err(|error| Failure::new(format!("could not copy {}: {error}", from.display())))
}

/// Plaintext between workloads, unless a trial changes that.
fn mesh_configuration(home: &Path) -> Result<()> {
    let dir = home.join("etc/istio/config");
    made(&dir)?;
    let file = dir.join("mesh");
    fs::write(&file, MESH)
        .map_err(|error| Failure::new(format!("could not write {}: {error}", file.display())))
}

/// Istio's template with loopback addresses: its listeners for probes and metrics would use the pod's address. A
/// waypoint's template has an extension that only Istio's own build of Envoy has.
fn on_loopback(template: &Path, home: &Path) -> Result<PathBuf> {
    let file = home.join("bootstrap-template.json");
    let fault = |error| Failure::new(format!("could not write {}: {error}", file.display()));
    let text = fs::read_to_string(template).map_err(fault)?;
    let text = text.replace("{{ .wildcard }}", "127.0.0.1");
    let text = text.replace("{{- if .metadata_discovery }}", "{{- if false }}");
    fs::write(&file, text).map_err(fault)?;
    Ok(file)
}
