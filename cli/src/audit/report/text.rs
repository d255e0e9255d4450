//! A report for the terminal.
//!
//! Owns its sections and their text.

use super::summary::{Count, Summary, ToolRow};
use crate::report::table;

pub(super) fn text(summary: &Summary) -> String {
    let mut parts = vec![head(summary)];
    let mut section = |title: &str, rows: String| parts.push(format!("{title}\n{rows}"));
    section("CALLS BY STATUS", counts(["STATUS", "REQUESTS"], &summary.statuses));
    section("TOP CALLERS", {
        let rows = summary.callers.iter().map(|row| {
            let numbers = [row.calls, row.failed, row.refused, row.outside_hours];
            let [calls, failed, refused, outside] = numbers.map(|number| number.to_string());
            [row.caller.clone(), calls, failed, refused, outside]
        });
        table(["CALLER", "REQUESTS", "FAILED", "REFUSED", "OUTSIDE HOURS"], rows.collect())
    });
    section("REFUSALS BY RULE", counts(["RULE", "REQUESTS"], &summary.denials));
    section(&first_uses_title(summary), {
        let rows = summary
            .first_uses
            .iter()
            .map(|row| [row.time.clone(), row.caller.clone(), row.tool.clone()]);
        table(["TIME", "CALLER", "TOOL"], rows.collect())
    });
    section("SLOWEST TOOLS", {
        let rows = summary.slowest.iter().map(|row| {
            let numbers = [row.calls, row.p50_ms, row.p95_ms, row.p99_ms];
            let [calls, p50, p95, p99] = numbers.map(|number| number.to_string());
            [row.tool.clone(), calls, p50, p95, p99]
        });
        table(["TOOL", "CALLS", "P50 MS", "P95 MS", "P99 MS"], rows.collect())
    });
    section("RATE OF FAILURES", {
        let rows = summary.failing.iter().map(failing);
        table(["TOOL", "CALLS", "FAILED", "PERCENT"], rows.collect())
    });
    section("SIZE OF ARGUMENTS", {
        let rows = summary.largest_inputs.iter().map(|row| {
            let numbers = [row.input_p95_bytes, row.input_max_bytes];
            let [p95, max] = numbers.map(|number| number.to_string());
            [row.tool.clone(), p95, max]
        });
        table(["TOOL", "P95 BYTES", "MAX BYTES"], rows.collect())
    });
    section("LIMITS NEAR THEIR END", {
        let rows = summary.limits.iter().map(|row| {
            let used = format!("{} of {}", row.used, row.of);
            let used = if row.of == 0 { "-".to_owned() } else { used };
            [row.limit.clone(), used, row.alerts.to_string(), row.refusals.to_string()]
        });
        table(["LIMIT", "USED", "ALERTS", "REFUSALS"], rows.collect())
    });
    section("TOOLS THAT CHANGED", {
        let rows = summary
            .drift
            .iter()
            .map(|row| [row.drift.clone(), row.times.to_string(), row.last.clone()]);
        table(["TOOL, KIND, ACTION", "TIMES", "LAST"], rows.collect())
    });
    section(
        "FAILED AUTHENTICATION",
        counts(["ADDRESS, REASON", "REQUESTS"], &summary.auth_failures),
    );
    section("EVENTS", counts(["EVENT", "TIMES"], &summary.events));
    parts.retain(|part| part.lines().count() > 2 || part.starts_with("From"));
    parts.join("\n\n")
}

pub(super) fn head(summary: &Summary) -> String {
    format!(
        "From {} to {}: {} requests of {} callers with {} tools; {} outside of working hours; {}.",
        summary.from,
        summary.to,
        summary.requests,
        summary.callers_total,
        summary.tools_total,
        summary.outside_hours,
        match summary.admin_changes {
            0 => "these logs have no changes by administrators (portcullis audit show --admin)"
                .to_owned(),
            1 => "1 change by administrators".to_owned(),
            changes => format!("{changes} changes by administrators"),
        }
    )
}

/// The title of the section about first uses, which depends on the log before the reported time.
pub(super) fn first_uses_title(summary: &Summary) -> String {
    let known = match summary.earlier_entries {
        0 => "the logs begin with this time, so every tool is new".to_owned(),
        earlier => format!("compared with {earlier} earlier entries"),
    };
    let more =
        if summary.first_uses_incomplete { "; there are more than can be remembered" } else { "" };
    format!("FIRST USE OF A TOOL BY A CALLER: {} ({known}{more})", summary.first_uses_total)
}

fn failing(row: &ToolRow) -> [String; 4] {
    let percent = format!("{:.1}", row.failed_percent);
    [row.tool.clone(), row.calls.to_string(), row.failed.to_string(), percent]
}

fn counts(header: [&str; 2], counts: &[Count]) -> String {
    table(header, counts.iter().map(|it| [it.name.clone(), it.count.to_string()]).collect())
}
