//! The report for people, as a page for `docs/explanation/benchmarks.md`: the machine, a table, and the reasons to
//! distrust it.
//!
//! Owns thresholds and wording. Measures nothing.

use super::report::{Measured, Ratios, Report, Row};
use super::stats::Spread;
use super::vm::Crossings;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Above this, another process used the machine.
const BUSY: f64 = 0.05;
const STEAL: f64 = 0.01;
const FOREIGN: f64 = 0.05;
/// Below this, Envoy was not the limit.
pub(crate) const SATURATED: f64 = 0.9;
/// The rounds of one figure should be closer together than this.
const WIDTH: f64 = 0.15;
/// A loader that is later than this for its own reasons blurs the latencies.
const LATENESS_US: f64 = 1_000.0;

/// Every reason to distrust the figures of this run.
pub(crate) fn warnings(report: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    let noise = &report.noise;
    if noise.busy > BUSY || noise.steal > STEAL {
        warnings.push(format!(
            "the machine was busy before anything was loaded: {} used, {} stolen, load {:.2}",
            percent(noise.busy),
            percent(noise.steal),
            noise.load_1m
        ));
    }
    if report.envoy_cpus.is_empty() {
        warnings.push(
            "one CPU only: Envoy, loader, upstream and Valkey take it from each other".into(),
        );
    }
    warnings.extend(disturbed(report));
    for row in &report.variants {
        let about = |sentence: String| format!("({}) {sentence}", row.variant.letter());
        warnings.extend(doubts(&row.result).into_iter().map(about));
    }
    warnings
}

/// Disturbances of all variants, by the variant that was disturbed most.
fn disturbed(report: &Report) -> impl Iterator<Item = String> {
    let worst = |figure: fn(&Measured) -> f64| {
        report.variants.iter().map(|row| figure(&row.result)).fold(0.0, f64::max)
    };
    let foreign =
        worst(|result| result.saturation.foreign.median.max(result.fixed_rate.foreign.median));
    let late = worst(|result| result.fixed_rate.lateness_p99_us.median);
    let used = format!("others used up to {} of the machine meanwhile", percent(foreign));
    let lateness = format!(
        "the loader itself was late by up to {} in one of a hundred requests: p99 is not the gateway's alone",
        milliseconds(late)
    );
    let used = (foreign > FOREIGN).then_some(used);
    used.into_iter().chain((late > LATENESS_US).then_some(lateness))
}

fn doubts(result: &Measured) -> Vec<String> {
    let mut doubts = Vec::new();
    let (full, fixed) = (&result.saturation, &result.fixed_rate);
    if full.envoy_busy.median < SATURATED {
        doubts.push(format!(
            "Envoy was busy for {} only: its throughput is not its limit; CPU time still is its own",
            percent(full.envoy_busy.median)
        ));
    }
    if full.envoy_us_per_request.width() > WIDTH {
        doubts.push(format!(
            "CPU time per request differs by {} between rounds",
            percent(full.envoy_us_per_request.width())
        ));
    }
    if fixed.unsent > 0 {
        doubts.push(format!("{} requests of the fixed rate were never sent", fixed.unsent));
    }
    doubts
}

/// The whole page, in Markdown.
pub(crate) fn page(report: &Report) -> String {
    let (versions, machine, parameters) = (&report.versions, &report.machine, &report.parameters);
    let mut page = format!(
        "{}, {} CPUs, Linux {}; Envoy {}, Valkey {}; Portcullis {}, module {:.2} MB.\n\n{}\n\n\
         Medians and [quartiles] of {} rounds of {} s, {} connections, one worker; \"at rate\", p50 and p99 at {:.0} \
         requests/s.\n\n{}\n",
        machine.cpu,
        machine.cpus,
        machine.kernel,
        versions.envoy,
        versions.valkey,
        versions.portcullis,
        megabytes(versions.module_bytes),
        table(report),
        parameters.rounds,
        parameters.seconds,
        parameters.connections,
        report.fixed_rate,
        report.variants.iter().map(remarks).collect::<String>()
    );
    match report.warnings.as_slice() {
        [] => page.push_str("Nothing that the command watches for speaks against these figures.\n"),
        warnings => {
            page.push_str("What speaks against these figures:\n\n");
            page.extend(warnings.iter().map(|warning| format!("- {warning}\n")));
        }
    }
    page
}

