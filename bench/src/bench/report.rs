//! `target/bench/report.json`: the results, the machine, the versions, and the reasons for doubt.
//!
//! Owns the schema and every figure derived from the samples. A new field is a compatible change; any other change
//! needs the next [`SCHEMA`].

use super::counts::Counts;
use super::machine::{Machine, Memory, Noise};
use super::rounds::{Parameters, Sample, Series};
use super::stats::Spread;
use super::variant::Variant;
use super::vm::Crossings;
use serde::{Deserialize, Serialize};

/// The version of the schema.
pub(crate) const SCHEMA: u32 = 2;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    /// Seconds since 1970.
    pub(crate) unix_time: u64,
    pub(crate) machine: Machine,
    /// The CPU of the measured Envoy, and those of all other processes; empty when nothing was bound.
    pub(crate) envoy_cpus: Vec<usize>,
    pub(crate) other_cpus: Vec<usize>,
    /// The load of the machine before the first load.
    pub(crate) noise: Noise,
    pub(crate) versions: Versions,
    pub(crate) parameters: Parameters,
    /// Requests per second of the fixed rate.
    pub(crate) fixed_rate: f64,
    /// Reasons to distrust a figure; empty without any.
    pub(crate) warnings: Vec<String>,
    pub(crate) variants: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Versions {
    /// The version of the sources, as git describes it.
    pub(crate) portcullis: String,
    pub(crate) module_bytes: u64,
    pub(crate) envoy: String,
    pub(crate) valkey: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) variant: Variant,
    pub(crate) title: String,
    pub(crate) result: Measured,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) saturation: Figures,
    pub(crate) fixed_rate: Figures,
    /// After all loads.
    pub(crate) memory: Memory,
    /// Bytes that Envoy's allocator has given out; V8's mappings for a module are in `memory` only.
    pub(crate) envoy_allocated: Option<u64>,
    /// Wasm VMs that live in the process.
    pub(crate) wasm_vms: Option<u64>,
    /// CPU time of the Envoy without any request, microseconds per second.
    pub(crate) idle_us_per_second: f64,
    /// The crossings between Envoy and the module for one warm call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) crossings: Option<Crossings>,
    /// The counts of client, upstream, log and Redis over all loads; they agreed.
    pub(crate) counts: Counts,
    /// Compared with plain Envoy, and with [`Variant::native`], round by round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to_plain: Option<Ratios>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to_native: Option<Ratios>,
    /// Compared with [`Variant::fair`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to_fair: Option<Ratios>,
    /// Compared with [`Variant::unguarded`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to_unguarded: Option<Ratios>,
}

/// One shape of load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) per_second: Spread,
    pub(crate) p50_us: Spread,
    pub(crate) p99_us: Spread,
    /// CPU time of Envoy per request, user and system, all threads.
    pub(crate) envoy_us_per_request: Spread,
    /// CPU time of Valkey per request; near zero for a variant without Redis.
    pub(crate) redis_us_per_request: Spread,
    /// CPU time of Envoy as a share of one CPU. If it is below 1 at saturation, Envoy was not the limit.
    pub(crate) envoy_busy: Spread,
    /// How late the loader sent requests for its own reasons.
    pub(crate) lateness_p99_us: Spread,
    /// CPU time of processes outside the benchmark, as a share of the machine.
    pub(crate) foreign: Spread,
    /// Requests of the fixed rate that the loader never sent, in all rounds.
    pub(crate) unsent: u64,
}

/// This variant divided by the other one. CPU time and throughput at saturation, latency at the fixed rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratios {
    pub(crate) per_second: Spread,
    pub(crate) envoy_us_per_request: Spread,
    /// This variant minus the other one, microseconds of CPU time per request.
    pub(crate) envoy_us_added: Spread,
    /// What this variant adds to plain Envoy, divided by what the other one adds; `None` where that is plain Envoy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) added: Option<Spread>,
    /// The same at the fixed rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) added_at_rate: Option<Spread>,
    pub(crate) p50: Spread,
    pub(crate) p99: Spread,
}

impl Report {
    pub(crate) fn row(&self, variant: Variant) -> Option<&Row> {
        self.variants.iter().find(|row| row.variant == variant)
    }

