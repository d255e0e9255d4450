//! `portcullis discover`: live definitions of tools against the policy's pins.
//!
//! Owns the way from a policy and a server to a difference, and back into the file. What a change is
//! worth, the core decides.

mod change;
mod server;
mod splice;

use std::collections::BTreeSet;

use portcullis_core::auth::api_key::PresentedKey;
use portcullis_core::id::{OrgId, PolicyName};
use portcullis_core::nearest::slip;
use portcullis_core::policy::{self, Connector, Policy};
use serde_json::{Value, json};

use crate::args::{Class, DiscoverArgs};
use crate::document::Document;
use crate::escape;
use crate::report::{CliError, Report, Verdict};
use change::{Answered, Change, changes};
use server::Server;

/// What to do when a gateway does not list tools. Before the first push, neither keys nor connectors exist.
const BEFORE_A_PUSH: &str = "a gateway lists tools once a policy with the connector is active: portcullis policy push \
     FILE --reason … (without pins), then portcullis key issue --org ORG …. Before that, ask the server: --connector \
     NAME with --direct URL, or with --from FILE";
/// What to do when a server that is asked directly refuses.
const CREDENTIAL: &str = "check the URL and the credential (--header-env NAME=VARIABLE)";

pub(crate) fn discover(args: &DiscoverArgs) -> Result<Report, CliError> {
    let document = Document::read(&args.policy)?;
    let policy = policy::compile(&document.value).map_err(|faults| {
        CliError::new("the policy has faults", &document.place)
            .next(format!("portcullis policy check {}", document.argument()))
            .faults(document.located(&faults))
    })?;
    let asked_as = asked_as(args, &policy, &document.place)?;
    let answered = match args.from.is_none() && args.direct.is_none() {
        true => Answered::Gateway,
        false => Answered::Server,
    };
    let mut found = Vec::new();
    let mut seen = 0_usize;
    let mut known = BTreeSet::new();
    for (name, connector) in chosen(args, &policy, &document.place)? {
        let live = live_tools(args, connector)?;
        let listed = || live.iter().filter_map(|tool| tool.get("name")?.as_str());
        seen = seen.saturating_add(match args.tools.is_empty() {
            true => live.len(),
            false => listed().filter(|tool| is_meant(args, tool)).count(),
        });
        known.extend(listed().chain(connector.tools.keys().map(String::as_str)).map(str::to_owned));
        found.extend(changes(name, connector, (answered, &live)));
    }
    found.retain(|change| is_meant(args, &change.tool));
    all_known(args, &known)?;
    let fails_on = args.fails_on();
    let failing = found.iter().filter(|change| change.class >= fails_on).count();
    // One tool that no policy can pin keeps no other from being written.
    let (written, unwritten): (Vec<_>, Vec<_>) = match args.write {
        true => found.iter().partition(|change| held(change, args).is_none()),
        false => (Vec::new(), Vec::new()),
    };
    let unwritten: Vec<_> = unwritten
        .into_iter()
        .map(|change| (change, held(change, args).unwrap_or_default()))
        .collect();
    if !written.is_empty() {
        // The servers answered: what is not written is the finding.
        splice::write(&args.policy, &document, &written).map_err(CliError::into_answer)?;
    }
    let counts = Counts { seen, written: args.write.then_some(written.len()), failing };
    let asked_as = asked_as.as_deref();
    Ok(report((&document.place, asked_as), &found, &unwritten, counts, fails_on))
}

/// Whether a tool is one of those that were asked for.
fn is_meant(args: &DiscoverArgs, tool: &str) -> bool {
    args.tools.is_empty() || args.tools.iter().any(|meant| meant == tool)
}

/// Refuses names that neither the policy nor a server has.
fn all_known(args: &DiscoverArgs, known: &BTreeSet<String>) -> Result<(), CliError> {
    let Some(unknown) = args.tools.iter().find(|tool| !known.contains(*tool)) else {
        return Ok(());
    };
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    Err(CliError::new(format!("no tool {unknown}"), "--tool")
        .expected(format!(
            "a tool that the server lists or the policy has{}",
            slip(unknown, &known)
        ))
        .next("portcullis discover without --tool"))
}

/// Why a change is not written.
fn held(change: &Change, args: &DiscoverArgs) -> Option<String> {
    let fails = (change.class >= args.fails_on()).then(|| {
        let class = change.class.name();
        format!("the change is {class}; after a review, --fail-on never writes it all the same")
    });
    let loosens = change.loosens().filter(|_| !args.relax).map(|place| {
        format!("it would take away or loosen what a person reviewed: {place}; --relax writes it all the same")
    });
    change.unsupported().or(fails).or(loosens)
}

