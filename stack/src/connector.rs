//! The demo MCP servers: ours on `rmcp` with a real database, and an unmodified one on PyPI's package `mcp`.
//!
//! Owns the two processes and the files of the first one. Knows nothing about the gateway.

use crate::error::{During, Result};
use crate::files::write_private;
use crate::ports::loopback;
use crate::process::Process;
use crate::ready;
use crate::tools::Tools;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(20);

/// The running demo connector.
#[derive(Debug)]
pub struct Connector {
    process: Process,
    address: SocketAddr,
    database: PathBuf,
    credential_file: PathBuf,
    record: PathBuf,
    texts: PathBuf,
}

impl Connector {
    /// Starts it with a new database; it answers only requests that carry `credential`.
    pub fn start(
        program: &Path,
        dir: &Path,
        logs: &Path,
        port: u16,
        credential: &str,
    ) -> Result<Self> {
        let dir = dir.join("connector");
        fs::create_dir_all(&dir).during(|| format!("create {}", dir.display()))?;
        let database = dir.join("demo.db");
        let credential_file = dir.join("credential");
        let record = dir.join("record.jsonl");
        let texts = dir.join("texts.json");
        for stale in [&database, &record, &texts] {
            match fs::remove_file(stale) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).during(|| format!("remove {}", stale.display()));
                }
                _ => {}
            }
        }
        write_private(&credential_file, credential)?;
        let address = loopback(port);
        let mut command = Command::new(program);
        command.arg("--listen").arg(address.to_string()).arg("--database").arg(&database);
        command.arg("--credential-file").arg(&credential_file).arg("--record").arg(&record);
        command.arg("--texts").arg(&texts);
        let process = Process::spawn("demo connector", command, &logs.join("connector.log"))?;
        let health = format!("http://{address}/healthz");
        ready::process_is_ready(&process, READY_WITHIN, || ready::answers_200(&health))?;
        Ok(Self { process, address, database, credential_file, record, texts })
    }

    /// The process, to watch or to kill it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its SQLite file, with the table `users`.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// The file with the credential that it requires.
    pub fn credential_file(&self) -> &Path {
        &self.credential_file
    }

    /// Descriptions that replace its own: JSON, by tool. Absent at first.
    pub fn texts(&self) -> &Path {
        &self.texts
    }

    /// The record of HTTP requests that reached it, one JSON line each: method, path, headers, body.
    pub fn record(&self) -> &Path {
        &self.record
    }

    /// The requests that reached it so far.
    pub fn recorded(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(&self.record).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// The running Python MCP server.
#[derive(Debug)]
pub struct PythonServer {
    process: Process,
    address: SocketAddr,
}

impl PythonServer {
    /// Starts `script` on the pinned `mcp` package.
    pub fn start(tools: &Tools, script: &Path, logs: &Path, port: u16) -> Result<Self> {
        let mut command = tools.python_command();
        command.arg(script).arg("--port").arg(port.to_string());
        let process = Process::spawn("python MCP server", command, &logs.join("python.log"))?;
        let address = loopback(port);
        ready::process_is_ready(&process, READY_WITHIN, || ready::accepts(address))?;
        Ok(Self { process, address })
    }

    /// The process, to watch or to kill it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
