//! The content of a report, from the counts: sorted, cut to the first rows.
//!
//! Owns the order of rows, and the JSON of `--output json`.

use jiff::Timestamp;
use serde::Serialize;

use super::tally::{Capped, Outcomes, Tally, Tool};

#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) requests: u64,
    /// The number of entries before that time: an object without such an entry is new.
    pub(super) earlier_entries: u64,
    pub(super) admin_changes: u64,
    /// Lines of other programs, and unreadable entries.
    pub(super) foreign_lines: u64,
    pub(super) damaged_lines: u64,
    pub(super) statuses: Vec<Count>,
    pub(super) days: Vec<Day>,
    /// Monday to Sunday, each by hour in UTC.
    pub(super) hours: Vec<Vec<u64>>,
    pub(super) outside_hours: u64,
    pub(super) callers: Vec<CallerRow>,
    pub(super) callers_total: usize,
    /// Sorted by calls.
    pub(super) tools: Vec<ToolRow>,
    pub(super) tools_total: usize,
    /// Sorted by p95 of the duration.
    pub(super) slowest: Vec<ToolRow>,
    /// Sorted by the share of failed calls.
    pub(super) failing: Vec<ToolRow>,
    /// Sorted by p95 of the size of arguments.
    pub(super) largest_inputs: Vec<ToolRow>,
    pub(super) denials: Vec<Count>,
    pub(super) first_uses: Vec<FirstUseRow>,
    pub(super) first_uses_total: u64,
    pub(super) first_uses_incomplete: bool,
    /// Limits with alerts or refusals, the fullest first.
    pub(super) limits: Vec<LimitRow>,
    pub(super) drift: Vec<DriftRow>,
    pub(super) auth_failures: Vec<Count>,
    pub(super) events: Vec<Count>,
}

