//! The processes around the measured Envoys: the loader's program, the upstream, Valkey with the policy and keys,
//! tokens, CPUs.
//!
//! Owns starting them and reading their counts. Everything is on loopback, on free ports, and ends with this process.

use super::traffic::{ANSWER, HEAD_MARKER, head_answer};
use portcullis_load::{
    Answer, Claims, LoadPlan, LoadResult, Minted, SERVED_PATH, Upstream, affinity,
};
use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::ports::{free_port, loopback};
use portcullis_stack::progress::step;
use portcullis_stack::{
    Artifacts, KeySpec, Operator, Process, Tools, Valkey, Workspace, files, http, process, ready,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) const ORGANISATION: &str = "bench";
pub(crate) const ISSUER: &str = "https://issuer.bench.example";
pub(crate) const AUDIENCE: &str = "https://gateway.bench.example";
/// The subject of the tokens, and the name of the key, whose windows never fill.
pub(crate) const SUBJECT: &str = "bench";
pub(crate) const WIDE: &str = "wide";
const ROLE: &str = "analyst";
const READY_WITHIN: Duration = Duration::from_secs(10);

/// The CPUs of each side: the measured Envoy has one for itself. Both are empty on a machine with one CPU.
#[derive(Debug, Clone)]
pub(crate) struct Cpus {
    pub(crate) envoy: Vec<usize>,
    pub(crate) others: Vec<usize>,
}

/// Everything but the Envoys.
pub(crate) struct Rig {
    // In this order, because fields are dropped in it.
    pub(crate) upstream: Process,
    pub(crate) valkey: Valkey,
    pub(crate) upstream_address: SocketAddr,
    pub(crate) tools: Tools,
    pub(crate) artifacts: Artifacts,
    pub(crate) root: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) cpus: Cpus,
    pub(crate) minted: Minted,
    /// A key whose windows never fill, one with three calls an hour, and a revoked one.
    pub(crate) key: String,
    pub(crate) tight_key: String,
    pub(crate) revoked_key: String,
    loader: PathBuf,
    /// How many serial numbers have been given out.
    serials: AtomicU64,
    _lock: File,
}

impl Cpus {
    pub(crate) fn split(count: usize) -> Self {
        if count < 2 {
            return Self { envoy: Vec::new(), others: Vec::new() };
        }
        Self { envoy: vec![0], others: (1..count).collect() }
    }
}

impl Rig {
    pub(crate) fn start(workspace: &Workspace, cpus: Cpus) -> Result<Self> {
        let answers = [json_answer(HEAD_MARKER, &head_answer()), json_answer("", ANSWER)];
        Self::around(workspace, cpus, &answers, true)
    }

    /// With an upstream that has these answers. The last one has no marker and is that of a call.
    pub(crate) fn answering(workspace: &Workspace, cpus: Cpus, answers: &[Answer]) -> Result<Self> {
        Self::around(workspace, cpus, answers, false)
    }

