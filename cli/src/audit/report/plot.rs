//! Plots of a report as inline SVG.
//!
//! Owns their geometry. The page owns the colours.

use std::fmt::Write as _;

use super::summary::{Day, ToolRow};

const WIDTH: f64 = 960.0;

/// Stacked bars, one per day.
pub(super) fn days(days: &[Day]) -> String {
    const HEIGHT: f64 = 180.0;
    const LEFT: f64 = 60.0;
    let all = |day: &Day| day.passed.saturating_add(day.failed).saturating_add(day.refused);
    let most = days.iter().map(all).max().unwrap_or_default().max(1);
    let mut svg = open(HEIGHT + 40.0, "Requests by day");
    let step = (WIDTH - LEFT) / number(days.len()).max(1.0);
    let _ = write!(svg, "<text x=\"{}\" y=\"20\" text-anchor=\"end\">{most}</text>", LEFT - 8.0);
    // The number of labels that fit.
    let every = days.len().div_ceil(12).max(1);
    for (index, day) in days.iter().enumerate() {
        let x = LEFT + step * number(index);
        let mut top = HEIGHT + 10.0;
        for (class, count) in
            [("good", day.passed), ("failed", day.failed), ("refused", day.refused)]
        {
            let height = HEIGHT * ratio(count, most);
            top -= height;
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\">\
                 <title>{}: {count}</title></rect>",
                (step * 0.8).min(60.0),
                day.day
            );
        }
        if index.checked_rem(every) == Some(0) {
            let label = day.day.get(5..).unwrap_or_default();
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{}\">{label}</text>", HEIGHT + 30.0);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Weekdays by hours; a darker cell has more requests.
pub(super) fn hours(hours: &[Vec<u64>]) -> String {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const LEFT: f64 = 60.0;
    const CELL: f64 = 24.0;
    let most = hours.iter().flatten().copied().max().unwrap_or_default().max(1);
    let step = (WIDTH - LEFT) / 24.0;
    let mut svg = open(CELL * 7.0 + 30.0, "Requests by weekday and hour");
    for (day, (name, hours)) in DAYS.iter().zip(hours).enumerate() {
        let y = CELL * number(day);
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            LEFT - 8.0,
            y + 16.0
        );
        for (hour, count) in hours.iter().enumerate() {
            // Small numbers must be visible, too.
            let opacity = if *count == 0 { 0.05 } else { 0.15 + 0.85 * ratio(*count, most) };
            let _ = write!(
                svg,
                "<rect class=\"good\" opacity=\"{opacity:.2}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" \
                 rx=\"2\"><title>{name} {hour:02}: {count}</title></rect>",
                LEFT + step * number(hour),
                step - 2.0,
                CELL - 2.0
            );
        }
    }
    for hour in [0_usize, 6, 12, 18] {
        let x = LEFT + step * number(hour);
        let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{}\">{hour:02}:00</text>", CELL * 7.0 + 18.0);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Three overlapping bars per tool.
pub(super) fn durations(tools: &[ToolRow], escaped: fn(&str) -> String) -> String {
    const LEFT: f64 = 260.0;
    const ROW: f64 = 26.0;
    let most = tools.iter().map(|tool| tool.p99_ms).max().unwrap_or_default().max(1);
    let mut svg = open(ROW * number(tools.len()) + 6.0, "Durations of the slowest tools");
    for (index, tool) in tools.iter().enumerate() {
        let y = ROW * number(index);
        let name: String = tool.tool.chars().take(40).collect();
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 15.0,
            escaped(&name)
        );
        for (value, opacity) in [(tool.p99_ms, 0.25), (tool.p95_ms, 0.5), (tool.p50_ms, 1.0)] {
            let width = (WIDTH - LEFT - 190.0) * ratio(value, most);
            let _ = write!(
                svg,
                "<rect class=\"good\" opacity=\"{opacity}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                 height=\"{}\" rx=\"2\"/>",
                ROW - 6.0
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\">{} / {} / {} ms</text>",
            LEFT + (WIDTH - LEFT - 190.0) * ratio(tool.p99_ms, most) + 8.0,
            y + 15.0,
            tool.p50_ms,
            tool.p95_ms,
            tool.p99_ms
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn open(height: f64, label: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{label}\">")
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn ratio(part: u64, whole: u64) -> f64 {
    // Rounded to a thousandth, which is less than a pixel.
    let thousandths = part.saturating_mul(1_000).checked_div(whole).unwrap_or_default();
    f64::from(u32::try_from(thousandths).unwrap_or(1_000)) / 1_000.0
}
