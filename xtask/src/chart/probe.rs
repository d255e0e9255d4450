//! The pod of `helm test` as a process on this machine: its own command, arguments and environment.
//!
//! Owns what stands for the kubelet: the hook comes from the release, and values of Secrets from the API server. The
//! process gets nothing else, so it sees what the pod's container would see.

use super::documents;
use crate::failure::{Failure, Result};
use crate::mesh::cluster::Cluster;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_stack::process;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// A run of the pod's container.
pub(super) struct Run {
    /// Whether `helm test` passes: the container ends with 0.
    pub(super) passes: bool,
    text: String,
}

impl Run {
    /// The states of doctor's lines that contain both texts.
    pub(super) fn states(&self, check: &str, found: &str) -> Vec<&str> {
        let lines = self.text.lines().filter(|line| line.contains(check) && line.contains(found));
        lines.filter_map(|line| line.split_whitespace().next()).collect()
    }

    /// The lines that are not good, for a message.
    pub(super) fn faults(&self) -> String {
        let faults = self.text.lines().filter(|line| !line.starts_with("good"));
        faults.collect::<Vec<_>>().join("\n     ")
    }
}

/// Runs the container of the only pod in `hooks`, with the program at `program` in the place of the image's.
pub(super) fn run(hooks: &str, cluster: &Cluster, program: &Path) -> Result<Run> {
    let documents = documents::read("the hooks of the release", hooks)?;
    let mut pods = documents.into_iter().filter(|(key, _)| key.starts_with("Pod "));
    let (Some((_, pod)), None) = (pods.next(), pods.next()) else {
        return Err(Failure::new("the release does not have exactly one pod among its hooks"));
    };
    let missing = |field: &str| Failure::new(format!("the pod of helm test has no {field}"));
    let namespace = text(&pod, "/metadata/namespace").ok_or_else(|| missing("namespace"))?;
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let [container] = containers.map(Vec::as_slice).unwrap_or_default() else {
        return Err(Failure::new("the pod of helm test does not have exactly one container"));
    };
    let words = |field: &str| -> Result<Vec<String>> {
        let list = container.get(field).and_then(Value::as_array).ok_or_else(|| missing(field))?;
        Ok(list.iter().filter_map(|word| Some(word.as_str()?.to_owned())).collect())
    };
    let command = words("command")?;
    let [name, first @ ..] = command.as_slice() else { return Err(missing("command")) };
    if name != "portcullis" {
        return Err(Failure::new(format!("the pod of helm test runs `{name}`, not portcullis")));
    }
    let mut process = Command::new(program);
    process.args(first).args(words("args")?).env_clear();
    for variable in container.get("env").and_then(Value::as_array).unwrap_or(&Vec::new()) {
        let name = text(variable, "/name").ok_or_else(|| missing("name of a variable"))?;
        process.env(name, value(variable, namespace, cluster)?);
    }
    let output = process::output("portcullis", process)?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(Run { passes: output.status.success(), text: said })
}

/// The value of a variable: its own, or that of a Secret.
fn value(variable: &Value, namespace: &str, cluster: &Cluster) -> Result<String> {
    if let Some(value) = text(variable, "/value") {
        return Ok(value.to_owned());
    }
    let reference = |field: &str| text(variable, &format!("/valueFrom/secretKeyRef/{field}"));
    let (Some(secret), Some(key)) = (reference("name"), reference("key")) else {
        return Err(Failure::new(format!("a variable without a value: {variable}")));
    };
    let get = ["get", "secret", secret, "--namespace", namespace, "--output", "json"];
    let found: Value = serde_json::from_str(&cluster.kubectl(&get)?)
        .map_err(|error| Failure::new(format!("the Secret {secret}: {error}")))?;
    let encoded = text(&found, &format!("/data/{key}")).unwrap_or_default();
    let bytes = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    bytes.ok_or_else(|| Failure::new(format!("the Secret {secret} has no text as {key}")))
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}
