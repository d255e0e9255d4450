//! Envoy Gateway on its own, without a cluster: resources from a folder, real translation, a real Envoy that it starts.
//!
//! Owns what it is told. Its own servers (xDS, modules) listen on all addresses: it has no setting for that. Knows nothing
//! about what is applied.

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

/// It pulls the module and compiles it before the gateway listens.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Of Envoy, as it names the folder in which it looks for one.
const ENVOY_VERSION: &str = "1.40.0";
/// Where it serves its health.
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

    /// The same once more. Its Envoy ends with it and starts with it.
    pub(crate) fn restart(&mut self, tools: &EnvoyGatewayTools, logs: &Path) -> Result<()> {
        self.process.stop();
        self.process = Self::spawn(tools, &self.config, &self.home, logs)?;
        Ok(())
    }

    /// Where it looks for resources.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The Secret with the certificate that its Envoys present, which it has in a cluster.
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
            // Without an API server nobody makes `data` of a `stringData`.
            "data": {"ca.crt": read("ca.crt")?, "tls.crt": read("tls.crt")?, "tls.key": read("tls.key")?},
        });
        Ok(secret.to_string())
    }

    /// The authority of its servers.
    pub(crate) fn authority(&self) -> PathBuf {
        self.home.join("config/certs/envoy/ca.crt")
    }

    /// A page of the admin interface of the Envoy that it started last.
    pub(crate) fn admin(&self, page: &str) -> Result<Reply> {
        Ok(http::get(&format!("{}/{page}", self.admin_url()?))?)
    }

    /// Of that admin interface.
    pub(crate) fn admin_url(&self) -> Result<String> {
        let runs = self.home.join("run");
        let mut addresses: Vec<PathBuf> = fs::read_dir(&runs)
            .map_err(|error| Failure::new(format!("could not read {}: {error}", runs.display())))?
            .filter_map(|run| Some(run.ok()?.path().join("admin-address.txt")))
            .filter(|file| file.is_file())
            .collect();
        // The folders have the time in their names.
        addresses.sort();
        let address = addresses
            .last()
            .and_then(|file| fs::read_to_string(file).ok())
            .ok_or_else(|| Failure::new("Envoy Gateway's Envoy has not said where its admin is"))?;
        Ok(format!("http://{}", address.trim()))
    }

    /// Its own log, in which Envoy's standard output is.
    pub(crate) fn log(&self) -> &Path {
        self.process.log()
    }
}
