//! Third-party MCP programs on Node: servers behind the gateway, clients and the conformance suite in front of it.
//!
//! Owns their start and the common form of their results. Knows nothing of the gateway.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use portcullis_stack::{Node, Process, Workspace, ports, process, ready};
use serde_json::Value;

const READY_WITHIN: Duration = Duration::from_secs(60);

/// A server, or the hop in front of the gateway.
#[derive(Debug)]
pub struct Program {
    process: Process,
    address: SocketAddr,
}

/// The transport of `server-everything`.
#[derive(Clone, Copy, Debug)]
pub enum Transport {
    StreamableHttp,
    /// HTTP+SSE of 2024-11-05.
    Sse,
}

/// A run of the conformance suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Version 0.1.16: revisions 2025-06-18 and 2025-11-25.
    Released,
    /// Version 0.2.0-alpha.12, what it requires of 2025-11-25.
    NextFor2025,
    /// Version 0.2.0-alpha.12, what it requires of 2026-07-28.
    NextFor2026,
}

/// Id and status of each check, in order, by scenario.
pub type Checks = BTreeMap<String, Vec<(String, String)>>;

/// Node, installed once per run.
pub fn node(workspace: &Workspace) -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| Node::install(workspace).unwrap_or_else(|fault| panic!("{fault}")))
}

impl Program {
    /// Our server with every fixture of the suite, in both protocol eras.
    pub fn fixture(node: &Node, logs: &Path) -> Self {
        Self::start("fixture", logs, ports::free_port().expect("a free port"), |port| {
            let mut command = node.script("fixture-server.mjs");
            command.arg(port);
            command
        })
    }

    /// The reference server of the MCP project.
    pub fn everything(node: &Node, transport: Transport, logs: &Path) -> Self {
        Self::everything_at(node, transport, ports::free_port().expect("a free port"), logs)
    }

    /// The reference server on a port that is known in advance.
    pub fn everything_at(node: &Node, transport: Transport, port: u16, logs: &Path) -> Self {
        let (name, kind) = match transport {
            Transport::StreamableHttp => ("everything-http", "streamableHttp"),
            Transport::Sse => ("everything-sse", "sse"),
        };
        Self::start(name, logs, port, |port| {
            let mut command = node.package("@modelcontextprotocol/server-everything/dist/index.js");
            command
                .arg(kind)
                .env("PORT", port)
                .env("NODE_OPTIONS", "--require=./only-loopback.cjs");
            command
        })
    }

    /// The hop that adds the key on the way to `gateway`.
    pub fn hop(node: &Node, port: u16, gateway: SocketAddr, key: &str, logs: &Path) -> Self {
        Self::start("hop", logs, port, |port| {
            let mut command = node.script("add-key.mjs");
            command.arg(port).arg(gateway.port().to_string()).arg(key);
            command
        })
    }

    pub fn start(
        name: &str,
        logs: &Path,
        port: u16,
        command: impl FnOnce(&str) -> Command,
    ) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let log = logs.join(format!("{name}.log"));
        let process = Process::spawn(name, command(&port.to_string()), &log)
            .unwrap_or_else(|fault| panic!("{fault}"));
        ready::process_is_ready(&process, READY_WITHIN, || ready::accepts(address))
            .unwrap_or_else(|fault| panic!("{fault}"));
        Self { process, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often the fixture ran that tool so far.
    pub fn ran(&self, tool: &str) -> usize {
        let log = fs::read_to_string(self.process.log()).unwrap_or_default();
        log.lines().filter(|line| line.strip_prefix("call ") == Some(tool)).count()
    }
}

/// The JSON document that a client prints; some clients print a fault to standard error. `name` is for messages.
pub fn said(name: &str, command: Command) -> Value {
    let output = process::output(name, command).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    let document = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    serde_json::from_slice(document).unwrap_or_else(|fault| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        panic!("{name}: {fault}\n{}\n{}", text(&output.stdout), text(&output.stderr))
    })
}

impl Suite {
    /// Runs every scenario against `url`. The checks contain the failures.
    pub fn run(self, node: &Node, url: &str, results: &Path) -> Checks {
        let (package, what) = match self {
            Self::Released => ("conformance", ["--suite", "all"]),
            Self::NextFor2025 => ("conformance-next", ["--requirements", "2025-11-25"]),
            Self::NextFor2026 => ("conformance-next", ["--requirements", "2026-07-28"]),
        };
        let mut command = node.package(&format!("@modelcontextprotocol/{package}/dist/index.js"));
        command.args(["server", "--url", url]).args(what).arg("--output-dir").arg(results);
        process::output("the conformance suite", command).unwrap_or_else(|fault| panic!("{fault}"));
        checks_in(results)
    }
}

/// Reads `server-<scenario>-<time>/checks.json`.
fn checks_in(results: &Path) -> Checks {
    let entries = fs::read_dir(results).unwrap_or_else(|fault| panic!("no results: {fault}"));
    let directories = entries.filter_map(|entry| Some(entry.ok()?.path()));
    directories
        .filter_map(|directory| Some((scenario_of(&directory)?, checks(&directory))))
        .collect()
}

fn scenario_of(directory: &Path) -> Option<String> {
    let name = directory.file_name()?.to_str()?.strip_prefix("server-")?;
    // The time in the name: 2026-11-20T23-27-22-085Z.
    let end = name.len().checked_sub("-2026-11-20T23-27-22-085Z".len())?;
    name.get(..end).map(str::to_owned)
}

fn checks(directory: &Path) -> Vec<(String, String)> {
    let file: PathBuf = directory.join("checks.json");
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let checks: Vec<Value> = serde_json::from_str(&text).expect("an array of checks");
    let text = |check: &Value, member: &str| check[member].as_str().unwrap_or_default().to_owned();
    checks.iter().map(|check| (text(check, "id"), text(check, "status"))).collect()
}
