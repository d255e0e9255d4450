//! `cargo xtask features`: the cost of each feature, as CPU time that a request takes beyond a plain Envoy with the same
//! request.
//!
//! Owns the course of a run and its table. `feature` lists the rows, `bed` starts the processes and checks each row.
//! `docs/explanation/benchmarks.md` explains the figures.

mod bed;
mod feature;
mod front;

use super::contender::Contender;
use super::log;
use super::machine::{self, Machine, Noise};
use super::rig::{Cpus, Rig};
use super::stats::Spread;
use super::table::range;
use bed::{Bed, Prepared, Target};
use comfy_table::{CellAlignment, Table, presets};
use feature::Gateway;
use portcullis_load::{LoadPlan, Shape};
use portcullis_stack::Workspace;
use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::progress::step;
use serde::Serialize;
use std::fs;
use std::time::Duration;

/// How long the machine is observed before the first load.
const LISTEN: Duration = Duration::from_secs(2);
const MOST_REQUESTS: u64 = 1_000_000;

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long one load lasts, in milliseconds
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=60_000))]
    milliseconds: u32,
    /// How often every feature has its turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// One short round: whether everything works, and figures for a first look
    #[arg(long, conflicts_with_all = ["milliseconds", "rounds"])]
    short: bool,
    /// Only the features with this text in their name, and the first one
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// The figures of a feature, round by round. CPU time per request has eight connections at saturation.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    title: &'static str,
    /// CPU time per request of the plain Envoy and of the gateway, microseconds.
    plain_us: Spread,
    gateway_us: Spread,
    /// The gateway minus the plain Envoy, in the same round.
    added_us: Spread,
    /// That as a ratio to the first row.
    ratio: Spread,
    valkey_us: Spread,
    /// What the gateway adds to the median latency of one connection that sends one request after another,
    /// microseconds.
    added_latency_us: Spread,
    /// That as a ratio to the first row.
    latency_ratio: Spread,
}

/// The loads of one feature, microseconds per request.
#[derive(Debug, Default)]
struct Samples {
    plain: Sample,
    gateway: Sample,
    valkey: Vec<f64>,
}

/// CPU time and latency of one target, round by round.
#[derive(Debug, Default)]
struct Sample {
    cpu: Vec<f64>,
    latency: Vec<f64>,
}

/// The shape of every load.
struct Loads {
    seconds: f64,
    warm_up_seconds: f64,
    rounds: usize,
}

pub(crate) fn features(workspace: &Workspace, options: &Options) -> Result<()> {
    let machine = Machine::read()?;
    let rig = Rig::start(workspace, Cpus::split(machine.cpus))?;
    let noise = Noise::listen(LISTEN)?;
    let bed = step("starting Envoys, OpenBao and the server", || Bed::start(&rig))?;
    let prepared = bed.prepare(&rig, options.only.as_deref())?;
    let loads = options.loads();
    let samples = step("loading every feature", || measured(&rig, &bed, &prepared, &loads))?;
    let rows = rows(&prepared, &samples)?;
    let file = rig.dir.join("features.json");
    let json = serde_json::to_string_pretty(&rows);
    let json = json.map_err(|error| Failure::new(error.to_string()))?;
    fs::write(&file, json + "\n")
        .map_err(|error| Failure::new(format!("could not write {}: {error}", file.display())))?;
    println!(
        "{}, {} CPUs; {} rounds of {} s; {:.0} % of the machine was busy before.\n\n{}\n{}",
        machine.cpu,
        machine.cpus,
        loads.rounds,
        loads.seconds,
        noise.busy * 100.0,
        table(&rows),
        file.display()
    );
    Ok(())
}

impl Options {
    fn loads(&self) -> Loads {
        if self.short {
            return Loads { seconds: 0.3, warm_up_seconds: 0.1, rounds: 1 };
        }
        Loads {
            seconds: f64::from(self.milliseconds) / 1_000.0,
            warm_up_seconds: 0.2,
            rounds: usize::try_from(self.rounds).unwrap_or(1),
        }
    }
}

