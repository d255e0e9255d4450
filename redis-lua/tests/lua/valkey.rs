//! A Valkey of its own for each test: loopback, free port, nothing on disk, gone with the test.
//! Also used by the tests of the CLI.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_redis_lua::{ScriptCall, Value};

pub(crate) struct Valkey {
    process: Child,
    url: String,
    name: &'static str,
}

impl Valkey {
    pub(crate) fn start() -> Self {
        Self::run("Valkey", &valkey_server())
    }

    /// Each kind of server, one after the other: Valkey, and Redis 7 where it is installed.
    pub(crate) fn each() -> impl Iterator<Item = Self> {
        let redis = redis_server();
        if redis.is_none() {
            eprintln!("no Redis 7 here (`cargo xtask tools` installs it on Debian): Valkey only");
        }
        let valkey = std::iter::once_with(Self::start);
        valkey.chain(redis.into_iter().map(|binary| Self::run("Redis 7", &binary)))
    }

    /// The server's kind, for messages.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// A Cluster of one node, which notes its slots in `file`.
    #[allow(dead_code, reason = "only the tests of the CLI use it")]
    pub(crate) fn cluster(file: &str) -> Self {
        let cluster = ["--cluster-enabled", "yes", "--cluster-config-file", file];
        let node = Self::run_with("Valkey", &valkey_server(), &cluster);
        let mut connection = node.connect();
        let slots = ["CLUSTER", "ADDSLOTSRANGE", "0", "16383"];
        assert_eq!(send(&mut connection, &slots), Value::Status("OK".into()));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !matches!(send(&mut connection, &["CLUSTER", "INFO"]),
            Value::Bulk(info) if info.starts_with(b"cluster_state:ok"))
        {
            assert!(Instant::now() < deadline, "the Cluster has all slots");
            std::thread::sleep(Duration::from_millis(5));
        }
        node
    }

    fn run(name: &'static str, binary: &Path) -> Self {
        Self::run_with(name, binary, &[])
    }

    fn run_with(name: &'static str, binary: &Path, more: &[&str]) -> Self {
        // Another process may take a free port first: try again with another one.
        for _ in 0..10 {
            if let Some(server) = Self::start_on(free_port(), name, binary, more) {
                return server;
            }
        }
        panic!("{name} did not start on any of ten free ports");
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn connect(&self) -> redis::Connection {
        connect(&self.url).expect("Valkey answered a PING before")
    }

    fn start_on(port: u16, name: &'static str, binary: &Path, more: &[&str]) -> Option<Self> {
        let process = Command::new(binary)
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            // A replica would write the data that it receives into a file, and the next server would load it.
            .args(["--repl-diskless-load", "swapdb"])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let mut valkey = Self { process, url: format!("redis://127.0.0.1:{port}/"), name };
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if valkey.process.try_wait().expect("own child").is_some() {
                return None;
            }
            if valkey.serves_ours() {
                return Some(valkey);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Whether the answer comes from our child, and not from a process that took the port first.
    fn serves_ours(&self) -> bool {
        let Ok(mut connection) = connect(&self.url) else {
            return false;
        };
        let info: redis::RedisResult<String> =
            redis::cmd("INFO").arg("server").query(&mut connection);
        info.is_ok_and(|info| info.contains(&format!("process_id:{}\r\n", self.process.id())))
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends the script by digest, and then in full if the server does not know it.
pub(crate) fn run(connection: &mut redis::Connection, call: &ScriptCall) -> Value {
    let reply = send(connection, &call.evalsha());
    if reply.is_noscript() { send(connection, &call.eval()) } else { reply }
}

/// Sends any command.
pub(crate) fn send(connection: &mut redis::Connection, words: &[impl AsRef<[u8]>]) -> Value {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word.as_ref());
    }
    neutral(redis::ConnectionLike::req_command(connection, &command).expect("Valkey answers"))
}

fn neutral(reply: redis::Value) -> Value {
    match reply {
        redis::Value::Nil => Value::Nil,
        redis::Value::Int(number) => Value::Int(number),
        redis::Value::BulkString(bytes) => Value::Bulk(bytes),
        redis::Value::SimpleString(text) => Value::Status(text),
        redis::Value::Okay => Value::Status("OK".into()),
        redis::Value::Array(elements) => Value::Array(elements.into_iter().map(neutral).collect()),
        redis::Value::ServerError(error) => {
            Value::Error(format!("{} {}", error.code(), error.details().unwrap_or_default()))
        }
        other => panic!("no script replies with {other:?}"),
    }
}

fn connect(url: &str) -> redis::RedisResult<redis::Connection> {
    redis::Client::open(url)?.get_connection()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("bound").port()
}

fn valkey_server() -> PathBuf {
    if let Some(path) = std::env::var_os("PORTCULLIS_VALKEY_SERVER") {
        return path.into();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/valkey-server");
    assert!(
        path.exists(),
        "no valkey-server at {}: run `cargo xtask tools`, or set PORTCULLIS_VALKEY_SERVER",
        path.display()
    );
    path
}

fn redis_server() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("PORTCULLIS_REDIS_SERVER") {
        return Some(path.into());
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    Some(tools.join("redis7/redis-server")).filter(|path| path.exists())
}
