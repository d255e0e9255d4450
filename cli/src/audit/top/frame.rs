//! One picture of `top`, for a terminal and for scripts.
//!
//! Owns its sections and their words.

use std::time::Duration;

use serde_json::{Value, json};
use unicode_width::UnicodeWidthChar as _;

use super::recent::{Group, Outcomes, Summary};
use crate::report::table;
use crate::time::Seconds;

pub(super) struct Frame<'a> {
    pub(super) summary: &'a Summary,
    /// How many rows each section has at most.
    pub(super) rows: usize,
    /// Windows that are nearly used up, or the reason why `top` does not know them.
    pub(super) windows: Result<&'a [Value], &'a str>,
    pub(super) over: u8,
}

impl Frame<'_> {
    pub(super) fn text(&self) -> String {
        let Summary { callers, tools, rules, .. } = self.summary;
        let mut parts = vec![self.head()];
        let per_second = |group: &Group| per_second(group.outcomes.requests, self.summary.span);
        let rows = callers.iter().take(self.rows).map(|group| {
            let [requests, failed, refused, limited, unavailable] = numbers(&group.outcomes);
            let p95 = group.p95_ms.to_string();
            let name = group.name.clone();
            [name, requests, per_second(group), failed, refused, limited, unavailable, p95]
        });
        let header =
            ["CALLER", "REQUESTS", "/S", "FAILED", "REFUSED", "LIMITED", "UNAVAILABLE", "P95 MS"];
        parts.push(table(header, rows.collect()));
        let rows = tools.iter().take(self.rows).map(|group| {
            let [requests, failed, ..] = numbers(&group.outcomes);
            let [p50, p95, p99] =
                [group.p50_ms, group.p95_ms, group.p99_ms].map(|ms| ms.to_string());
            [group.name.clone(), requests, per_second(group), failed, p50, p95, p99]
        });
        let header = ["CALL", "REQUESTS", "/S", "FAILED", "P50 MS", "P95 MS", "P99 MS"];
        parts.push(table(header, rows.collect()));
        if !rules.is_empty() {
            let rows = rules
                .iter()
                .take(self.rows)
                .map(|row| [row.rule.clone(), row.requests.to_string(), row.callers.to_string()]);
            parts.push(table(["REFUSED BY", "REQUESTS", "CALLERS"], rows.collect()));
        }
        parts.push(self.windows());
        parts.join("\n\n")
    }

    fn head(&self) -> String {
        let Summary { now, span, all, is_cut, .. } = self.summary;
        let [requests, failed, refused, limited, unavailable] = numbers(&all.outcomes);
        let rate = per_second(all.outcomes.requests, *span);
        let cut = if *is_cut { " (not all of them are remembered)" } else { "" };
        format!(
            "{}  last {} s: {requests} requests{cut}, {rate}/s; failed {failed}, refused {refused}, limited {limited}, \
             unavailable {unavailable}; p50 {} ms, p95 {} ms, p99 {} ms",
            Seconds(now.as_secs()).rfc3339(),
            span.as_secs(),
            all.p50_ms,
            all.p95_ms,
            all.p99_ms,
        )
    }

    fn windows(&self) -> String {
        let windows = match self.windows {
            Ok(windows) => windows,
            Err(why) => return format!("windows are not shown: {}", crate::escape::line(why)),
        };
        if windows.is_empty() {
            return format!("no window is used to {} % or more", self.over);
        }
        let text = |window: &Value, member: &str| match window.get(member) {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => "-".to_owned(),
            Some(value) => value.to_string(),
        };
        let rows = windows.iter().take(self.rows).map(|window| {
            ["limit", "org", "name", "used", "max", "percent"].map(|member| text(window, member))
        });
        table(["WINDOW", "ORG", "NAME", "USED", "MAX", "%"], rows.collect())
    }

    pub(super) fn json(&self) -> Value {
        let Summary { now, span, all, callers, tools, rules, is_cut } = self.summary;
        let group = |group: &Group| {
            let Outcomes { requests, failed, refused, limited, unavailable } = group.outcomes;
            json!({
                "name": group.name, "requests": requests, "failed": failed, "refused": refused,
                "limited": limited, "unavailable": unavailable,
                "p50_ms": group.p50_ms, "p95_ms": group.p95_ms, "p99_ms": group.p99_ms,
            })
        };
        let groups = |groups: &[Group]| groups.iter().take(self.rows).map(group).collect::<Value>();
        let rules = rules.iter().take(self.rows).map(
            |row| json!({ "rule": row.rule, "requests": row.requests, "callers": row.callers }),
        );
        let mut all = group(all);
        if let Some(all) = all.as_object_mut() {
            all.remove("name");
        }
        json!({
            "at": Seconds(now.as_secs()).rfc3339(), "seconds": span.as_secs(), "all": all, "cut": is_cut,
            "callers": groups(callers), "calls": groups(tools), "refused_by": rules.collect::<Value>(),
            "windows": self.windows.ok(), "windows_error": self.windows.err(),
        })
    }
}

fn numbers(outcomes: &Outcomes) -> [String; 5] {
    let Outcomes { requests, failed, refused, limited, unavailable } = *outcomes;
    [requests, failed, refused, limited, unavailable].map(|number| number.to_string())
}

/// A rate with one decimal digit.
fn per_second(requests: u64, span: Duration) -> String {
    let tenths = requests.saturating_mul(10).checked_div(span.as_secs()).unwrap_or_default();
    format!(
        "{}.{}",
        tenths.checked_div(10).unwrap_or_default(),
        tenths.checked_rem(10).unwrap_or_default()
    )
}

/// Cuts a line to the width of a terminal.
pub(super) fn cut(line: &str, columns: usize) -> String {
    let mut left = columns;
    let fits = line.chars().take_while(|letter| {
        let width = letter.width().unwrap_or_default();
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    });
    fits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_one_digit_behind_the_point_and_a_line_the_columns_there_are() {
        assert_eq!(per_second(1_234, Duration::from_secs(60)), "20.5");
        assert_eq!(per_second(3, Duration::from_secs(60)), "0.0");
        assert_eq!(cut("aé漢字", 4), "aé漢");
        assert_eq!(cut("abc", usize::MAX), "abc");
    }
}
