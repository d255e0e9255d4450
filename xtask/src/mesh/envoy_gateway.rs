//! Envoy Gateway without a cluster: resources from a folder, real translation, and a real Envoy that it starts.
//!
//! Owns its configuration. Its own servers (xDS, modules) listen on all addresses, since it has no setting for that.
//! Knows nothing about the applied resources.

use super::cluster::{made, succeeded};
use super::tools::EnvoyGatewayTools;
use crate::failure::{Failure, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_stack::http::{self, Reply};
use portcullis_stack::{Process, ready};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// It pulls and compiles the module before the gateway listens.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// The version of Envoy in the name of the folder in which it looks for Envoy.
const ENVOY_VERSION: &str = "1.40.0";
/// The URL of its health check.
const HEALTH: &str = "http://127.0.0.1:8081/readyz";

/// A running Envoy Gateway.
pub(crate) struct EnvoyGateway {
    folder: PathBuf,
    home: PathBuf,
    config: PathBuf,
    process: Process,
}

impl EnvoyGateway {
    pub(crate) fn start(
        tools: &EnvoyGatewayTools,
        envoy: &Path,
        dir: &Path,
        logs: &Path,
    ) -> Result<Self> {
        let dir = dir.join("envoy-gateway");
        let (folder, home) = (dir.join("resources"), dir.join("home"));
        made(&folder)?;
        for part in ["config", "data", "state", "run"] {
            made(&home.join(part))?;
        }
        let place = home.join(format!("data/envoy-versions/{ENVOY_VERSION}/bin"));
        made(&place)?;
        let linked = std::os::unix::fs::symlink(envoy, place.join("envoy"));
        linked.map_err(|error| Failure::new(format!("could not link Envoy: {error}")))?;
        let mut certificates = Command::new(&tools.program);
        certificates
            .args(["certgen", "--local", "--config-home"])
            .arg(home.join("config"))
            .env("HOME", &home);
        succeeded("envoy-gateway certgen", certificates)?;
        let config = dir.join("envoy-gateway.yaml");
        let infrastructure = json!({
            "configHome": home.join("config"), "dataHome": home.join("data"),
            "stateHome": home.join("state"), "runtimeDir": home.join("run"),
        });
        let document = json!({
            "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyGateway",
            "gateway": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
            "provider": {"type": "Custom", "custom": {
                "resource": {"type": "File", "file": {"paths": [folder]}},
                "infrastructure": {"type": "Host", "host": infrastructure},
            }},
            "logging": {"level": {"default": "info"}},
            "extensionApis": {"enableBackend": true, "enableEnvoyPatchPolicy": true},
        });
        fs::write(&config, document.to_string()).map_err(|error| {
            Failure::new(format!("could not write {}: {error}", config.display()))
        })?;
        let process = Self::spawn(tools, &config, &home, logs)?;
        Ok(Self { folder, home, config, process })
    }

    fn spawn(
        tools: &EnvoyGatewayTools,
        config: &Path,
        home: &Path,
        logs: &Path,
    ) -> Result<Process> {
        let mut command = Command::new(&tools.program);
        command.args(["server", "--config-path"]).arg(config).env("HOME", home);
        let log = logs.join("envoy-gateway.log");
        let process = Process::spawn("envoy-gateway", command, &log)?;
        ready::process_is_ready(&process, READY_WITHIN, || ready::answers_200(HEALTH))?;
        Ok(process)
    }

    /// Restarts it. Its Envoy stops and starts with it.
    pub(crate) fn restart(&mut self, tools: &EnvoyGatewayTools, logs: &Path) -> Result<()> {
        self.process.stop();
        self.process = Self::spawn(tools, &self.config, &self.home, logs)?;
        Ok(())
    }

    /// The folder from which it reads resources.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The Secret with the certificate that its Envoys present; in a cluster it exists already.
    pub(crate) fn envoy_secret(&self) -> Result<String> {
        let read = |name: &str| {
            let file = self.home.join("config/certs/envoy").join(name);
            let bytes = fs::read(&file).map_err(|error| {
                Failure::new(format!("could not read {}: {error}", file.display()))
            })?;
            Ok::<_, Failure>(STANDARD.encode(bytes))
        };
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "envoy", "namespace": "envoy-gateway-system"},
            // Without an API server, nothing converts `stringData` to `data`.
            "data": {"ca.crt": read("ca.crt")?, "tls.crt": read("tls.crt")?, "tls.key": read("tls.key")?},
        });
        Ok(secret.to_string())
    }

    /// Patches for the address of its own servers on this machine, for its certificate authority, and for these listeners
    /// of the Gateway mcp/mcp, which would listen on all addresses.
    pub(crate) fn patches_for_here(&self, listeners: &[&str]) -> String {
        let authority = self.authority();
        let socket =
            "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/address";
        let trusted = "/transport_socket/typed_config/common_tls_context/validation_context/trusted_ca/filename";
        let listeners: String = listeners.iter().map(|name| on_loopback(name)).collect();
        format!(
            "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyPatchPolicy\nmetadata: {{name: here, namespace: mcp}}\nspec:\n  \
             targetRef: {{group: gateway.networking.k8s.io, kind: Gateway, name: mcp}}\n  type: JSONPatch\n  jsonPatches:\n  \
             - type: type.googleapis.com/envoy.config.cluster.v3.Cluster\n    name: wasm_cluster\n    \
             operation: {{op: replace, path: {socket}, value: 127.0.0.1}}\n  \
             - type: type.googleapis.com/envoy.config.cluster.v3.Cluster\n    name: wasm_cluster\n    \
             operation: {{op: replace, path: {trusted}, value: \"{}\"}}\n  \
             {listeners}",
            authority.display(),
        )
    }

    /// The certificate authority of its servers.
    fn authority(&self) -> PathBuf {
        self.home.join("config/certs/envoy/ca.crt")
    }

    /// A page of the admin interface of its latest Envoy.
    pub(crate) fn admin(&self, page: &str) -> Result<Reply> {
        Ok(http::get(&format!("{}/{page}", self.admin_url()?))?)
    }

    /// The URL of that admin interface.
    pub(crate) fn admin_url(&self) -> Result<String> {
        let runs = self.home.join("run");
        let mut addresses: Vec<PathBuf> = fs::read_dir(&runs)
            .map_err(|error| Failure::new(format!("could not read {}: {error}", runs.display())))?
            .filter_map(|run| Some(run.ok()?.path().join("admin-address.txt")))
            .filter(|file| file.is_file())
            .collect();
        // The folders' names contain the time.
        addresses.sort();
        let address = addresses
            .last()
            .and_then(|file| fs::read_to_string(file).ok())
            .ok_or_else(|| Failure::new("Envoy Gateway's Envoy has not said where its admin is"))?;
        Ok(format!("http://{}", address.trim()))
    }

    /// Its own log, which contains Envoy's standard output.
    pub(crate) fn log(&self) -> &Path {
        self.process.log()
    }
}

fn on_loopback(listener: &str) -> String {
    format!(
        "- type: type.googleapis.com/envoy.config.listener.v3.Listener\n    name: mcp/mcp/{listener}\n    \
         operation: {{op: replace, path: /address/socket_address/address, value: 127.0.0.1}}\n  "
    )
}
