//! Compares the chart with the shipped files and with `portcullis render`: one description makes the same documents.
//!
//! Owns `charts/rendered/`, and the complete list of allowed differences. Runs `portcullis`, and does not need Helm.

use super::cases::{CASES, Case, ISTIO};
use super::documents::{self, Documents, difference, remove, walk};
use crate::failure::{Failure, Result};
use crate::mesh::cluster::succeeded;
use portcullis_stack::Workspace;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The prefix of the line with the digest in a rendered file.
const DIGEST: &str = "# inputs: sha256 ";
/// The folders that affect the rendered files. The rules and the dashboard do not: they are links to `observability`.
const INPUTS: [&str; 3] = ["charts/portcullis", "charts/portcullis/templates", "charts/values"];
const COMMAND: &str = "cargo xtask chart --record";
/// The guard that the tests put into the shipped files.
const GUARD: &str = "not-a-secret-demo";

/// Kinds that only the chart has.
const ONLY_CHART: [&str; 6] = [
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "NetworkPolicy",
    "PodMonitor",
    "PrometheusRule",
    "ConfigMap",
];

/// Settings of the chart on its own proxies; the shipped file leaves them to the reader.
const OF_PROXIES: [&str; 6] = [
    "/spec/shutdown",
    "/spec/provider/kubernetes/envoyPDB",
    "/spec/provider/kubernetes/envoyDeployment/replicas",
    "/spec/provider/kubernetes/envoyDeployment/pod/topologySpreadConstraints",
    "/spec/provider/kubernetes/envoyDeployment/pod/securityContext",
    "/spec/provider/kubernetes/envoyDeployment/container/securityContext",
];

/// The policy with a different first validation.
const LISTENERS: &str = "ValidatingAdmissionPolicy /portcullis-gateway";

