//! `target/bench/compare.json` and the page of the comparison with other gateways.
//!
//! Owns the schema, the figures derived from the loads, and the wording. Measures nothing.

use super::super::machine::{Machine, Noise};
use super::super::report::Versions as Ours;
use super::super::stats::Spread;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

/// The version of the schema.
pub(super) const SCHEMA: u32 = 1;
/// Above this, another process used the machine.
const BUSY: f64 = 0.05;
const STEAL: f64 = 0.01;
/// Below this share of a CPU, the gateway was not the limit.
const SATURATED: f64 = 0.9;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) schema: u32,
    /// Seconds since 1970.
    pub(super) unix_time: u64,
    pub(super) machine: Machine,
    /// The load of the machine before the gateways started.
    pub(super) noise: Noise,
    /// The CPU of the loaded gateway; empty when nothing was bound.
    pub(super) gateway_cpus: Vec<usize>,
    pub(super) versions: Versions,
    pub(super) contextforge_settings: Vec<(String, String)>,
    pub(super) parameters: Parameters,
    /// Requests per second of the fixed rate.
    pub(super) fixed_rate: f64,
    /// Reasons to distrust a figure; empty without any.
    pub(super) warnings: Vec<String>,
    /// The first is plain Envoy, the two after it are this gateway's variants.
    pub(super) rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub(super) struct Versions {
    #[serde(flatten)]
    pub(super) ours: Ours,
    pub(super) contextforge: String,
    pub(super) python: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Parameters {
    pub(super) seconds: f64,
    pub(super) rounds: u32,
    pub(super) fixed_seconds: f64,
    pub(super) fixed_rounds: u32,
    pub(super) connections: u32,
}

/// A gateway with its loads, in the order of the rounds.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) letter: String,
    pub(super) title: String,
    /// Of all processes, after all loads.
    pub(super) resident_bytes: u64,
    pub(super) processes: usize,
    /// CPU time without requests, microseconds per second.
    pub(super) idle_us_per_second: f64,
    pub(super) saturation: Vec<Load>,
    pub(super) fixed_rate: Vec<Load>,
}

/// One load. Each of its answers was the right one.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Load {
    pub(super) requests: u64,
    pub(super) seconds: f64,
    /// CPU time of all processes of the gateway, microseconds.
    pub(super) cpu_us: f64,
    /// CPU time of Valkey, microseconds.
    pub(super) redis_us: f64,
    /// All requests that the upstream had: the calls, and others that the gateway made for them.
    pub(super) upstream_requests: u64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) lateness_p99_us: f64,
    pub(super) unsent: u64,
}

impl Load {
    fn per_second(&self) -> f64 {
        self.answers() / self.seconds
    }

    fn cpu_us_per_request(&self) -> f64 {
        self.cpu_us / self.answers()
    }