/// As whom the gateway is asked: the id and organisation of the key, which sees what its role sees. A key of an
/// organisation that the policy is not for sees another policy's tools.
fn asked_as(args: &DiscoverArgs, policy: &Policy, place: &str) -> Result<Option<String>, CliError> {
    let by_key = args.from.is_none() && args.direct.is_none() && args.gateway.is_some();
    let Some(key) = args.key.as_ref().filter(|_| by_key) else { return Ok(None) };
    let Ok(key) = PresentedKey::parse(key.as_bytes()) else {
        return Err(CliError::new("a text that is no key (not shown)", "--key or PORTCULLIS_KEY")
            .expected("a key that portcullis key issue printed")
            .next(BEFORE_A_PUSH));
    };
    if !policy.organisations.contains(&key.org) {
        let known: Vec<&str> = policy.organisations.iter().map(OrgId::as_str).collect();
        let found = format!("a key of {} (id {})", key.org, key.id);
        return Err(CliError::new(found, "--key or PORTCULLIS_KEY")
            .expected(format!(
                "a key of an organisation of {place}: {}; nothing was changed",
                known.join(", ")
            ))
            .next(BEFORE_A_PUSH));
    }
    Ok(Some(format!("key {} of {}", key.id, key.org)))
}

struct Counts {
    seen: usize,
    /// None without `--write`.
    written: Option<usize>,
    failing: usize,
}

fn report(
    (place, asked_as): (&str, Option<&str>),
    found: &[Change],
    unwritten: &[(&Change, String)],
    Counts { seen, written, failing }: Counts,
    fails_on: Class,
) -> Report {
    let asked =
        asked_as.map(|who| format!("asked as {who}: tools that its role does not see are missing"));
    let mut text: Vec<String> = asked.into_iter().chain(found.iter().map(Change::text)).collect();
    text.push(match found.len() {
        0 => format!("{seen} tools, all as {place} has them"),
        changed => format!("{seen} tools, {changed} not as {place} has them"),
    });
    text.extend(match written {
        None => None,
        Some(0) if found.is_empty() => {
            Some(format!("not written: {place} has these definitions already"))
        }
        Some(0) => Some(format!("not written: {place} stays as it is")),
        Some(written) => Some(format!(
            "{written} written; review {place}, then portcullis policy push {place} --reason …"
        )),
    });
    for (change, fault) in unwritten {
        let named = format!("NOT written: {} {}: {fault}", change.connector, change.tool);
        text.push(escape::line(&named));
    }
    if failing > 0 {
        text.push(format!("{failing} at or above {}", fails_on.name()));
    }
    let json = json!({
        "policy": place, "tools": seen, "written": written.unwrap_or_default(), "failing": failing,
        "asked_as": asked_as,
        "not_written": unwritten.iter().map(|(change, fault)| json!({
            "connector": change.connector, "tool": change.tool, "fault": fault,
        })).collect::<Vec<_>>(),
        "fail_on": fails_on.name(), "changes": found.iter().map(Change::json).collect::<Vec<_>>(),
    });
    let sound = failing == 0 && unwritten.is_empty();
    let verdict = if sound { Verdict::Good } else { Verdict::Wanting };
    Report::judged(verdict, text.join("\n"), json)
}

fn chosen<'p>(
    args: &DiscoverArgs,
    policy: &'p Policy,
    place: &str,
) -> Result<Vec<(&'p PolicyName, &'p Connector)>, CliError> {
    let named = |name: &PolicyName| args.connector.as_ref().is_none_or(|only| only == name);
    let chosen: Vec<_> = policy
        .connectors
        .iter()
        .map(|(name, connector)| (name, &**connector))
        .filter(|(name, _)| named(name))
        .collect();
    match (&args.connector, chosen.is_empty()) {
        (Some(name), true) => {
            let known: Vec<_> = policy.connectors.keys().map(PolicyName::as_str).collect();
            Err(CliError::new(format!("no connector {name}"), place)
                .expected(format!("one of {}", known.join(", "))))
        }
        _ => Ok(chosen),
    }
}

fn live_tools(args: &DiscoverArgs, connector: &Connector) -> Result<Vec<Value>, CliError> {
    if let Some(file) = &args.from {
        let document = Document::read(file)?;
        let answer = document.value;
        let list = answer.pointer("/result/tools").or_else(|| answer.get("tools"));
        return list.and_then(Value::as_array).cloned().ok_or_else(|| {
            CliError::new("no list of tools", &document.place)
                .expected("the result of tools/list, or the whole answer")
        });
    }
    if let Some(url) = &args.direct {
        let mut headers = Vec::new();
        for (name, variable) in &args.header_env {
            let value = std::env::var(variable).map_err(|_| {
                CliError::new(format!("no variable {variable}"), "the environment")
                    .expected(format!("the value of the header {name}"))
            })?;
            headers.push((name.clone(), value));
        }
        return Server::new(url, headers, CREDENTIAL)?.tools();
    }
    let Some(gateway) = &args.gateway else {
        return Err(CliError::usage("no server to ask")
            .expected("--gateway, --direct or --from")
            .next(BEFORE_A_PUSH));
    };
    let Some(key) = &args.key else {
        return Err(CliError::usage("no key for the gateway")
            .expected("--key or PORTCULLIS_KEY")
            .next(BEFORE_A_PUSH));
    };
    let url = format!("{}{}", gateway.trim_end_matches('/'), connector.path);
    let headers = vec![("authorization".to_owned(), format!("Bearer {key}"))];
    Server::new(&url, headers, BEFORE_A_PUSH)?.tools()
}
