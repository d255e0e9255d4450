//! Everything at once: Valkey, OpenBao, two MCP servers, a seeded policy and keys, and Envoy with the filter.
//!
//! Owns the order in which the parts start and what they are told of each other. Each part can be started alone, too;
//! a further Envoy on the same Redis is [`Stack::start_replica`].

use crate::bootstrap::Bootstrap;
use crate::certificates::Certificates;
use crate::connector::{Connector, PythonServer};
use crate::envoy::{Envoy, EnvoyOptions};
use crate::error::{During, Result, StackError};
use crate::files::random_hex;
use crate::issuer::DemoIssuer;
use crate::openbao::OpenBao;
use crate::operator::{IssuedKey, KeySpec, Operator};
use crate::ports::{Ports, free_port, loopback};
use crate::tools::Tools;
use crate::valkey::Valkey;
use crate::workspace::{Artifacts, Workspace};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;

/// Where the connector's credential lies in OpenBao, below the mount `secret`, and in which field.
pub const CREDENTIAL_PATH: &str = "connectors/demo";
pub const CREDENTIAL_FIELD: &str = "api_key";

/// Whose certificate the demo's agent has, until somebody sets another list.
const DEMO_IDENTITIES: &str = r#"[{"match": {"uri": "spiffe://acme.example/agent/*"}, "org": "acme", "role": "analyst", "tier": "enterprise"}]"#;

/// What to start, where.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// The installed third-party programs.
    pub tools: Tools,
    /// What was built.
    pub artifacts: Artifacts,
    /// The project's root, for the files that are used as they are.
    pub root: PathBuf,
    /// Data, configuration and logs of this stack. Emptied at the start.
    pub dir: PathBuf,
    /// Who listens where.
    pub ports: Ports,
    /// The policy to push.
    pub policy: PathBuf,
    /// Placeholders of `envoy/envoy.yaml` beyond the addresses: timeouts and caps.
    pub settings: Bootstrap,
}

impl StackOptions {
    /// The demo policy on free ports, in `dir`.
    pub fn new(workspace: &Workspace, dir: PathBuf) -> Result<Self> {
        Ok(Self {
            tools: Tools::install(workspace)?,
            artifacts: workspace.built_artifacts()?,
            root: workspace.root.clone(),
            dir,
            ports: Ports::free()?,
            policy: workspace.root.join("demo/policy.yaml"),
            settings: Bootstrap::default()
                .set("CERTIFICATES", "optional")
                .set("CERTIFICATE_IDENTITIES", DEMO_IDENTITIES),
        })
    }

    /// Overrides a placeholder of `envoy/envoy.yaml`, such as `REDIS_TIMEOUT_MS`.
    pub fn set(mut self, placeholder: &str, value: impl std::fmt::Display) -> Self {
        self.settings = self.settings.set(placeholder, value);
        self
    }
}

/// A running stack. Dropping it stops everything; its directory stays.
#[derive(Debug)]
pub struct Stack {
    // In this order, because fields are dropped in it: the gateway first.
    pub envoy: Envoy,
    pub connector: Connector,
    pub python: PythonServer,
    pub openbao: OpenBao,
    pub valkey: Valkey,
    pub operator: Operator,
    /// Of the gateway, of the demo's agent, and of who issued them.
    pub certificates: Certificates,
    /// Mints tokens that the gateway takes.
    pub issuer: DemoIssuer,
    /// Key of role `analyst`, tier `enterprise`.
    pub analyst: IssuedKey,
    /// Key of role `support`, tier `enterprise`.
    pub support: IssuedKey,
    /// Key of role `admin`, tier `enterprise`.
    pub admin: IssuedKey,
    options: StackOptions,
    _lock: File,
}

