//! Prometheus and promtool, from Debian's package: installed without root, started on loopback, asked over HTTP.
//!
//! Knows nothing about the queries.

use crate::failure::{Failure, Result};
use crate::progress::step;
use portcullis_stack::ports::{free_port, loopback};
use portcullis_stack::{Envoy, Process, Workspace, http, process, ready};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(30);

/// The two programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    server: PathBuf,
    promtool: PathBuf,
}

impl Programs {
    /// Uses the programs in `target/tools/prometheus`, or installs them there with APT and dpkg.
    pub(crate) fn install(workspace: &Workspace) -> Result<Self> {
        let dir = workspace.tools_dir().join("prometheus");
        let bin = dir.join("usr/bin");
        let programs = Self { server: bin.join("prometheus"), promtool: bin.join("promtool") };
        if programs.server.is_file() && programs.promtool.is_file() {
            return Ok(programs);
        }
        fs::create_dir_all(&dir).map_err(|error| {
            Failure::new(format!("could not create {}: {error}", dir.display()))
        })?;
        step("downloading Debian's package prometheus", || {
            finished("apt-get", Command::new("apt-get").args(["download", "prometheus"]), &dir)
        })
        .map_err(|failure| {
            Failure::new(format!(
                "{failure}\nthis command needs Debian, or prometheus and promtool in {}",
                bin.display()
            ))
        })?;
        let packages =
            fs::read_dir(&dir).into_iter().flatten().filter_map(|it| Some(it.ok()?.path()));
        let mut packages = packages.filter(|it| it.extension().is_some_and(|it| it == "deb"));
        let package = packages.next().ok_or_else(|| Failure::new("apt-get left no package"))?;
        finished("dpkg-deb", Command::new("dpkg-deb").arg("-x").arg(&package).arg("."), &dir)?;
        Ok(programs)
    }

    /// Its own version string.
    pub(crate) fn version(&self) -> Result<String> {
        let mut command = Command::new(&self.server);
        command.arg("--version");
        let text = process::output("prometheus", command)?.stdout;
        let text = String::from_utf8_lossy(&text).into_owned();
        let words = text.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        Ok(words.trim_end_matches(',').to_owned())
    }

    /// `promtool check rules` or `promtool test rules`.
    pub(crate) fn promtool(&self, verb: &str, file: &Path) -> Result<()> {
        let dir = file.parent().unwrap_or(Path::new("."));
        finished("promtool", Command::new(&self.promtool).args([verb, "rules"]).arg(file), dir)
    }
}

fn finished(name: &str, command: &mut Command, dir: &Path) -> Result<()> {
    let mut owned = Command::new(command.get_program());
    owned.args(command.get_args()).current_dir(dir);
    let output = process::output(name, owned)?;
    if output.status.success() {
        return Ok(());
    }
    let [out, err] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    Err(Failure::new(format!("{name} failed: {}{}", out.trim(), err.trim())))
}

/// A gateway that is scraped.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The label `instance`.
    pub(crate) name: &'static str,
    pub(crate) admin: String,
}

impl Target {
    pub(crate) fn of(name: &'static str, envoy: &Envoy) -> Self {
        Self { name, admin: envoy.admin_url().trim_start_matches("http://").to_owned() }
    }
}

/// A running Prometheus that scrapes and evaluates every second.
pub(crate) struct Prometheus {
    /// Dropping it stops Prometheus.
    _process: Process,
    url: String,
}

/// One alert in Prometheus.
pub(crate) struct Held {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) is_firing: bool,
    pub(crate) description: String,
}

impl Prometheus {
    pub(crate) fn start(
        programs: &Programs,
        dir: &Path,
        rules: &Value,
        targets: &[Target],
    ) -> Result<Self> {
        let written = |name: &str, value: &Value| -> Result<PathBuf> {
            let file = dir.join(name);
            // JSON is valid YAML.
            fs::write(&file, format!("{value:#}")).map_err(|error| {
                Failure::new(format!("could not write {}: {error}", file.display()))
            })?;
            Ok(file)
        };
        let scraped: Vec<Value> = targets
            .iter()
            .map(|Target { name, admin }| {
                json!({"targets": [admin], "labels": {"instance": name, "namespace": "mcp"}})
            })
            .collect();
        let rules = written("rules.json", rules)?;
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{
                "job_name": "envoy", "metrics_path": "/stats/prometheus", "static_configs": scraped,
            }],
        });
        let config = written("prometheus.json", &config)?;
        let address = loopback(free_port()?);
        let mut command = Command::new(&programs.server);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--log.level=warn");
        let process = Process::spawn("prometheus", command, &dir.join("prometheus.log"))?;
        let url = format!("http://{address}");
        ready::process_is_ready(&process, READY_WITHIN, || {
            ready::answers_200(&format!("{url}/-/ready"))
        })?;
        Ok(Self { _process: process, url })
    }

    /// The alerts of `/api/v1/alerts`.
    pub(crate) fn alerts(&self) -> Result<Vec<Held>> {
        let reply = http::get(&format!("{}/api/v1/alerts", self.url))?.json();
        let alerts = reply.pointer("/data/alerts").and_then(Value::as_array);
        let alerts = alerts.ok_or_else(|| Failure::new(format!("no alerts: {reply}")))?;
        Ok(alerts
            .iter()
            .map(|alert| Held {
                labels: texts(alert.get("labels")),
                is_firing: alert.get("state").and_then(Value::as_str) == Some("firing"),
                description: texts(alert.get("annotations"))
                    .remove("description")
                    .unwrap_or_default(),
            })
            .collect())
    }

    /// How many series a query returns between two times, in seconds since 1970, with a number in at least one point.
    pub(crate) fn series(&self, query: &str, (from, to): (f64, f64), step: u32) -> Result<usize> {
        let form = format!("query={}&start={from}&end={to}&step={step}", encoded(query));
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let url = format!("{}/api/v1/query_range", self.url);
        let reply = http::send("POST", &url, &headers, form.as_bytes())?.json();
        let series = reply.pointer("/data/result").and_then(Value::as_array);
        let series = series.ok_or_else(|| Failure::new(format!("{query}: {reply}")))?;
        let is_number = |point: &Value| point.pointer("/1").and_then(Value::as_str) != Some("NaN");
        let values = |one: &Value| one.get("values").and_then(Value::as_array).cloned();
        let full =
            series.iter().filter(|one| values(one).is_some_and(|it| it.iter().any(is_number)));
        Ok(full.count())
    }
}

fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let members = value.and_then(Value::as_object).into_iter().flatten();
    members.map(|(name, it)| (name.clone(), it.as_str().unwrap_or_default().to_owned())).collect()
}

/// Percent-encodes text for a form.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
