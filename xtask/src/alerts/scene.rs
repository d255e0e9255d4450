//! The gateways of a run, and calls to them.
//!
//! `first` is the demo's stack as `cargo xtask up` starts it. `second` has a Redis with its own clock, another audit
//! log and other routes, so that a cause there does not affect the first one. `small` has little memory and an expired
//! certificate.

use super::prometheus::Target;
use super::server;
use crate::failure::{Failure, Result};
use portcullis_stack::ports::free_port;
use portcullis_stack::{
    Authority, Certificates, DEMO_AGENT, Envoy, EnvoyOptions, IssuedKey, KeySpec, Operator, Stack,
    StackOptions, Validity, Valkey, ValkeyOptions, Workspace, http, process,
};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The most connections of the second gateway.
pub(crate) const CONNECTIONS: usize = 40;
/// Less memory than an Envoy uses without a request.
const LITTLE_MEMORY: u32 = 30_000_000;

/// Additions to the demo's policy: a budget and a rule in shadow mode.
const MORE_POLICY: &str = "\nlimits: {month: {limit: 100, window: 30d, per: [org], cost: credits, alert: 80, match: {tools: [search_contacts]}}}\n";
const IN_SHADOW: (&str, &str) = (
    "get_dashboard_metrics: {read_only: true}",
    "get_dashboard_metrics: {read_only: true, conditions: [{when: 1 > 2, enforcement: shadow}]}",
);

/// All parts of a run.
pub(crate) struct Scene {
    pub(crate) stack: Stack,
    /// Key of the tier `free`.
    pub(crate) free: IssuedKey,
    pub(crate) second: Second,
    /// Its cause starts it.
    pub(crate) small: EnvoyOptions,
    pub(crate) policy: PathBuf,
    pub(crate) dir: PathBuf,
    /// Envoys that replaced one of those above.
    again: Mutex<Vec<Envoy>>,
}

/// The gateway with changes.
pub(crate) struct Second {
    pub(crate) envoy: Envoy,
    pub(crate) valkey: Valkey,
    pub(crate) operator: Operator,
    pub(crate) keys: [IssuedKey; 2],
    pub(crate) clock: PathBuf,
}

impl Scene {
    pub(crate) fn start(workspace: &Workspace, dir: &Path) -> Result<Self> {
        let mut options = StackOptions::new(workspace, dir.join("stack"))?;
        // The filter asks Vault again after a second, so that it notices Vault's outage.
        options = options.set("VAULT_CACHE_SECONDS", 1);
        let policy = dir.join("policy.yaml");
        let demo = read(&options.policy)?;
        // A cool-off pauses a caller, so that limits would not refuse it.
        let kept = demo.lines().filter(|line| !line.starts_with("cool_off:"));
        let text = kept.collect::<Vec<_>>().join("\n").replace(IN_SHADOW.0, IN_SHADOW.1);
        write(&policy, &format!("{text}{MORE_POLICY}"))?;
        options.policy.clone_from(&policy);
        let stack = Stack::start(options)?;
        pin(&stack, &policy)?;
        let free = KeySpec { org: "acme", name: "free", role: "analyst", tier: "free" };
        let free = stack.operator.issue_key(&free)?;
        let second = Second::start(workspace, &stack, &policy, dir)?;
        let small = small(&stack, dir)?;
        let (dir, again) = (dir.to_owned(), Mutex::default());
        Ok(Self { stack, free, second, small, policy, dir, again })
    }

    pub(crate) fn targets(&self) -> [Target; 3] {
        let small = Target { name: "small", admin: format!("127.0.0.1:{}", self.small.admin_port) };
        let first = Target::of("first", &self.stack.envoy);
        [first, Target::of("second", &self.second.envoy), small]
    }

    /// Keeps an Envoy until the end of the run.
    pub(crate) fn keep(&self, envoy: Envoy) {
        self.again.lock().unwrap_or_else(PoisonError::into_inner).push(envoy);
    }

    /// Makes successful calls, so that ratios have a denominator.
    pub(crate) fn steady(&self) {
        self.call(&self.stack.analyst.key, "get_dashboard_metrics", json!({}));
        self.second.call("well");
    }

    /// Calls a tool of the demo's server through the first gateway; returns the status, 0 without an answer.
    pub(crate) fn call(&self, key: &str, tool: &str, arguments: Value) -> u16 {
        let params = json!({"name": tool, "arguments": arguments});
        send(&self.stack.mcp_url(), key, "tools/call", params)
    }

    /// Lists the tools of the demo's server.
    pub(crate) fn list(&self) -> u16 {
        send(&self.stack.mcp_url(), &self.stack.admin.key, "tools/list", json!({}))
    }
}

