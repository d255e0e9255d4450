//! The stack in the foreground: starts it, prints its addresses, and watches it until a signal comes.

use crate::build;
use crate::failure::{Failure, Result};
use crate::progress::step;
use crate::signals;
use portcullis_stack::{Ports, Process, Stack, StackOptions, Tools, Workspace, env_file, ready};
use std::thread;
use std::time::{Duration, Instant};

/// How often the processes are checked.
const LOOK: Duration = Duration::from_millis(100);
/// How long Redis stays down after a crash: long enough to observe the gateway without it.
const OUTAGE: Duration = Duration::from_secs(3);

/// `cargo xtask up`.
pub(crate) fn up(workspace: &Workspace, port_base: Option<u16>) -> Result<()> {
    let stack = start(workspace, port_base)?;
    describe(&stack);
    signals::end_with(0);
    println!("ready");
    watch(&stack)
}

/// Installs, builds and starts what is missing, and writes the `env` file.
pub(crate) fn start(workspace: &Workspace, port_base: Option<u16>) -> Result<Stack> {
    // Before the build: a user who gives ports that are taken does not have to wait for the error.
    let ports = port_base.map(Ports::consecutive).transpose()?;
    if let Some(risk) = port_base.and_then(Ports::risk_of) {
        eprintln!("warning: {risk}");
    }
    step("installing Envoy, OpenBao, Valkey and the MCP SDK for Python", || {
        Tools::install(workspace)
    })?;
    build::all(workspace)?;
    let mut options = StackOptions::new(workspace, workspace.stack_dir())?;
    options.ports = ports.unwrap_or(options.ports);
    let stack = step("starting the stack", || Stack::start(options))?;
    env_file::write(&stack)?;
    Ok(stack)
}

/// Prints addresses and examples of use.
pub(crate) fn describe(stack: &Stack) {
    let env = stack.dir().join("env");
    println!("gateway          {}", stack.envoy.url());
    println!("gateway with TLS {}", stack.tls_url());
    println!("demo endpoint    {}", stack.mcp_url());
    println!("Python server    {}", stack.python_mcp_url());
    println!("Envoy admin      {}", stack.envoy.admin_url());
    println!("Valkey           {}", stack.valkey.url());
    println!("OpenBao          {}", stack.openbao.url());
    println!("audit log        {}", stack.envoy.audit_log().display());
    println!("logs             {}", stack.options().logs().display());
    println!("variables        . {}", env.display());
}

/// Returns only when the gateway's process has ended; a signal ends this process elsewhere.
pub(crate) fn watch(stack: &Stack) -> Result<()> {
    let mut others =
        vec![stack.openbao.process(), stack.connector.process(), stack.python.process()];
    let mut redis = Redis::Ours;
    loop {
        thread::sleep(LOOK);
        signals::yield_to_stop();
        if !stack.envoy.process().is_running() {
            return Err(Failure::new(obituary(stack.envoy.process())));
        }
        others.retain(|process| {
            let runs = process.is_running();
            if !runs {
                println!("{}", obituary(process));
            }
            runs
        });
        redis = redis.look(stack)?;
    }
}

/// The owner of the Redis port.
enum Redis {
    Ours,
    /// Our Redis has ended; since then no process serves the port.
    Nobody(Instant),
    /// The user started another Redis, to try out an outage.
    Another,
}

impl Redis {
    fn look(self, stack: &Stack) -> Result<Self> {
        match self {
            Self::Ours if stack.valkey.process().is_running() => Ok(Self::Ours),
            Self::Ours => {
                let died = obituary(&stack.valkey.process());
                println!("{died}; it is started again in {} s", OUTAGE.as_secs());
                Ok(Self::Nobody(Instant::now()))
            }
            Self::Nobody(since) if since.elapsed() < OUTAGE => Ok(Self::Nobody(since)),
            Self::Nobody(_) if ready::accepts(stack.valkey.address()) => {
                println!("another process serves {} now", stack.valkey.address());
                Ok(Self::Another)
            }
            Self::Nobody(_) => {
                stack.valkey.restart()?;
                env_file::write(stack)?;
                println!("valkey runs again (pid {})", stack.valkey.process().pid());
                Ok(Self::Ours)
            }
            Self::Another => Ok(Self::Another),
        }
    }
}

fn obituary(process: &Process) -> String {
    let status = process.status().map(|status| status.to_string()).unwrap_or_default();
    format!(
        "{} (pid {}) has ended: {status}; its log is {}",
        process.name(),
        process.pid(),
        process.log().display()
    )
}
