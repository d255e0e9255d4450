//! `cargo xtask shipping`: a real OpenTelemetry Collector, with the shipped configuration, on the log of a real gateway.
//!
//! Owns the Collector: it is built from pinned Go modules into `target/tools/shipping/`. What is tried is in
//! `tests/e2e/shipping.rs`.

use crate::build::{NATIVE, cargo_command};
use crate::failure::{Failure, Result};
use crate::progress::step;
use portcullis_stack::{Workspace, process};
use std::process::Command;

/// Builds the Collector and runs the trial on the module that is in `target/`; `cargo xtask build` makes it.
pub(crate) fn shipping(workspace: &Workspace) -> Result<()> {
    workspace.built_artifacts()?;
    let collector = workspace.tools_dir().join("shipping/otelcol");
    let mut go = Command::new("go");
    go.current_dir(workspace.root.join("tools/shipping/collector"))
        .args(["build", "-mod=readonly", "-ldflags=-s -w", "-o"])
        .arg(&collector)
        .arg(".")
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off");
    step("building the Collector", || match process::run("go", go)?.success() {
        true => Ok(()),
        false => Err(Failure::new("the Collector was not built; it needs Go 1.26 or later")),
    })?;
    // Not the tests' package alone: that would compile every dependency again.
    let trial = ["--test", "e2e", "--", "shipping::", "--nocapture"];
    let mut command = cargo_command(workspace, &[&["test"][..], &NATIVE, &trial].concat());
    command.env("PORTCULLIS_COLLECTOR", collector);
    match process::run("cargo test", command)?.success() {
        true => Ok(()),
        false => Err(Failure::new("the trial failed; it says why above")),
    }
}
