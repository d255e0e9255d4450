//! How long Envoy takes to start with a policy of any size: until it serves, and until it has answered a first call.
//!
//! Owns the sizes and the table. The times come from Envoy's log, since readiness is only asked for now and then.

use super::super::configuration;
use super::super::contender::{self, Contender};
use super::super::rig::Rig;
use super::super::stats::Spread;
use super::super::variant::Variant;
use super::document::{Size, policy};
use super::push;
use comfy_table::{Table, presets};
use portcullis_stack::failure::{Failure, Result};
use serde_json::Value;
use std::fs;
use std::time::Instant;

/// How often each start is timed, in turn with the others.
const STARTS: u32 = 3;
const FEW: Size = Size { tools: 1, roles: 5 };
const MANY: Size = Size { tools: 5_000, roles: 5 };
const KINDS: [Kind; 4] =
    [Kind::Plain, Kind::Configuration(FEW), Kind::Configuration(MANY), Kind::Redis(MANY)];

/// Where the policy is.
#[derive(Clone, Copy)]
enum Kind {
    /// Envoy without the module.
    Plain,
    /// In the plugin configuration: Envoy does not serve before the module has read it.
    Configuration(Size),
    /// In Redis: the first call reads it.
    Redis(Size),
}

/// Milliseconds.
struct Times {
    serving: f64,
    first_call: f64,
    /// CPU time until the first answer.
    cpu: f64,
}

pub(super) fn starts(rig: &Rig) -> Result<Table> {
    let mut all: [Vec<Times>; KINDS.len()] = Default::default();
    for _ in 0..STARTS {
        for (kind, times) in KINDS.into_iter().zip(&mut all) {
            times.push(kind.started(rig)?);
        }
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "policy",
        "serving after",
        "first call",
        "CPU until its answer",
    ]);
    for (kind, times) in KINDS.into_iter().zip(&all) {
        let spread = |figure: fn(&Times) -> f64| {
            let spread = Spread::of(times.iter().map(figure).collect());
            spread.map_or_else(String::new, |spread| {
                format!("{:.0} ms [{:.0}..{:.0}]", spread.median, spread.min, spread.max)
            })
        };
        table.add_row([
            kind.name(),
            spread(|times| times.serving),
            spread(|times| times.first_call),
            spread(|times| times.cpu),
        ]);
    }
    Ok(table)
}

impl Kind {
    fn name(self) -> String {
        match self {
            Self::Plain => "none: plain Envoy".to_owned(),
            Self::Configuration(Size { tools, .. }) => {
                format!("in the plugin configuration, tools: {tools}")
            }
            Self::Redis(Size { tools, .. }) => format!("in Redis, tools: {tools}"),
        }
    }

    fn started(self, rig: &Rig) -> Result<Times> {
        let contender = match self {
            Self::Plain => Contender::start(rig, Variant::Plain)?,
            Self::Configuration(size) => {
                let members = contender::inline(rig, |base| policy(base, size))?;
                Contender::with(rig, Variant::Token, members)?
            }
            Self::Redis(size) => {
                let file = rig.root.join("envoy/bench/policy.yaml");
                push(rig, &policy(configuration::document(&rig.tools, &file)?, size))?;
                Contender::with(rig, Variant::Key, Value::Null)?
            }
        };
        let called = Instant::now();
        contender.right_call(rig)?;
        let first_call = called.elapsed().as_secs_f64() * 1_000.0;
        let cpu = contender.cpu_us()? / 1_000.0;
        let log = fs::read_to_string(contender.envoy.process().log()).unwrap_or_default();
        let serving = serving(&log)
            .ok_or_else(|| Failure::new("Envoy's log does not say when it began to serve"))?;
        Ok(Times { serving, first_call, cpu })
    }
}

/// Milliseconds from the first line of the last Envoy in this log until it serves.
fn serving(log: &str) -> Option<f64> {
    let last = log.rfind("initializing epoch")?;
    let begin = log.get(..last)?.rfind('\n').map_or(0, |end| end + 1);
    let own = log.get(begin..)?;
    let ready = own.lines().find(|line| line.contains("starting main dispatch loop"))?;
    let passed = moment(ready)? - moment(own.lines().next()?)?;
    Some(if passed < 0.0 { passed + 86_400_000.0 } else { passed })
}

/// Milliseconds of the day, of a line that begins with `[2026-11-30 21:03:38.062]`.
fn moment(line: &str) -> Option<f64> {
    let time = line.strip_prefix('[')?.split(']').next()?.split(' ').nth(1)?;
    let mut parts = time.split(':');
    let mut next = || parts.next()?.parse::<f64>().ok();
    Some(((next()? * 60.0 + next()?) * 60.0 + next()?) * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_start_in_a_log_counts_and_a_day_may_end_in_it() {
        let start = |from: &str, to: &str| {
            format!(
                "[2026-11-30 {from}][1][info] initializing epoch 0\nx\n[2026-12-01 {to}][1] starting main dispatch loop\n"
            )
        };
        let log = start("10:00:00.000", "10:00:09.000") + &start("23:59:59.900", "00:00:01.150");
        assert!(serving(&log).is_some_and(|passed| (passed - 1_250.0).abs() < 0.5), "{log}");
        assert_eq!(serving("nothing"), None);
    }
}
