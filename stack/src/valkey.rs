//! Valkey: the store of key records, policies and windows.
//!
//! Owns one server on loopback. It writes every change to an append-only file, as a store of key records must, so that
//! the data survives a crash and a restart on the same port. Knows nothing about the stored data.

use crate::error::{During, Result};
use crate::ports::loopback;
use crate::process::Process;
use crate::ready;
use crate::redis_users::RedisUsers;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(10);

/// The options of one server.
#[derive(Debug, Clone)]
pub struct ValkeyOptions {
    /// The program.
    pub program: PathBuf,
    /// The name of this server in its stack: `valkey`, `valkey-2`. It also names the directory and the log.
    pub name: String,
    /// The parent folder of its data, which is in `dir/name`.
    pub dir: PathBuf,
    /// The folder for its log.
    pub logs: PathBuf,
    /// The port on which it listens.
    pub port: u16,
    /// The users and their rights; without them every client has all rights.
    pub users: Option<RedisUsers>,
    /// The port on which the nodes of a Cluster communicate.
    pub cluster_port: Option<u16>,
    /// Further environment variables.
    pub environment: Vec<(&'static str, PathBuf)>,
}

impl ValkeyOptions {
    /// Options of a server called `valkey` without authentication.
    pub fn new(program: &Path, dir: &Path, logs: &Path, port: u16) -> Self {
        Self {
            program: program.to_owned(),
            name: "valkey".to_owned(),
            dir: dir.to_owned(),
            logs: logs.to_owned(),
            port,
            users: None,
            cluster_port: None,
            environment: Vec::new(),
        }
    }
}

/// A running Valkey.
#[derive(Debug)]
pub struct Valkey {
    options: ValkeyOptions,
    data: PathBuf,
    /// A restart replaces it, while other threads may use the stack.
    process: Mutex<Arc<Process>>,
}

impl Valkey {
    /// Starts an empty server without authentication; data below `dir/valkey`, log in `logs`.
    pub fn start(program: &Path, dir: &Path, logs: &Path, port: u16) -> Result<Self> {
        Self::with(ValkeyOptions::new(program, dir, logs, port))
    }

    /// Starts an empty server.
    pub fn with(options: ValkeyOptions) -> Result<Self> {
        let data = options.dir.join(&options.name);
        let attempted = || format!("empty {}", data.display());
        match fs::remove_dir_all(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).during(attempted);
            }
            _ => fs::create_dir_all(&data).during(attempted)?,
        }
        let process = Mutex::new(Arc::new(launch(&options, &data)?));
        Ok(Self { options, data, process })
    }

    /// Starts it again on the same port, with its data, after [`Process::kill_9`] or [`Process::stop`].
    pub fn restart(&self) -> Result<()> {
        self.process().stop();
        let process = Arc::new(launch(&self.options, &self.data)?);
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
        Ok(())
    }

    /// Copies the data that it has written so far, as a backup does. Nothing may change meanwhile.
    pub fn back_up(&self) -> Result<()> {
        let _ = fs::remove_dir_all(self.backup());
        copied(&self.data, &self.backup()).during(|| format!("copy {}", self.data.display()))
    }

    /// Starts it again with the copy of [`Valkey::back_up`], as after a crash of the machine.
    pub fn restore(&self) -> Result<()> {
        self.process().kill_9();
        let attempted = || format!("restore {}", self.data.display());
        fs::remove_dir_all(&self.data).during(attempted)?;
        copied(&self.backup(), &self.data).during(attempted)?;
        self.restart()
    }

    fn backup(&self) -> PathBuf {
        self.options.dir.join(format!("{}-backup", self.options.name))
    }

    /// The process, to watch or to kill it.
    pub fn process(&self) -> Arc<Process> {
        Arc::clone(&self.process.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        loopback(self.options.port)
    }

    /// The URL for the operator's tool.
    pub fn url(&self) -> String {
        match &self.options.users {
            None => format!("redis://{}", self.address()),
            Some(users) => format!("redis://operator:{}@{}", users.operator, self.address()),
        }
    }

    /// Runs inline commands (words without spaces) as an administrator; returns the reply to each.
    pub fn administer(&self, commands: &[String]) -> std::io::Result<Vec<String>> {
        exchange(self.options.port, self.options.users.as_ref(), commands)
    }

    /// Kills it as a crash would, after all acknowledged writes are in its file. On a busy disk `everysec` keeps up to
    /// two seconds of writes in memory; their loss is another test case.
    pub fn crash(&self) {
        let commands = ["CONFIG SET appendfsync always".to_owned(), "PING".to_owned()];
        // A server that does not answer is killed as well.
        let _ = self.administer(&commands);
        self.process().kill_9();
    }

    /// A connection of an administrator.
    pub fn connect(&self) -> std::io::Result<TcpStream> {
        connect(self.options.port, self.options.users.as_ref())
    }

    /// Whether this node, and no other one, has the keys of an organisation.
    pub(crate) fn has(&self, org: &str) -> bool {
        let replies = self.administer(&[format!("GET portcullis:{{{org}}}:none")]);
        replies.is_ok_and(|replies| !replies.concat().starts_with("-MOVED"))
    }

    /// The command with which another node meets this one.
    pub(crate) fn meeting(&self) -> String {
        let cluster_port = self.options.cluster_port.unwrap_or_default();
        format!("CLUSTER MEET 127.0.0.1 {} {cluster_port}", self.options.port)
    }

    /// Whether it counts every slot of its Cluster as served.
    pub(crate) fn sees_the_whole_cluster(&self) -> bool {
        let info = self.administer(&["CLUSTER INFO".to_owned()]).unwrap_or_default().concat();
        let has = |line: &str| info.lines().any(|found| found == line);
        has("cluster_state:ok") && has("cluster_slots_ok:16384") && has("cluster_known_nodes:3")
    }
}