impl Stack {
    /// Starts all parts and waits until the gateway serves.
    pub fn start(options: StackOptions) -> Result<Self> {
        let lock = claim(&options.dir)?;
        let credential = format!("demo-{}", random_hex(16)?);
        let certificates = Certificates::make(&options.dir.join("certificates"))?;
        let StackOptions { tools, artifacts, root, dir, ports, .. } = &options;
        let logs = &options.logs();
        // Nothing in these four depends on another one; OpenBao and Python take a second each.
        let (seeded, openbao, connector, python) = thread::scope(|scope| {
            let seeded = scope.spawn(|| seeded_valkey(&options));
            let openbao = scope.spawn(|| {
                let openbao = OpenBao::start(&tools.bao, dir, logs, ports.openbao)?;
                openbao.put_secret(CREDENTIAL_PATH, CREDENTIAL_FIELD, &credential)?;
                Ok(openbao)
            });
            let connector = scope.spawn(|| {
                Connector::start(&artifacts.connector, dir, logs, ports.connector, &credential)
            });
            let script = root.join("demo/python/server.py");
            let python =
                scope.spawn(move || PythonServer::start(tools, &script, logs, ports.python));
            (joined(seeded), joined(openbao), joined(connector), joined(python))
        });
        let (valkey, operator, [analyst, support, admin]) = seeded?;
        let (openbao, connector, python) = (openbao?, connector?, python?);
        let issuer = DemoIssuer::create(dir)?;
        let external_url = format!("http://{}", loopback(ports.gateway));
        let bootstrap = options
            .settings
            .clone()
            .set_default("ISSUERS", serde_json::json!([issuer.configuration()]))
            .set_default("EXTERNAL_URL", external_url)
            .wasm(&artifacts.filter)
            .redis(valkey.address())
            .vault(openbao.address(), openbao.token_sds())
            .demo(connector.address())
            .python(python.address());
        let options = StackOptions { settings: bootstrap, ..options };
        let mut first = options.envoy("envoy", options.ports.gateway, options.ports.envoy_admin);
        first.bootstrap = first.bootstrap.tls(options.ports.gateway_tls, &certificates);
        let envoy = Envoy::start(first)?;
        Ok(Self {
            envoy,
            connector,
            python,
            openbao,
            valkey,
            operator,
            certificates,
            issuer,
            analyst,
            support,
            admin,
            options,
            _lock: lock,
        })
    }

    /// One more Envoy with the same configuration on ports of its own, as a second replica of the gateway.
    pub fn start_replica(&self, name: &str) -> Result<Envoy> {
        Envoy::start(self.options.envoy(name, free_port()?, free_port()?))
    }

    /// What it was started with; `settings` holds every address by now.
    pub fn options(&self) -> &StackOptions {
        &self.options
    }

    /// Data, configuration, logs and the `env` file.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// The gateway's root URL with TLS.
    pub fn tls_url(&self) -> String {
        format!("https://localhost:{}", self.options.ports.gateway_tls)
    }

    /// The demo connector's endpoint through the gateway.
    pub fn mcp_url(&self) -> String {
        format!("{}/demo/mcp", self.envoy.url())
    }

    /// The Python server's endpoint through the gateway.
    pub fn python_mcp_url(&self) -> String {
        format!("{}/python/mcp", self.envoy.url())
    }
}

impl StackOptions {
    /// Where every part's own log goes.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    fn envoy(&self, name: &str, port: u16, admin_port: u16) -> EnvoyOptions {
        EnvoyOptions {
            program: self.tools.envoy.clone(),
            template: self.root.join("envoy/envoy.yaml"),
            bootstrap: self.settings.clone().set("NODE", name),
            dir: self.dir.clone(),
            logs: self.logs(),
            name: name.to_owned(),
            port,
            admin_port,
            concurrency: 2,
        }
    }
}

fn seeded_valkey(options: &StackOptions) -> Result<(Valkey, Operator, [IssuedKey; 3])> {
    let valkey = Valkey::start(
        &options.tools.valkey_server,
        &options.dir,
        &options.logs(),
        options.ports.valkey,
    )?;
    let operator = Operator::new(&options.artifacts.cli, &valkey.url());
    operator.push_policy(&options.policy, "the first policy of this stack")?;
    let key = |role| operator.issue_key(&KeySpec::acme(role));
    let keys = [key("analyst")?, key("support")?, key("admin")?];
    Ok((valkey, operator, keys))
}

fn joined<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle.join().unwrap_or_else(|_| {
        Err(StackError::Refused {
            attempted: "start a part of the stack".into(),
            answer: "its thread panicked".into(),
        })
    })
}

/// Empties the directory and keeps others off it as long as the lock lives.
fn claim(dir: &Path) -> Result<File> {
    let attempted = || format!("prepare {}", dir.display());
    fs::create_dir_all(dir).during(attempted)?;
    let lock_name = dir.join(".lock");
    let lock = File::create(&lock_name).during(attempted)?;
    if lock.try_lock().is_err() {
        return Err(StackError::Missing {
            what: format!("another stack is running in {}", dir.display()),
            next_step: "stop it first".to_owned(),
        });
    }
    for entry in fs::read_dir(dir).during(attempted)? {
        let path = entry.during(attempted)?.path();
        if path == lock_name {
            continue;
        }
        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
            .during(attempted)?;
    }
    Ok(lock)
}
