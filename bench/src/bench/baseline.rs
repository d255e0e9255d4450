//! `--check FILE`: whether the ratios got worse than in an earlier report.
//!
//! Owns the tolerance. Compares ratios within a run, never absolute values of two runs: machines differ, and so does
//! their load.

use super::report::{Ratios, Report, Row, SCHEMA};
use super::stats::Spread;
use super::table::SATURATED;
use portcullis_stack::failure::{Failure, Result};
use std::fs;
use std::path::Path;

/// By how much a ratio may be worse before it counts.
const TOLERANCE: f64 = 0.15;

/// Reads an earlier report.
pub(crate) fn read(file: &Path) -> Result<Report> {
    let unusable = |reason: String| {
        Failure::new(format!(
            "{} is no report of `cargo xtask bench` with schema {SCHEMA}: {reason}; make one with that command, \
             and copy target/bench/report.json",
            file.display()
        ))
    };
    let text = fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    let report: Report =
        serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    if report.schema == SCHEMA {
        return Ok(report);
    }
    Err(unusable(format!("it has schema {}", report.schema)))
}

/// Whether Envoy was the limit of every row. If it was not, throughput only describes the machine.
fn is_saturated(report: &Report) -> bool {
    report.variants.iter().all(|row| row.result.saturation.envoy_busy.median >= SATURATED)
}

/// Every ratio that got worse, as a sentence. Looks only at rows that both reports have.
pub(crate) fn regressions(now: &Report, baseline: &Report) -> Vec<String> {
    let mut worse = Vec::new();
    let with_throughput = is_saturated(now) && is_saturated(baseline);
    for row in &now.variants {
        let Some(Row { result: before, .. }) = baseline.row(row.variant) else { continue };
        let result = &row.result;
        let pairs = [
            ("plain Envoy", &result.to_plain, &before.to_plain),
            ("Envoy's own filters", &result.to_native, &before.to_native),
        ];
        for (base, ratios, before) in pairs {
            if let (Some(ratios), Some(before)) = (ratios, before) {
                let counting = compared(ratios, before).filter(|(figure, _)| match figure {
                    Figure::CpuTime => true,
                    Figure::Throughput => with_throughput,
                });
                worse.extend(counting.map(|(_, sentence)| {
                    format!("({}) over {base}: {sentence}", row.variant.letter())
                }));
            }
        }
    }
    worse
}

/// The compared figures. Latency is left out: at a low load its ratios depend more on the machine than on the gateway.
enum Figure {
    CpuTime,
    Throughput,
}

fn compared(now: &Ratios, before: &Ratios) -> impl Iterator<Item = (Figure, String)> + use<> {
    let worse = |figure, name: &str, now: &Spread, before: &Spread, factor: f64| {
        let sentence = || format!("{name} {:.2}, was {:.2}", now.median, before.median);
        (factor > 1.0 + TOLERANCE).then(|| (figure, sentence()))
    };
    let (cpu, cpu_was) = (&now.envoy_us_per_request, &before.envoy_us_per_request);
    let (rate, rate_was) = (&now.per_second, &before.per_second);
    let added = now.added.as_ref().zip(before.added.as_ref()).and_then(|(added, added_was)| {
        let factor = added.median / added_was.median;
        worse(Figure::CpuTime, "added CPU time", added, added_was, factor)
    });
    let cpu_factor = cpu.median / cpu_was.median;
    let rate_factor = rate_was.median / rate.median;
    [
        worse(Figure::CpuTime, "CPU time per request", cpu, cpu_was, cpu_factor),
        added,
        worse(Figure::Throughput, "throughput", rate, rate_was, rate_factor),
    ]
    .into_iter()
    .flatten()
}

/// The reasons to compare the two reports with care.
pub(crate) fn differences(now: &Report, baseline: &Report) -> Vec<String> {
    let mut different = Vec::new();
    if now.machine != baseline.machine {
        different.push("the baseline comes from another machine or kernel".to_owned());
    }
    if now.parameters != baseline.parameters {
        different.push("the baseline was made with other parameters".to_owned());
    }
    if now.versions.envoy != baseline.versions.envoy {
        different.push("the baseline was made with another Envoy".to_owned());
    }
    if !is_saturated(now) || !is_saturated(baseline) {
        different.push("throughput is not compared: Envoy was not always the limit".to_owned());
    }
    different
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn what_is_within_the_tolerance_passes() {
        assert_eq!(regressions(&sample(4.4), &sample(4.0)), Vec::<String>::new());
        assert_eq!(regressions(&sample(2.0), &sample(4.0)), Vec::<String>::new());
    }

    #[test]
    fn what_is_worse_is_told_with_both_figures() {
        let worse = regressions(&sample(5.0), &sample(4.0));
        assert_eq!(
            worse,
            [
                "(d) over plain Envoy: CPU time per request 5.00, was 4.00",
                "(d) over plain Envoy: throughput 0.20, was 0.25",
                "(d) over Envoy's own filters: CPU time per request 2.50, was 2.00",
                "(d) over Envoy's own filters: added CPU time 4.00, was 3.00",
                "(d) over Envoy's own filters: throughput 0.40, was 0.50",
            ]
        );
    }

    #[test]
    fn throughput_counts_only_where_envoy_was_the_limit() {
        let mut now = sample(5.0);
        now.variants.last_mut().unwrap().result.saturation.envoy_busy.median = 0.4;
        let worse = regressions(&now, &sample(4.0));
        assert!(worse.len() == 3 && worse.iter().all(|line| line.contains("CPU")), "{worse:?}");
        assert_eq!(differences(&now, &sample(4.0)).len(), 1);
    }

    #[test]
    fn another_machine_is_mentioned() {
        let mut other = sample(4.0);
        assert_eq!(differences(&other, &sample(4.0)), Vec::<String>::new());
        other.machine.cpus = 64;
        assert_eq!(differences(&other, &sample(4.0)).len(), 1);
    }

    #[test]
    fn a_file_that_is_no_report_is_refused() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let refusal = read(&manifest).unwrap_err().to_string();
        assert!(refusal.contains("is no report"), "{refusal}");
    }
}
