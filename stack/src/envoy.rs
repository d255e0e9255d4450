//! Envoy: starts one with a given bootstrap, or only asks it whether a bootstrap is good.
//!
//! Knows nothing about what the bootstrap says, but where its admin interface is.

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

/// Compiling the module for every worker takes a while on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug, Clone)]
pub struct EnvoyOptions {
    /// The program.
    pub program: PathBuf,
    /// The configuration with placeholders; `envoy/envoy.yaml` of the project.
    pub template: PathBuf,
    /// What the placeholders become. Listener, admin and audit log are set by [`Envoy::start`].
    pub bootstrap: Bootstrap,
    /// Where the filled configuration and the audit log go.
    pub dir: PathBuf,
    /// Where Envoy's own log goes.
    pub logs: PathBuf,
    /// Tells several Envoys of one stack apart: `envoy`, `envoy-2`.
    pub name: String,
    /// Where clients connect.
    pub port: u16,
    /// The admin interface.
    pub admin_port: u16,
    /// Workers. Two, so that what is wrong between workers shows.
    pub concurrency: u8,
}

/// Which of several Envoys that take over from one another, without a moment in which nobody listens (hot restart).
#[derive(Debug, Clone, Copy)]
pub struct Epoch {
    /// Tells Envoys of one machine apart; the same for all that take over from one another.
    pub base_id: u16,
    /// 0 for the first.
    pub number: u32,
}

/// How long an Envoy that was taken over from lets its connections end, and how long it lives.
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

    /// As [`Envoy::start_edited`], as one of several that take over from one another. They share a name and its files.
    pub fn start_epoch(
        options: EnvoyOptions,
        epoch: Epoch,
        edit: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        Self::launch(options, edit, &[], Some(epoch))
    }

    /// As [`Envoy::start`], after `edit` has changed the filled configuration, a file, as it needs it.
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
        // A template of a test's own may have no such log, and a value that nothing uses is a fault.
        let text = fs::read_to_string(&template).unwrap_or_default();
        let bootstrap = match text.contains("PORTCULLIS_REJECTED_LOG") {
            true => bootstrap.rejected_log(&rejected_log),
            false => bootstrap,
        };
        let config = dir.join(format!("{name}.yaml"));
        let addition = write_configs(&bootstrap, &template, &config)?;
        edit(&config)?;
        if epoch.is_none_or(|epoch| epoch.number == 0) {
            // Truncated, not removed later: the demo counts its lines.
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
            // Several may run at once.
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

    /// The process, to watch or to kill.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where clients connect.
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

    /// The audit lines.
    pub fn audit_log(&self) -> &Path {
        &self.audit_log
    }

    /// Lines about requests that Envoy refused without the filter.
    pub fn rejected_log(&self) -> &Path {
        &self.rejected_log
    }
}

/// Fills `template` into `config`.
pub fn write_config(bootstrap: &Bootstrap, template: &Path, config: &Path) -> Result<()> {
    write_configs(bootstrap, template, config).map(drop)
}

/// Fills `template` into `config`; gives what is to be merged into it.
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

/// `envoy --mode validate`: everything but listening, the modules' own opinion on their configuration included.
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
