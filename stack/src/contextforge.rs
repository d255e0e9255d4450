//! IBM's ContextForge, a gateway for MCP in Python, with which `cargo xtask compare` compares this one.
//!
//! Owns its installation from `tools/contextforge.txt`. Knows nothing about its settings.

use crate::error::{During, Result};
use crate::process;
use crate::tools::Python;
use crate::workspace::Workspace;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The requirement file in `tools/`, and the directory in `target/tools/contextforge/`.
const SET: &str = "contextforge";
const PACKAGE: &str = "mcp-contextforge-gateway==";

/// The installed gateway.
#[derive(Debug, Clone)]
pub struct ContextForge {
    interpreter: PathBuf,
    packages: PathBuf,
    version: String,
}

impl ContextForge {
    /// Installs what is missing; instant and offline when nothing is missing.
    pub fn install(workspace: &Workspace) -> Result<Self> {
        let python = Python::find()?;
        let dir = workspace.tools_dir().join(SET);
        let attempted = || format!("prepare {}", dir.display());
        fs::create_dir_all(&dir).during(attempted)?;
        let lock = File::create(dir.join(".lock")).during(attempted)?;
        lock.lock().during(attempted)?;
        let requirements = workspace.root.join("tools").join(SET).with_extension("txt");
        let pins = fs::read_to_string(&requirements)
            .during(|| format!("read {}", requirements.display()))?;
        let (stamp, stamp_file) = (python.describe() + &pins, dir.join("stamp"));
        if fs::read_to_string(&stamp_file).ok().as_ref() != Some(&stamp) {
            python.install(&requirements, &dir, SET)?;
            fs::write(&stamp_file, &stamp).during(attempted)?;
        }
        let interpreter = python.interpreter().to_owned();
        Ok(Self { interpreter, packages: dir.join(SET), version: version(&pins).to_owned() })
    }

    /// The pinned version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The version of the Python that runs it.
    pub fn python(&self) -> Result<String> {
        let mut command = Command::new(&self.interpreter);
        command.arg("--version");
        let output = process::output("python3", command)?;
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(said.trim().trim_start_matches("Python ").to_owned())
    }

    /// Runs a module of it in `dir`, with these variables and the `PATH` only.
    pub fn module(&self, module: &str, dir: &Path, variables: &[(String, String)]) -> Command {
        let mut command = Command::new(&self.interpreter);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", dir)
            .env("PYTHONPATH", &self.packages)
            .env("PYTHONNOUSERSITE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .args(["-m", module])
            .current_dir(dir);
        command
    }
}

fn version(pins: &str) -> &str {
    let line = pins.lines().find_map(|line| line.strip_prefix(PACKAGE)).unwrap_or_default();
    line.split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_pinned_one() {
        let pins = include_str!("../../tools/contextforge.txt");
        assert!(version(pins).starts_with("1.0.7"), "{}", version(pins));
        assert_eq!(version("a==1 \\\n    --hash=sha256:b\n"), "");
    }
}
