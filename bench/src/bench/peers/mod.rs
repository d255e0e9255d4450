//! `cargo xtask compare`: the same calls to the same upstream through another gateway that people choose for MCP, beside
//! this one, in the same run.
//!
//! Owns the course of a run. `forge` starts the other gateway, `contender` starts the Envoys, `report` presents the
//! results. `docs/explanation/benchmarks.md` explains the figures.

mod forge;
mod report;

use super::compare;
use super::contender::Contender;
use super::counts::Counts;
use super::machine::{self, Machine, Noise, Tree};
use super::rig::{Cpus, Rig, json_answer};
use super::rounds::order;
use super::traffic::{ANSWER, TOOL};
use super::variant::Variant;
use forge::{Forge, Sessions};
use portcullis_load::{Answer, LoadPlan, LoadResult, REQUEST_ID, Shape};
use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::progress::step;
use portcullis_stack::{ContextForge, Workspace};
use report::{Load, Parameters, Report, Row, Versions};
use serde_json::json;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the machine, and then the idle gateways, are observed.
const LISTEN: Duration = Duration::from_secs(2);
const WARM_UP_SECONDS: f64 = 0.5;
/// The fixed rate, as a share of the throughput of the slowest gateway.
const SHARE_OF_SLOWEST: f64 = 0.5;
/// A load at the fixed rate is so many times as long: the slowest gateway has few answers in a second.
const FIXED_RATE_LENGTH: u32 = 3;
/// The most requests of one load.
const MOST_REQUESTS: u64 = 1_000_000;

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long one load at saturation lasts; one at the fixed rate lasts three times as long
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// How often every gateway has its turn at saturation; at the fixed rate it is half as often
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// How many connections send requests
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
}

/// A gateway of the comparison.
struct Side {
    letter: &'static str,
    title: &'static str,
    gateway: Gateway,
    /// The body of the right answer.
    expected: String,
}

enum Gateway {
    Envoy(Contender),
    Forge(Forge),
}

/// Runs the comparison, and writes the report and the page.
pub(crate) fn peers(workspace: &Workspace, options: &Options) -> Result<()> {
    let program = step("installing ContextForge", || ContextForge::install(workspace))?;
    let machine = Machine::read()?;
    let rig = Rig::answering(workspace, Cpus::split(machine.cpus), &answers())?;
    let report = measured(&rig, machine, &program, options)?;
    let page = report::page(&report);
    let (file, shown) = (rig.dir.join("compare.json"), rig.dir.join("compare.md"));
    let json = serde_json::to_string_pretty(&report);
    let json = json.map_err(|error| Failure::new(error.to_string()))? + "\n";
    for (file, text) in [(&file, &json), (&shown, &page)] {
        fs::write(file, text).map_err(|error| {
            Failure::new(format!("could not write {}: {error}", file.display()))
        })?;
    }
    println!("{page}\n{}\n{}", file.display(), shown.display());
    Ok(())
}

