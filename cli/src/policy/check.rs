//! Judging a document without activating it.

use portcullis_core::policy::Policy;
use serde_json::json;

use super::{compile, count};
use crate::args::CheckArgs;
use crate::document::Document;
use crate::report::{Refusal, Report, Verdict};

pub(crate) fn check(args: &CheckArgs) -> Result<Report, Refusal> {
    let document = Document::read(&args.file)?;
    let place = &document.place;
    match compile(&document) {
        Ok((policy, version)) => Ok(Report::done(
            format!("{place}: good, version {version}: {}", summary(&policy)),
            json!({ "file": place, "valid": true, "version": version, "faults": [] }),
        )),
        Err(faults) => {
            let lines: Vec<_> = faults.iter().map(|fault| fault.text(place)).collect();
            let text = format!("{}\n{place}: {}", lines.join("\n"), count(faults.len(), "fault"));
            let json = json!({ "file": place, "valid": false, "version": null, "faults": faults });
            Ok(Report::judged(Verdict::Wanting, text, json))
        }
    }
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