#[derive(Debug, Serialize)]
pub(super) struct Count {
    pub(super) name: String,
    pub(super) count: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Day {
    pub(super) day: String,
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) refused: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct CallerRow {
    pub(super) caller: String,
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) refused: u64,
    pub(super) outside_hours: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct ToolRow {
    pub(super) tool: String,
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) refused: u64,
    pub(super) failed_percent: f64,
    pub(super) p50_ms: u64,
    pub(super) p95_ms: u64,
    pub(super) p99_ms: u64,
    pub(super) input_p95_bytes: u64,
    pub(super) input_max_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct FirstUseRow {
    pub(super) time: String,
    pub(super) caller: String,
    pub(super) tool: String,
}

#[derive(Debug, Serialize)]
pub(super) struct LimitRow {
    pub(super) limit: String,
    pub(super) alerts: u64,
    pub(super) used: u64,
    pub(super) of: u64,
    pub(super) refusals: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct DriftRow {
    pub(super) drift: String,
    pub(super) times: u64,
    pub(super) last: String,
}

impl Summary {
    /// The summary, with at most `top` rows in each list.
    pub(super) fn of(tally: Tally, top: usize) -> Self {
        let tools: Vec<ToolRow> = tools(&tally.tools);
        let by = |key: fn(&ToolRow) -> u64| {
            let mut rows: Vec<ToolRow> = tools.iter().filter(|row| key(row) > 0).cloned().collect();
            rows.sort_by(|a, b| key(b).cmp(&key(a)).then_with(|| a.tool.cmp(&b.tool)));
            rows.truncate(top);
            rows
        };
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
        let mut first_uses: Vec<_> = tally.first_uses.into_values().collect();
        first_uses.sort_by(|a, b| (a.at, &a.caller, &a.tool).cmp(&(b.at, &b.caller, &b.tool)));
        first_uses.truncate(top.saturating_mul(3));
        Self {
            from: time(tally.first),
            to: time(tally.last),
            requests: tally.requests,
            earlier_entries: tally.before,
            admin_changes: tally.changes,
            foreign_lines: 0,
            damaged_lines: 0,
            statuses: counts(&tally.statuses, usize::MAX),
            days: tally.days.iter().map(|(day, outcomes)| Day::of(*day, outcomes)).collect(),
            hours: tally.hours.iter().map(|hours| hours.to_vec()).collect(),
            outside_hours: tally.outside_hours,
            callers_total: tally.callers.known.len(),
            callers: rows(
                &tally.callers,
                top,
                |it| it.outcomes.calls,
                |caller, it| CallerRow {
                    caller,
                    calls: it.outcomes.calls,
                    failed: it.outcomes.failed,
                    refused: it.outcomes.refused,
                    outside_hours: it.outside_hours,
                },
            ),
            tools_total: tools.len(),
            slowest: by(|row| row.p95_ms),
            failing: by(|row| thousandths(row.failed, row.calls)),
            largest_inputs: by(|row| row.input_p95_bytes),
            tools: by(|row| row.calls),
            denials: counts(&tally.denials, top),
            first_uses: first_uses
                .into_iter()
                .map(|it| FirstUseRow { time: it.time, caller: it.caller, tool: it.tool })
                .collect(),
            first_uses_total: tally.first_uses_total,
            first_uses_incomplete: tally.pairs_are_full,
            limits: rows(
                &tally.limits,
                top,
                |it| {
                    thousandths(it.used, it.of)
                        .saturating_add(it.refusals.min(1).saturating_mul(1_000))
                },
                |limit, it| LimitRow {
                    limit,
                    alerts: it.alerts,
                    used: it.used,
                    of: it.of,
                    refusals: it.refusals,
                },
            ),
            drift: rows(
                &tally.drift,
                top,
                |it| it.times,
                |drift, it| DriftRow { drift, times: it.times, last: it.last.clone() },
            ),
            auth_failures: counts(&tally.auth_failures, top),
            events: counts(&tally.events, top.max(30)),
        }
    }
}

impl Day {
    fn of(day: i64, outcomes: &Outcomes) -> Self {
        let Outcomes { calls, failed, refused } = *outcomes;
        let start = Timestamp::from_second(day.saturating_mul(86_400)).unwrap_or_default();
        Self {
            day: start.strftime("%Y-%m-%d").to_string(),
            passed: calls.saturating_sub(failed).saturating_sub(refused),
            failed,
            refused,
        }
    }
}

fn thousandths(part: u64, whole: u64) -> u64 {
    part.saturating_mul(1_000).checked_div(whole).unwrap_or_default()
}

fn tools(tools: &Capped<Tool>) -> Vec<ToolRow> {
    let row = |(name, tool): (&str, &Tool)| ToolRow {
        tool: name.to_owned(),
        calls: tool.outcomes.calls,
        failed: tool.outcomes.failed,
        refused: tool.outcomes.refused,
        failed_percent: percent(tool.outcomes.failed, tool.outcomes.calls),
        p50_ms: tool.latency.value_at_quantile(0.5),
        p95_ms: tool.latency.value_at_quantile(0.95),
        p99_ms: tool.latency.value_at_quantile(0.99),
        input_p95_bytes: tool.input.value_at_quantile(0.95),
        input_max_bytes: tool.input.max(),
    };
    let known = tools.known.iter().map(|(name, tool)| (name.as_str(), tool));
    let other = (tools.other.outcomes.calls > 0).then_some(("other tools", &tools.other));
    known.chain(other).map(row).collect()
}

/// A percentage with one decimal.
fn percent(part: u64, whole: u64) -> f64 {
    let thousandths = u32::try_from(thousandths(part, whole)).unwrap_or(1_000);
    f64::from(thousandths) / 10.0
}

fn rows<T, R>(
    all: &Capped<T>,
    top: usize,
    key: impl Fn(&T) -> u64,
    row: impl Fn(String, &T) -> R,
) -> Vec<R> {
    let mut known: Vec<(&str, &T)> =
        all.known.iter().map(|(name, value)| (name.as_str(), value)).collect();
    known.sort_by(|a, b| key(b.1).cmp(&key(a.1)).then_with(|| a.0.cmp(b.0)));
    known.truncate(top);
    if key(&all.other) > 0 {
        known.push(("others", &all.other));
    }
    known.into_iter().map(|(name, value)| row(name.to_owned(), value)).collect()
}

fn counts(all: &Capped<u64>, top: usize) -> Vec<Count> {
    rows(all, top, |count| *count, |name, count| Count { name, count: *count })
}
