//! The operator's side: the real `portcullis` program against a stack's Redis.
//!
//! The demo and the tests set up everything through it, as in production. Knows nothing about the program's internals.

use crate::error::{Result, StackError};
use crate::process;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program, and the Redis that it works on.
#[derive(Debug, Clone)]
pub struct Operator {
    program: PathBuf,
    redis: String,
    /// The certificate authority of a `rediss://` URL.
    authority: Option<PathBuf>,
}

/// The terms of a new key.
#[derive(Debug, Clone, Copy)]
pub struct KeySpec<'a> {
    pub org: &'a str,
    pub name: &'a str,
    pub role: &'a str,
    pub tier: &'a str,
}

impl KeySpec<'static> {
    /// A key of the demo's organisation, with a tier whose limits are never reached.
    pub fn acme(role: &'static str) -> Self {
        Self { org: "acme", name: role, role, tier: "enterprise" }
    }
}

/// A newly issued key.
#[derive(Debug, Clone)]
pub struct IssuedKey {
    /// The key's id for `key revoke`.
    pub id: String,
    /// The whole key, shown only once.
    pub key: String,
}

impl Operator {
    /// `redis` is a `redis://` or `rediss://` URL.
    pub fn new(program: &Path, redis: &str) -> Self {
        Self { program: program.to_owned(), redis: redis.to_owned(), authority: None }
    }

    /// Trusts this authority, and no other.
    pub fn trusting(mut self, authority: &Path) -> Self {
        self.authority = Some(authority.to_owned());
        self
    }

    /// Runs `portcullis` with these arguments and returns its output, also when it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.run_with(arguments, &[])
    }

    /// As [`Operator::run`], with additional environment variables: secrets do not belong on a command line.
    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("PORTCULLIS_REDIS", &self.redis);
        if let Some(authority) = &self.authority {
            command.env("SSL_CERT_FILE", authority);
        }
        command.envs(environment.iter().copied());
        process::output("portcullis", command)
    }

    /// Runs a bash script in `dir`, with this `portcullis` on the path.
    pub fn shell(&self, script: &str, dir: &Path, environment: &[(&str, &str)]) -> Result<Output> {
        let own = self.program.parent().map(Path::to_owned).unwrap_or_default();
        let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(dir);
        command.env("PATH", path).env("PORTCULLIS_REDIS", &self.redis);
        command.env_remove("PORTCULLIS_ORG").envs(environment.iter().copied());
        process::output("bash", command)
    }

    /// As [`Operator::run`] with `--output json`; fails unless it exits with 0 and writes JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["--output", "json"]);
        let output = self.run(&all)?;
        let refused = |answer: String| StackError::Refused {
            attempted: format!("run `portcullis {}`", arguments.join(" ")),
            answer,
        };
        if !output.status.success() {
            return Err(refused(format!(
                "{}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| refused(error.to_string()))
    }

    /// Activates a policy document, even if keys have a role that it lacks.
    pub fn push_policy(&self, file: &Path, reason: &str) -> Result<Value> {
        self.json(&["policy", "push", &file.to_string_lossy(), "--orphan-keys", "--reason", reason])
    }

    /// Issues a key.
    pub fn issue_key(&self, spec: &KeySpec<'_>) -> Result<IssuedKey> {
        let KeySpec { org, name, role, tier } = spec;
        let issued = self.json(&[
            "key",
            "issue",
            "--org",
            org,
            "--name",
            name,
            "--role",
            role,
            "--tier",
            tier,
            "--reason",
            "a key of this stack",
        ])?;
        let field = |pointer: &str| {
            issued.pointer(pointer).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| {
                StackError::Refused {
                    attempted: "read what `portcullis key issue` wrote".into(),
                    answer: format!("there is no {pointer} in it"),
                }
            })
        };
        Ok(IssuedKey { id: field("/record/id")?, key: field("/key")? })
    }

    /// Revokes a key, from the next request on.
    pub fn revoke_key(&self, id: &str, reason: &str) -> Result<Value> {
        self.json(&["key", "revoke", id, "--reason", reason])
    }
}
