//! One Envoy, through its admin interface: the module it runs, how it is configured, and what it has met.
//!
//! Owns where Envoy says what. What a configuration of the filter means is the core's.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use jiff::fmt::rfc2822;
use portcullis_core::config::{Config, Mode};
use portcullis_core::guard;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::dump::each_object;
use super::routes::{self, Served};
use super::{Finding, build, clock, sinks};
use crate::http;
use crate::report::CliError;

const BOUND: Duration = Duration::from_secs(10);
/// What the filter is tested with.
const OLDEST: [u64; 2] = [1, 36];
const MAX_PAGE: u64 = 64 * 1_024 * 1_024;
/// So much is shown of a text that Envoy wrote.
const LONGEST: usize = 300;
/// What Envoy counts when a VM has trapped: its successor started, did not start, or was not tried yet.
const RELOADS: [&str; 3] = [".vm_reload_success", ".vm_reload_failure", ".vm_reload_backoff"];
/// The name that a plugin goes by (`root_id`): the gateway itself.
const ROOT: &str = "portcullis";

/// Envoy's admin interface.
struct Admin<'a> {
    url: &'a str,
    agent: ureq::Agent,
}

/// A plugin as Envoy runs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Plugin {
    /// A file, or the digest of what was fetched.
    code: Code,
    on_failure: String,
    holds_headers: bool,
    configuration: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Code {
    File(String),
    Digest(String),
    Unknown,
}

/// The SHA-256 of a module, in lower-case hex.
fn file_digest(path: &Path) -> Result<String, CliError> {
    let module = std::fs::read(path).map_err(|error| {
        CliError::new(error.to_string(), path.display().to_string())
            .expected("the module that every Envoy should run")
            .next("cargo xtask dist makes it; or leave --module out")
    })?;
    Ok(base16ct::lower::encode_string(&Sha256::digest(&module)))
}

/// The module that every Envoy should run.
#[derive(Debug, Default)]
pub(super) struct Module {
    digest: Option<String>,
    build: Option<String>,
}

impl Module {
    pub(super) fn named(path: &Path) -> Result<Self, CliError> {
        Ok(Self { digest: Some(file_digest(path)?), build: build::of_file(path) })
    }
}

/// Looks at the Envoy behind `url`; `module` is what it should run. Also which paths it serves, if that can be read.
pub(super) fn look(url: &str, module: &Module) -> (Vec<Finding>, Option<Served>) {
    let admin = Admin { url: url.trim_end_matches('/'), agent: http::agent(BOUND) };
    let mut findings = match admin.server() {
        Ok(findings) => findings,
        Err(found) => {
            let next = "check --envoy-admin, and that Envoy runs";
            return (vec![Finding::bad("envoy", found, next)], None);
        }
    };
    let mut served = None;
    let dump = admin.page("config_dump");
    let files = dump.as_ref().map(audit_files).unwrap_or_default();
    let on_disk = dump.as_ref().ok().and_then(module_on_disk);
    let builds = (module.build.as_deref(), on_disk.as_deref());
    let pages = [
        admin.page("clusters?format=json").map(|page| clusters(&page)),
        dump.map(|page| {
            let (findings, paths) = plugins(&page, module.digest.as_deref());
            served = paths;
            findings
        }),
        admin.page("stats?format=json").map(|page| stats(&page, builds)),
        Ok(files.iter().map(|file| log_file(file)).collect()),
    ];
    for page in pages {
        findings.extend(page.unwrap_or_else(|found| {
            vec![Finding::unknown("envoy", found, "open this page of the admin interface")]
        }));
    }
    (findings, served)
}

