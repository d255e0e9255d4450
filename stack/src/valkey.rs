//! Valkey: where key records, policies and windows live.
//!
//! Owns one server on loopback. It writes every change to an append-only file, as a store of key records must, so that
//! a crash and a restart on the same port bring back what was there. Knows nothing about what is stored.

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

/// What to run.
#[derive(Debug, Clone)]
pub struct ValkeyOptions {
    /// The program.
    pub program: PathBuf,
    /// Tells several of one stack apart: `valkey`, `valkey-2`. Names the directory and the log.
    pub name: String,
    /// Data below `dir/name`.
    pub dir: PathBuf,
    /// Where the log goes.
    pub logs: PathBuf,
    /// Where it listens.
    pub port: u16,
    /// Who may do what; without it anybody may do anything.
    pub users: Option<RedisUsers>,
    /// The port on which nodes of a Cluster speak with each other.
    pub cluster_port: Option<u16>,
    /// Further environment variables.
    pub environment: Vec<(&'static str, PathBuf)>,
}

impl ValkeyOptions {
    /// A server called `valkey` that asks nobody who they are.
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
    /// Replaced by a restart, which tests do while others look at the stack.
    process: Mutex<Arc<Process>>,
}

impl Valkey {
    /// Starts an empty server that asks nobody who they are; data below `dir/valkey`, log in `logs`.
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

    /// Copies what it has written so far, as a backup does. Nothing should be changed meanwhile.
    pub fn back_up(&self) -> Result<()> {
        let _ = fs::remove_dir_all(self.backup());
        copied(&self.data, &self.backup()).during(|| format!("copy {}", self.data.display()))
    }

    /// Starts it again with what [`Valkey::back_up`] copied, as after a crash of the machine.
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

    /// The process, to watch or to kill.
    pub fn process(&self) -> Arc<Process> {
        Arc::clone(&self.process.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where it listens.
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

    /// Runs inline commands (words without spaces) as somebody who may do all; the reply to each.
    pub fn administer(&self, commands: &[String]) -> std::io::Result<Vec<String>> {
        exchange(self.options.port, self.options.users.as_ref(), commands)
    }

    /// Ends it as a crash would, once all that it acknowledged is in its file: on a busy disk `everysec` leaves up to two
    /// seconds of it in memory, and a server that comes back without them is another case.
    pub fn crash(&self) {
        let commands = ["CONFIG SET appendfsync always".to_owned(), "PING".to_owned()];
        // A server that does not answer is killed all the same.
        let _ = self.administer(&commands);
        self.process().kill_9();
    }

    /// A connection of somebody who may do all.
    pub fn connect(&self) -> std::io::Result<TcpStream> {
        connect(self.options.port, self.options.users.as_ref())
    }

    /// Whether the keys of an organisation are here, and not on another node.
    pub(crate) fn has(&self, org: &str) -> bool {
        let replies = self.administer(&[format!("GET portcullis:{{{org}}}:none")]);
        replies.is_ok_and(|replies| !replies.concat().starts_with("-MOVED"))
    }

    /// What another node is told to get to know this one.
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

/// A directory with all that is below it.
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
            // A node that is away takes its part of the organisations with it, and nobody else's.
            .args(["--cluster-announce-ip", "127.0.0.1", "--cluster-require-full-coverage", "no"])
            .args(["--cluster-node-timeout", "2000"]);
    }
    let log = options.logs.join(format!("{}.log", options.name));
    let process = Process::spawn(&options.name, command, &log)?;
    ready::process_is_ready(&process, READY_WITHIN, || pongs(port, options.users.as_ref()))?;
    Ok(process)
}

/// `PING` is refused while the append-only file is still being read.
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

/// A reply that is a line or a text; of a list, its length.
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
