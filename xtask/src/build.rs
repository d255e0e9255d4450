//! Builds the parts of a stack: the Wasm modules, the operator's tool, the demo connector.
//!
//! Owns the nested calls of Cargo, the Wasm target and the size budget. Uses the same target directory as everything
//! else.

use crate::failure::{Failure, Result};
use crate::progress::step;
use portcullis_stack::{Artifacts, Workspace, cargo, process};
use std::fs;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::thread;

/// The Wasm target of the modules.
pub(crate) const WASM_TARGET: &str = "wasm32-wasip1";
/// Every Envoy compiles the module, and every worker holds it.
const SIZE_BUDGET: u64 = 3_500_000;
/// The smallest size that the standard library allows.
const FRAMING_SIZE_BUDGET: u64 = 60_000;

/// Every package that does not run in Envoy, in one selection: Cargo unifies features by selection, so another
/// selection would compile the same dependencies again.
pub(crate) const NATIVE: [&str; 5] = [
    "--workspace",
    "--exclude",
    "portcullis-filter",
    "--exclude",
    "portcullis-redis-framing-module",
];

/// Builds all of it, and checks the sizes of the modules.
///
/// The last step of the modules' build, link-time optimisation, takes minutes on one CPU; meanwhile the others compile the
/// rest. Cargo has a lock for each target and profile, so neither waits for the other.
pub(crate) fn all(workspace: &Workspace) -> Result<Artifacts> {
    const TOOLS: [&str; 4] = ["--package", "portcullis", "--package", "portcullis-demo-connector"];
    require_wasm_target()?;
    step(
        "building the filter (release, wasm32), the operator's tool and the demo connector",
        || {
            thread::scope(|scope| {
                let natives = scope.spawn(|| natives(workspace, &TOOLS));
                let modules = modules(workspace);
                modules.and(natives.join().unwrap_or_else(|panic| resume_unwind(panic)))
            })
        },
    )?;
    within_budgets(workspace)?;
    Ok(workspace.built_artifacts()?)
}

/// The operator's tool alone.
pub(crate) fn cli(workspace: &Workspace) -> Result<()> {
    step("building the operator's tool", || natives(workspace, &["--package", "portcullis"]))
}

/// As [`all`], after the tests were compiled: with their selection of packages, and with `--all-targets` for features
/// of tests, little is left to compile.
pub(crate) fn after_tests(workspace: &Workspace) -> Result<Artifacts> {
    require_wasm_target()?;
    step("building the filter (release, wasm32)", || modules(workspace))?;
    within_budgets(workspace)?;
    let everything = [&NATIVE[..], &["--all-targets"]].concat();
    step("building the operator's tool and the demo connector", || {
        natives(workspace, &everything)
    })?;
    Ok(workspace.built_artifacts()?)
}

/// Builds the modules in their shipped form.
fn modules(workspace: &Workspace) -> Result<()> {
    ["portcullis-redis-framing-module", "portcullis-filter"].iter().try_for_each(|package| {
        let arguments = ["build", "--release", "--target", WASM_TARGET, "--package", package];
        cargo_quietly(workspace, &arguments)
    })
}

/// Checks the sizes of the modules below the workspace's target directory.
pub(crate) fn within_budgets(workspace: &Workspace) -> Result<()> {
    let Artifacts { filter, framing, .. } = workspace.artifacts();
    within_budget(&filter, SIZE_BUDGET)?;
    within_budget(&framing, FRAMING_SIZE_BUDGET)
}

/// Starts to build the filter. The stage that needs it waits for Cargo's lock, and reports errors.
pub(crate) fn filter_ahead(workspace: &Workspace) {
    let workspace = workspace.clone();
    thread::spawn(move || {
        let arguments =
            ["build", "--release", "--target", WASM_TARGET, "--package", "portcullis-filter"];
        process::output("cargo", cargo_command(&workspace, &arguments))
    });
}

fn natives(workspace: &Workspace, packages: &[&str]) -> Result<()> {
    cargo_quietly(workspace, &[&["build"], packages].concat())
}

/// A nested Cargo with the unchanged lock file and our target directory.
pub(crate) fn cargo_command(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = Command::new(cargo());
    let (verb, rest) = arguments.split_first().unwrap_or((&"help", &[]));
    command.arg(verb);
    // `cargo fmt` resolves nothing and has no such flag.
    if *verb != "fmt" {
        command.arg("--locked");
    }
    command.args(rest).current_dir(&workspace.root).env("CARGO_TARGET_DIR", &workspace.target);
    command
}

/// As [`cargo_command`], and runs it; shows Cargo's output only on failure.
pub(crate) fn cargo_quietly(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    let output = process::output("cargo", cargo_command(workspace, arguments))?;
    if output.status.success() {
        return Ok(());
    }
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    Err(Failure::new(format!("`cargo {}` failed; its words are above", arguments.join(" "))))
}

/// Adds the target's standard library to the toolchain when it is missing.
pub(crate) fn require_wasm_target() -> Result<()> {
    if wasm_target_is_there()? {
        return Ok(());
    }
    let mut command = Command::new("rustup");
    command.args(["target", "add", WASM_TARGET]);
    let added = step("adding the Rust target wasm32-wasip1", || process::output("rustup", command));
    let reason = match added {
        Ok(output) if output.status.success() && wasm_target_is_there()? => return Ok(()),
        Ok(output) => {
            String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
        }
        Err(error) => error.to_string(),
    };
    Err(Failure::new(format!(
        "the Rust target {WASM_TARGET} is not installed and `rustup target add {WASM_TARGET}` did not install it \
         ({reason}); check the network, or install the target for this toolchain by other means, then try again"
    )))
}

fn wasm_target_is_there() -> Result<bool> {
    let mut command = Command::new("rustc");
    command.args(["--print", "target-libdir", "--target", WASM_TARGET]);
    let output = process::output("rustc", command)?;
    let directory = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(output.status.success() && Path::new(&directory).is_dir())
}

fn within_budget(module: &Path, budget: u64) -> Result<()> {
    let size = fs::metadata(module)
        .map_err(|error| Failure::new(format!("could not read {}: {error}", module.display())))?
        .len();
    if size < budget {
        return Ok(());
    }
    Err(Failure::new(format!("{} has {size} bytes, the budget is {budget}", module.display())))
}
