//! The cost of the gateway, as ratios to plain Envoy and to Envoy's own filters in the same run.
//!
//! Owns the course of a run. `variant` lists the variants, `contender` checks that each works as claimed, `rounds` runs
//! the loads, `report` and `table` present the results. `docs/explanation/benchmarks.md` explains the figures.

use super::contender::Contender;
use super::machine::{Machine, Noise};
use super::report::{Figures, Measured, Report, Row, SCHEMA, Versions};
use super::rig::{Cpus, Rig};
use super::rounds::{Parameters, Series, rounds};
use super::variant::Variant;
use super::{baseline, log, table, vm};
use portcullis_load::Shape;
use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::progress::step;
use portcullis_stack::{Workspace, process};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the machine, and then the idle Envoys, are observed.
const LISTEN: Duration = Duration::from_secs(2);
/// The fixed rate, as a share of the throughput of the slowest variant.
const SHARE_OF_SLOWEST: f64 = 0.5;

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long one load lasts
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=300))]
    seconds: u32,
    /// How often every variant has its turn, for each shape of load
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How many connections send requests
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=512))]
    connections: u32,
    /// One short round with four connections: whether everything works, without figures to trust
    #[arg(long, conflicts_with_all = ["seconds", "rounds", "connections", "check"])]
    smoke: bool,
    /// Compare (c) and (d) with themselves without guards and seal, and with (a), instead
    #[arg(long, conflicts_with = "check")]
    guards: bool,
    /// Fail if a ratio is more than 15 % worse than in this report
    #[arg(long, value_name = "REPORT")]
    check: Option<PathBuf>,
}

impl Options {
    fn parameters(&self) -> Parameters {
        if self.smoke {
            return Parameters { seconds: 0.7, warm_up_seconds: 0.2, rounds: 1, connections: 4 };
        }
        Parameters {
            seconds: f64::from(self.seconds),
            warm_up_seconds: 0.5,
            rounds: self.rounds,
            connections: self.connections,
        }
    }
}

/// Runs the comparison, and writes the report and the table.
pub(crate) fn compare(workspace: &Workspace, options: &Options) -> Result<()> {
    // Reads the baseline first, so that an unusable file fails before the run.
    let baseline = options.check.as_deref().map(baseline::read).transpose()?;
    let machine = Machine::read()?;
    let rig = Rig::start(workspace, Cpus::split(machine.cpus))?;
    let variants = if options.guards { &Variant::GUARDS[..] } else { &Variant::ALL[..] };
    let report = measured(&rig, machine, options.parameters(), variants)?;
    let mut page = table::page(&report);
    page.push_str(&guards(&report));
    let (file, shown) = (rig.dir.join("report.json"), rig.dir.join("report.md"));
    let json = serde_json::to_string_pretty(&report);
    write(&file, json.map_err(|error| Failure::new(error.to_string()))? + "\n")?;
    write(&shown, page.clone())?;
    println!("{page}\n{}\n{}", file.display(), shown.display());
    match baseline {
        Some(baseline) => judged(&report, &baseline),
        None => Ok(()),
    }
}

/// The CPU time that guards and seal add to a request: quartiles of the rounds.
fn guards(report: &Report) -> String {
    let mut lines = String::new();
    for Row { title, result, .. } in &report.variants {
        let Some(ratios) = &result.to_unguarded else { continue };
        let [low, median, high] = ratios.envoy_us_per_request.quartiles();
        lines.push_str(&format!(
            "\n{title}: guards and seal multiply CPU/req by {median:.4} (quartiles of {} rounds: {low:.4} to {high:.4})\n",
            ratios.envoy_us_per_request.rounds.len()
        ));
    }
    lines
}

fn measured(
    rig: &Rig,
    machine: Machine,
    parameters: Parameters,
    variants: &[Variant],
) -> Result<Report> {
    let noise = Noise::listen(LISTEN)?;
    let contenders = step("starting an Envoy for every variant", || {
        let variants = variants.iter();
        variants.map(|variant| Contender::start(rig, *variant)).collect::<Result<Vec<_>>>()
    })?;
    for contender in &contenders {
        contender.passes_headers(rig)?;
        contender.judges(rig)?;
    }
    let crossings = step("counting the crossings of a call", || {
        contenders.iter().map(|contender| vm::count(rig, contender)).collect::<Result<Vec<_>>>()
    })?;
    contenders.iter().try_for_each(|contender| log::forget(contender.envoy.audit_log()))?;
    let idle = idle(&contenders)?;
    let saturation = step("loading every variant to its limit", || {
        rounds(rig, &contenders, &parameters, Shape::Saturation)
    })?;
    let per_second = fixed_rate(&saturation)?;
    let fixed = step("loading every variant at a fixed rate", || {
        rounds(rig, &contenders, &parameters, Shape::FixedRate { per_second })
    })?;
    let mut variants = Vec::new();
    for ((((contender, crossings), idle), saturation), fixed) in
        contenders.iter().zip(crossings).zip(idle).zip(&saturation).zip(&fixed)
    {
        let variant = contender.variant;
        let mut result = result(rig, contender, idle, saturation, fixed)?;
        result.crossings = crossings;
        variants.push(Row { variant, title: variant.title().to_owned(), result });
    }
    let mut report = Report {
        schema: SCHEMA,
        unix_time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        machine,
        envoy_cpus: rig.cpus.envoy.clone(),
        other_cpus: rig.cpus.others.clone(),
        noise,
        versions: versions(rig)?,
        parameters,
        fixed_rate: per_second,
        warnings: Vec::new(),
        variants,
    };
    report.compare();
    report.warnings = table::warnings(&report);
    Ok(report)
}