/// Copies a directory with all its content.
fn copied(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type()?.is_dir() {
            true => copied(&from, &to)?,
            false => _ = fs::copy(&from, &to)?,
        }
    }
    Ok(())
}

fn launch(options: &ValkeyOptions, data: &Path) -> Result<Process> {
    let port = options.port;
    let mut command = Command::new(&options.program);
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--daemonize", "no", "--save", ""])
        .args(["--appendonly", "yes", "--appendfsync", "everysec"])
        .arg("--dir")
        .arg(data)
        .envs(options.environment.iter().map(|(name, value)| (name, value)));
    if let Some(users) = &options.users {
        command.arg("--aclfile").arg(&users.file);
    }
    if let Some(cluster_port) = options.cluster_port {
        command
            .args(["--cluster-enabled", "yes", "--cluster-port", &cluster_port.to_string()])
            // A node that is down affects its own organisations only.
            .args(["--cluster-announce-ip", "127.0.0.1", "--cluster-require-full-coverage", "no"])
            .args(["--cluster-node-timeout", "2000"]);
    }
    let log = options.logs.join(format!("{}.log", options.name));
    let process = Process::spawn(&options.name, command, &log)?;
    ready::process_is_ready(&process, READY_WITHIN, || pongs(port, options.users.as_ref()))?;
    Ok(process)
}

/// Whether the server answers. It refuses `PING` while it still reads the append-only file.
fn pongs(port: u16, users: Option<&RedisUsers>) -> bool {
    exchange(port, users, &["PING".to_owned()]).is_ok_and(|replies| replies == ["+PONG"])
}

fn exchange(
    port: u16,
    users: Option<&RedisUsers>,
    commands: &[String],
) -> std::io::Result<Vec<String>> {
    let mut stream = connect(port, users)?;
    commands.iter().map(|command| asked(&mut stream, command)).collect()
}

fn connect(port: u16, users: Option<&RedisUsers>) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&loopback(port), Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    if let Some(users) = users {
        asked(&mut stream, &format!("AUTH admin {}", users.admin))?;
    }
    Ok(stream)
}

fn asked(stream: &mut TcpStream, command: &str) -> std::io::Result<String> {
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    read_reply(stream)
}

/// A reply that is a line or a string; for a list, its length.
fn read_reply(stream: &mut TcpStream) -> std::io::Result<String> {
    let line = read_line(stream)?;
    let Some(size) = line.strip_prefix('$').and_then(|size| size.parse::<usize>().ok()) else {
        return Ok(line);
    };
    let mut text = vec![0; size.saturating_add(2)];
    stream.read_exact(&mut text)?;
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

fn read_line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        bytes.extend(byte);
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}