impl Second {
    fn start(workspace: &Workspace, stack: &Stack, policy: &Path, dir: &Path) -> Result<Self> {
        let dir = dir.join("second");
        fs::create_dir_all(&dir).map_err(|error| fault(&dir, &error))?;
        let (library, clock) = moved_clock(workspace, &dir)?;
        let options = stack.options();
        let logs = options.logs();
        let valkey = Valkey::with(ValkeyOptions {
            environment: vec![("LD_PRELOAD", library), ("PORTCULLIS_CLOCK", clock.clone())],
            ..ValkeyOptions::new(&options.tools.valkey_server, &dir, &logs, free_port()?)
        })?;
        let operator = Operator::new(&options.artifacts.cli, &valkey.url());
        operator.push_policy(policy, "the policy of both gateways")?;
        let key = |role| operator.issue_key(&KeySpec::acme(role));
        let keys = [key("analyst")?, key("support")?];
        let mut envoy = stack.replica("second")?;
        envoy.dir.clone_from(&dir);
        envoy.bootstrap = envoy
            .bootstrap
            .redis(valkey.address())
            .python(server::start()?)
            .set("REDIS_TIMEOUT_MS", 500)
            .set("REDIS_ON_FAILURE", "local");
        let audit = dir.join("second-audit.jsonl");
        relink(&audit, &dir.join("audit-of-the-second.jsonl"))?;
        let envoy = Envoy::start_edited(envoy, changed)?;
        Ok(Self { envoy, valkey, operator, keys, clock })
    }

    /// Calls the misbehaving server's tool.
    pub(crate) fn call(&self, message: &str) -> u16 {
        let params = json!({"name": "echo", "arguments": {"message": message}});
        self.send(0, "tools/call", params)
    }

    /// Sends any message to that server, with one of the two keys.
    pub(crate) fn send(&self, key: usize, method: &str, params: Value) -> u16 {
        let key = self.keys.get(key).map(|key| key.key.as_str()).unwrap_or_default();
        send(&format!("{}/python/mcp", self.envoy.url()), key, method, params)
    }

    /// Sets the clock of its Redis this many seconds ahead of the right time.
    pub(crate) fn set_clock(&self, seconds: i64) -> Result<()> {
        let file = fs::OpenOptions::new().write(true).open(&self.clock);
        file.and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0))
            .map_err(|error| fault(&self.clock, &error))
    }

    /// Redirects its audit log to another file, and makes Envoy open it.
    pub(crate) fn log_to(&self, file: &Path) -> Result<()> {
        relink(self.envoy.audit_log(), file)?;
        http::send("POST", &format!("{}/reopen_logs", self.envoy.admin_url()), &[], b"")?;
        Ok(())
    }
}

/// Adds retries to a route, and a low limit of connections.
fn changed(config: &Path) -> portcullis_stack::Result<()> {
    use portcullis_stack::During;
    let named = || format!("change {}", config.display());
    let text = fs::read_to_string(config).during(named)?;
    let route = "                  cluster: python\n";
    let repeats =
        format!("{route}                  retry_policy: {{retry_on: 5xx, num_retries: 1}}\n");
    let bound = "max_active_downstream_connections: ";
    let text = text
        .replace(route, &repeats)
        .replace(&format!("{bound}10000"), &format!("{bound}{CONNECTIONS}"));
    fs::write(config, text).during(named)
}

fn small(stack: &Stack, dir: &Path) -> Result<EnvoyOptions> {
    let dir = dir.join("small");
    let authority = Authority::new(&dir, "ca")?;
    let server = authority.server_valid("server", Validity::Over)?;
    let agent = authority.client("agent", DEMO_AGENT, Validity::Now)?;
    let mut options = stack.replica("small")?;
    let certificates = Certificates { authority, server, agent };
    options.bootstrap =
        options.bootstrap.set("MAX_HEAP_BYTES", LITTLE_MEMORY).tls(free_port()?, &certificates);
    Ok(options)
}

/// Pins the tools of the demo's server, and pushes the policy.
fn pin(stack: &Stack, policy: &Path) -> Result<()> {
    let credential = read(stack.connector.credential_file())?;
    let credential = format!("Bearer {}", credential.trim());
    let (policy_name, url) =
        (policy.to_string_lossy(), format!("http://{}/mcp", stack.connector.address()));
    let arguments = [
        "discover",
        "--policy",
        &policy_name,
        "--connector",
        "demo",
        "--direct",
        &url,
        "--header-env",
        "authorization=UPSTREAM",
        "--write",
    ];
    let output = stack.operator.run_with(&arguments, &[("UPSTREAM", &credential)])?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Failure::new(format!("could not pin the tools: {why}")));
    }
    stack.operator.push_policy(policy, "tools were reviewed")?;
    Ok(())
}

/// The library that moves a clock, and the file with the offset.
fn moved_clock(workspace: &Workspace, dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let (library, clock) = (dir.join("libclock.so"), dir.join("clock"));
    let mut command = Command::new("rustc");
    command.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-C", "panic=abort", "-o"]);
    command.arg(&library).arg(workspace.root.join("tests/preload/clock.rs"));
    let output = process::output("rustc", command)?;
    if !output.status.success() {
        return Err(Failure::new(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    fs::write(&clock, 0_i64.to_ne_bytes()).map_err(|error| fault(&clock, &error))?;
    Ok((library, clock))
}

/// Makes `link` point to `file`.
fn relink(link: &Path, file: &Path) -> Result<()> {
    let _absent_at_first = fs::remove_file(link);
    symlink(file, link).map_err(|error| fault(link, &error))
}

/// Sends one MCP message; returns the status of the answer, 0 without one.
fn send(url: &str, key: &str, method: &str, params: Value) -> u16 {
    let message =
        json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let bearer = format!("Bearer {key}");
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("authorization", bearer.as_str()),
    ];
    http::send("POST", url, &headers, message.as_bytes()).map_or(0, |reply| reply.status)
}

pub(crate) fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|error| fault(file, &error))
}

pub(crate) fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).map_err(|error| fault(file, &error))
}

fn fault(file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", file.display()))
}
