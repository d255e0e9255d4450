//! Valkey: where key records, policies and windows live.
//!
//! Owns one server on loopback. It writes every change to an append-only file, as a store of key records must, so that
//! a crash and a restart on the same port bring back what was there. Knows nothing about what is stored.

use crate::error::{During, Result};
use crate::ports::loopback;
use crate::process::Process;
use crate::ready;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(10);

/// A running Valkey.
#[derive(Debug)]
pub struct Valkey {
    program: PathBuf,
    dir: PathBuf,
    logs: PathBuf,
    port: u16,
    /// Replaced by a restart, which tests do while others look at the stack.
    process: Mutex<Arc<Process>>,
}

impl Valkey {
    /// Starts an empty server; data below `dir/valkey`, log in `logs`.
    pub fn start(program: &Path, dir: &Path, logs: &Path, port: u16) -> Result<Self> {
        let dir = dir.join("valkey");
        let attempted = || format!("empty {}", dir.display());
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).during(attempted);
            }
            _ => fs::create_dir_all(&dir).during(attempted)?,
        }
        let process = Mutex::new(Arc::new(launch(program, &dir, logs, port)?));
        Ok(Self { program: program.to_owned(), dir, logs: logs.to_owned(), port, process })
    }

    /// Starts it again on the same port, with its data, after [`Process::kill_9`] or [`Process::stop`].
    pub fn restart(&self) -> Result<()> {
        self.process().stop();
        let process = Arc::new(launch(&self.program, &self.dir, &self.logs, self.port)?);
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
        Ok(())
    }

    /// The process, to watch or to kill.
    pub fn process(&self) -> Arc<Process> {
        Arc::clone(&self.process.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }
}

fn launch(program: &Path, dir: &Path, logs: &Path, port: u16) -> Result<Process> {
    let mut command = Command::new(program);
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args([
            "--daemonize",
            "no",
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
        ])
        .arg("--dir")
        .arg(dir);
    let process = Process::spawn("valkey", command, &logs.join("valkey.log"))?;
    ready::process_is_ready(&process, READY_WITHIN, || pongs(port))?;
    Ok(process)
}

/// `PING` is refused while the append-only file is still being read.
fn pongs(port: u16) -> bool {
    let exchange = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&loopback(port), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0_u8; 7];
        stream.read_exact(&mut reply)?;
        Ok(&reply == b"+PONG\r\n")
    };
    exchange().unwrap_or(false)
}