/// CPU time that each Envoy uses without requests, microseconds per second.
fn idle(contenders: &[Contender]) -> Result<Vec<f64>> {
    let used = || contenders.iter().map(Contender::cpu_us).collect::<Result<Vec<_>>>();
    let (started, before) = (Instant::now(), used()?);
    std::thread::sleep(LISTEN);
    let (after, seconds) = (used()?, started.elapsed().as_secs_f64());
    Ok(after.iter().zip(&before).map(|(after, before)| (after - before) / seconds).collect())
}

/// Half the throughput of the slowest variant: all are measured at one rate, and none of them queues.
fn fixed_rate(saturation: &[Series]) -> Result<f64> {
    let slowest = saturation
        .iter()
        .filter_map(|series| Figures::of(series).map(|figures| figures.per_second.median))
        .min_by(f64::total_cmp);
    match slowest {
        Some(slowest) if slowest >= 2.0 => Ok((slowest * SHARE_OF_SLOWEST).floor()),
        _ => Err(Failure::new("no variant has answered more than a request per second")),
    }
}

fn result(
    rig: &Rig,
    contender: &Contender,
    idle_us_per_second: f64,
    saturation: &Series,
    fixed: &Series,
) -> Result<Measured> {
    let figures = |series| {
        Figures::of(series)
            .ok_or_else(|| Failure::new(format!("{}: a load has no figures", contender.name())))
    };
    contender.keep_stats(rig)?;
    Ok(Measured {
        saturation: figures(saturation)?,
        fixed_rate: figures(fixed)?,
        memory: contender.memory()?,
        envoy_allocated: contender.stat("server.memory_allocated")?,
        wasm_vms: contender.stat("wasm.envoy.wasm.runtime.v8.active")?,
        idle_us_per_second,
        crossings: None,
        counts: saturation.counts.plus(fixed.counts),
        to_plain: None,
        to_native: None,
        to_fair: None,
        to_unguarded: None,
    })
}

pub(crate) fn versions(rig: &Rig) -> Result<Versions> {
    let module = fs::metadata(&rig.artifacts.filter);
    let said = |name: &str, mut command: Command, arguments: &[&str]| -> Result<String> {
        let output = process::output(name, {
            command.args(arguments);
            command
        })?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let mut git = Command::new("git");
    git.current_dir(&rig.root);
    let envoy = said("envoy", Command::new(&rig.tools.envoy), &["--version"])?;
    Ok(Versions {
        portcullis: said("git", git, &["describe", "--always", "--dirty"])?,
        module_bytes: module.map_or(0, |metadata| metadata.len()),
        envoy: envoy_version(&envoy).to_owned(),
        valkey: rig.valkey_version()?,
    })
}

/// The version in `PROGRAM  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`; the program's path contains slashes as
/// well.
fn envoy_version(said: &str) -> &str {
    let version = said.split_once("version: ").and_then(|(_, version)| version.split('/').nth(1));
    version.unwrap_or(said)
}

fn write(file: &std::path::Path, text: String) -> Result<()> {
    fs::write(file, text)
        .map_err(|error| Failure::new(format!("could not write {}: {error}", file.display())))
}

fn judged(report: &Report, baseline: &Report) -> Result<()> {
    for difference in baseline::differences(report, baseline) {
        println!("warning: {difference}");
    }
    let regressions = baseline::regressions(report, baseline);
    if regressions.is_empty() {
        println!("no ratio is worse than in the baseline");
        return Ok(());
    }
    Err(Failure::new(regressions.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_not_a_part_of_the_path() {
        let said = "/opt/a/b/envoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL";
        assert_eq!(envoy_version(said), "1.40.0");
        assert_eq!(envoy_version("who knows"), "who knows");
    }
}
