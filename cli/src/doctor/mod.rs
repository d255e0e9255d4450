//! `portcullis doctor`: whether everything that the gateway leans on is as it should be.
//!
//! Owns the form of findings and the verdict. Only looks: nothing is changed anywhere but one window in Redis, which
//! is gone after a second; and nothing that is found keeps the rest from being looked at.

mod build;
mod clock;
mod dump;
mod enabled;
mod envoy;
mod paths;
mod probe;
mod redis;
mod routes;
mod secrets;
mod sinks;
mod vault;
mod vault_token;

use portcullis_core::vault::{KvVersion, Mount};
use serde::Serialize;
use serde_json::json;

use crate::args::{DoctorArgs, Session};
use crate::report::{CliError, Report, Verdict, progress, table};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    /// The URL of the Envoy that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    envoy: Option<String>,
    state: State,
    found: String,
    /// What to do about it; empty when nothing is.
    next: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Good,
    /// It works, and will hurt some day.
    Warning,
    /// Calls are refused now, or guarantees do not hold.
    Bad,
    /// Not looked at, or it could not be seen from here.
    Unknown,
}

impl Finding {
    fn good(check: impl Into<String>, found: impl Into<String>) -> Self {
        let (check, found) = (check.into(), found.into());
        Self { check, envoy: None, state: State::Good, found, next: String::new() }
    }

    fn warning(check: &str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { state: State::Warning, next: next.into(), ..Self::good(check, found) }
    }

    fn bad(check: &str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { state: State::Bad, next: next.into(), ..Self::good(check, found) }
    }

    fn unknown(check: &str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { state: State::Unknown, next: next.into(), ..Self::good(check, found) }
    }

    /// The same where nothing but good is enough.
    fn good_or_bad(self) -> Self {
        let state = match self.state {
            State::Good => State::Good,
            State::Warning | State::Bad | State::Unknown => State::Bad,
        };
        Self { state, ..self }
    }

    /// What kept a check from being made.
    fn refused(check: &str, refusal: &CliError) -> Self {
        Self::bad(check, refusal.found(), refusal.next_step())
    }
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
        }
    }
}

/// Looks at everything that was named.
pub(crate) fn run(session: &Session, args: &DoctorArgs) -> Result<Report, CliError> {
    let module = args.module.as_deref().map(envoy::Module::named).transpose()?.unwrap_or_default();
    progress("Redis …");
    let (mut findings, connectors) = redis::look(session);
    progress("Vault …");
    match &args.vault {
        Some(url) => {
            findings.extend(vault::look(url));
            findings.extend(secrets(args, url, &connectors));
        }
        None => findings.push(not_named("vault", "--vault or VAULT_ADDR")),
    }
    let mut served = Vec::new();
    for url in &args.envoy_admin {
        progress(&format!("Envoy at {} …", without_password(url)));
        let (found, paths) = envoy::look(url, &module);
        let url = without_password(url);
        findings.extend(found.into_iter().map(|it| Finding { envoy: Some(url.clone()), ..it }));
        served.extend(paths);
    }
    // Of an Envoy that cannot be read, it is not known what it serves.
    let all_read = served.len() == args.envoy_admin.len() && !served.is_empty();
    let paths = connectors.as_ref().ok().filter(|_| all_read);
    let paths = paths.map(|connectors| paths::Paths { connectors, served: &served });
    findings.extend(paths.iter().flat_map(paths::Paths::look));
    for url in &args.probe {
        progress(&format!("a stranger's calls of {url} …"));
        let found = probe::look(url, args.probe_address.as_ref());
        findings.extend(found.into_iter().map(|finding| match args.require_judged {
            true => finding.good_or_bad(),
            false => finding,
        }));
        findings.extend(paths.as_ref().and_then(|paths| paths.of_probe(url)));
    }
    if args.envoy_admin.is_empty() && args.probe.is_empty() {
        findings.push(not_named("envoy", "--envoy-admin or PORTCULLIS_ENVOY_ADMIN"));
    }
    Ok(report(&findings, args.envoy_admin.len() > 1))
}

/// A URL as it is shown.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    let user = host.rsplit_once('@').map_or(0, |(user, _)| user.len().saturating_add(1));
    format!("{scheme}://{}", rest.get(user..).unwrap_or_default())
}

/// The secrets of active policies.
fn secrets(
    args: &DoctorArgs,
    url: &str,
    connectors: &Result<Vec<redis::ActiveConnector>, CliError>,
) -> Vec<Finding> {
    let Some(token) = args.vault_token.as_deref().filter(|token| !token.is_empty()) else {
        return vec![not_named("vault.secrets", "VAULT_TOKEN")];
    };
    let mount = |kv| move |path: &String| Mount { path: path.clone(), kv };
    let mounts = args.vault_mount.iter().map(mount(KvVersion::Two));
    let mounts: Vec<_> =
        mounts.chain(args.vault_mount_v1.iter().map(mount(KvVersion::One))).collect();
    let vault = vault::Vault { url, token, mounts: &mounts };
    match connectors {
        Ok(connectors) => secrets::look(&vault, connectors),
        Err(_) => {
            let found = "Redis did not say which secrets active policies name";
            vec![Finding::unknown("vault.secrets", found, "see the checks of Redis above")]
        }
    }
}

fn not_named(check: &str, option: &str) -> Finding {
    Finding::unknown(check, "not looked at", format!("name it with {option}"))
}

/// With several Envoys, each row says which one it is about.
fn report(findings: &[Finding], several: bool) -> Report {
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let row = |finding: &Finding| {
        let Finding { check, state, found, next, .. } = finding;
        [state.as_str().to_owned(), check.clone(), found.clone(), next.clone()]
    };
    let rows = match several {
        false => table(["STATE", "CHECK", "FOUND", "NEXT"], findings.iter().map(row).collect()),
        true => {
            let rows = findings.iter().map(|finding| {
                let envoy = finding.envoy.clone().unwrap_or_else(|| "-".to_owned());
                let [state, check, found, next] = row(finding);
                [state, envoy, check, found, next]
            });
            table(["STATE", "ENVOY", "CHECK", "FOUND", "NEXT"], rows.collect())
        }
    };
    let (bad, warnings) = (count(State::Bad), count(State::Warning));
    let text = format!(
        "{rows}\n\n{} good, {warnings} to look at, {bad} bad, {} unknown",
        count(State::Good),
        count(State::Unknown)
    );
    let verdict = if bad == 0 { Verdict::Good } else { Verdict::Wanting };
    Report::judged(verdict, text, json!({ "healthy": bad == 0, "checks": findings }))
}
