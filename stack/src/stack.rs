//! Everything at once: Valkey, OpenBao, two MCP servers, a seeded policy and keys, and Envoy with the filter.
//!
//! Owns the order in which the parts start and the addresses that they get of each other. Each part can also start
//! alone; [`Stack::start_replica`] starts a further Envoy on the same Redis.

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
use crate::redis_tls::{REDIS_TLS_NAME, RedisTls};
use crate::redis_users::RedisUsers;
use crate::tools::Tools;
use crate::valkey::{Valkey, ValkeyOptions};
use crate::valkey_cluster;
use crate::workspace::{Artifacts, Workspace};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;

/// The path of the connector's credential in OpenBao, below the mount `secret`, and its field.
pub const CREDENTIAL_PATH: &str = "connectors/demo";
pub const CREDENTIAL_FIELD: &str = "api_key";

/// Maps the certificate of the demo's agent to an identity, unless a caller sets another list.
const DEMO_IDENTITIES: &str = r#"[{"match": {"uri": "spiffe://acme.example/agent/*"}, "org": "acme", "role": "analyst", "tier": "enterprise"}]"#;

/// The options of a stack.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// The installed third-party programs.
    pub tools: Tools,
    /// The built modules and programs.
    pub artifacts: Artifacts,
    /// The project's root, for files that are used unchanged.
    pub root: PathBuf,
    /// The folder for data, configuration and logs of this stack. It is emptied at the start.
    pub dir: PathBuf,
    /// The port of each part.
    pub ports: Ports,
    /// The policy to push.
    pub policy: PathBuf,
    /// The kind of Redis.
    pub topology: Topology,
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
            topology: Topology::Server,
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

/// The kind of Redis in a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One server without authentication.
    Server,
    /// One server with users, behind TLS, reached through `envoy/redis/server.yaml`.
    Secured,
    /// A Cluster of three nodes with users, reached through `envoy/redis/cluster.yaml`.
    Cluster,
}

/// A running stack. Dropping it stops everything; its directory stays.
#[derive(Debug)]
pub struct Stack {
    // In this order, because Rust drops fields in it: the gateway first.
    pub envoy: Envoy,
    pub connector: Connector,
    pub python: PythonServer,
    pub openbao: OpenBao,
    pub valkey: Valkey,
    /// The other nodes of a Cluster.
    pub further_valkeys: Vec<Valkey>,
    /// The TLS termination in front of Redis.
    pub redis_tls: Option<RedisTls>,
    pub operator: Operator,
    /// The certificates of the gateway and of the demo's agent, and their authority.
    pub certificates: Certificates,
    /// Mints tokens that the gateway accepts.
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
        // These four steps do not depend on each other; OpenBao and Python take a second each.
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
        let Seeded { valkey, further_valkeys, redis_tls, settings, operator, keys } = seeded?;
        let [analyst, support, admin] = keys;
        let (openbao, connector, python) = (openbao?, connector?, python?);
        let issuer = DemoIssuer::create(dir)?;
        let external_url = format!("http://{}", loopback(ports.gateway));
        let bootstrap = settings
            .set_default("ISSUERS", serde_json::json!([issuer.configuration()]))
            .set_default("EXTERNAL_URL", external_url)
            .wasm(artifacts)
            .redis(redis_tls.as_ref().map_or(valkey.address(), RedisTls::address))
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
            further_valkeys,
            redis_tls,
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

    /// All Redis nodes.
    pub fn valkeys(&self) -> impl Iterator<Item = &Valkey> {
        std::iter::once(&self.valkey).chain(&self.further_valkeys)
    }

    /// The Redis node that has an organisation's keys.
    pub fn valkey_of(&self, org: &str) -> &Valkey {
        self.valkeys().find(|valkey| valkey.has(org)).unwrap_or(&self.valkey)
    }

    /// Starts one more Envoy with the same configuration on its own ports, as a second replica of the gateway.
    pub fn start_replica(&self, name: &str) -> Result<Envoy> {
        Envoy::start(self.replica(name)?)
    }

    /// The options of [`Stack::start_replica`].
    pub fn replica(&self, name: &str) -> Result<EnvoyOptions> {
        Ok(self.options.envoy(name, free_port()?, free_port()?))
    }

    /// The options of this stack; `settings` contains every address by now.
    pub fn options(&self) -> &StackOptions {
        &self.options
    }

    /// The folder with data, configuration, logs and the `env` file.
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
    /// The folder with the log of every part.
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

/// Redis with a policy and keys in it.
struct Seeded {
    valkey: Valkey,
    further_valkeys: Vec<Valkey>,
    redis_tls: Option<RedisTls>,
    /// The stack's settings, and Envoy's settings for this Redis.
    settings: Bootstrap,
    operator: Operator,
    keys: [IssuedKey; 3],
}

fn seeded_valkey(options: &StackOptions) -> Result<Seeded> {
    let StackOptions { tools, artifacts, root, dir, ports, .. } = options;
    let (program, logs) = (&tools.valkey_server, &options.logs());
    let settings = options.settings.clone();
    let through_proxy = |addition: &str, users: &RedisUsers| {
        settings
            .clone()
            .merge(root.join("envoy/redis").join(addition))
            .set("REDIS_CLUSTER", "portcullis_redis_stream")
            .set("REDIS_PASSWORD_FILE", users.gateway_file.display())
    };
    let (mut further_valkeys, mut redis_tls) = (Vec::new(), None);
    let (valkey, settings, operator) = match options.topology {
        Topology::Server => {
            let valkey = Valkey::start(program, dir, logs, ports.valkey)?;
            let operator = Operator::new(&artifacts.cli, &valkey.url());
            (valkey, settings, operator)
        }
        Topology::Secured => {
            let users = RedisUsers::create(root, dir)?;
            let valkey = Valkey::with(ValkeyOptions {
                users: Some(users.clone()),
                ..ValkeyOptions::new(program, dir, logs, ports.valkey)
            })?;
            let tls = RedisTls::start(&tools.envoy, dir, logs, valkey.address())?;
            let url = format!("rediss://operator:{}@{}", users.operator, tls.address());
            let operator = Operator::new(&artifacts.cli, &url).trusting(tls.authority());
            let settings = through_proxy("server.yaml", &users)
                .set("REDIS_TLS_NAME", REDIS_TLS_NAME)
                .set("REDIS_CA", tls.authority().display());
            redis_tls = Some(tls);
            (valkey, settings, operator)
        }
        Topology::Cluster => {
            let users = RedisUsers::create(root, dir)?;
            let nodes = valkey_cluster::start(program, dir, logs, ports.valkey, &users)?;
            let [first, further @ ..] = nodes;
            further_valkeys.extend(further);
            let operator = Operator::new(&artifacts.cli, &first.url());
            let settings = through_proxy("cluster.yaml", &users).set("REDIS_SHARDED", true);
            (first, settings, operator)
        }
    };
    operator.push_policy(&options.policy, "the first policy of this stack")?;
    let key = |role| operator.issue_key(&KeySpec::acme(role));
    let keys = [key("analyst")?, key("support")?, key("admin")?];
    Ok(Seeded { valkey, further_valkeys, redis_tls, settings, operator, keys })
}

fn joined<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle.join().unwrap_or_else(|_| {
        Err(StackError::Refused {
            attempted: "start a part of the stack".into(),
            answer: "its thread panicked".into(),
        })
    })
}

/// Empties the directory and locks it against other stacks as long as the lock lives.
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
