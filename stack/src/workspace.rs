//! Paths of the project: its root, its `target/`, and the results of a build.
//!
//! Asks Cargo instead of guessing, so that `CARGO_TARGET_DIR` and configuration files count. Builds nothing.

use crate::error::{During, Result, StackError};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The checked-out project.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The directory with the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target directory, wherever it was put.
    pub target: PathBuf,
}

/// The four results of a build that a stack runs.
#[derive(Debug, Clone)]
pub struct Artifacts {
    /// The Wasm module.
    pub filter: PathBuf,
    /// The Wasm module of the Redis stream's upstream filter.
    pub framing: PathBuf,
    /// The operator's command line tool.
    pub cli: PathBuf,
    /// The demo MCP server.
    pub connector: PathBuf,
}

impl Workspace {
    /// Finds the workspace that Cargo would use here.
    pub fn locate() -> Result<Self> {
        let mut command = Command::new(cargo());
        command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
        if let Some(package) = env::var_os("CARGO_MANIFEST_DIR") {
            command.current_dir(package);
        }
        let output = command.output().during(|| "run cargo metadata".to_owned())?;
        let refused = |answer: String| StackError::Refused {
            attempted: "find the Cargo workspace".into(),
            answer,
        };
        if !output.status.success() {
            return Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).map_err(|error| refused(error.to_string()))?;
        let path = |field: &str| {
            metadata
                .get(field)
                .and_then(serde_json::Value::as_str)
                .map(PathBuf::from)
                .ok_or_else(|| refused(format!("cargo metadata names no {field}")))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")? })
    }

    /// The folder for third-party programs and packages. It stays beside the sources even if Cargo's target is
    /// elsewhere: they do not depend on a build.
    pub fn tools_dir(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// The stack of `demo` and `up`; users source the `env` file in it.
    pub fn stack_dir(&self) -> PathBuf {
        self.root.join("target/stack")
    }

    /// The paths of all build results, whether they exist or not.
    pub fn artifacts(&self) -> Artifacts {
        Artifacts {
            filter: self.target.join("wasm32-wasip1/release/portcullis_filter.wasm"),
            framing: self.target.join("wasm32-wasip1/release/redis_framing.wasm"),
            cli: self.target.join("debug/portcullis"),
            connector: self.target.join("debug/portcullis-demo-connector"),
        }
    }

    /// As [`Workspace::artifacts`], but fails when one is missing.
    pub fn built_artifacts(&self) -> Result<Artifacts> {
        let artifacts = self.artifacts();
        for path in [&artifacts.filter, &artifacts.framing, &artifacts.cli, &artifacts.connector] {
            require(path)?;
        }
        Ok(artifacts)
    }
}

/// The Cargo that runs this process, or the one on the path.
pub fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

fn require(path: &Path) -> Result<()> {
    if path.is_file() {
        return Ok(());
    }
    Err(StackError::Missing {
        what: format!("{} is not built", path.display()),
        next_step: "run `cargo xtask build`".to_owned(),
    })
}
