//! Kubernetes without nodes: etcd, the API server, kubectl, and a registry with the module as an image.
//!
//! The API server validates and stores manifests, and serves watches, as in any cluster; nothing is ever scheduled.
//! Everything listens on loopback. Knows nothing about Istio or Envoy Gateway.

use super::tools::{KubernetesTools, RegistryTools};
use crate::failure::{Failure, Result};
use portcullis_stack::ports::{free_port, loopback};
use portcullis_stack::{Process, Tools, files, process, ready};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The API server starts many controllers before it is ready.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Makes the key that signs tokens of service accounts. The API server accepts only keys in RSA's own form or in SEC 1.
const MAKE_KEY: &str = "import sys; from cryptography.hazmat.primitives.asymmetric import rsa; \
    from cryptography.hazmat.primitives import serialization as s; \
    k = rsa.generate_private_key(public_exponent=65537, key_size=2048); \
    open(sys.argv[1], 'wb').write(k.private_bytes(s.Encoding.PEM, s.PrivateFormat.TraditionalOpenSSL, s.NoEncryption()))";

/// A running API server. Dropping it stops it.
pub(crate) struct Cluster {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    dir: PathBuf,
    // The API server first: it would report errors without its store.
    _api_server: Process,
    _etcd: Process,
}

impl Cluster {
    pub(crate) fn start(
        programs: &KubernetesTools,
        tools: &Tools,
        dir: &Path,
        logs: &Path,
    ) -> Result<Self> {
        let dir = dir.join("cluster");
        made(&dir)?;
        let (etcd, store) = etcd(programs, &dir, logs)?;
        let key = dir.join("service-account-key.pem");
        let mut make = tools.python_command();
        make.args(["-c", MAKE_KEY]).arg(&key);
        succeeded("python3", make)?;
        let token = files::random_hex(16)?;
        let tokens = dir.join("tokens.csv");
        files::write_private(&tokens, &format!("{token},admin,1,system:masters\n"))?;
        let (port, certificates) = (free_port()?, dir.join("certificates"));
        let mut command = Command::new(&programs.api_server);
        command
            .arg(format!("--etcd-servers=http://{store}"))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            .arg(format!("--secure-port={port}"))
            .arg(format!("--cert-dir={}", certificates.display()))
            .arg(format!("--service-account-key-file={}", key.display()))
            .arg(format!("--service-account-signing-key-file={}", key.display()))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--token-auth-file={}", tokens.display()))
            .args(["--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16"])
            .args(["--endpoint-reconciler-type=none", "--v=1"]);
        let api_server =
            Process::spawn("kube-apiserver", command, &logs.join("kube-apiserver.log"))?;
        let kubeconfig = dir.join("kubeconfig");
        let authority = certificates.join("apiserver.crt");
        files::write_private(&kubeconfig, &kubeconfig_of(port, &authority, &token))?;
        let kubectl = programs.kubectl.clone();
        let cluster = Self { kubectl, kubeconfig, dir, _api_server: api_server, _etcd: etcd };
        ready::process_is_ready(&cluster._api_server, READY_WITHIN, || {
            cluster.kubectl(&["get", "--raw=/readyz"]).is_ok()
        })?;
        Ok(cluster)
    }

    /// The kubeconfig for a control plane.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The path of kubectl.
    pub(crate) fn program(&self) -> &Path {
        &self.kubectl
    }

    /// Runs kubectl; returns its output.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.kubectl);
        // Its cache of API discovery is in its home.
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.dir);
        succeeded(&format!("kubectl {}", arguments.join(" ")), command)
    }

    /// Applies resource definitions, which are too large for the annotation of a plain `apply`.
    pub(crate) fn define(&self, file: &Path) -> Result<()> {
        let file = file.to_string_lossy();
        self.kubectl(&["apply", "--server-side", "--filename", &file])?;
        // Waits for all definitions: the file may contain other kinds, which have no such condition.
        let established = "--for=condition=Established";
        self.kubectl(&["wait", established, "--timeout=60s", "--all", "customresourcedefinitions"])
            .map(drop)
    }

    /// Creates a namespace unless it exists.
    pub(crate) fn namespace(&self, name: &str) -> Result<()> {
        if self.kubectl(&["get", "namespace", name]).is_ok() {
            return Ok(());
        }
        self.kubectl(&["create", "namespace", name]).map(drop)
    }

    /// Whether the API server would accept the file, with all its validations.
    pub(crate) fn dry_run(&self, file: &Path) -> Result<()> {
        let file = file.to_string_lossy();
        let strict = "--validate=strict";
        self.kubectl(&["apply", "--server-side", "--dry-run=server", strict, "--filename", &file])
            .map(drop)
    }

    /// Gives a Gateway an address. In a cluster with nodes, the controller of its class does that.
    pub(crate) fn has_address(&self, kind: &str, name: &str, host: &str) -> Result<()> {
        let status =
            serde_json::json!({"status": {"addresses": [{"type": "Hostname", "value": host}]}});
        self.kubectl(&[
            "patch",
            kind,
            name,
            "--namespace=mcp",
            "--subresource=status",
            "--type=merge",
            &format!("--patch={status}"),
        ])
        .map(drop)
    }

    /// Applies a file, as a user would.
    pub(crate) fn apply(&self, file: &Path) -> Result<()> {
        self.kubectl(&["apply", "--filename", &file.to_string_lossy()]).map(drop)
    }

    pub(crate) fn delete(&self, file: &Path) -> Result<()> {
        let file = file.to_string_lossy();
        self.kubectl(&["delete", "--wait", "--ignore-not-found", "--filename", &file]).map(drop)
    }
}

