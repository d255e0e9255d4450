//! Applies every shipped manifest and every output of `portcullis render` to Kubernetes' API server, which has to
//! accept all of them.
//!
//! Owns which files those are. The trials of each control plane own their effect.

use super::Ground;
use super::report::Report;
use super::tools::{EnvoyGatewayTools, IstioTools};
use crate::failure::{Failure, Result};
use crate::progress::step;
use portcullis_markdown::blocks;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "API server";
/// The folders with manifests for Kubernetes.
const SHIPPED: [&str; 2] = ["envoy/istio", "envoy/envoy-gateway"];
/// The targets of `portcullis render` whose output is manifests.
const RENDERED: [&str; 2] = ["istio", "gateway-api"];
/// The namespaces that those manifests use.
const NAMESPACES: [&str; 3] = ["istio-system", "istio-ingress", "mcp"];

/// Defines all resources, applies every manifest first as a dry run and then really, and deletes it again.
pub(super) fn run(ground: &Ground<'_>, report: &mut Report) -> Result<()> {
    let cluster = &ground.cluster;
    let istio = IstioTools::install(ground.workspace)?;
    let envoy_gateway = EnvoyGatewayTools::install(ground.workspace)?;
    step("defining the resources of Istio, Gateway API and Envoy Gateway", || {
        cluster.define(&istio.crds)?;
        envoy_gateway.crds.iter().try_for_each(|file| cluster.define(file))
    })?;
    for namespace in NAMESPACES {
        cluster.namespace(namespace)?;
    }
    for folder in SHIPPED {
        for file in yaml_files(&ground.workspace.root.join(folder))? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            report.trial(NAME, &format!("{folder}/{name} as shipped"), || taken(ground, &file));
        }
    }
    for target in RENDERED {
        report.trial(
            NAME,
            &format!("docs/guides/guarded-routes.md, rendered for {target}"),
            || taken(ground, &rendered(ground, target)?),
        );
    }
    Ok(())
}

fn taken(ground: &Ground<'_>, file: &Path) -> Result<()> {
    ground.cluster.dry_run(file)?;
    ground.cluster.apply(file)?;
    ground.cluster.delete(file)
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |error| Failure::new(format!("could not read {}: {error}", folder.display()));
    let entries = fs::read_dir(folder).map_err(unreadable)?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    Ok(files)
}

/// The output of `portcullis render` for the description in its page.
fn rendered(ground: &Ground<'_>, target: &str) -> Result<PathBuf> {
    let page = ground.workspace.root.join("docs/guides/guarded-routes.md");
    let text = fs::read_to_string(&page)
        .map_err(|error| Failure::new(format!("could not read {}: {error}", page.display())))?;
    let description = ground.dir.join("description.yaml");
    let file = ground.dir.join(format!("rendered-{target}.yaml"));
    let write = |file: &Path, text: &[u8]| {
        fs::write(file, text)
            .map_err(|error| Failure::new(format!("could not write {}: {error}", file.display())))
    };
    write(&description, first_yaml(&text)?.as_bytes())?;
    let mut command = Command::new(ground.workspace.artifacts().cli);
    command
        .arg("render")
        .arg(&description)
        .args(["--for", target, "--guards"])
        .arg(ground.dir.join("guards.json"));
    let printed = super::cluster::succeeded("portcullis render", command)?;
    write(&file, printed.as_bytes())?;
    Ok(file)
}

/// The first YAML block of a page.
fn first_yaml(page: &str) -> Result<String> {
    let mut blocks = blocks(page).into_iter().filter(|block| block.language == "yaml");
    let yaml = blocks.next().map(|block| block.text);
    yaml.ok_or_else(|| Failure::new("docs/guides/guarded-routes.md has no description"))
}
