//! Judging a document without activating it.

use std::mem::ManuallyDrop;

use portcullis_core::policy::{Enforcement, Policy};
use serde_json::json;

use super::count;
use super::findings::findings;
use crate::args::CheckArgs;
use crate::document::Document;
use crate::report::{CliError, Report, Verdict};

pub(crate) fn check(args: &CheckArgs) -> Result<Report, CliError> {
    // Nothing follows but the report: to take a large document to pieces would take longer than to write it.
    let document = ManuallyDrop::new(Document::read(&args.file)?);
    let place = &document.place;
    let found = ManuallyDrop::new(findings(&document));
    let mut lines: Vec<String> = found.faults.iter().map(|fault| fault.text(place)).collect();
    lines.extend(found.warnings.iter().map(|warning| warning.text(place)));
    let counts = [(found.faults.len(), "fault"), (found.warnings.len(), "warning")];
    let counts = counts.into_iter().filter(|(number, _)| *number > 0);
    let counts: Vec<String> = counts.map(|(number, what)| count(number, what)).collect();
    let sound = found.warnings.is_empty() || !args.strict;
    lines.push(match &found.policy {
        Some((policy, version)) => {
            let judged = if sound { "good" } else { "not good with --strict" };
            let more = counts.iter().map(|count| format!("; {count}")).collect::<String>();
            let shadow = match shadow(policy) {
                Some(shadow) => format!("; {shadow}"),
                None => String::new(),
            };
            format!("{place}: {judged}, version {version}: {}{more}{shadow}", summary(policy))
        }
        None => format!("{place}: {}", counts.join(", ")),
    });
    let valid = found.policy.is_some() && sound;
    let json = json!({
        "file": place,
        "valid": valid,
        "version": found.policy.as_ref().map(|(_, version)| version),
        "faults": found.faults,
        "warnings": found.warnings,
    });
    let verdict = if valid { Verdict::Good } else { Verdict::Wanting };
    Ok(Report::judged(verdict, lines.join("\n"), json))
}

/// What is on trial for the whole policy: good, and not what most policies are to be.
fn shadow(policy: &Policy) -> Option<String> {
    let checks: Vec<&str> = policy.shadow.iter().map(|check| check.name()).collect();
    if policy.enforcement == Enforcement::Shadow {
        return Some("enforcement: shadow: no rule of it refuses anything".to_owned());
    }
    (!checks.is_empty())
        .then(|| format!("in shadow mode, and refusing nothing: {}", checks.join(", ")))
}

fn summary(policy: &Policy) -> String {
    [
        (policy.organisations.len(), "organisation"),
        (policy.connectors.len(), "connector"),
        (policy.roles.len(), "role"),
        (policy.tiers.len(), "tier"),
        (policy.limits.len(), "further limit"),
    ]
    .map(|(number, what)| count(number, what))
    .join(", ")
}