    /// Computes the comparisons between rows.
    pub(crate) fn compare(&mut self) {
        let bases = self.variants.clone();
        let base = |variant| bases.iter().find(|row| row.variant == variant);
        for Row { variant, result, .. } in &mut self.variants {
            let plain = base(Variant::Plain).map(|row| &row.result);
            let to = |base: Option<&Row>| Ratios::of(result, &base?.result, plain);
            let to_native = to(variant.native().and_then(base));
            let to_fair = to(variant.fair().and_then(base));
            let to_unguarded = to(variant.unguarded().and_then(base));
            if *variant != Variant::Plain {
                result.to_plain = to(base(Variant::Plain));
            }
            result.to_native = to_native;
            result.to_fair = to_fair;
            result.to_unguarded = to_unguarded;
        }
    }
}

impl Figures {
    pub(crate) fn of(series: &Series) -> Option<Self> {
        let spread =
            |figure: fn(&Sample) -> f64| Spread::of(series.samples.iter().map(figure).collect());
        Some(Self {
            per_second: spread(|sample| sample.requests() / sample.outcome.seconds)?,
            p50_us: spread(|sample| sample.outcome.latency.p50)?,
            p99_us: spread(|sample| sample.outcome.latency.p99)?,
            envoy_us_per_request: spread(|sample| sample.envoy_us / sample.requests())?,
            redis_us_per_request: spread(|sample| sample.redis_us / sample.requests())?,
            envoy_busy: spread(|sample| sample.envoy_us / 1_000_000.0 / sample.outcome.seconds)?,
            lateness_p99_us: spread(|sample| sample.outcome.lateness_p99_us)?,
            foreign: spread(|sample| sample.foreign)?,
            unsent: series.samples.iter().map(|sample| sample.outcome.unsent).sum(),
        })
    }
}

impl Sample {
    #[expect(clippy::cast_precision_loss, reason = "numbers of requests are small")]
    fn requests(&self) -> f64 {
        self.outcome.requests as f64
    }
}