/// Each round begins with another feature, so that none is always loaded after the same one.
fn measured(rig: &Rig, bed: &Bed, prepared: &[Prepared], loads: &Loads) -> Result<Vec<Samples>> {
    let mut all: Vec<Samples> = prepared.iter().map(|_| Samples::default()).collect();
    for round in 0..loads.rounds {
        for gateway in &bed.gateways {
            log::forget(gateway.envoy.audit_log())?;
        }
        let mut answered = [0; 3];
        let first = round * prepared.len() / loads.rounds;
        let order = (0..prepared.len()).map(|nth| (first + nth) % prepared.len());
        for nth in order {
            let (Some(row), Some(samples)) = (prepared.get(nth), all.get_mut(nth)) else {
                continue;
            };
            load(rig, &bed.plain, &row.plain, loads)?.note(&mut samples.plain);
            let valkey = machine::cpu_us(rig.valkey.process().pid())?;
            let gateway = bed.gateway(row.feature.gateway);
            let load = load(rig, gateway, &row.gateway, loads)?;
            let valkey = machine::cpu_us(rig.valkey.process().pid())? - valkey;
            let requests = load.requests;
            load.note(&mut samples.gateway);
            #[expect(clippy::cast_precision_loss, reason = "requests of one load")]
            samples.valkey.push(valkey / requests as f64);
            let [hold, split, durable] = &mut answered;
            *match row.feature.gateway {
                Gateway::Hold => hold,
                Gateway::Split => split,
                Gateway::Durable => durable,
            } += requests;
        }
        for (gateway, answered) in bed.gateways.iter().zip(answered) {
            let lines = log::drained(gateway.envoy.audit_log(), answered)?;
            if lines != answered {
                let what = format!("{lines} audit entries for {answered} requests");
                return Err(Failure::new(what));
            }
        }
    }
    Ok(all)
}

/// One target's share of a round.
struct Load {
    cpu_us: f64,
    latency_us: f64,
    /// Of all loads, with the warm-up.
    requests: u64,
}

impl Load {
    fn note(self, sample: &mut Sample) {
        sample.cpu.push(self.cpu_us);
        sample.latency.push(self.latency_us);
    }
}

/// CPU time of this Envoy per request under load, and the latency of one connection.
fn load(rig: &Rig, envoy: &Contender, target: &Target, loads: &Loads) -> Result<Load> {
    const CONNECTIONS: u32 = 8;
    let driven = |connections, seconds| {
        let outcome = rig.drive(&LoadPlan {
            address: target.address,
            request: target.request.clone(),
            sessions: Vec::new(),
            first_serial: rig.serials(MOST_REQUESTS),
            expected: target.expected.clone(),
            connections,
            shape: Shape::Saturation,
            seconds,
            most: MOST_REQUESTS,
            cpus: rig.cpus.others.clone(),
        })?;
        if outcome.faults > 0 || outcome.requests == 0 {
            let fault: String = outcome.first_fault.unwrap_or_default().chars().take(300).collect();
            return Err(Failure::new(format!("a call was answered wrongly: {fault}")));
        }
        Ok(outcome)
    };
    let warm_up = driven(CONNECTIONS, loads.warm_up_seconds)?;
    let used = envoy.cpu_us()?;
    let many = driven(CONNECTIONS, loads.seconds)?;
    let used = envoy.cpu_us()? - used;
    let one = driven(1, loads.seconds / 2.0)?;
    #[expect(clippy::cast_precision_loss, reason = "requests of one load")]
    let cpu_us = used / many.requests as f64;
    let requests = warm_up.requests + many.requests + one.requests;
    Ok(Load { cpu_us, latency_us: one.latency.p50, requests })
}

fn rows(prepared: &[Prepared], samples: &[Samples]) -> Result<Vec<Row>> {
    let partial = || Failure::new("a load has no figures");
    let mut rows: Vec<Row> = Vec::new();
    for (Prepared { feature, .. }, samples) in prepared.iter().zip(samples) {
        let spread = |figures: &Vec<f64>| Spread::of(figures.clone()).ok_or_else(partial);
        let (plain_us, gateway_us) = (spread(&samples.plain.cpu)?, spread(&samples.gateway.cpu)?);
        let added = |ours: &Spread, plain: &Spread| {
            ours.paired(plain, |ours, plain| ours - plain).ok_or_else(partial)
        };
        let against = |added: &Spread, base: Option<&Spread>| {
            added.paired(base.unwrap_or(added), |added, base| added / base).ok_or_else(partial)
        };
        let added_us = added(&gateway_us, &plain_us)?;
        let ratio = against(&added_us, rows.first().map(|row| &row.added_us))?;
        let (ours, plain) = (spread(&samples.gateway.latency)?, spread(&samples.plain.latency)?);
        let added_latency_us = added(&ours, &plain)?;
        let first = rows.first().map(|row| &row.added_latency_us);
        let latency_ratio = against(&added_latency_us, first)?;
        rows.push(Row {
            name: feature.name,
            title: feature.title,
            plain_us,
            gateway_us,
            ratio,
            added_us,
            valkey_us: spread(&samples.valkey)?,
            added_latency_us,
            latency_ratio,
        });
    }
    Ok(rows)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "request",
        "plain",
        "Portcullis",
        "added",
        "× first",
        "Valkey",
        "latency",
        "× first",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in rows {
        table.add_row([
            row.title.to_owned(),
            format!("{:.0} µs", row.plain_us.median),
            format!("{:.0} µs", row.gateway_us.median),
            range(&row.added_us),
            format!("{:.2}", row.ratio.median),
            format!("{:.0} µs", row.valkey_us.median),
            format!("{:+.0} µs", row.added_latency_us.median),
            format!("{:.2}", row.latency_ratio.median),
        ]);
    }
    table
}
