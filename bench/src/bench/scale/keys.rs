//! The cost of many keys of one organisation: a call with a key that the worker does not know yet, and one with a key
//! that it knows.
//!
//! Owns the numbers of keys and the table.

use super::super::contender::Contender;
use super::super::organisations::population::{SECRET, issue};
use super::super::rig::{ORGANISATION, Rig};
use super::super::variant::Variant;
use super::calls;
use comfy_table::{Table, presets};
use portcullis_core::id::{KeyId, OrgId};
use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::progress::step;

const COUNTS: [u32; 4] = [10, 1_000, 100_000, 1_000_000];
/// How many keys are written at once.
const BATCH: usize = 5_000;
/// How many of the keys call, evenly chosen.
const CALLERS: u32 = 1_000;

pub(super) fn keys(rig: &Rig, seconds: f64) -> Result<Table> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "keys",
        "memory of Valkey",
        "callers",
        "CPU of the first call",
        "of the second",
        "CPU per call of one key",
        "p50",
        "p99",
    ]);
    let mut written = 0;
    for count in COUNTS {
        step(&format!("{count} keys"), || {
            write(rig, written, count)?;
            written = count;
            table.add_row(row(rig, count, seconds)?);
            Ok::<_, Failure>(())
        })?;
    }
    Ok(table)
}

fn row(rig: &Rig, count: u32, seconds: f64) -> Result<[String; 8]> {
    let contender = Contender::start(rig, Variant::Key)?;
    contender.right_call(rig)?;
    let callers = count.min(CALLERS);
    let mut passes = [0.0; 2];
    for pass in &mut passes {
        let used = contender.cpu_us()?;
        for nth in 0..callers {
            let (_, credential) = credential(nth * (count / callers))?;
            contender.right_call_of(rig, &credential)?;
        }
        *pass = (contender.cpu_us()? - used) / f64::from(callers);
    }
    let [first, second] = passes;
    let (cpu_us, p50_us, p99_us) = calls(rig, &contender, seconds)?;
    Ok([
        count.to_string(),
        format!("{} MB", rig.valkey_memory()? / 1_000_000),
        callers.to_string(),
        format!("{first:.0} µs"),
        format!("{second:.0} µs"),
        format!("{cpu_us:.0} µs"),
        format!("{p50_us:.0} µs"),
        format!("{p99_us:.0} µs"),
    ])
}

/// Writes the keys from number `from` up to `to`.
fn write(rig: &Rig, from: u32, to: u32) -> Result<()> {
    let numbers: Vec<u32> = (from..to).collect();
    for batch in numbers.chunks(BATCH) {
        let mut pipeline = redis::pipe();
        for number in batch {
            let (id, _) = credential(*number)?;
            issue(&organisation()?, &id, &mut pipeline)?;
        }
        rig.write(&pipeline)?;
    }
    Ok(())
}

fn organisation() -> Result<OrgId> {
    OrgId::new(ORGANISATION).ok_or_else(|| Failure::new("the organisation's name is none"))
}

/// The id and the credential of a key.
fn credential(number: u32) -> Result<(KeyId, String)> {
    let unfit = || Failure::new("a key of the benchmark is none for the core");
    let id = KeyId::new(&format!("many{number}")).ok_or_else(unfit)?;
    let key = portcullis_core::auth::api_key::mint(&organisation()?, &id, SECRET);
    let credential = format!("Bearer {}", key.ok_or_else(unfit)?.expose());
    Ok((id, credential))
}