impl Admin<'_> {
    fn page(&self, page: &str) -> Result<Value, String> {
        let url = format!("{}/{page}", self.url);
        let failed = |error: String| format!("{url}: {error}");
        let mut answer = self.agent.get(&url).call().map_err(|error| failed(error.to_string()))?;
        let status = answer.status();
        if status != 200 {
            return Err(failed(status.to_string()));
        }
        let body = answer.body_mut().with_config().limit(MAX_PAGE).read_to_vec();
        let body = body.map_err(|error| failed(error.to_string()))?;
        serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))
    }

    /// Its version, state and clock.
    fn server(&self) -> Result<Vec<Finding>, String> {
        let before = clock::now();
        let ready = self.agent.get(format!("{}/ready", self.url)).call();
        let ready = ready.map_err(|error| error.to_string())?;
        let date = ready.headers().get("date").and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| rfc2822::parse(date).ok());
        let seconds = date.and_then(|date| u64::try_from(date.timestamp().as_second()).ok());
        let mut findings = vec![version(&self.page("server_info")?)];
        if let Some(seconds) = seconds {
            let (theirs, grain) = (Duration::from_secs(seconds), Duration::from_secs(1));
            findings.push(clock::finding("envoy.clock", theirs, before, grain));
        }
        Ok(findings)
    }
}

/// `<commit>/1.40.0/Clean/RELEASE/BoringSSL`, and `LIVE`.
fn version(info: &Value) -> Finding {
    let version = info["version"].as_str().unwrap_or_default();
    let version = version.split('/').nth(1).unwrap_or(version);
    let state = info["state"].as_str().unwrap_or("of unknown state");
    let found = format!("Envoy {version}, {state}");
    let numbers: Vec<u64> =
        version.split('.').take(2).filter_map(|number| number.parse().ok()).collect();
    if state != "LIVE" {
        Finding::bad("envoy", found, "wait until it serves, or look into its log")
    } else if numbers.as_slice() < OLDEST.as_slice() {
        Finding::warning(
            "envoy",
            found,
            "the module is tested with Envoy 1.36 to 1.40: see docs/reference/envoy-versions.md",
        )
    } else {
        Finding::good("envoy", found)
    }
}

/// Whether a server is behind each cluster that the filter itself calls.
fn clusters(page: &Value) -> Vec<Finding> {
    let none = Vec::new();
    let clusters = page["cluster_statuses"].as_array().unwrap_or(&none);
    let ours = clusters.iter().filter_map(|cluster| {
        let name = cluster["name"].as_str().filter(|name| name.starts_with("portcullis"))?;
        let hosts = cluster["host_statuses"].as_array().unwrap_or(&none);
        let healthy = hosts.iter().filter(|host| is_healthy(&host["health_status"])).count();
        let (check, found) = (
            format!("envoy.cluster {name}"),
            format!("{healthy} of {} hosts healthy", hosts.len()),
        );
        Some(if healthy == 0 {
            Finding::bad(&check, found, "check the address in this cluster, and its health checks")
        } else {
            Finding::good(check, found)
        })
    });
    ours.collect()
}

/// Discovered as healthy, and by no check of Envoy's own otherwise.
fn is_healthy(status: &Value) -> bool {
    let Some(status) = status.as_object() else {
        return false;
    };
    status.iter().all(|(name, value)| match name.as_str() {
        "eds_health_status" => value == "HEALTHY",
        _ => !name.starts_with("failed_") || value != &Value::Bool(true),
    })
}

/// The module, how it fails, and whether its configuration has a meaning.
fn plugins(dump: &Value, module: Option<&str>) -> (Vec<Finding>, Option<Served>) {
    let mut plugins = BTreeSet::new();
    collect(dump, &mut plugins);
    let rejected = rejected(dump);
    let Some(gateway) = plugins.first() else {
        let next = match has_guarded_route(dump) {
            true => {
                "its routes match the guard, so something took the filter off: a more specific EnvoyExtensionPolicy \
                 without it, or an EnvoyFilter, WasmPlugin or EnvoyPatchPolicy that is gone or not applied"
            }
            false => "add the filter to the listener, as in envoy/envoy.yaml",
        };
        let none = Finding::bad("envoy.module", "no listener runs the filter", next);
        return (std::iter::once(none).chain(rejected).collect(), None);
    };
    let mut findings = vec![code(&plugins, module), on_failure(gateway)];
    findings.extend(rejected);
    findings.extend(plugins.iter().map(configuration));
    findings.extend(plugins.iter().filter_map(parsed).find_map(|it| sinks::finding(dump, &it)));
    let (of_routes, served) = parsed(gateway).map(|it| routes::look(dump, &it)).unzip();
    findings.extend(of_routes.unwrap_or_default());
    (findings, served)
}