/// The end of the images' names.
pub(crate) const MODULE: &str = "portcullis";
pub(crate) const FRAMING: &str = "redis-framing";

/// A running registry that has each module as an image of one layer.
pub(crate) struct Registry {
    address: SocketAddr,
    crane: PathBuf,
    dir: PathBuf,
    _process: Process,
}

impl Registry {
    pub(crate) fn start(programs: &RegistryTools, dir: &Path, logs: &Path) -> Result<Self> {
        let dir = dir.join("registry");
        made(&dir)?;
        let address = loopback(free_port()?);
        let mut command = Command::new(&programs.crane);
        command.args(["registry", "serve", "--address", &address.to_string()]);
        let process = Process::spawn("registry", command, &logs.join("registry.log"))?;
        ready::process_is_ready(&process, READY_WITHIN, || ready::accepts(address))?;
        Ok(Self { address, crane: programs.crane.clone(), dir, _process: process })
    }

    /// The address on which it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Pushes `module` as `NAME:TAG`; returns the digest of the manifest, without `sha256:`.
    pub(crate) fn push(
        &self,
        tools: &Tools,
        module: &Path,
        (name, tag): (&str, &str),
    ) -> Result<String> {
        // A layer is a gzipped tar. This one has the file that Istio and Envoy Gateway look for.
        let layer = self.dir.join(format!("{name}-{tag}.tar.gz"));
        let mut pack = tools.python_command();
        pack.args(["-c", "import sys, tarfile; tarfile.open(sys.argv[1], 'w:gz').add(sys.argv[2], 'plugin.wasm')"])
            .arg(&layer)
            .arg(module);
        succeeded("python3", pack)?;
        let image = self.image_of(name, tag);
        let mut append = Command::new(&self.crane);
        append
            .args(["append", "--insecure", "--oci-empty-base", "--new_layer"])
            .arg(&layer)
            .args(["--new_tag", &image]);
        succeeded("crane append", append)?;
        let mut digest = Command::new(&self.crane);
        digest.args(["digest", "--insecure", &image]);
        let digest = succeeded("crane digest", digest)?;
        Ok(digest.trim().trim_start_matches("sha256:").to_owned())
    }

    /// A reference to an image of the module, which may not exist.
    pub(crate) fn image(&self, tag: &str) -> String {
        self.image_of(MODULE, tag)
    }

    /// A reference to an image of the module `name`.
    pub(crate) fn image_of(&self, name: &str, tag: &str) -> String {
        format!("{}/{name}:{tag}", self.address)
    }
}

fn etcd(programs: &KubernetesTools, dir: &Path, logs: &Path) -> Result<(Process, SocketAddr)> {
    let (clients, peers) = (loopback(free_port()?), loopback(free_port()?));
    let mut command = Command::new(&programs.etcd);
    command
        .arg(format!("--data-dir={}", dir.join("etcd").display()))
        .arg(format!("--listen-client-urls=http://{clients}"))
        .arg(format!("--advertise-client-urls=http://{clients}"))
        .arg(format!("--listen-peer-urls=http://{peers}"))
        .arg(format!("--initial-advertise-peer-urls=http://{peers}"))
        .arg(format!("--initial-cluster=default=http://{peers}"))
        // Nothing here has to survive a power cut.
        .arg("--unsafe-no-fsync");
    let process = Process::spawn("etcd", command, &logs.join("etcd.log"))?;
    let health = format!("http://{clients}/health");
    ready::process_is_ready(&process, READY_WITHIN, || ready::answers_200(&health))?;
    Ok((process, clients))
}

fn kubeconfig_of(port: u16, authority: &Path, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: mesh\n\
         clusters: [{{name: mesh, cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: \"{}\"}}}}]\n\
         users: [{{name: admin, user: {{token: \"{token}\"}}}}]\n\
         contexts: [{{name: mesh, context: {{cluster: mesh, user: admin}}}}]\n",
        authority.display()
    )
}

pub(crate) fn made(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)
        .map_err(|error| Failure::new(format!("could not create {}: {error}", dir.display())))
}

pub(crate) fn succeeded(name: &str, command: Command) -> Result<String> {
    let output = process::output(name, command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(format!("{name}: {said}")))
}
