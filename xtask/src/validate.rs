//! Validates the shipped configurations with the programs themselves: Envoy, and a Compose parser.
//!
//! Owns the list of files to check. Starts no servers.

use crate::failure::{Failure, Result};
use crate::isolation;
use crate::mesh::rendered;
use portcullis_stack::ports::loopback;
use portcullis_stack::{
    Artifacts, Bootstrap, Certificates, Tools, Workspace, envoy, files, process,
};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Every Envoy bootstrap in the tree, and the control planes' output for the manifests; fails when that output is
/// outdated.
pub(crate) fn bootstraps(workspace: &Workspace) -> Result<()> {
    let tools = Tools::install(workspace)?;
    let bench = Bench::new(workspace)?;
    let ours = bench.dir.join("envoy.yaml");
    let template = workspace.root.join("envoy/envoy.yaml");
    envoy::write_config(&bench.bootstrap(), &template, &ours)?;
    envoy::validate(&tools.envoy, &ours)?;
    let (with_tls, ours) = (bench.with_tls()?, bench.dir.join("envoy-tls.yaml"));
    envoy::write_config(&with_tls, &template, &ours)?;
    envoy::validate(&tools.envoy, &ours)?;
    let file = bench.dir.join("made-by-render.json");
    fs::write(&file, made_by_render(workspace)?.to_string())
        .map_err(|error| Failure::new(format!("could not write {}: {error}", file.display())))?;
    envoy::validate(&tools.envoy, &file)?;
    for template in rendered::current(workspace)? {
        let name = template.file_name().unwrap_or_default();
        let ours = bench.dir.join(format!("rendered-{}", name.to_string_lossy()));
        envoy::write_config(&bench.rendered(), &template, &ours)?;
        envoy::validate(&tools.envoy, &ours)?;
    }
    Ok(())
}

/// The routes and the seal that `portcullis render` makes of its tests' description, in a listener without anything
/// else.
fn made_by_render(workspace: &Workspace) -> Result<Value> {
    let (routes, seal) = (rendered_for(workspace, "envoy")?, rendered_for(workspace, "seal")?);
    let cluster = |name: &str| json!({"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": name}});
    let clusters = ["demo", "crm", "tickets"].map(cluster);
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "route_config": routes,
        "http_filters": [seal, {"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }}],
    });
    let filter =
        json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
    Ok(json!({"static_resources": {
        "listeners": [{
            "name": "gateway",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 10000}},
            "filter_chains": [{"filters": [filter]}],
        }],
        "clusters": clusters,
    }}))
}

/// The first document.
fn rendered_for(workspace: &Workspace, target: &str) -> Result<Value> {
    let files = workspace.root.join("cli/tests/cli/files/render");
    let mut command = Command::new(workspace.built_artifacts()?.cli);
    command
        .arg("render")
        .arg(files.join("gateway.yaml"))
        .args(["--for", target, "--output", "json"]);
    command.arg("--guards").arg(files.join("guards.json"));
    command.arg("--previous-guards").arg(files.join("previous.json"));
    let output = process::output("portcullis render", command)?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let made: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::new(format!("portcullis render: {error} {complaint}")))?;
    Ok(made["documents"][0].clone())
}

/// The files that a bootstrap refers to, on the machine that validates it.
struct Bench {
    dir: PathBuf,
    artifacts: Artifacts,
    token: PathBuf,
    audit_log: PathBuf,
    rejected_log: PathBuf,
}

impl Bench {
    fn new(workspace: &Workspace) -> Result<Self> {
        let dir = workspace.root.join("target/validate");
        fs::create_dir_all(&dir).map_err(|error| {
            Failure::new(format!("could not create {}: {error}", dir.display()))
        })?;
        let token = dir.join("token.yaml");
        let resource = "resources: [{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, \
                        name: vault_token, generic_secret: {secret: {inline_string: none}}}]\n";
        files::write_private(&token, resource)?;
        let audit_log = dir.join("audit.jsonl");
        let rejected_log = dir.join("rejected.jsonl");
        let artifacts = workspace.built_artifacts()?;
        Ok(Self { artifacts, token, audit_log, rejected_log, dir })
    }

    fn bootstrap(&self) -> Bootstrap {
        Bootstrap::default()
            .wasm(&self.artifacts)
            .vault(loopback(8200), &self.token)
            .audit_log(&self.audit_log)
            .rejected_log(&self.rejected_log)
            .set("GUARD", "a-value-that-nobody-can-guess")
    }

    /// The values for the placeholders of a rendered file.
    fn rendered(&self) -> Bootstrap {
        Bootstrap::default()
            .wasm(&self.artifacts)
            .vault(loopback(8200), &self.token)
            .audit_log(&self.audit_log)
            .set("GUARD", "a-value-that-nobody-can-guess")
    }

    fn with_tls(&self) -> Result<Bootstrap> {
        let certificates = Certificates::make(&self.dir.join("certificates"))?;
        Ok(self.bootstrap().tls(10443, &certificates))
    }
}

/// Checks `docker-compose.yml` with a Compose implementation (references, interpolation) and with the schema (misspelt
/// names); what its containers reach was recorded with today's networks.
pub(crate) fn compose(workspace: &Workspace) -> Result<()> {
    let tools = Tools::install(workspace)?;
    let file = workspace.root.join("docker-compose.yml");
    let mut parse = tools.python_command();
    // Only uses the parser: a dry run needs no podman.
    parse.args(["-m", "podman_compose", "--dry-run", "--file"]).arg(&file).arg("config");
    accepted("podman-compose config", parse)?;
    let mut check = tools.python_command();
    check.arg(workspace.root.join("tools/check_compose.py")).arg(&tools.compose_schema).arg(&file);
    accepted("the Compose schema", check)?;
    isolation::is_current(workspace)
}

fn accepted(name: &str, command: Command) -> Result<()> {
    let output = process::output(name, command)?;
    if output.status.success() {
        return Ok(());
    }
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(Failure::new(format!("{name} refuses docker-compose.yml:\n{out}{err}")))
}

#[cfg(test)]
mod tests {
    /// The stages of the Dockerfile that become images.
    fn images() -> Vec<&'static str> {
        let stages = include_str!("../../Dockerfile").split("\nFROM ").skip(1);
        stages
            .filter(|stage| !stage.lines().next().is_some_and(|from| from.ends_with(" AS build")))
            .collect()
    }

    // Proves: B17
    #[test]
    fn every_image_is_small_has_a_user_and_a_health_check() {
        assert_eq!(images().len(), 3);
        for image in images() {
            let from = image.lines().next().unwrap_or_default();
            let small = ["envoyproxy/envoy:v", "debian:bookworm-slim ", "python:3.13-slim "];
            assert!(small.iter().any(|base| from.starts_with(base)), "{from}");
            let user = image.lines().find_map(|line| line.strip_prefix("USER "));
            assert!(user.is_some_and(|user| user != "root" && user != "0"), "{from}: {user:?}");
            assert!(image.contains("\nHEALTHCHECK "), "{from}");
            // What a build needs stays in the stage that builds.
            assert!(!image.contains("rustup") && !image.contains("apt-get"), "{from}");
        }
    }
}
