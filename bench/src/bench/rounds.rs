//! The loads: each round runs every variant once, in an order of its own, so that a disturbance of the machine affects
//! all of them, and no variant always follows the same one.
//!
//! Owns the order, and the readings before and after each load. `report` interprets the figures.

use super::contender::Contender;
use super::counts::Counts;
use super::machine::{self, Clock};
use super::rig::Rig;
use super::traffic::ANSWER;
use portcullis_load::{LoadPlan, LoadResult, Shape};
use portcullis_stack::failure::{Failure, Result};
use serde::{Deserialize, Serialize};

/// The most requests of one load.
const MOST_REQUESTS: u64 = 2_000_000;

/// Duration, number of rounds, and number of connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parameters {
    pub(crate) seconds: f64,
    pub(crate) warm_up_seconds: f64,
    pub(crate) rounds: u32,
    pub(crate) connections: u32,
}

/// One load of one variant.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) outcome: LoadResult,
    /// CPU time of Envoy, microseconds.
    pub(crate) envoy_us: f64,
    /// CPU time of Valkey, microseconds.
    pub(crate) redis_us: f64,
    /// CPU time of processes outside the benchmark, as a share of the machine.
    pub(crate) foreign: f64,
}

/// CPU time so far.
struct Reading {
    clock: Clock,
    envoys: Vec<f64>,
    redis: f64,
    /// CPU time of the upstream and of this process.
    others: f64,
}

/// The results of a variant in one shape of load, round by round.
pub(crate) struct Series {
    pub(crate) samples: Vec<Sample>,
    pub(crate) counts: Counts,
}

/// Loads all contenders, round by round.
pub(crate) fn rounds(
    rig: &Rig,
    contenders: &[Contender],
    parameters: &Parameters,
    shape: Shape,
) -> Result<Vec<Series>> {
    let mut all: Vec<Series> = contenders
        .iter()
        .map(|_| Series { samples: Vec::new(), counts: Counts::default() })
        .collect();
    for round in 0..parameters.rounds {
        for nth in order(contenders.len(), round) {
            let Some(series) = all.get_mut(nth) else { continue };
            let (sample, counts) = load(rig, contenders, nth, parameters, shape)?;
            series.counts =
                if series.samples.is_empty() { counts } else { series.counts.plus(counts) };
            series.samples.push(sample);
        }
    }
    Ok(all)
}

/// A shuffled order, the same in every run.
pub(crate) fn order(count: usize, round: u32) -> Vec<usize> {
    // SplitMix64: each round has a seed of its own.
    let mut state = u64::from(round).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    };
    let mut keyed: Vec<(u64, usize)> = (0..count).map(|nth| (next(), nth)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, nth)| nth).collect()
}

/// Runs one load, and compares the counts of all sides.
fn load(
    rig: &Rig,
    contenders: &[Contender],
    nth: usize,
    parameters: &Parameters,
    shape: Shape,
) -> Result<(Sample, Counts)> {
    let contender = contenders.get(nth).ok_or_else(|| Failure::new("no such contender"))?;
    let counted = contender.counts(rig)?;
    let plan = |seconds| LoadPlan {
        address: contender.envoy.address(),
        request: contender.request.clone(),
        sessions: Vec::new(),
        first_serial: rig.serials(MOST_REQUESTS),
        expected: ANSWER.to_owned(),
        connections: parameters.connections,
        shape,
        seconds,
        most: MOST_REQUESTS,
        cpus: rig.cpus.others.clone(),
    };
    let warm_up = right(contender, rig.drive(&plan(parameters.warm_up_seconds))?)?;
    let before = Reading::now(rig, contenders)?;
    let outcome = right(contender, rig.drive(&plan(parameters.seconds))?)?;
    let after = Reading::now(rig, contenders)?;
    let counts = contender.reconciled(rig, counted, warm_up.requests + outcome.requests)?;
    Ok((after.since(&before, nth, outcome), counts))
}

/// One wrong answer makes every figure suspect.
fn right(contender: &Contender, outcome: LoadResult) -> Result<LoadResult> {
    if outcome.faults == 0 && outcome.requests > 0 {
        return Ok(outcome);
    }
    Err(Failure::new(format!(
        "{}: {} of {} answers were wrong, the first: {}",
        contender.name(),
        outcome.faults,
        outcome.faults + outcome.requests,
        outcome.first_fault.unwrap_or_default()
    )))
}

impl Reading {
    fn now(rig: &Rig, contenders: &[Contender]) -> Result<Self> {
        Ok(Self {
            clock: Clock::read()?,
            envoys: contenders.iter().map(Contender::cpu_us).collect::<Result<_>>()?,
            redis: machine::cpu_us(rig.valkey.process().pid())?,
            others: machine::cpu_us(rig.upstream.pid())? + machine::cpu_us(std::process::id())?,
        })
    }

    fn since(&self, before: &Self, nth: usize, outcome: LoadResult) -> Sample {
        let envoys: Vec<f64> =
            self.envoys.iter().zip(&before.envoys).map(|(now, then)| now - then).collect();
        let redis_us = self.redis - before.redis;
        #[expect(clippy::cast_precision_loss, reason = "microseconds of one load")]
        let ours_us = envoys.iter().sum::<f64>()
            + redis_us
            + (self.others - before.others)
            + outcome.cpu_us as f64;
        let busy = self.clock.busy_since(before.clock);
        let all = self.clock.all_since(before.clock);
        Sample {
            envoy_us: envoys.get(nth).copied().unwrap_or(f64::NAN),
            redis_us,
            foreign: ((busy - ours_us / 1_000_000.0) / all).max(0.0),
            outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_its_turn_in_each_round_and_the_orders_differ() {
        let orders: Vec<Vec<usize>> = (0..6).map(|round| order(5, round)).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        assert!(orders.windows(2).any(|pair| pair.first() != pair.last()), "{orders:?}");
    }
}
