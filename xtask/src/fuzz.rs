//! `cargo xtask fuzz`: the fuzz targets of the core, with libFuzzer on the pinned toolchain.
//!
//! Owns the instrumentation and the folders of inputs. `filter/core/fuzz` has the checks.

use crate::build::cargo_command;
use crate::failure::{Failure, Result};
use crate::progress::step;
use portcullis_stack::{Workspace, process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const TARGETS: [&str; 7] =
    ["jsonrpc_body", "sse_chunks", "headers", "exchange_ops", "token", "condition", "schema"];

/// The flags of cargo-fuzz, without the sanitizers that only nightly has.
const INSTRUMENTED: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";
/// More bytes take time and reach no new states.
const LONGEST_INPUT: u32 = 4_096;

/// The folders.
struct Bench {
    /// Built targets.
    programs: PathBuf,
    /// Results for the next run: `corpus/`, `artifacts/`, `log/`.
    findings: PathBuf,
    /// The committed corpus.
    seeds: PathBuf,
}

/// Runs the targets one after the other; fails with the inputs that made one crash.
pub(crate) fn fuzz(workspace: &Workspace, seconds: u32, targets: &[String]) -> Result<()> {
    let bench = build(workspace)?;
    let all = targets.is_empty();
    let chosen = TARGETS.iter().filter(|target| all || targets.iter().any(|name| name == *target));
    let mut crashes = Vec::new();
    for target in chosen {
        crashes.extend(bench.run(target, seconds)?);
    }
    if crashes.is_empty() { Ok(()) } else { Err(Failure::new(crashes.join("\n"))) }
}

fn build(workspace: &Workspace) -> Result<Bench> {
    let host = host()?;
    let findings = workspace.target.join("fuzz");
    let target_dir = findings.join("build");
    // With an explicit target, Cargo does not instrument build scripts and macros.
    let arguments =
        ["build", "--package", "portcullis-fuzz", "--bins", "--profile", "fuzz", "--target", &host];
    let mut command = cargo_command(workspace, &arguments);
    command.env("RUSTFLAGS", INSTRUMENTED).env("CARGO_TARGET_DIR", &target_dir);
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    let output = step("building the fuzz targets", || process::output("cargo", command))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        return Err(Failure::new("the fuzz targets could not be built; Cargo's words are above"));
    }
    Ok(Bench {
        programs: target_dir.join(host).join("fuzz"),
        findings,
        seeds: workspace.root.join("filter/core/fuzz/corpus"),
    })
}

fn host() -> Result<String> {
    let mut command = Command::new("rustc");
    command.arg("-vV");
    let output = process::output("rustc", command)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::new("rustc -vV names no host"))
}

impl Bench {
    /// Runs one target and prints its line; returns the message about a crash.
    fn run(&self, target: &str, seconds: u32) -> Result<Option<String>> {
        let corpus = directory(&self.findings.join("corpus").join(target))?;
        let artifacts = directory(&self.findings.join("artifacts").join(target))?;
        let log = directory(&self.findings.join("log"))?.join(format!("{target}.log"));
        let mut command = Command::new(self.programs.join(target));
        command.arg(corpus).arg(self.seeds.join(target)).args([
            format!("-max_total_time={seconds}"),
            format!("-max_len={LONGEST_INPUT}"),
            format!("-artifact_prefix={}/", artifacts.display()),
            "-print_final_stats=1".to_owned(),
            "-timeout=10".to_owned(),
        ]);
        let name = format!("fuzzing {target} for {seconds} s");
        let output = step(&name, || process::output(target, command))?;
        fs::write(&log, &output.stderr)
            .map_err(|error| Failure::new(format!("could not write {}: {error}", log.display())))?;
        let text = String::from_utf8_lossy(&output.stderr);
        let executions = after(&text, "stat::number_of_executed_units:").unwrap_or("0");
        let coverage = after(&text, " cov: ").unwrap_or("0");
        let crashes = u32::from(!output.status.success());
        println!(
            "{target:<14} {executions:>10} executions   coverage {coverage:>6}   {crashes} crashes"
        );
        if crashes == 0 {
            return Ok(None);
        }
        let input = after(&text, "Test unit written to ").unwrap_or("no input was written");
        Ok(Some(format!("{target} crashed: {input}; its log is {}", log.display())))
    }
}

/// The word after the last occurrence of `mark`.
fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    let (_, rest) = text.rsplit_once(mark)?;
    rest.split_whitespace().next()
}

fn directory(path: &Path) -> Result<PathBuf> {
    fs::create_dir_all(path)
        .map_err(|error| Failure::new(format!("could not create {}: {error}", path.display())))?;
    Ok(path.to_owned())
}