/// Checks that the rendered files come from the current chart, and agree with the shipped files and `portcullis
/// render`.
pub(crate) fn current(workspace: &Workspace) -> Result<()> {
    let digest = digest(workspace)?;
    let mut complaints = Vec::new();
    for case in &CASES {
        let file = rendered(case);
        let text = read(&workspace.root.join(&file))?;
        if text.lines().find_map(|line| line.strip_prefix(DIGEST)) != Some(digest.as_str()) {
            return Err(Failure::new(format!(
                "{file} was made from other files than charts/ has now; run `{COMMAND}` (it needs Go) and commit what it writes"
            )));
        }
        let chart = without_annotations(documents::read(&file, &text)?);
        let shipped = shipped(workspace, case)?;
        let printed = ("portcullis render", printed(workspace, case)?);
        // `portcullis render` does not know the ports of the gateway.
        let portless = without_ports(chart.clone());
        complaints.extend(missing(case, printed.0, &portless, &printed.1));
        for (of, documents) in &shipped {
            complaints.extend(missing(case, of, &chart, documents));
        }
        let others = [&shipped[..], &[printed]].concat();
        let known = |key: &str| others.iter().any(|(_, documents)| documents.contains_key(key));
        let all_is_shipped = ["istio", "istio-split", "envoy-gateway"].contains(&case.name);
        for key in chart.keys().filter(|key| all_is_shipped && !known(key)) {
            if !ONLY_CHART.iter().any(|kind| key.starts_with(&format!("{kind} "))) {
                complaints.push(format!("{file}: {key}: nothing else has such a document"));
            }
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(Failure::new(complaints.join("\n"))) }
}

/// Writes the manifests that Helm made of a case.
pub(super) fn write(workspace: &Workspace, case: &Case, made: &str) -> Result<()> {
    let mut text = format!(
        "# What Helm made of charts/portcullis with the values of `{}`. Written by `{COMMAND}`; do not edit.\n{DIGEST}{}\n",
        case.name,
        digest(workspace)?
    );
    for line in without_copies(made) {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let file = workspace.root.join(rendered(case));
    let unwritable = |error| Failure::new(format!("could not write {}: {error}", file.display()));
    fs::create_dir_all(file.parent().unwrap_or(Path::new("."))).map_err(unwritable)?;
    fs::write(&file, format!("{}\n", text.trim_end())).map_err(unwritable)
}

fn rendered(case: &Case) -> String {
    format!("charts/rendered/{}.yaml", case.name)
}

/// The lines without the rules and the dashboard, which are in `observability`.
fn without_copies(made: &str) -> impl Iterator<Item = &str> {
    let mut copied = false;
    made.lines().filter(move |line| {
        if line.starts_with("---") {
            copied = false;
        }
        let starts = line.starts_with("  groups:") || line.starts_with("  portcullis.json:");
        copied |= starts || line.starts_with("  # Recording and alert rules");
        !copied
    })
}

/// Documents that the chart lacks, or that differ.
fn missing(case: &Case, of: &str, chart: &Documents, others: &Documents) -> Vec<String> {
    let mut complaints = Vec::new();
    for (key, other) in others {
        let place = format!("charts/rendered/{}.yaml and {of}: {key}", case.name);
        match chart.get(key) {
            None => complaints.push(format!("{place}: the chart has no such document")),
            Some(ours) => {
                complaints.extend(difference(ours, other).map(|found| format!("{place}: {found}")))
            }
        }
    }
    complaints
}

fn without_annotations(mut documents: Documents) -> Documents {
    for (key, document) in &mut documents {
        remove(document, "/metadata/annotations");
        walk(document, &mut of_either);
        // The shipped policy lists the names of the listeners; the chart's policy compares the Gateway with its
        // annotation.
        if key == LISTENERS
            && let Some(validation) = document.pointer_mut("/spec/validations/0")
        {
            *validation = Value::Null;
        }
        if key.starts_with("EnvoyProxy ") {
            OF_PROXIES.iter().for_each(|pointer| remove(document, pointer));
        }
    }
    documents
}

/// Removes a condition that only one of the two sides has.
fn of_either(value: &mut Value) {
    if let Value::String(text) = value {
        *text = text.replace("r.matches.size() > 0 && ", "");
    }
}

fn without_ports(mut documents: Documents) -> Documents {
    for document in documents.values_mut() {
        walk(document, &mut |value| remove(value, "/listener/portNumber"));
    }
    documents
}

/// The documents that `portcullis render` makes of the description of a case.
fn printed(workspace: &Workspace, case: &Case) -> Result<Documents> {
    let values = workspace.root.join("charts/values");
    let mut command = Command::new(workspace.artifacts().cli);
    command.arg("render").arg(values.join(case.description));
    command.args(["--for", case.control_plane()[1], "--output", "json", "--guards"]);
    command.arg(values.join("guards.json"));
    if case.previous {
        command.arg("--previous-guards").arg(values.join("previous.json"));
    }
    let made = succeeded("portcullis render", command)?;
    let made: Value = serde_json::from_str(&made)
        .map_err(|error| Failure::new(format!("portcullis render: {error}")))?;
    let list = made.get("documents").and_then(Value::as_array).cloned();
    Ok(documents::of(list.unwrap_or_default()))
}

/// The shipped files that a case has to equal. A description of several connectors is compared with `portcullis render`
/// alone.
fn shipped(workspace: &Workspace, case: &Case) -> Result<Vec<(&'static str, Documents)>> {
    let names: &[&'static str] = match case.name {
        "istio" => {
            &["envoy/istio/base.yaml", "envoy/istio/envoyfilter.yaml", "envoy/istio/routes.yaml"]
        }
        "istio-tls" => &["envoy/istio/base.yaml"],
        "istio-monitoring" => {
            &["envoy/istio/base.yaml", "envoy/istio/envoyfilter.yaml", "envoy/istio/routes.yaml"]
        }
        "istio-split" => {
            &["envoy/istio/base.yaml", "envoy/istio/wasmplugin.yaml", "envoy/istio/routes.yaml"]
        }
        "envoy-gateway" | "envoy-gateway-tls" => {
            &["envoy/envoy-gateway/gateway.yaml", "envoy/envoy-gateway/admission.yaml"]
        }
        _ => &[],
    };
    let with_tls = case.name.ends_with("-tls");
    let of = |name: &&'static str| {
        let mut text = read(&workspace.root.join(name))?.replace("YOUR-GUARD", GUARD);
        if with_tls {
            text = text.replace("\n#tls ", "\n");
        }
        if case.has_own_port() {
            text = text.replace("\n#port ", "\n");
        }
        let mut documents = documents::read(name, &text)?;
        documents.values_mut().for_each(|document| as_the_chart_names_it(case, document));
        Ok((*name, documents))
    };
    names.iter().map(of).collect()
}

/// Renames as the chart does: it names Istio's routes by the description, and images of pods by their digest.
fn as_the_chart_names_it(case: &Case, document: &mut Value) {
    if document.pointer("/metadata/name").is_some_and(|name| name == "portcullis-gateway")
        && let Some(validation) = document.pointer_mut("/spec/validations/0")
    {
        *validation = Value::Null;
    }
    let ones = "1".repeat(64);
    walk(document, &mut of_either);
    walk(document, &mut |value| {
        let Value::Object(fields) = value else { return };
        if let Some(Value::String(name)) = fields.get_mut("name")
            && case.control_plane() == ISTIO
            && ["demo", "demo-listen", "demo-unjudged"].contains(&name.as_str())
        {
            *name = format!("portcullis-{name}");
        }
        if let Some(Value::String(reference)) = fields.get_mut("reference") {
            reference.push_str(&format!("@sha256:{ones}"));
        }
    });
}

/// A digest of the names and bytes of all inputs.
fn digest(workspace: &Workspace) -> Result<String> {
    let mut files: Vec<PathBuf> = vec![workspace.root.join("tools/mesh/helm/go.mod")];
    for input in INPUTS {
        collect(&workspace.root.join(input), &mut files)?;
    }
    for folder in ["istio", "envoy-gateway", "tests"] {
        collect(&workspace.root.join("charts/portcullis/templates").join(folder), &mut files)?;
    }
    files.sort();
    let mut digest = Sha256::new();
    for file in files {
        let name = file.strip_prefix(&workspace.root).unwrap_or(&file).display().to_string();
        let text = read(&file)?;
        digest.update(format!("{name} {}\n{text}", text.len()));
    }
    Ok(digest.finalize().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a `String` does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

/// The files directly in a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = |error| Failure::new(format!("could not read {}: {error}", folder.display()));
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("could not use {}: {error}", file.display())))
}