/// Whether a route matches the header that the filter sets.
fn has_guarded_route(dump: &Value) -> bool {
    let mut found = false;
    each_object(dump, &mut |node| found |= node["name"] == guard::HEADER);
    found
}

fn parsed(plugin: &Plugin) -> Option<Config> {
    let document: Value = serde_json::from_str(&plugin.configuration).ok()?;
    Config::parse(&document).ok()
}

/// Every instance of the filter that is in force, wherever it stands in the dump. What frames the Redis stream is a module
/// of its own.
fn collect(node: &Value, plugins: &mut BTreeSet<Plugin>) {
    each_object(node, &mut |node| plugins.extend(plugin(node)));
}

const REPAIR: &str = "repair what the control plane sends";

/// Updates of listeners that Envoy refused: the listener before goes on, or there is none.
fn rejected(dump: &Value) -> Vec<Finding> {
    let listeners = dump["configs"].as_array().into_iter().flatten();
    let listeners = listeners.filter_map(|config| config["dynamic_listeners"].as_array()).flatten();
    let listeners: Vec<_> = listeners.collect();
    let has_own_line = |name: &str| {
        let mut own = listeners.iter().filter(|it| it["name"].as_str() == Some(name));
        own.any(|it| it.get("error_state").is_some())
    };
    let refused = listeners.iter().filter_map(|listener| {
        let why = listener.pointer("/error_state/details")?.as_str().unwrap_or("no reason given");
        let why: String = why.chars().take(LONGEST).collect();
        let Some(name) = refused_name(listener) else {
            let found =
                format!("an update was refused, and Envoy does not name its listener: {why}");
            return Some(Finding::bad("envoy.listener unnamed", found, REPAIR));
        };
        // An update that is refused as a whole has an entry of its own beside that of its listener.
        if listener["name"].as_str().is_none() && has_own_line(name) {
            return None;
        }
        let goes_on = listeners
            .iter()
            .any(|it| it.get("active_state").is_some() && it["name"].as_str() == Some(name));
        let check = format!("envoy.listener {name}");
        Some(if goes_on {
            let found = format!("an update was refused, the configuration before goes on: {why}");
            Finding::warning(&check, found, REPAIR)
        } else {
            Finding::bad(&check, format!("it was refused, and there is none: {why}"), REPAIR)
        })
    });
    let mut seen = BTreeSet::new();
    refused.filter(|finding| seen.insert((finding.check.clone(), finding.found.clone()))).collect()
}

/// Which listener was refused: of its entry, or of the configuration that did not become one.
fn refused_name(listener: &Value) -> Option<&str> {
    let own = listener["name"].as_str();
    let failed = listener.pointer("/error_state/failed_configuration");
    own.or_else(|| failed?.get("name")?.as_str())
        .or_else(|| failed?.pointer("/resource/name")?.as_str())
}

fn plugin(node: &Value) -> Option<Plugin> {
    node["root_id"].as_str().filter(|root| *root == ROOT)?;
    let text = |pointer: &str| node.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let code = text("/vm_config/code/local/filename").map(Code::File);
    let code = code.or_else(|| text("/vm_config/code/remote/sha256").map(Code::Digest));
    Some(Plugin {
        code: code.unwrap_or(Code::Unknown),
        on_failure: text("/failure_policy").unwrap_or_default(),
        holds_headers: node["allow_on_headers_stop_iteration"] == true,
        configuration: text("/configuration/value").unwrap_or_default(),
    })
}