fn table(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "",
        "variant",
        "CPU/req",
        "over plain",
        "added × native",
        "× plain",
        "× native",
        "CPU at rate",
        "added × at rate",
        "Valkey/req",
        "req/s",
        "p50",
        "p99",
        "RSS",
        "idle",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in &report.variants {
        table.add_row(cells(row));
    }
    table.trim_fmt()
}

fn cells(row: &Row) -> Vec<String> {
    let result = &row.result;
    let (full, fixed) = (&result.saturation, &result.fixed_rate);
    let over = |ratios: &Option<Ratios>, figure: fn(&Ratios) -> String| {
        ratios.as_ref().map_or_else(String::new, figure)
    };
    let times = |ratios: &Ratios| format!("{:.2}", ratios.envoy_us_per_request.median);
    let redis = format!("{:.1} µs", full.redis_us_per_request.median);
    vec![
        row.variant.letter().to_owned(),
        row.title.clone(),
        format!("{:.1} µs", full.envoy_us_per_request.median),
        over(&result.to_plain, |ratios| range(&ratios.envoy_us_added)),
        over(&result.to_native, |ratios| ratios.added.as_ref().map_or_else(String::new, ratio)),
        over(&result.to_plain, times),
        over(&result.to_native, times),
        format!("{:.1} µs", fixed.envoy_us_per_request.median),
        over(&result.to_native, |ratios| {
            ratios.added_at_rate.as_ref().map_or_else(String::new, ratio)
        }),
        if row.variant.asks_redis() { redis } else { String::new() },
        format!("{:.0}", full.per_second.median),
        milliseconds(fixed.p50_us.median),
        milliseconds(fixed.p99_us.median),
        format!("{:.0} MB", megabytes(result.memory.resident)),
        format!("{:.1} ms/s", result.idle_us_per_second / 1_000.0),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_000_000.0
}

/// `+57.1 µs [54.9..60.2]`: the median and the quartiles of the rounds.
pub(crate) fn range(spread: &Spread) -> String {
    let [low, median, high] = spread.quartiles();
    format!("{median:+.1} µs [{low:.1}..{high:.1}]")
}

/// `2.31 [2.20..2.44]`
fn ratio(spread: &Spread) -> String {
    let [low, median, high] = spread.quartiles();
    format!("{median:.2} [{low:.2}..{high:.2}]")
}

/// What a row has beside its cells.
fn remarks(row: &Row) -> String {
    let mut remarks = String::new();
    let letter = row.variant.letter();
    let fair = row.result.to_fair.as_ref().and_then(|ratios| ratios.added.as_ref());
    if let (Some(added), Some(fair)) = (fair, row.variant.fair()) {
        let (added, fair) = (ratio(added), fair.letter());
        remarks.push_str(&format!("({letter}) adds {added} times what ({fair}) adds.\n"));
    }
    if let Some(Crossings { entries, host_calls, allocations }) = row.result.crossings {
        remarks.push_str(&format!(
            "({letter}) per call: {entries} VM entries, {host_calls} host calls, {allocations} allocations for Envoy.\n"
        ));
    }
    remarks
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn milliseconds(micros: f64) -> String {
    format!("{:.2} ms", micros / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn a_page_is_markdown_with_a_line_for_every_row() {
        let text = page(&sample(4.0));
        assert!(text.contains("+120.0 µs [108.0..132.0]"), "{text}");
        assert!(text.contains("| 3.00 [3.00..3.00] |"), "{text}");
        assert!(text.contains("(d) per call: 8 VM entries, 30 host calls, 5 all"), "{text}");
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(lines.len(), 2 + 4, "{text}");
        assert!(lines.iter().all(|line| line.matches('|').count() == 16), "{text}");
        assert!(lines.get(1).is_some_and(|line| line.starts_with("|--")), "{text}");
        assert!(
            text.ends_with("Nothing that the command watches for speaks against these figures.\n")
        );
    }

    #[test]
    fn a_quiet_run_has_only_the_doubts_that_it_deserves() {
        let mut report = sample(4.0);
        // Rounds of the sample are ±10 % apart.
        assert!(warnings(&report).iter().all(|warning| warning.contains("differs by 20 %")));
        report.noise.steal = 0.2;
        for row in &mut report.variants {
            row.result.saturation.envoy_busy.median = 0.5;
            row.result.fixed_rate.unsent = 3;
        }
        let text = warnings(&report).join("\n");
        assert!(text.contains("20 % stolen"), "{text}");
        assert!(text.contains("(d) Envoy was busy for 50 % only"), "{text}");
        assert!(text.contains("(a) 3 requests of the fixed rate"), "{text}");
    }
}
