//! `cargo xtask soak`: the trials of `tests/e2e/soak.rs`, for a given time.
//!
//! Owns the command only; each trial prints its own counts.

use crate::build::cargo_command;
use crate::failure::{Failure, Result};
use portcullis_stack::{Workspace, process};

/// Runs the trials on the module in `target/`; `cargo xtask build` makes it.
pub(crate) fn soak(workspace: &Workspace, seconds: u32) -> Result<()> {
    workspace.built_artifacts()?;
    let arguments = ["test", "--package", "portcullis-tests", "--", "soak::", "--nocapture"];
    let mut command = cargo_command(workspace, &arguments);
    command.env("PORTCULLIS_SOAK_SECONDS", seconds.to_string());
    match process::run("cargo test", command)?.success() {
        true => Ok(()),
        false => Err(Failure::new("a soak trial failed; the trial says why above")),
    }
}