fn code(plugins: &BTreeSet<Plugin>, expected: Option<&str>) -> Finding {
    const CHECK: &str = "envoy.module";
    let mut digests = BTreeSet::new();
    for plugin in plugins {
        let digest = match &plugin.code {
            Code::Digest(digest) => Some(digest.clone()),
            Code::File(file) => file_digest(Path::new(file)).ok(),
            Code::Unknown => None,
        };
        let Some(digest) = digest else {
            let found = match &plugin.code {
                Code::File(file) => format!("{file}, which cannot be read from here"),
                Code::Digest(_) | Code::Unknown => "code that the dump does not name".to_owned(),
            };
            return Finding::unknown(CHECK, found, "run doctor beside Envoy, or sha256sum there");
        };
        digests.insert(digest);
    }
    let found = digests.iter().map(|digest| format!("sha256 {digest}")).collect::<Vec<_>>();
    let found = found.join(", and ");
    match expected {
        Some(expected) if digests.iter().any(|digest| digest != expected) => {
            Finding::bad(CHECK, format!("{found}; --module is {expected}"), "deploy that module")
        }
        Some(_) => Finding::good(CHECK, found),
        None if digests.len() > 1 => {
            Finding::warning(CHECK, found, "run one version of the module in one Envoy")
        }
        None => Finding::good(CHECK, found),
    }
}

/// What becomes of calls when a VM falls over.
fn on_failure(plugin: &Plugin) -> Finding {
    const CHECK: &str = "envoy.failure_policy";
    match plugin.on_failure.as_str() {
        "FAIL_RELOAD" => Finding::good(CHECK, "FAIL_RELOAD"),
        "FAIL_OPEN" => Finding::bad(
            CHECK,
            "FAIL_OPEN: without the filter, every call passes",
            "failure_policy: FAIL_RELOAD",
        ),
        other => {
            let other = if other.is_empty() { "unset" } else { other };
            let found =
                format!("{other}: a VM that fell over answers 503 until Envoy is restarted");
            Finding::warning(CHECK, found, "failure_policy: FAIL_RELOAD")
        }
    }
}

fn configuration(plugin: &Plugin) -> Finding {
    const CHECK: &str = "envoy.configuration";
    let document: Value = match serde_json::from_str(&plugin.configuration) {
        Ok(document) => document,
        Err(error) => {
            let next =
                "JSON in a google.protobuf.StringValue, as in docs/reference/configuration.md";
            return Finding::bad(CHECK, format!("no JSON: {error}"), next);
        }
    };
    let config = match Config::parse(&document) {
        Ok(config) => config,
        Err(faults) => {
            let faults: Vec<_> = faults
                .iter()
                .map(|fault| {
                    format!("{}: {}, expected {}", fault.path, fault.found, fault.expected)
                })
                .collect();
            return Finding::bad(CHECK, faults.join("; "), "see docs/reference/configuration.md");
        }
    };
    if config.mode == Mode::Hold && !plugin.holds_headers {
        let next = "allow_on_headers_stop_iteration: true, or \"mode\": \"split\"";
        return Finding::bad(CHECK, "mode hold, and Envoy does not hold headers: calls hang", next);
    }
    Finding::good(CHECK, format!("good: {}", in_short(&config)))
}

fn in_short(config: &Config) -> String {
    let named = [
        (config.redis.is_some(), "Redis"),
        (config.vault.is_some(), "Vault"),
        (config.policy.is_some(), "an inline policy"),
        (!config.auth.issuers.is_empty(), "issuers"),
    ];
    let named = named.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name);
    named.collect::<Vec<_>>().join(", ")
}

