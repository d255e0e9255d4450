//! `cargo xtask scale`: the cost of a large policy: reading it, deciding by it, and starting with it; and the cost of
//! many keys and many open streams.
//!
//! Owns the sizes and the first table. Asserts nothing about time; `docs/explanation/policy-size.md` has the expected
//! figures.

pub(crate) mod document;
mod keys;
mod start;
mod streams;

use super::configuration;
use super::contender::Contender;
use super::machine::Machine;
use super::rig::{Cpus, Rig, json_answer};
use super::traffic::{ANSWER, HEADERS, PATH};
use super::variant::Variant;
use comfy_table::{Table, presets};
use document::{Size, listed, policy};
use portcullis_load::{LoadPlan, Shape};
use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::progress::step;
use portcullis_stack::{Operator, Workspace, http, ports};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

const SIZES: [Size; 5] = [
    Size { tools: 5, roles: 5 },
    Size { tools: 500, roles: 50 },
    Size { tools: 5_000, roles: 5 },
    Size { tools: 5, roles: 500 },
    Size { tools: 5_000, roles: 500 },
];
/// How often each size is loaded: once into a cold VM, then into a warm one.
const LOADS: usize = 4;
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;
const MOST_REQUESTS: u64 = 1_000_000;
/// How many lists are timed for each size.
const LISTS: usize = 20;

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long calls are made, for each size of policy
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=300))]
    seconds: u32,
    /// Only the largest policy
    #[arg(long)]
    largest: bool,
    /// Only this table
    #[arg(long, value_name = "TABLE")]
    only: Option<Part>,
}

/// One table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Policies of any size
    Policies,
    /// How long Envoy takes to start
    Start,
    /// Up to 1,000,000 keys
    Keys,
    /// Up to 1,000 open streams
    Streams,
}

/// One size's figures.
struct Figures {
    size: Size,
    bytes: usize,
    /// Milliseconds that the worker took to read the policy: the first time, and the median of the others.
    cold_ms: u64,
    warm_ms: u64,
    /// Envoy's CPU time for the first call after a push, including all work to read the policy, milliseconds.
    cold_cpu_ms: f64,
    warm_cpu_ms: f64,
    /// Envoy's CPU time per call, microseconds.
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
    /// The number of tools in a list, and the median time of a list, milliseconds.
    list: (usize, f64),
    resident: u64,
}

pub(crate) fn scale(workspace: &Workspace, options: &Options) -> Result<()> {
    let machine = Machine::read()?;
    let rig = Rig::start(workspace, Cpus::split(machine.cpus))?;
    let wanted = |part| options.only.is_none_or(|only| only == part);
    let seconds = f64::from(options.seconds);
    if wanted(Part::Policies) {
        println!("{}\n", policies(&rig, options)?);
    }
    if wanted(Part::Keys) || wanted(Part::Streams) {
        let shipped = rig.root.join("envoy/bench/policy.yaml");
        let mut document = configuration::document(&rig.tools, &shipped)?;
        // All streams are of one caller.
        document["streams"] = json!({"per_caller": 2_000, "per_organisation": 2_000});
        push(&rig, &document)?;
    }
    if wanted(Part::Streams) {
        println!("{}\n", streams::streams(&rig, seconds)?);
    }
    if wanted(Part::Keys) {
        println!("{}\n", keys::keys(&rig, seconds)?);
    }
    if wanted(Part::Start) {
        println!("{}", step("starting Envoy with each policy", || start::starts(&rig))?);
    }
    Ok(())
}

fn policies(rig: &Rig, options: &Options) -> Result<Table> {
    let mut all = Vec::new();
    let sizes = if options.largest { SIZES.get(SIZES.len() - 1..) } else { SIZES.get(..) };
    for size in sizes.into_iter().flatten().copied() {
        let Size { tools, roles } = size;
        all.push(step(&format!("a policy of {tools} tools and {roles} roles"), || {
            measured(rig, size, options)
        })?);
    }
    Ok(table(&all))
}

/// Makes `document` the policy of the load's organisation.
fn push(rig: &Rig, document: &Value) -> Result<()> {
    let file = rig.dir.join("scale.json");
    fs::write(&file, document.to_string()).map_err(|error| Failure::new(error.to_string()))?;
    Operator::new(&rig.artifacts.cli, &rig.valkey.url()).push_policy(&file, "scale")?;
    Ok(())
}

/// Starts a new Envoy for each size, because the VM's memory is part of the figures.
fn measured(rig: &Rig, size: Size, options: &Options) -> Result<Figures> {
    let contender = Contender::start(rig, Variant::Key)?;
    let base = configuration::document(&rig.tools, &rig.root.join("envoy/bench/policy.yaml"))?;
    let mut times = Vec::new();
    let (mut bytes, mut used_ms) = (0, Vec::new());
    for nth in 0..LOADS {
        let mut document = policy(base.clone(), size);
        // A new version each time: the worker does not read a known version again.
        document["redact"] = json!([format!("nothing{nth}")]);
        bytes = document.to_string().len();
        push(rig, &document)?;
        let (told, used) = (compilations(&contender).len(), contender.cpu_us()?);
        contender.right_call(rig)?;
        times.push(compiled_in(&contender, told)?);
        used_ms.push((contender.cpu_us()? - used) / 1_000.0);
    }
    let (cold_ms, cold_cpu_ms) = (times.remove(0), used_ms.remove(0));
    times.sort_unstable();
    used_ms.sort_by(f64::total_cmp);
    let warm_ms = times.get(times.len() / 2).copied().unwrap_or(cold_ms);
    let warm_cpu_ms = used_ms.get(used_ms.len() / 2).copied().unwrap_or(cold_cpu_ms);
    let (cpu_us, p50_us, p99_us) = calls(rig, &contender, f64::from(options.seconds))?;
    let resident = contender.memory()?.resident;
    drop(contender);
    let list = lists(rig, size)?;
    Ok(Figures {
        size,
        bytes,
        cold_ms,
        warm_ms,
        cold_cpu_ms,
        warm_cpu_ms,
        cpu_us,
        p50_us,
        p99_us,
        list,
        resident,
    })
}