/// The upstream of every gateway: an MCP server with one tool. ContextForge opens sessions with it and lists its tools.
fn answers() -> Vec<Answer> {
    let result = |result: &serde_json::Value| {
        json!({"jsonrpc": "2.0", "id": 0, "result": result}).to_string().replacen(
            r#""id":0"#,
            &format!(r#""id":{REQUEST_ID}"#),
            1,
        )
    };
    let hello = json!({
        "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
        "serverInfo": {"name": "bench", "version": "1"},
    });
    let schema = json!({"type": "object", "required": ["query"], "properties": {
        "query": {"type": "string"}, "limit": {"type": "integer"},
        "fields": {"type": "array", "items": {"type": "string"}},
        "include_archived": {"type": "boolean"},
    }});
    let tools = json!({"tools": [
        {"name": TOOL, "description": "Search the contacts", "inputSchema": schema},
    ]});
    let accepted = Answer { status: 202, ..json_answer(r#""method":"notifications/"#, "") };
    vec![
        accepted,
        json_answer(r#""method":"initialize""#, &result(&hello)),
        json_answer(r#""method":"tools/list""#, &result(&tools)),
        json_answer(r#""method":"ping""#, &result(&json!({}))),
        json_answer("", &ANSWER.replacen(r#""id":1"#, &format!(r#""id":{REQUEST_ID}"#), 1)),
    ]
}

fn measured(
    rig: &Rig,
    machine: Machine,
    program: &ContextForge,
    options: &Options,
) -> Result<Report> {
    let noise = Noise::listen(LISTEN)?;
    let sides = step("starting the gateways", || sides(rig, program, options.connections))?;
    let idle = idle(&sides)?;
    let parameters = Parameters {
        seconds: f64::from(options.seconds),
        rounds: options.rounds,
        fixed_seconds: f64::from(options.seconds * FIXED_RATE_LENGTH),
        fixed_rounds: options.rounds.div_ceil(2),
        connections: options.connections,
    };
    let plan = |shape, seconds| LoadPlan {
        address: rig.upstream_address,
        request: String::new(),
        sessions: Vec::new(),
        first_serial: 0,
        expected: String::new(),
        connections: parameters.connections,
        shape,
        seconds,
        most: MOST_REQUESTS,
        cpus: rig.cpus.others.clone(),
    };
    let full = plan(Shape::Saturation, parameters.seconds);
    let saturation = step("loading every gateway to its limit", || {
        rounds(rig, &sides, &full, parameters.rounds)
    })?;
    let per_second = fixed_rate(&saturation)?;
    let fixed = plan(Shape::FixedRate { per_second }, parameters.fixed_seconds);
    let fixed = step("loading every gateway at a fixed rate", || {
        rounds(rig, &sides, &fixed, parameters.fixed_rounds)
    })?;
    let mut rows = Vec::new();
    for (((side, idle), saturation), fixed) in sides.iter().zip(idle).zip(saturation).zip(fixed) {
        let Tree { resident, processes, .. } = side.tree()?;
        rows.push(Row {
            letter: side.letter.to_owned(),
            title: side.title.to_owned(),
            resident_bytes: resident,
            processes,
            idle_us_per_second: idle,
            saturation,
            fixed_rate: fixed,
        });
    }
    let mut report = Report {
        schema: report::SCHEMA,
        unix_time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        machine,
        noise,
        gateway_cpus: rig.cpus.envoy.clone(),
        versions: Versions {
            ours: compare::versions(rig)?,
            contextforge: program.version().to_owned(),
            python: program.python()?,
        },
        contextforge_settings: forge::SETTINGS
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        parameters,
        fixed_rate: per_second,
        warnings: Vec::new(),
        rows,
    };
    report.warnings = report::warnings(&report);
    Ok(report)
}

/// Starts every gateway, and checks that each does its job.
fn sides(rig: &Rig, program: &ContextForge, connections: u32) -> Result<Vec<Side>> {
    let mut sides = Vec::new();
    for variant in [Variant::Plain, Variant::Token, Variant::Key] {
        let contender = Contender::start(rig, variant)?;
        contender.judges(rig)?;
        sides.push(Side {
            letter: variant.letter(),
            title: variant.title(),
            gateway: Gateway::Envoy(contender),
            expected: ANSWER.to_owned(),
        });
    }
    for (letter, title, sessions) in [
        ("f", "ContextForge, no sessions (its default)", Sessions::Stateless),
        ("f2", "ContextForge, a session per connection", Sessions::Stateful { connections }),
    ] {
        let forge = Forge::start(rig, program, sessions)?;
        let expected = forge.judges(rig)?;
        sides.push(Side { letter, title, gateway: Gateway::Forge(forge), expected });
    }
    Ok(sides)
}

/// CPU time that each gateway uses without requests, microseconds per second.
fn idle(sides: &[Side]) -> Result<Vec<f64>> {
    let used = || sides.iter().map(Side::cpu_us).collect::<Result<Vec<_>>>();
    let (started, before) = (Instant::now(), used()?);
    std::thread::sleep(LISTEN);
    let (after, seconds) = (used()?, started.elapsed().as_secs_f64());
    Ok(after.iter().zip(&before).map(|(after, before)| (after - before) / seconds).collect())
}

/// Each round loads every gateway once, in an order of its own.
fn rounds(rig: &Rig, sides: &[Side], plan: &LoadPlan, rounds: u32) -> Result<Vec<Vec<Load>>> {
    let mut all: Vec<Vec<Load>> = sides.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for nth in order(sides.len(), round) {
            if let (Some(side), Some(loads)) = (sides.get(nth), all.get_mut(nth)) {
                loads.push(side.load(rig, plan)?);
            }
        }
    }
    Ok(all)
}

/// Half the throughput of the slowest gateway: no gateway queues.
fn fixed_rate(saturation: &[Vec<Load>]) -> Result<f64> {
    let medians = saturation.iter().filter_map(|loads| report::per_second(loads));
    let slowest = medians.min_by(f64::total_cmp);
    match slowest {
        Some(slowest) if slowest > 0.0 => Ok((slowest * SHARE_OF_SLOWEST * 10.0).ceil() / 10.0),
        _ => Err(Failure::new("a gateway answered no request")),
    }
}

impl Side {
    /// Runs one load after a short one of the same shape, and compares the counts of client, upstream and log.
    fn load(&self, rig: &Rig, plan: &LoadPlan) -> Result<Load> {
        let (address, request, sessions) = self.target();
        let of = |seconds| LoadPlan {
            address,
            request: request.to_owned(),
            sessions: sessions.to_vec(),
            first_serial: rig.serials(MOST_REQUESTS),
            expected: self.expected.clone(),
            seconds,
            ..plan.clone()
        };
        let warm_plan = LoadPlan { shape: Shape::Saturation, ..of(WARM_UP_SECONDS) };
        let counted = self.counts(rig)?;
        let warm_up = self.right(rig.drive(&warm_plan)?)?;
        let (received, redis, used) = (received(rig)?, redis_us(rig)?, self.cpu_us()?);
        let outcome = self.right(rig.drive(&of(plan.seconds))?)?;
        let cpu_us = self.cpu_us()? - used;
        let (redis_us, received) = (redis_us(rig)? - redis, self::received(rig)? - received);
        self.reconciled(rig, counted, warm_up.requests + outcome.requests)?;
        Ok(Load {
            requests: outcome.requests,
            seconds: outcome.seconds,
            cpu_us,
            redis_us,
            upstream_requests: received,
            p50_us: outcome.latency.p50,
            p99_us: outcome.latency.p99,
            lateness_p99_us: outcome.lateness_p99_us,
            unsent: outcome.unsent,
        })
    }

    /// Address, request and sessions.
    fn target(&self) -> (SocketAddr, &str, &[String]) {
        match &self.gateway {
            Gateway::Envoy(contender) => (contender.envoy.address(), &contender.request, &[]),
            Gateway::Forge(forge) => (forge.address, &forge.request, &forge.sessions),
        }
    }

    fn tree(&self) -> Result<Tree> {
        match &self.gateway {
            Gateway::Envoy(contender) => machine::tree(contender.envoy.process().pid()),
            Gateway::Forge(forge) => forge.tree(),
        }
    }

    /// CPU time so far, microseconds.
    fn cpu_us(&self) -> Result<f64> {
        match &self.gateway {
            // One process whose threads do not end: exact to a microsecond.
            Gateway::Envoy(contender) => contender.cpu_us(),
            Gateway::Forge(forge) => Ok(forge.tree()?.cpu_us),
        }
    }

    fn counts(&self, rig: &Rig) -> Result<Counts> {
        match &self.gateway {
            Gateway::Envoy(contender) => contender.counts(rig),
            Gateway::Forge(_) => Ok(Counts { upstream: rig.served()?, ..Counts::default() }),
        }
    }

    /// Fails unless the upstream has answered as many calls as the client has right answers.
    fn reconciled(&self, rig: &Rig, before: Counts, client: u64) -> Result<()> {
        if let Gateway::Envoy(contender) = &self.gateway {
            return contender.reconciled(rig, before, client).map(drop);
        }
        let upstream = rig.served()?.saturating_sub(before.upstream);
        if upstream == client {
            return Ok(());
        }
        let counts = format!("{client} answers, {upstream} calls at the upstream");
        Err(Failure::new(format!("({}) {}: {counts}", self.letter, self.title)))
    }

    /// One wrong answer makes every figure suspect.
    fn right(&self, outcome: LoadResult) -> Result<LoadResult> {
        if outcome.faults == 0 && outcome.requests > 0 {
            return Ok(outcome);
        }
        Err(Failure::new(format!(
            "({}) {}: {} of {} answers were wrong, the first: {}",
            self.letter,
            self.title,
            outcome.faults,
            outcome.faults + outcome.requests,
            outcome.first_fault.unwrap_or_default()
        )))
    }
}

/// All requests that the upstream has answered, also those that are no calls.
fn received(rig: &Rig) -> Result<u64> {
    Ok(rig.answered()?.iter().sum())
}

fn redis_us(rig: &Rig) -> Result<f64> {
    machine::cpu_us(rig.valkey.process().pid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upstream_answers_a_call_as_in_the_other_measurements() {
        let answers = answers();
        let call = answers.last().unwrap();
        assert_eq!(call.marker, "");
        assert_eq!(call.body.replace(REQUEST_ID, "1"), ANSWER);
        for answer in &answers {
            let is_json = serde_json::from_str::<serde_json::Value>(&answer.body).is_ok();
            assert!(is_json == (answer.status == 200), "{}", answer.body);
        }
    }
}