/// Whether lines of access logs were lost: entries among them are gone for good.
fn audit_log(stats: &[(&str, u64)]) -> Finding {
    const CHECK: &str = "envoy.audit_log";
    let of = |wanted: &str| {
        stats.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, value)| *value)
    };
    let (unwritten, unopened) = (of("filesystem.write_failed"), of("filesystem.reopen_failed"));
    let next = "free space on its disk, see that its directory is there and writable, then POST /reopen_logs; \
                docs/guides/audit-log.md says how to count what is lost";
    if unwritten > 0 || unopened > 0 {
        let found = format!(
            "lines were lost since Envoy started: {unwritten} writes failed, {unopened} times it could not be reopened"
        );
        return Finding::bad(CHECK, found, next);
    }
    // Bytes that wait for a disk, a reader of standard output, or the next flush.
    const WAITING: u64 = 16 * 1_024 * 1_024;
    let waiting = of("filesystem.write_total_buffered");
    if waiting > WAITING {
        let found = format!("{} MiB wait to be written", waiting >> 20);
        return Finding::warning(
            CHECK,
            found,
            "look at its disk, and at who reads standard output",
        );
    }
    Finding::good(CHECK, "no write failed")
}

/// What Envoy refused for want of connections, since it started.
fn turned_away(stats: &[(&str, u64)]) -> Option<Finding> {
    const LIMITS: [&str; 4] = [
        ".downstream_cx_overflow",
        ".downstream_global_cx_overflow",
        ".downstream_cx_overload_reject",
        ".upstream_cx_overflow",
    ];
    let met = stats
        .iter()
        .filter(|(name, value)| *value > 0 && LIMITS.iter().any(|limit| name.ends_with(limit)));
    let met: Vec<String> = met.map(|(name, value)| format!("{name} {value}")).collect();
    (!met.is_empty()).then(|| {
        let next = "raise overload_manager, circuit_breakers and the limit of open files together: two files a call";
        Finding::warning("envoy.connections", met.join(", "), next)
    })
}

/// The files that access loggers of Envoy write.
fn audit_files(dump: &Value) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    each_object(dump, &mut |node| {
        let logger = node["@type"].as_str().unwrap_or_default();
        let path = node["path"].as_str().filter(|path| path.starts_with('/'));
        if let (true, Some(path)) = (logger.ends_with(".FileAccessLog"), path) {
            files.insert(path.to_owned());
        }
    });
    files.retain(|file| !file.starts_with("/dev/"));
    files
}

/// A file that was deleted is written all the same, and no program reads it.
fn log_file(file: &str) -> Finding {
    let check = format!("envoy.log_file {file}");
    if Path::new(file).exists() {
        return Finding::good(check, "there");
    }
    let next = "beside Envoy: it was deleted, and its lines are lost: POST /reopen_logs. Elsewhere: look there";
    Finding::unknown(&check, "not to be seen from here", next)
}

/// The build in the file that the gateway's module was read from, as it is now.
fn module_on_disk(dump: &Value) -> Option<String> {
    let mut plugins = BTreeSet::new();
    collect(dump, &mut plugins);
    let gateway = plugins.first()?;
    match &gateway.code {
        Code::File(file) => build::of_file(Path::new(file)),
        Code::Digest(_) | Code::Unknown => None,
    }
}

/// Whether a worker refused calls because Redis was behind what the worker had seen.
fn went_back(stats: &[(&str, u64)]) -> Option<Finding> {
    let orgs: BTreeSet<&str> = stats
        .iter()
        .filter(|(_, value)| *value > 0)
        .filter_map(|(name, _)| {
            name.split_once("portcullis_state_went_back_total")?.1.split(".=.").nth(1)
        })
        .filter_map(|label| label.split(';').next())
        .collect();
    (!orgs.is_empty()).then(|| {
        let orgs = orgs.into_iter().collect::<Vec<_>>().join(", ");
        let found = format!("Redis held an older state than a worker saw, of: {orgs}; their calls got 503");
        let next = "bring the later state back, or see docs/guides/outages.md, \"When Redis holds an older state\"";
        Finding::warning("envoy.went_back", found, next)
    })
}