/// The time of each policy compilation in the filter's log, milliseconds; includes those of earlier Envoys.
pub(crate) fn compilations(contender: &Contender) -> Vec<u64> {
    let text = fs::read_to_string(contender.envoy.process().log()).unwrap_or_default();
    let told = |line: &str| line.split_once(" compiled in ")?.1.split(' ').next()?.parse().ok();
    text.lines().filter_map(told).collect()
}

/// The compilation time that the filter logs after the first `told` ones.
fn compiled_in(contender: &Contender, told: usize) -> Result<u64> {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match compilations(contender).get(told) {
            Some(ms) => return Ok(*ms),
            None if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            None => return Err(Failure::new("the filter does not say how long a policy took")),
        }
    }
}

/// CPU time per call, median and 99th percentile of the latency, microseconds; one connection.
fn calls(rig: &Rig, contender: &Contender, seconds: f64) -> Result<(f64, f64, f64)> {
    let plan = |seconds| LoadPlan {
        address: contender.envoy.address(),
        request: contender.request.clone(),
        sessions: Vec::new(),
        first_serial: rig.serials(MOST_REQUESTS),
        expected: ANSWER.to_owned(),
        connections: 1,
        shape: Shape::Saturation,
        seconds,
        most: MOST_REQUESTS,
        cpus: rig.cpus.others.clone(),
    };
    rig.drive(&plan(1.0))?;
    let before = contender.cpu_us()?;
    let outcome = rig.drive(&plan(seconds))?;
    let used = contender.cpu_us()? - before;
    if outcome.faults > 0 || outcome.requests == 0 {
        let fault = outcome.first_fault.unwrap_or_default();
        return Err(Failure::new(format!("{} calls went wrong: {fault}", outcome.faults)));
    }
    #[expect(clippy::cast_precision_loss, reason = "requests of one load")]
    Ok((used / outcome.requests as f64, outcome.latency.p50, outcome.latency.p99))
}

/// The number of tools that the connector's server lists, and the time of such a list, milliseconds.
fn lists(rig: &Rig, size: Size) -> Result<(usize, f64)> {
    let tools = listed(size);
    let count = tools.len();
    let body = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).to_string();
    let address = ports::loopback(ports::free_port()?);
    let server = rig.serve(address, &[json_answer("", &body)])?;
    let contender = Contender::before(rig, Variant::Key, address)?;
    let mut times = Vec::new();
    for _ in 0..LISTS {
        let started = Instant::now();
        let credential = format!("Bearer {}", rig.key);
        let mut headers = HEADERS.to_vec();
        headers.push(("authorization", &credential));
        let url = format!("{}{PATH}", contender.envoy.url());
        let reply = http::send("POST", &url, &headers, LIST.as_bytes())?;
        times.push(started.elapsed().as_secs_f64() * 1_000.0);
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let seen = answer.pointer("/result/tools").and_then(Value::as_array).map_or(0, Vec::len);
        if (reply.status, seen) != (200, count) {
            let text = format!("a list of {count} tools: {}, {seen} tools", reply.status);
            return Err(Failure::new(text));
        }
    }
    drop(server);
    times.sort_by(f64::total_cmp);
    Ok((count, times.get(LISTS / 2).copied().unwrap_or(f64::NAN)))
}

fn table(all: &[Figures]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "tools",
        "roles",
        "policy",
        "compiled, cold VM",
        "warm VM",
        "CPU, cold",
        "CPU, warm",
        "CPU per call",
        "p50",
        "p99",
        "tools/list",
        "Envoy",
    ]);
    for figures in all {
        let Figures {
            size,
            bytes,
            cold_ms,
            warm_ms,
            cold_cpu_ms,
            warm_cpu_ms,
            cpu_us,
            p50_us,
            p99_us,
            list,
            resident,
        } = figures;
        table.add_row([
            size.tools.to_string(),
            size.roles.to_string(),
            format!("{} KB", bytes / 1_000),
            format!("{cold_ms} ms"),
            format!("{warm_ms} ms"),
            format!("{cold_cpu_ms:.0} ms"),
            format!("{warm_cpu_ms:.0} ms"),
            format!("{cpu_us:.0} us"),
            format!("{p50_us:.0} us"),
            format!("{p99_us:.0} us"),
            format!("{} tools {:.1} ms", list.0, list.1),
            format!("{} MB", resident / 1_000_000),
        ]);
    }
    table
}
