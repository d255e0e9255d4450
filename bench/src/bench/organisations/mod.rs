//! `cargo xtask organisations`: one worker and many organisations, each with a policy of its own.
//!
//! Owns the sizes, the order of calls and the table: the memory of compiled policies against a worker's estimate, how
//! often a call finds its policy in the cache, and the cost when it does not. Asserts nothing.

pub(crate) mod population;

use super::contender::Contender;
use super::machine::Machine;
use super::rig::{Cpus, Rig};
use super::scale::compilations;
use super::traffic::{self, ANSWER, HEADERS, PATH};
use super::variant::Variant;
use comfy_table::{Table, presets};
use population::{Population, Tenant};
use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::progress::step;
use portcullis_stack::{Workspace, http};
use serde_json::json;

/// The smallest allowed cache, which holds almost no policy; the default; and one that holds all policies.
const CACHES: [usize; 3] = [1 << 20, DEFAULT_CACHE, 1 << 30];
/// The default cache with fewer organisations than in the other tables.
const DEFAULT_CACHE: usize = 64 << 20;
const FEWER: [u32; 4] = [1, 10, 100, 1_000];
/// How often every organisation calls, one after the other; in the first pass no policy is cached.
const PASSES: usize = 2;

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many organisations with a small policy
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    small: u32,
    /// How many organisations with a large one, of 500 tools and 50 roles
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    large: u32,
}

/// The figures of a population with a cache.
struct Figures {
    cache: usize,
    /// How many calls of the last pass found their policy in the cache.
    found: usize,
    /// CPU time of Envoy per call of each pass, microseconds.
    cpu_us: [f64; PASSES],
    /// Growth of the resident set, without the bytes of Envoy's own allocator: the memory of the VMs.
    grown: f64,
}

pub(crate) fn organisations(workspace: &Workspace, options: &Options) -> Result<()> {
    let machine = Machine::read()?;
    let rig = Rig::start(workspace, Cpus::split(machine.cpus))?;
    println!("{}\n", fewer(&rig, options.small)?);
    for (count, population) in
        [(options.small, Population::Small), (options.large, Population::Large)]
    {
        let name = format!("{count} organisations with {} policies", population.name());
        let tenants = step(&name, || population.settle(&rig, count))?;
        let mut all = Vec::new();
        for cache in CACHES {
            let name = format!("two calls of each with a cache of {} MiB", cache >> 20);
            all.push(step(&name, || measured(&rig, &tenants, cache))?);
        }
        println!("{name}, of {} bytes each:\n{}", tenants.bytes, table(&tenants, &all));
    }
    Ok(())
}

/// The cost of a call with up to `most` organisations with a small policy each.
fn fewer(rig: &Rig, most: u32) -> Result<Table> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "organisations",
        "CPU of the first call",
        "of the second",
        "found at the second call",
    ]);
    for count in FEWER.into_iter().filter(|count| *count < most) {
        let figures = step(&format!("two calls of each of {count} organisations"), || {
            let tenants = Population::Small.settle(rig, count)?;
            measured(rig, &tenants, DEFAULT_CACHE)
        })?;
        let [first, second] = figures.cpu_us;
        table.add_row([
            count.to_string(),
            format!("{first:.0} µs"),
            format!("{second:.0} µs"),
            figures.found.to_string(),
        ]);
    }
    Ok(table)
}

fn measured(rig: &Rig, tenants: &population::Tenants, cache: usize) -> Result<Figures> {
    let settings = json!({"policy_cache": {"max_bytes": cache}});
    let contender = Contender::with(rig, Variant::Key, settings)?;
    // The first call of a VM costs more; this measurement leaves it out.
    contender.right_call(rig)?;
    let before = memory(&contender)?;
    let (mut cpu_us, mut found) = ([0.0; PASSES], 0);
    for pass in &mut cpu_us {
        let (known, used) = (compilations(&contender).len(), contender.cpu_us()?);
        tenants.all.iter().try_for_each(|tenant| call(rig, &contender, tenant))?;
        #[expect(clippy::cast_precision_loss, reason = "some thousand organisations")]
        let count = tenants.all.len() as f64;
        *pass = (contender.cpu_us()? - used) / count;
        let compiled = compilations(&contender).len().saturating_sub(known);
        found = tenants.all.len().saturating_sub(compiled);
    }
    let grown = memory(&contender)? - before;
    Ok(Figures { cache, found, cpu_us, grown })
}

/// Resident bytes that Envoy's own allocator does not account for.
fn memory(contender: &Contender) -> Result<f64> {
    let own = contender.stat("server.memory_allocated")?.unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "bytes of one process")]
    Ok(contender.memory()?.resident as f64 - own as f64)
}

fn call(rig: &Rig, contender: &Contender, tenant: &Tenant) -> Result<()> {
    let mut headers = HEADERS.to_vec();
    headers.push(("authorization", &tenant.credential));
    let url = format!("{}{PATH}", contender.envoy.url());
    let body = traffic::allowed_call(rig.serials(1));
    let reply = http::send("POST", &url, &headers, body.as_bytes())?;
    if reply.status == 200 && reply.body == ANSWER.as_bytes() {
        return Ok(());
    }
    let text = reply.text();
    Err(Failure::new(format!("{}: {} {text}, expected 200", tenant.org, reply.status)))
}

/// The smallest cache holds almost nothing, so a larger one's additional memory is that of its policies.
fn table(tenants: &population::Tenants, all: &[Figures]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "cache",
        "found at the second call",
        "CPU of the first call",
        "of the second",
        "memory over the smallest cache",
        "reckoned with",
    ]);
    let least = all.first().map_or(0.0, |figures| figures.grown);
    let reckoned = tenants.weight.saturating_mul(tenants.all.len());
    for Figures { cache, found, cpu_us: [first, second], grown } in all {
        let smallest = CACHES.first() == Some(cache);
        let share = found.saturating_mul(100) / tenants.all.len().max(1);
        let held = reckoned.min(*cache).saturating_sub(reckoned.min(1 << 20));
        table.add_row([
            format!("{} MiB", cache >> 20),
            format!("{found} ({share} %)"),
            format!("{first:.0} µs"),
            format!("{second:.0} µs"),
            if smallest { String::new() } else { format!("{:.1} MB", (grown - least) / 1e6) },
            if smallest { String::new() } else { format!("{:.1} MB", megabytes(held)) },
        ]);
    }
    table
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