/// What it has met since it started.
fn stats(page: &Value, (named, on_disk): (Option<&str>, Option<&str>)) -> Vec<Finding> {
    let none = Vec::new();
    let stats = page["stats"].as_array().unwrap_or(&none).iter();
    let stats: Vec<(&str, u64)> =
        stats.filter_map(|stat| Some((stat["name"].as_str()?, stat["value"].as_u64()?))).collect();
    let failed: u64 = stats
        .iter()
        .filter(|(name, _)| {
            name.starts_with("wasm.") && RELOADS.iter().any(|end| name.ends_with(end))
        })
        .map(|(_, value)| value)
        .sum();
    let mut findings = vec![if failed == 0 {
        Finding::good("envoy.vm", "no VM fell over")
    } else {
        let found = format!("VMs fell over {failed} times");
        Finding::warning("envoy.vm", found, "look for \"wasm\" in Envoy's log, and report it")
    }];
    findings.push(build::finding(build::running(&stats).as_deref(), named, on_disk));
    findings.push(audit_log(&stats));
    findings.extend(turned_away(&stats));
    findings.extend(went_back(&stats));
    findings.extend(stats.iter().filter_map(|(name, value)| {
        let dependency = name.split_once("portcullis_dependency_up")?.1;
        let dependency = dependency.split(".=.").nth(1)?.split(';').next()?;
        let check = format!("envoy.dependency {dependency}");
        Some(match value {
            0 => failed_call(&check, dependency),
            _ => Finding::good(check, "answered the filter's last call"),
        })
    }));
    findings
}