    fn busy(&self) -> f64 {
        self.cpu_us / 1_000_000.0 / self.seconds
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers of requests are small")]
    fn upstream_per_request(&self) -> f64 {
        self.upstream_requests as f64 / self.answers()
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers of requests are small")]
    fn answers(&self) -> f64 {
        self.requests as f64
    }
}

fn spread(loads: &[Load], figure: fn(&Load) -> f64) -> Option<Spread> {
    Spread::of(loads.iter().map(figure).collect())
}

/// The median throughput; `None` without a load.
pub(super) fn per_second(loads: &[Load]) -> Option<f64> {
    Some(spread(loads, Load::per_second)?.median)
}

/// CPU time per request at saturation, as a ratio to another row in the same round.
fn ratio(ours: &Row, theirs: &Row) -> Option<Spread> {
    let cpu = |row: &Row| spread(&row.saturation, Load::cpu_us_per_request);
    cpu(ours)?.paired(&cpu(theirs)?, |a, b| a / b)
}

/// Every reason to distrust the figures of this run.
pub(super) fn warnings(report: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    let noise = &report.noise;
    if noise.busy > BUSY || noise.steal > STEAL {
        warnings.push(format!(
            "the machine was busy before anything was loaded ({:.0} % used, {:.0} % stolen, load {:.1}): \
             only ratios count",
            noise.busy * 100.0,
            noise.steal * 100.0,
            noise.load_1m
        ));
    }
    if report.gateway_cpus.is_empty() {
        warnings.push("one CPU only: the gateways, loader, upstream and Valkey share it".into());
    }
    for row in &report.rows {
        let busy = spread(&row.saturation, Load::busy).map_or(0.0, |busy| busy.median);
        if busy < SATURATED {
            warnings.push(format!(
                "({}) was busy for {:.0} % only: its throughput is not its limit",
                row.letter,
                busy * 100.0
            ));
        }
        let unsent: u64 = row.fixed_rate.iter().map(|load| load.unsent).sum();
        if unsent > 0 {
            warnings.push(format!(
                "({}) {unsent} requests of the fixed rate were not sent",
                row.letter
            ));
        }
    }
    warnings
}

/// The whole page, in Markdown.
pub(super) fn page(report: &Report) -> String {
    let (machine, versions, run) = (&report.machine, &report.versions, &report.parameters);
    let fewest =
        report.rows.iter().map(|row| row.fixed_rate.iter().map(|load| load.requests).sum());
    let fewest: u64 = fewest.min().unwrap_or_default();
    let mut page = format!(
        "{}, {} CPUs, Linux {}; Envoy {}, Valkey {}; Portcullis {}; ContextForge {} with Python {}, one worker.\n\n\
         {}\n\n\
         Medians of {} rounds of {} s at saturation, {} connections. p50 and p99 at {:.1} requests/s, medians of {} \
         rounds of {} s, {fewest} requests or more in all.\n",
        machine.cpu,
        machine.cpus,
        machine.kernel,
        versions.ours.envoy,
        versions.ours.valkey,
        versions.ours.portcullis,
        versions.contextforge,
        versions.python,
        table(report),
        run.rounds,
        run.seconds,
        run.connections,
        report.fixed_rate,
        run.fixed_rounds,
        run.fixed_seconds,
    );
    match report.warnings.as_slice() {
        [] => page.push_str("Nothing that the command watches for speaks against these figures.\n"),
        warnings => {
            page.push_str("What speaks against these figures:\n\n");
            page.extend(warnings.iter().map(|warning| format!("- {warning}\n")));
        }
    }
    let settings = report.contextforge_settings.iter();
    let settings: Vec<String> = settings.map(|(name, value)| format!("`{name}={value}`")).collect();
    page.push_str(&format!(
        "\nSettings of ContextForge: {}, `--timeout-keep-alive 60`; (f2) `USE_STATEFUL_SESSIONS=true`.\n",
        settings.join(", ")
    ));
    page
}

fn table(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "",
        "gateway",
        "CPU/req",
        "× (a)",
        "× (c)",
        "× (d)",
        "Valkey/req",
        "upstream",
        "req/s",
        "p50",
        "p99",
        "memory",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in &report.rows {
        table.add_row(cells(report, row));
    }
    table.trim_fmt()
}

fn cells(report: &Report, row: &Row) -> Vec<String> {
    let median =
        |loads: &[Load], figure| spread(loads, figure).map_or(f64::NAN, |spread| spread.median);
    let (full, fixed) = (row.saturation.as_slice(), row.fixed_rate.as_slice());
    let times = |letter: &str| {
        let base = report.rows.iter().find(|base| base.letter == letter);
        let base = base.filter(|base| base.letter != row.letter);
        base.and_then(|base| ratio(row, base)).map_or_else(String::new, shown)
    };
    let milliseconds = |us: f64| format!("{:.2} ms", us / 1_000.0);
    #[expect(clippy::cast_precision_loss, reason = "shown without digits")]
    let megabytes = row.resident_bytes as f64 / 1_000_000.0;
    let redis = median(full, |load| load.redis_us / load.answers());
    vec![
        row.letter.clone(),
        row.title.clone(),
        milliseconds(median(full, Load::cpu_us_per_request)),
        times("a"),
        times("c"),
        times("d"),
        format!("{:.2} ms", redis / 1_000.0),
        format!("{:.0}", median(full, Load::upstream_per_request)),
        format!("{:.0}", median(full, Load::per_second)),
        milliseconds(median(fixed, |load| load.p50_us)),
        milliseconds(median(fixed, |load| load.p99_us)),
        format!("{megabytes:.0} MB"),
    ]
}

/// A ratio, with the range over the rounds where it is large.
fn shown(ratio: Spread) -> String {
    if ratio.median < 10.0 {
        return format!("{:.2}", ratio.median);
    }
    format!("{:.0} [{:.0}..{:.0}]", ratio.median, ratio.min, ratio.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(letter: &str, cpu_us: f64) -> Row {
        let load = |scale: f64| Load {
            requests: 100,
            seconds: 1.0,
            cpu_us: cpu_us * 100.0 * scale,
            redis_us: 0.0,
            upstream_requests: 400,
            p50_us: 2_000.0,
            p99_us: 4_000.0,
            lateness_p99_us: 1.0,
            unsent: 0,
        };
        Row {
            letter: letter.to_owned(),
            title: "a gateway".to_owned(),
            resident_bytes: 2_000_000,
            processes: 1,
            idle_us_per_second: 0.0,
            saturation: vec![load(1.0), load(1.2)],
            fixed_rate: vec![load(1.0)],
        }
    }

    fn report() -> Report {
        let (cpu, kernel) = ("x".to_owned(), "6".to_owned());
        let ours = Ours {
            portcullis: "v0".into(),
            module_bytes: 1,
            envoy: "1.40.0".into(),
            valkey: "9".into(),
        };
        Report {
            schema: SCHEMA,
            unix_time: 0,
            machine: Machine { cpu, cpus: 2, memory_bytes: 4, kernel },
            noise: Noise { busy: 0.0, steal: 0.0, load_1m: 0.0 },
            gateway_cpus: vec![0],
            versions: Versions { ours, contextforge: "1".into(), python: "3".into() },
            contextforge_settings: vec![("A".into(), "b".into())],
            parameters: Parameters {
                seconds: 1.0,
                rounds: 2,
                fixed_seconds: 3.0,
                fixed_rounds: 1,
                connections: 8,
            },
            fixed_rate: 2.5,
            warnings: Vec::new(),
            rows: vec![row("a", 100.0), row("c", 400.0), row("d", 500.0), row("f", 20_000.0)],
        }
    }

    #[test]
    fn the_page_has_ratios_to_each_base_in_the_same_round() {
        let page = page(&report());
        let line = |letter: &str| {
            page.lines().find(|line| line.starts_with(&format!("| {letter} "))).unwrap_or_default()
        };
        assert!(
            line("f").contains("200 [200..200]") && line("f").contains("50 [50..50]"),
            "{page}"
        );
        assert!(line("f").contains("22.00 ms") && line("c").contains("| 4.00 "), "{page}");
        assert!(page.contains("100 requests or more in all"), "{page}");
        assert!(page.contains("Settings of ContextForge: `A=b`, `--"), "{page}");
        let cells = page.lines().filter(|line| line.starts_with('|'));
        assert!(
            cells.clone().count() == 6
                && cells.into_iter().all(|line| line.matches('|').count() == 13)
        );
    }

    #[test]
    fn a_gateway_that_was_not_the_limit_and_a_busy_machine_are_doubts() {
        let mut report = report();
        report.noise.busy = 0.5;
        if let Some(row) = report.rows.last_mut() {
            row.fixed_rate.iter_mut().for_each(|load| load.unsent = 2);
        }
        let text = warnings(&report).join("\n");
        assert!(text.contains("50 % used") && text.contains("(f) 2 requests"), "{text}");
        assert!(
            text.contains("(a) was busy for 1 % only") && !text.contains("(f) was busy"),
            "{text}"
        );
    }
}
