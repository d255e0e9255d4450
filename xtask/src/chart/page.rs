//! Runs `docs/get-started/helm.md` step by step: its files and its commands, unchanged.
//!
//! Owns the values of placeholders. The modules' images do not exist: nothing is scheduled that would pull them.

use super::cases::Helm;
use crate::failure::{Failure, Result};
use crate::mesh::cluster::{Cluster, made, succeeded};
use crate::mesh::report::Report;
use portcullis_markdown::blocks;
use portcullis_stack::Workspace;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const PAGE: &str = "docs/get-started/helm.md";
/// Commands that need pods or another machine.
const NOT_RUN: [&str; 2] = ["helm test", "curl"];
/// The digests of the page's images.
const PLACEHOLDERS: [(&str, char); 3] =
    [("DIGEST-OF-PORTCULLIS", '0'), ("DIGEST-OF-FRAMING", '1'), ("DIGEST-OF-DEMO", '2')];

pub(super) fn run(
    workspace: &Workspace,
    helm: &Helm,
    cluster: &Cluster,
    dir: &Path,
    report: &mut Report,
) -> Result<()> {
    let page = workspace.root.join(PAGE);
    let text = fs::read_to_string(&page)
        .map_err(|error| Failure::new(format!("could not read {}: {error}", page.display())))?;
    let dir = dir.join("page");
    made(&dir.join("bin"))?;
    link(&helm.program, &dir.join("bin/helm"))?;
    link(cluster.program(), &dir.join("bin/kubectl"))?;
    link(&workspace.artifacts().cli, &dir.join("bin/portcullis"))?;
    link(&workspace.root.join("charts"), &dir.join("charts"))?;
    for block in blocks(&text) {
        let body = PLACEHOLDERS.iter().fold(block.text.clone(), |text, (name, digit)| {
            text.replace(name, &digit.to_string().repeat(64))
        });
        match block.language.as_str() {
            "yaml" => {
                let first = body.lines().next().unwrap_or_default();
                if let Some(name) = first.strip_prefix("# ") {
                    super::releases::written(&dir, name.trim_end_matches(".yaml"), &body)?;
                }
            }
            "sh" => {
                for line in
                    joined(&body).filter(|line| !NOT_RUN.iter().any(|it| line.starts_with(it)))
                {
                    report.trial(PAGE, &line, || shell(helm, cluster, &dir, &line));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The commands of a block; joins lines that end with a backslash.
fn joined(block: &str) -> impl Iterator<Item = String> {
    let lines: Vec<String> = block.replace("\\\n", "").lines().map(str::to_owned).collect();
    lines.into_iter().filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
}

fn shell(helm: &Helm, cluster: &Cluster, dir: &Path, line: &str) -> Result<()> {
    let mut command = Command::new("bash");
    // Helm's settings and kubectl's cache stay in the folder of the run.
    command.env("HOME", &helm.home);
    command.args(["-euo", "pipefail", "-c", line]).current_dir(dir);
    command.env("KUBECONFIG", cluster.kubeconfig());
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", dir.join("bin").display()));
    succeeded(line, command).map(drop)
}

fn link(from: &Path, to: &Path) -> Result<()> {
    symlink(from, to)
        .map_err(|error| Failure::new(format!("could not link {}: {error}", to.display())))
}