/// The filter's last call was refused, or not answered. What this machine sees of a dependency may be good: another
/// address, another password, another token.
fn failed_call(check: &str, dependency: &str) -> Finding {
    match dependency {
        "redis" => {
            let found = "failed the filter's last call: without it calls are refused, unless redis.on_failure says otherwise";
            let next = "see the check redis. If that is good: compare address and password of Redis in Envoy's \
                        configuration with PORTCULLIS_REDIS; Envoy's log has its answer";
            Finding::bad(check, found, next)
        }
        "vault" => {
            let found = "refused or failed the filter's last call: calls that need a secret are refused, unless \
                         vault.on_failure says otherwise";
            let next = "see the check vault. If that is good, the rule of refused calls says why: after \
                        unavailable.vault.status_403, run doctor with the gateway's own token in VAULT_TOKEN; the token \
                        has ended, or its policy lacks the path";
            Finding::bad(check, found, next)
        }
        "issuer" => {
            let next = "see issuers in the plugin configuration, their cluster, and fetch their jwks_uri from there; \
                        tokens with known keys are accepted meanwhile";
            Finding::warning(check, "its keys could not be fetched, or not be read", next)
        }
        _ => {
            let found = "refused or failed the filter's last call, which may be due to its caller";
            let next = "see the rule of refused calls, and troubleshooting.md";
            Finding::warning(check, found, next)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::State;
    use super::*;

    fn dump(on_failure: &str, configuration: &str) -> Value {
        json!({"configs": [{"http_filters": [{"typed_config": {"config": {
            "root_id": "portcullis",
            "failure_policy": on_failure,
            "allow_on_headers_stop_iteration": true,
            "vm_config": {"code": {"remote": {"sha256": "ab12"}}},
            "configuration": {"value": configuration},
        }}}]}]})
    }

    #[test]
    fn a_filter_that_was_taken_off_is_told_from_one_that_never_was_there() {
        let next = |routes: Value| {
            let dump = json!({"configs": [{"virtual_hosts": [{"routes": routes}]}]});
            let findings = plugins(&dump, None).0;
            let first = findings.first().expect("a finding");
            assert_eq!((first.check.as_str(), first.state), ("envoy.module", State::Bad));
            first.next.clone()
        };
        let guarded = json!([{"match": {"headers": [{"name": "x-portcullis-guard"}]}}]);
        assert!(next(guarded).contains("something took the filter off"));
        assert!(next(json!([])).contains("add the filter to the listener"));
    }

    fn states(dump: &Value, module: Option<&str>) -> Vec<State> {
        plugins(dump, module)
            .0
            .iter()
            .filter(|finding| finding.check != "envoy.guard")
            .map(|finding| finding.state)
            .collect()
    }

    #[test]
    fn a_filter_that_opens_or_has_no_meaning_is_bad() {
        let good = r#"{"redis": {"cluster": "redis"}}"#;
        let all = |module, on_failure, configuration| [module, on_failure, configuration];
        use State::{Bad, Good, Warning};
        assert_eq!(states(&dump("FAIL_RELOAD", good), None), all(Good, Good, Good));
        assert_eq!(states(&dump("FAIL_OPEN", good), None), all(Good, Bad, Good));
        assert_eq!(states(&dump("", good), Some("ab12")), all(Good, Warning, Good));
        assert_eq!(states(&dump("FAIL_RELOAD", "{}}"), Some("cd34")), all(Bad, Good, Bad));
        let faulty = r#"{"redis": {"cluster": "redis", "timeout": 5}}"#;
        assert_eq!(states(&dump("FAIL_RELOAD", faulty), None), all(Good, Good, Bad));
        assert_eq!(states(&json!({"configs": []}), None), [Bad]);
    }

    #[test]
    fn a_cluster_without_a_healthy_host_is_bad() {
        let cluster = |name: &str, hosts: Value| json!({"name": name, "host_statuses": hosts});
        let page = json!({"cluster_statuses": [
            cluster("portcullis_redis", json!([{"health_status": {"eds_health_status": "HEALTHY"}}])),
            cluster("portcullis_vault", json!([{"health_status":
                {"eds_health_status": "HEALTHY", "failed_active_health_check": true}}])),
            cluster("portcullis_idp", json!([])),
            cluster("demo", json!([])),
        ]});
        let states: Vec<_> = clusters(&page).iter().map(|finding| finding.state).collect();
        assert_eq!(states, [State::Good, State::Bad, State::Bad]);
    }

    #[test]
    fn what_the_filter_met_is_told() {
        let stat = |name: &str, value: u64| json!({"name": name, "value": value});
        let page = json!({"stats": [
            stat("wasm.portcullis.vm_reload_success", 2),
            stat("wasmcustom.portcullis_state_went_back_total.org.=.acme;", 1),
            stat("wasmcustom.portcullis_dependency_up.dependency.=.redis;", 1),
            stat("wasmcustom.portcullis_dependency_up.dependency.=.vault;", 1),
        ]});
        let findings = stats(&page, (None, None));
        let told: Vec<_> = findings.iter().map(|one| (one.check.as_str(), one.state)).collect();
        let expected = [
            ("envoy.vm", State::Warning),
            ("envoy.build", State::Unknown),
            ("envoy.audit_log", State::Good),
            ("envoy.went_back", State::Warning),
            ("envoy.dependency redis", State::Good),
            ("envoy.dependency vault", State::Good),
        ];
        assert_eq!(told, expected);
    }

    // A gateway whose password Redis refuses, or whose token Vault refuses, answers calls with 503.
    #[test]
    fn a_dependency_that_refuses_the_filter_is_bad_with_a_step_of_its_own() {
        let of = |dependency: &str| {
            let name = format!("wasmcustom.portcullis_dependency_up.dependency.=.{dependency};");
            let page = json!({"stats": [{"name": name, "value": 0}]});
            let check = format!("envoy.dependency {dependency}");
            let mut findings = stats(&page, (None, None)).into_iter();
            let finding = findings.find(|one| one.check == check).expect("a finding");
            (finding.state, finding.next)
        };
        for (dependency, state, next) in [
            ("redis", State::Bad, "compare address and password of Redis in Envoy's configuration"),
            ("vault", State::Bad, "run doctor with the gateway's own token in VAULT_TOKEN"),
            ("issuer", State::Warning, "fetch their jwks_uri"),
            ("authorization_server", State::Warning, "the rule of refused calls"),
        ] {
            let found = of(dependency);
            assert_eq!(found.0, state, "{dependency}");
            assert!(found.1.contains(next), "{dependency}: {}", found.1);
        }
    }

    // Finding 9.2: a full disk lost 456 of 606 entries, and doctor said all good.
    #[test]
    fn lost_lines_and_refused_connections_are_told() {
        let stat = |name: &str, value: u64| json!({"name": name, "value": value});
        let state = |name: &str, value: u64, check: &str| {
            let findings = stats(&json!({"stats": [stat(name, value)]}), (None, None));
            findings.iter().find(|it| it.check == check).map(|it| it.state)
        };
        for (name, value, check, expected) in [
            ("filesystem.write_failed", 1, "envoy.audit_log", State::Bad),
            ("filesystem.reopen_failed", 1, "envoy.audit_log", State::Bad),
            ("filesystem.write_total_buffered", 1 << 30, "envoy.audit_log", State::Warning),
            ("filesystem.write_total_buffered", 1 << 16, "envoy.audit_log", State::Good),
            (
                "listener.0.0.0.0_1.downstream_global_cx_overflow",
                3,
                "envoy.connections",
                State::Warning,
            ),
        ] {
            assert_eq!(state(name, value, check), Some(expected), "{name}");
        }
    }

    // Finding 9.13: a rejected update was taken for what runs.
    #[test]
    fn a_refused_update_is_told_from_what_runs() {
        let good = dump("FAIL_RELOAD", r#"{"redis": {"cluster": "redis"}}"#);
        let refused = dump("FAIL_OPEN", "{}}");
        let error = json!({"failed_configuration": refused, "details": "no such field"});
        let listener = |active: Option<&Value>| {
            let mut listener = json!({"name": "gateway", "error_state": error});
            if let Some(active) = active {
                listener["active_state"] = active.clone();
            }
            json!({"configs": [{"dynamic_listeners": [listener]}]})
        };
        let found = plugins(&listener(Some(&good)), None).0;
        let told: Vec<_> = found.iter().map(|it| (it.check.as_str(), it.state)).collect();
        assert!(told.contains(&("envoy.failure_policy", State::Good)), "{told:?}");
        assert!(told.contains(&("envoy.listener gateway", State::Warning)), "{told:?}");
        let found = plugins(&listener(None), None).0;
        let told: Vec<_> = found.iter().map(|it| (it.check.as_str(), it.state)).collect();
        assert_eq!(told, [("envoy.module", State::Bad), ("envoy.listener gateway", State::Bad)]);
    }

    // As Envoy Gateway's Envoy shows `failOpen`: an update that was refused as a whole has no name of its own.
    #[test]
    fn an_update_that_is_refused_as_a_whole_is_told_once() {
        let good = dump("FAIL_RELOAD", r#"{"redis": {"cluster": "redis"}}"#);
        let whole = |failed: Value| json!({"error_state": {"failed_configuration": failed, "details": "no"}});
        let named =
            json!({"name": "gateway", "active_state": good, "error_state": {"details": "no"}});
        let running = json!({"name": "gateway", "active_state": good});
        let other = json!({"name": "other", "active_state": good});
        for (listeners, lines) in [
            (
                json!([running, whole(json!({"name": "gateway"}))]),
                vec![("envoy.listener gateway", State::Warning)],
            ),
            (
                json!([named, whole(json!({"name": "gateway"}))]),
                vec![("envoy.listener gateway", State::Warning)],
            ),
            (json!([running, whole(json!({}))]), vec![("envoy.listener unnamed", State::Bad)]),
            (
                json!([other, whole(json!({"name": "gateway"}))]),
                vec![("envoy.listener gateway", State::Bad)],
            ),
            (json!([whole(json!({}))]), vec![("envoy.listener unnamed", State::Bad)]),
        ] {
            let found = rejected(&json!({"configs": [{"dynamic_listeners": listeners}]}));
            let told: Vec<_> = found.iter().map(|it| (it.check.as_str(), it.state)).collect();
            assert_eq!(told, lines, "{listeners}");
        }
    }
}
