//! Envoy: starts it with a given bootstrap, or only validates a bootstrap.
//!
//! Knows nothing about the content of the bootstrap, except for the admin interface.

use crate::bootstrap::Bootstrap;
use crate::error::{During, Result, StackError};
use crate::http::{self, Reply};
use crate::ports::loopback;
use crate::process::{self, Process};
use crate::ready;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// On a busy machine, compiling the module for every worker takes a while.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The options of one Envoy.
#[derive(Debug, Clone)]
pub struct EnvoyOptions {
    /// The program.
    pub program: PathBuf,
    /// The configuration with placeholders; `envoy/envoy.yaml` of the project.
    pub template: PathBuf,
    /// Values for the placeholders. [`Envoy::start`] sets listener, admin and audit log.
    pub bootstrap: Bootstrap,
    /// The folder for the filled configuration and the audit log.
    pub dir: PathBuf,
    /// The folder for Envoy's own log.
    pub logs: PathBuf,
    /// The name of this Envoy in its stack: `envoy`, `envoy-2`.
    pub name: String,
    /// The port for clients.
    pub port: u16,
    /// The admin interface.
    pub admin_port: u16,
    /// The number of workers. Two of them reveal faults between workers.
    pub concurrency: u8,
}

/// The position of an Envoy in a series of hot restarts, in which a listener is always open.
#[derive(Debug, Clone, Copy)]
pub struct Epoch {
    /// Identifies the series on this machine; all Envoys of the series share it.
    pub base_id: u16,
    /// 0 for the first.
    pub number: u32,
}

/// How long a replaced Envoy drains its connections, and how long it lives.
const DRAINS: [&str; 4] = ["--drain-time-s", "2", "--parent-shutdown-time-s", "4"];

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    audit_log: PathBuf,
    rejected_log: PathBuf,
}

impl Envoy {
    /// Starts it and waits until it serves.
    pub fn start(options: EnvoyOptions) -> Result<Self> {
        Self::start_edited(options, |_| Ok(()))
    }

    /// As [`Envoy::start`], with further environment variables.
    pub fn start_with(options: EnvoyOptions, environment: &[(&str, PathBuf)]) -> Result<Self> {
        Self::launch(options, |_| Ok(()), environment, None)
    }

    /// As [`Envoy::start_edited`], as a part of a series of hot restarts. The Envoys of a series share a name and its
    /// files.
    pub fn start_epoch(
        options: EnvoyOptions,
        epoch: Epoch,
        edit: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        Self::launch(options, edit, &[], Some(epoch))
    }

    /// As [`Envoy::start`], after `edit` has changed the file with the filled configuration.
    pub fn start_edited(
        options: EnvoyOptions,
        edit: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        Self::launch(options, edit, &[], None)
    }

    fn launch(
        options: EnvoyOptions,
        edit: impl FnOnce(&Path) -> Result<()>,
        environment: &[(&str, PathBuf)],
        epoch: Option<Epoch>,
    ) -> Result<Self> {
        let EnvoyOptions {
            program,
            template,
            bootstrap,
            dir,
            logs,
            name,
            port,
            admin_port,
            concurrency,
        } = options;
        fs::create_dir_all(&dir).during(|| format!("create {}", dir.display()))?;
        let (address, admin) = (loopback(port), loopback(admin_port));
        let audit_log = dir.join(format!("{name}-audit.jsonl"));
        let rejected_log = dir.join(format!("{name}-rejected.jsonl"));
        let bootstrap = bootstrap.listen(address).admin(admin).audit_log(&audit_log);
        // A test's own template may lack this log, and an unused value is a fault.
        let text = fs::read_to_string(&template).unwrap_or_default();
        let bootstrap = match text.contains("PORTCULLIS_REJECTED_LOG") {
            true => bootstrap.rejected_log(&rejected_log),
            false => bootstrap,
        };
        let config = dir.join(format!("{name}.yaml"));
        let addition = write_configs(&bootstrap, &template, &config)?;
        edit(&config)?;
        if epoch.is_none_or(|epoch| epoch.number == 0) {
            // The file is truncated now and never removed: the demo counts its lines.
            fs::write(&audit_log, "").during(|| format!("create {}", audit_log.display()))?;
        }
        let mut command = Command::new(program);
        command.arg("--config-path").arg(&config).args([
            "--concurrency",
            &concurrency.to_string(),
            "--file-flush-interval-msec",
            "100",
        ]);
        match epoch {
            // Several Envoys may run at the same time.
            None => command.arg("--disable-hot-restart"),
            Some(Epoch { base_id, number }) => command
                .args(["--base-id", &base_id.to_string(), "--restart-epoch", &number.to_string()])
                .args(DRAINS),
        };
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        if let Some(addition) = addition {
            command.arg("--config-yaml").arg(addition);
        }
        let process = Process::spawn(&name, command, &logs.join(format!("{name}.log")))?;
        let live = format!("http://{admin}/ready");
        ready::process_is_ready(&process, READY_WITHIN, || {
            ready::answers_200(&live) && ready::accepts(address)
        })?;
        Ok(Self { process, address, admin, audit_log, rejected_log })
    }

    /// The process, to watch or to kill it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The gateway's root URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The admin interface's root URL.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// A page of the admin interface: `stats?filter=…`, `clusters`, `config_dump`.
    pub fn admin(&self, page: &str) -> Result<Reply> {
        http::get(&format!("{}/{page}", self.admin_url()))
    }

    /// The file with the audit lines.
    pub fn audit_log(&self) -> &Path {
        &self.audit_log
    }

    /// The file with lines about requests that Envoy rejected before the filter ran.
    pub fn rejected_log(&self) -> &Path {
        &self.rejected_log
    }
}

/// Fills `template` into `config`.
pub fn write_config(bootstrap: &Bootstrap, template: &Path, config: &Path) -> Result<()> {
    write_configs(bootstrap, template, config).map(drop)
}

/// Fills `template` into `config`; returns the configuration to merge into it.
fn write_configs(bootstrap: &Bootstrap, template: &Path, config: &Path) -> Result<Option<String>> {
    let (filled, addition) = match bootstrap.addition() {
        None => (bootstrap.render(template)?, None),
        Some(addition) => {
            let [filled, addition] = bootstrap.render_together([template, addition])?;
            (filled, Some(addition))
        }
    };
    fs::write(config, filled).during(|| format!("write {}", config.display()))?;
    Ok(addition)
}

/// `envoy --mode validate`: everything but listening; the modules validate their configuration, too.
pub fn validate(program: &Path, config: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.args(["--mode", "validate", "--log-level", "error", "--config-path"]).arg(config);
    let output = process::output("envoy --mode validate", command)?;
    if output.status.success() {
        return Ok(());
    }
    Err(StackError::Refused {
        attempted: format!("validate {}", config.display()),
        answer: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
