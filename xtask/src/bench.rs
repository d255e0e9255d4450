//! `cargo xtask bench`, `compare`, `features`, `scale` and `organisations`: builds the gateway and the measuring program,
//! and starts the latter.
//!
//! Owns this order. The crate `portcullis-load` owns the measurements and their options.

use crate::build::{self, cargo_quietly};
use crate::failure::{Failure, Result};
use crate::progress::step;
use portcullis_stack::{Workspace, process};
use std::process::Command;

/// Options for the measuring program.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Options of this measurement; `--help` lists them
    #[arg(value_name = "OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Runs the measurement `what` to its end.
pub(crate) fn run(workspace: &Workspace, what: &str, arguments: &Arguments) -> Result<()> {
    // With optimisation, so that the loader is not the bottleneck.
    const LOADER: [&str; 10] = [
        "build",
        "--profile",
        "load",
        "--package",
        "portcullis-load",
        "--bin",
        "portcullis-load",
        "--no-default-features",
        "--features",
        "loader",
    ];
    const PROGRAM: [&str; 5] =
        ["build", "--package", "portcullis-load", "--bin", "portcullis-bench"];
    step("building the benchmark", || cargo_quietly(workspace, &PROGRAM))?;
    let help = arguments.options.iter().any(|option| option == "--help" || option == "-h");
    if !help {
        build::all(workspace)?;
        step("building the load generator", || cargo_quietly(workspace, &LOADER))?;
    }
    let mut command = Command::new(workspace.target.join("debug/portcullis-bench"));
    command.arg(what).args(&arguments.options);
    if process::run("portcullis-bench", command)?.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`cargo xtask {what}` has failed; the reason is above")))
}
