//! Agent frameworks in Python: two directories, since they pin two major versions of the official MCP SDK.
//!
//! Owns their installation. Only the tests of third-party clients install them.

use crate::error::{During, Result};
use crate::tools::Python;
use crate::workspace::Workspace;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

/// Requirement files in `tools/`, and directories of `target/tools/frameworks/`.
const SETS: [&str; 2] = ["agents-v1", "agents-v2"];

/// The installed frameworks.
#[derive(Debug, Clone)]
pub struct Frameworks {
    interpreter: PathBuf,
    dir: PathBuf,
}

impl Frameworks {
    /// Installs what is missing; instant and offline when nothing is missing.
    pub fn install(workspace: &Workspace) -> Result<Self> {
        let python = Python::find()?;
        let dir = workspace.tools_dir().join("frameworks");
        let attempted = || format!("prepare {}", dir.display());
        fs::create_dir_all(&dir).during(attempted)?;
        let lock = File::create(dir.join(".lock")).during(attempted)?;
        lock.lock().during(attempted)?;
        let requirements = |set: &str| workspace.root.join("tools").join(set).with_extension("txt");
        let mut stamp = python.describe();
        for set in SETS {
            let file = requirements(set);
            let read = || format!("read {}", file.display());
            stamp.push_str(&fs::read_to_string(&file).during(read)?);
        }
        let stamp_file = dir.join("stamp");
        if fs::read_to_string(&stamp_file).ok().as_ref() != Some(&stamp) {
            for set in SETS {
                python.install(&requirements(set), &dir, set)?;
            }
            fs::write(&stamp_file, stamp).during(attempted)?;
        }
        Ok(Self { interpreter: python.interpreter().to_owned(), dir })
    }

    /// Python with the frameworks on the SDK 1.x.
    pub fn sdk_v1(&self) -> Command {
        self.command("agents-v1")
    }

    /// Python with the frameworks on the SDK 2.x.
    pub fn sdk_v2(&self) -> Command {
        self.command("agents-v2")
    }

    fn command(&self, set: &str) -> Command {
        let mut command = Command::new(&self.interpreter);
        command
            .env("PYTHONPATH", self.dir.join(set))
            .env("PYTHONNOUSERSITE", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            // Uses no settings of the user, writes nothing into the user's home, and disables telemetry.
            .env("HOME", &self.dir)
            .env("OPENAI_AGENTS_DISABLE_TRACING", "1")
            .env("LANGSMITH_TRACING", "false")
            .env("FASTMCP_CHECK_FOR_UPDATES", "off")
            .current_dir(&self.dir);
        command
    }
}
