//! Runs `portcullis` and looks at all it says.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_core::auth::api_key::PresentedKey;
use portcullis_core::auth::record::{KeyRecord, Peer};
use portcullis_core::auth::{AuthFailure, Principal};
use portcullis_core::time::UnixTime;
use portcullis_redis_lua::Key;
use redis::Commands as _;
use serde_json::Value;

use crate::valkey::Valkey;

/// What one run said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// The one JSON document on standard output of a run that went well.
    pub(crate) fn json(&self) -> Value {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""), "{self:?}");
        serde_json::from_str(&self.stdout).expect("one JSON document")
    }

    /// The one JSON document of a run that went well, and what it warned of.
    pub(crate) fn warned(&self) -> (Value, &str) {
        assert_eq!(self.status, 0, "{self:?}");
        assert!(!self.stderr.is_empty(), "no warning: {self:?}");
        (serde_json::from_str(&self.stdout).expect("one JSON document"), &self.stderr)
    }

    /// The `error` on standard error of a run that was refused.
    pub(crate) fn refusal(&self) -> Value {
        self.error(1)
    }

    /// The `error` on standard error of a run that found nothing out.
    pub(crate) fn unanswered(&self) -> Value {
        self.error(2)
    }

    fn error(&self, status: i32) -> Value {
        assert_eq!((self.status, self.stdout.as_str()), (status, ""), "{self:?}");
        let document: Value = serde_json::from_str(&self.stderr).expect("one JSON document");
        document["error"].clone()
    }
}

/// An operator at a terminal, with a Valkey of their own.
pub(crate) struct Operator {
    pub(crate) valkey: Valkey,
}

impl Operator {
    pub(crate) fn new() -> Self {
        Self { valkey: Valkey::start() }
    }

    /// An operator who pushed `policy.yaml`, which names `acme`.
    pub(crate) fn with_policy() -> Self {
        let operator = Self::new();
        operator.says(&["policy", "push", &file("policy.yaml"), "--reason", "start"]).json();
        operator
    }

    /// Runs a command with JSON output, as `tester`.
    pub(crate) fn says(&self, arguments: &[&str]) -> Said {
        self.plainly(&[arguments, &["--output", "json", "--actor", "tester"]].concat())
    }

    pub(crate) fn plainly(&self, arguments: &[&str]) -> Said {
        run(&with_reason(arguments), &[("PORTCULLIS_REDIS", self.valkey.url())], "")
    }

    pub(crate) fn redis(&self) -> redis::Connection {
        self.valkey.connect()
    }
}

/// Commands that change a key or a denial want a reason. Most tests are about something else.
fn with_reason<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let wants = match arguments {
        ["key", verb, ..] => ["issue", "set", "rotate"].contains(verb),
        ["token", "allow", ..] => true,
        _ => false,
    };
    let reason: &[&str] = match wants && !arguments.contains(&"--reason") {
        true => &["--reason", "some reason"],
        false => &[],
    };
    [arguments, reason].concat()
}

/// Issues a key of role `analyst` in `acme`.
pub(crate) fn issue(operator: &Operator, more: &[&str]) -> Said {
    let arguments = [
        "key", "issue", "--org", "acme", "--name", "cursor", "--role", "analyst", "--tier", "free",
    ];
    operator.says(&[&arguments, more].concat())
}

/// What the filter would find in Redis.
pub(crate) fn record(operator: &Operator, org: &str, id: &str) -> (String, KeyRecord) {
    let key = Key::record(org, id);
    let (rev, doc): (String, Vec<u8>) =
        operator.redis().hmget(key.as_str(), &["rev", "doc"]).expect("a record");
    (rev, KeyRecord::parse(&doc).expect("as the filter reads it"))
}

/// What the filter would say now to `key` from 192.0.2.1.
pub(crate) fn authenticate(record: &KeyRecord, key: &str) -> Result<Principal, AuthFailure> {
    let presented = PresentedKey::parse(key.as_bytes()).expect("well-formed");
    let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    let now = UnixTime::from_micros(u64::try_from(since.as_micros()).expect("before 586524"));
    record.authenticate(&presented, now, Peer { address: "192.0.2.1", certificate: None })
}

pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)], stdin: &str) -> Said {
    let mut process = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments)
        .env_remove("PORTCULLIS_REDIS")
        .envs(environment.iter().copied())
        .current_dir(files())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("portcullis runs");
    // It may end without having read what it was given.
    let _ = process.stdin.take().expect("piped").write_all(stdin.as_bytes());
    let output = process.wait_with_output().expect("portcullis ends");
    Said {
        status: output.status.code().expect("no signal"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// Runs a command where no file may have a byte, as on a full disk.
pub(crate) fn on_a_full_disk(arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    // The signal that says so is ignored.
    let full = "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"";
    let output = Command::new("bash")
        .args(["-c", full, env!("CARGO_BIN_EXE_portcullis")])
        .args(arguments)
        .env_remove("PORTCULLIS_REDIS")
        .envs(environment.iter().copied())
        .output()
        .expect("bash");
    Said {
        status: output.status.code().expect("no signal"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// One of the files beside the tests.
pub(crate) fn file(name: &str) -> String {
    files().join(name).display().to_string()
}

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/files")
}

/// A file that is gone when the test ends.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str, content: &str) -> Self {
        let scratch = Self::nowhere(name);
        std::fs::write(&scratch.0, content).expect("the target directory is writable");
        scratch
    }

    /// Only its name: the file is yet to be made.
    pub(crate) fn nowhere(name: &str) -> Self {
        // Tests run side by side in one process, and two may like the same name.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let nth = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{nth}-{name}", std::process::id());
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    /// A file of the same name with another end.
    pub(crate) fn beside(&self, end: &str, content: &str) -> Self {
        let path = self.0.with_extension("").display().to_string() + end;
        std::fs::write(&path, content).expect("the target directory is writable");
        Self(path.into())
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A golden file as it is.
pub(crate) fn golden_file(name: &str) -> String {
    std::fs::read_to_string(files().join(name)).expect("a file beside the tests")
}

/// Compares with a golden file; `UPDATE_GOLDEN=1` writes it instead.
pub(crate) fn golden(name: &str, text: &str) {
    let path = files().join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("the source directory is writable");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name} differs; if that is right, UPDATE_GOLDEN=1 cargo test");
}