    /// `streams`: whether a GET to the upstream opens a stream.
    fn around(
        workspace: &Workspace,
        cpus: Cpus,
        answers: &[Answer],
        streams: bool,
    ) -> Result<Self> {
        let tools = step("installing Envoy and Valkey", || Tools::install(workspace))?;
        let artifacts = workspace.built_artifacts()?;
        let loader = workspace.target.join("load/portcullis-load");
        let dir = workspace.root.join("target/bench");
        let logs = dir.join("logs");
        let lock = claim(&dir, &logs)?;
        let valkey = Valkey::start(&tools.valkey_server, &dir, &logs, free_port()?)?;
        bind(valkey.process().pid(), &cpus.others)?;
        let operator = Operator::new(&artifacts.cli, &valkey.url());
        operator.push_policy(&workspace.root.join("envoy/bench/policy.yaml"), "benchmark")?;
        let key = |tier| {
            let spec = KeySpec { org: ORGANISATION, name: tier, role: ROLE, tier };
            operator.issue_key(&spec)
        };
        let (wide, tight, revoked) = (key(WIDE)?, key("tight")?, key(WIDE)?);
        operator.revoke_key(&revoked.id, "benchmark")?;
        let upstream_address = loopback(free_port()?);
        let upstream = upstream(&loader, &dir, (upstream_address, answers, streams), &cpus)?;
        let claims = Claims {
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            subject: SUBJECT.to_owned(),
            tight_subject: "tight".to_owned(),
            org: ORGANISATION.to_owned(),
            role: ROLE.to_owned(),
            tier: WIDE.to_owned(),
        };
        let minted = asked(&loader, &dir, "mint", &claims)?;
        let root = workspace.root.clone();
        Ok(Self {
            upstream,
            valkey,
            upstream_address,
            tools,
            artifacts,
            root,
            dir,
            cpus,
            minted,
            key: wide.key,
            tight_key: tight.key,
            revoked_key: revoked.key,
            loader,
            serials: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// Runs one load until it ends.
    pub(crate) fn drive(&self, plan: &LoadPlan) -> Result<LoadResult> {
        asked(&self.loader, &self.dir, "drive", plan)
    }

    /// Starts another upstream with these answers.
    pub(crate) fn serve(&self, listen: SocketAddr, answers: &[Answer]) -> Result<Process> {
        upstream(&self.loader, &self.dir, (listen, answers, false), &self.cpus)
    }

    /// The first of `count` unused serial numbers.
    pub(crate) fn serials(&self, count: u64) -> u64 {
        self.serials.fetch_add(count, Ordering::Relaxed)
    }

    /// How many calls the upstream has answered.
    pub(crate) fn served(&self) -> Result<u64> {
        let answered = self.answered()?;
        answered.last().copied().ok_or_else(|| Failure::new("the upstream has no answer"))
    }

    /// How many requests of the upstream had each of its answers.
    pub(crate) fn answered(&self) -> Result<Vec<u64>> {
        let reply = http::get(&format!("http://{}{SERVED_PATH}", self.upstream_address))?;
        serde_json::from_slice(&reply.body)
            .map_err(|_| Failure::new("the upstream does not tell its counts"))
    }

    /// How often Valkey ran the admission script.
    pub(crate) fn admissions(&self) -> Result<u64> {
        let info: String = self.ask(redis::cmd("INFO").arg("commandstats"))?;
        let calls = info.lines().find_map(|line| {
            line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse().ok()
        });
        Ok(calls.unwrap_or(0))
    }

    /// The limits of an organisation that have a window in use now.
    pub(crate) fn limits_in_use(&self, organisation: &str) -> Result<BTreeSet<String>> {
        let prefix = format!("portcullis:{{{organisation}}}:window:");
        let keys: Vec<String> = self.ask(redis::cmd("KEYS").arg(format!("{prefix}*")))?;
        let limit = |key: &String| Some(key.strip_prefix(&prefix)?.split(':').next()?.to_owned());
        Ok(keys.iter().filter_map(limit).collect())
    }

    /// Whether a key has this text in its name.
    pub(crate) fn keeps(&self, text: &str) -> Result<bool> {
        let keys: Vec<String> = self.ask(redis::cmd("KEYS").arg(format!("*{text}*")))?;
        Ok(!keys.is_empty())
    }

    pub(crate) fn valkey_version(&self) -> Result<String> {
        let info: String = self.ask(redis::cmd("INFO").arg("server"))?;
        let version = info.lines().find_map(|line| line.strip_prefix("valkey_version:"));
        Ok(version.unwrap_or("unknown").to_owned())
    }

    /// The memory that Valkey has given out, bytes.
    pub(crate) fn valkey_memory(&self) -> Result<u64> {
        let info: String = self.ask(redis::cmd("INFO").arg("memory"))?;
        let used =
            info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
        used.ok_or_else(|| Failure::new("Valkey does not say how much memory it uses"))
    }

    /// Writes into Valkey, all of it or none.
    pub(crate) fn write(&self, pipeline: &redis::Pipeline) -> Result<()> {
        let written = redis::Client::open(self.valkey.url())
            .and_then(|client| client.get_connection_with_timeout(READY_WITHIN))
            .and_then(|mut connection| pipeline.query::<()>(&mut connection));
        written.map_err(|error| Failure::new(format!("Valkey does not take it: {error}")))
    }

    fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T> {
        let answer = redis::Client::open(self.valkey.url())
            .and_then(|client| client.get_connection_with_timeout(READY_WITHIN))
            .and_then(|mut connection| command.query(&mut connection));
        answer.map_err(|error| Failure::new(format!("Valkey does not answer: {error}")))
    }
}

/// Locks the directory against a second run as long as the lock lives, and removes the logs of the last run.
fn claim(dir: &Path, logs: &Path) -> Result<File> {
    let unusable = |error: std::io::Error| {
        Failure::new(format!("could not prepare {}: {error}", dir.display()))
    };
    fs::create_dir_all(logs).map_err(unusable)?;
    let lock = File::create(dir.join(".lock")).map_err(unusable)?;
    if lock.try_lock().is_err() {
        let what = format!("another benchmark is running in {}", dir.display());
        return Err(Failure::new(format!("{what}; wait for its end")));
    }
    for log in fs::read_dir(logs).map_err(unusable)? {
        fs::remove_file(log.map_err(unusable)?.path()).map_err(unusable)?;
    }
    Ok(lock)
}

/// An answer in JSON, to requests with this marker.
pub(crate) fn json_answer(marker: &str, body: &str) -> Answer {
    Answer {
        marker: marker.to_owned(),
        status: 200,
        content_type: "application/json".to_owned(),
        body: body.to_owned(),
    }
}

fn upstream(
    loader: &Path,
    dir: &Path,
    (listen, answers, streams): (SocketAddr, &[Answer], bool),
    cpus: &Cpus,
) -> Result<Process> {
    let upstream =
        Upstream { listen, answers: answers.to_vec(), streams, cpus: cpus.others.clone() };
    let name = format!("upstream-{}", listen.port());
    let mut command = Command::new(loader);
    command.arg("serve").arg(written(dir, &name, &upstream)?);
    let log = dir.join("logs").join(format!("{name}.log"));
    let process = Process::spawn("upstream", command, &log)?;
    ready::process_is_ready(&process, READY_WITHIN, || ready::accepts(listen))?;
    Ok(process)
}

/// Runs the loader's program once.
fn asked<I: Serialize, O: DeserializeOwned>(
    loader: &Path,
    dir: &Path,
    verb: &str,
    input: &I,
) -> Result<O> {
    let mut command = Command::new(loader);
    command.arg(verb).arg(written(dir, verb, input)?);
    let output = process::output("portcullis-load", command)?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::new(format!("portcullis-load {verb} failed: {words}")));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::new(format!("portcullis-load {verb} answered badly: {error}")))
}

/// Writes what the loader's program reads: a request can be longer than an argument may be.
fn written(dir: &Path, name: &str, input: &impl Serialize) -> Result<PathBuf> {
    let file = dir.join(format!("{name}.json"));
    let unusable = |error: &dyn std::fmt::Display| {
        Failure::new(format!("could not write {}: {error}", file.display()))
    };
    let text = serde_json::to_string(input).map_err(|error| unusable(&error))?;
    files::write_private(&file, &text).map_err(|error| unusable(&error))?;
    Ok(file)
}

/// Binds a process to CPUs.
pub(crate) fn bind(pid: u32, cpus: &[usize]) -> Result<()> {
    affinity::bind(pid, cpus)
        .map_err(|error| Failure::new(format!("could not bind process {pid} to {cpus:?}: {error}")))
}