impl Ratios {
    fn of(ours: &Measured, theirs: &Measured, plain: Option<&Measured>) -> Option<Self> {
        let quotient = |ours: &Spread, theirs: &Spread| ours.paired(theirs, |a, b| a / b);
        let (full, fixed) = (&ours.saturation, &ours.fixed_rate);
        let cpu = &theirs.saturation.envoy_us_per_request;
        let added = |shape: fn(&Measured) -> &Figures| {
            let of = |measured: &Measured| {
                let plain = &shape(plain?).envoy_us_per_request;
                shape(measured).envoy_us_per_request.paired(plain, |all, plain| all - plain)
            };
            of(ours)?.paired(&of(theirs)?, |ours, theirs| ours / theirs)
        };
        Some(Self {
            added: added(|measured| &measured.saturation),
            added_at_rate: added(|measured| &measured.fixed_rate),
            per_second: quotient(&full.per_second, &theirs.saturation.per_second)?,
            envoy_us_per_request: quotient(&full.envoy_us_per_request, cpu)?,
            envoy_us_added: full.envoy_us_per_request.paired(cpu, |a, b| a - b)?,
            p50: quotient(&fixed.p50_us, &theirs.fixed_rate.p50_us)?,
            p99: quotient(&fixed.p99_us, &theirs.fixed_rate.p99_us)?,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn spread(value: f64) -> Spread {
        Spread::of(vec![value, value * 1.1, value * 0.9]).unwrap()
    }

    fn figures(scale: f64) -> Figures {
        Figures {
            per_second: spread(20_000.0 / scale),
            p50_us: spread(100.0 * scale),
            p99_us: spread(900.0 * scale),
            envoy_us_per_request: spread(40.0 * scale),
            redis_us_per_request: spread(0.0),
            envoy_busy: spread(0.98),
            lateness_p99_us: spread(20.0),
            foreign: spread(0.01),
            unsent: 0,
        }
    }

    fn row(variant: Variant, scale: f64) -> Row {
        let result = Measured {
            saturation: figures(scale),
            fixed_rate: figures(scale),
            memory: Memory { resident: 1, resident_peak: 2 },
            envoy_allocated: Some(3),
            wasm_vms: Some(0),
            idle_us_per_second: 1.0,
            crossings: Some(Crossings { entries: 8, host_calls: 30, allocations: 5 }),
            counts: Counts { client: 9, upstream: 9, log_lines: None, admissions: None },
            to_plain: None,
            to_native: None,
            to_fair: None,
            to_unguarded: None,
        };
        Row { variant, title: variant.title().to_owned(), result }
    }

    /// Four rows; `scale` is the cost of the last.
    pub(in super::super) fn sample(scale: f64) -> Report {
        let mut report = Report {
            schema: SCHEMA,
            unix_time: 1,
            machine: Machine { cpu: "x".into(), cpus: 2, memory_bytes: 4, kernel: "6".into() },
            envoy_cpus: vec![0],
            other_cpus: vec![1],
            noise: Noise { busy: 0.01, steal: 0.0, load_1m: 0.1 },
            versions: Versions {
                portcullis: "v0".into(),
                module_bytes: 5,
                envoy: "1.40.0".into(),
                valkey: "9".into(),
            },
            parameters: Parameters {
                seconds: 5.0,
                warm_up_seconds: 0.5,
                rounds: 3,
                connections: 16,
            },
            fixed_rate: 4_000.0,
            warnings: vec![],
            variants: vec![
                row(Variant::Plain, 1.0),
                row(Variant::Native, 2.0),
                row(Variant::NativeUnlimited, 1.6),
                row(Variant::Key, scale),
            ],
        };
        report.compare();
        report
    }

    #[test]
    fn rows_are_compared_with_plain_and_native() {
        let mut report = sample(4.0);
        report.variants.push(row(Variant::Token, 3.2));
        report.compare();
        let result = |variant| &report.row(variant).unwrap().result;
        assert_eq!(result(Variant::Plain).to_plain, None);
        assert_eq!(result(Variant::Native).to_native, None);
        let ours = result(Variant::Key);
        let (plain, native) = (ours.to_plain.as_ref().unwrap(), ours.to_native.as_ref().unwrap());
        let near = |spread: &Spread, value: f64| (spread.median - value).abs() < 1e-9;
        assert!(near(&plain.envoy_us_per_request, 4.0) && near(&native.envoy_us_per_request, 2.0));
        assert!(near(&plain.envoy_us_added, 120.0), "{plain:?}");
        assert!(near(&plain.per_second, 0.25) && near(&plain.p99, 4.0));
        // 160 - 40 against 80 - 40, in each round.
        let added = ours.to_native.as_ref().and_then(|ratios| ratios.added.as_ref()).unwrap();
        assert!(near(added, 3.0) && added.rounds.iter().all(|ratio| (ratio - 3.0).abs() < 1e-9));
        assert_eq!((&plain.added, &plain.added_at_rate), (&None, &None));
        // A variant without limits is compared with Envoy's chain without limits.
        let native = result(Variant::Token).to_native.as_ref().unwrap();
        assert!(near(&native.envoy_us_per_request, 2.0), "{native:?}");
    }

    #[test]
    fn the_form_is_the_documented_one_and_reads_back() {
        let report = sample(4.0);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["schema"], 2);
        assert_eq!(json["variants"][2]["variant"], "native_unlimited");
        for pointer in [
            "/machine/cpu",
            "/noise/steal",
            "/versions/envoy",
            "/parameters/connections",
            "/fixed_rate",
            "/variants/3/result/saturation/envoy_us_per_request/median",
            "/variants/3/result/fixed_rate/p99_us/rounds/2",
            "/variants/3/result/memory/resident",
            "/variants/3/result/counts/client",
            "/variants/3/result/to_plain/envoy_us_added/min",
            "/variants/3/result/to_native/p99/median",
            "/variants/3/result/to_native/added/median",
            "/variants/3/result/to_native/added_at_rate/median",
            "/variants/3/result/crossings/host_calls",
        ] {
            assert!(json.pointer(pointer).is_some_and(|value| !value.is_null()), "{pointer}");
        }
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }
}
