//! A report as one HTML page: no script, no external resources, light and dark.
//!
//! Owns the markup and its escapes.

use std::fmt::Write as _;

use super::plot;
use super::summary::{Count, Summary};
use super::text::{first_uses_title, head};
use crate::escape;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6878; --line: #d9dee6; --page: #fff; --box: #f6f8fa;
  --good: #3b7dd8; --failed: #d98a1f; --refused: #c43d4b }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9f0; --soft: #9aa6b6; --line: #333d4b; --page: #12171e;
  --box: #1a212b; --good: #5e9bea; --failed: #e6a549; --refused: #e5646f } }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.5rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin: 0 0 .25rem } h2 { font-size: 1.05rem; margin: 2.2rem 0 .6rem }
p { color: var(--soft); margin: .2rem 0 }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; background: var(--box) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .7rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap }
tr:last-child td { border-bottom: 0 } th { color: var(--soft); font-weight: 600 }
td.n, th.n { text-align: right }
svg { display: block; width: 100%; height: auto } svg text { fill: var(--soft); font: 11px system-ui, sans-serif }
.good { fill: var(--good) } .failed { fill: var(--failed) } .refused { fill: var(--refused) }
.key span { margin-right: 1.2rem } .key i { display: inline-block; width: .7rem; height: .7rem; margin-right: .35rem }
i.good { background: var(--good) } i.failed { background: var(--failed) } i.refused { background: var(--refused) }
";

pub(super) fn page(summary: &Summary) -> String {
    let mut page = Page(String::new());
    page.raw(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>Audit report</title>\n<style>",
    );
    page.raw(STYLE);
    page.raw("</style></head><body>\n<h1>Audit report</h1>\n");
    page.paragraph(&head(summary));
    if summary.damaged_lines > 0 {
        page.paragraph(&format!(
            "{} lines are damaged entries and are left out; portcullis audit verify names them.",
            summary.damaged_lines
        ));
    }
    page.heading("Requests by day");
    page.raw(
        "<p class=\"key\"><span><i class=\"good\"></i>passed</span><span><i class=\"failed\"></i>failed</span>\
         <span><i class=\"refused\"></i>refused</span></p>\n",
    );
    page.raw(&plot::days(&summary.days));
    page.heading("Requests by hour (UTC)");
    page.raw(&plot::hours(&summary.hours));
    page.counts("By status", ["Status", "Requests"], &summary.statuses);
    page.table("Top callers", ["Caller", "Requests", "Failed", "Refused", "Outside hours"], {
        let row = |numbers: [u64; 4], caller: &str| {
            let [a, b, c, d] = numbers.map(|number| number.to_string());
            [caller.to_owned(), a, b, c, d]
        };
        summary
            .callers
            .iter()
            .map(move |it| row([it.calls, it.failed, it.refused, it.outside_hours], &it.caller))
    });
    page.counts("Refusals by rule", ["Rule", "Requests"], &summary.denials);
    page.table(
        &sentence(&first_uses_title(summary)),
        ["Time", "Caller", "Tool"],
        summary.first_uses.iter().map(|it| [it.time.clone(), it.caller.clone(), it.tool.clone()]),
    );
    if !summary.slowest.is_empty() {
        page.heading("Slowest tools: p50, p95, p99");
        page.raw(&plot::durations(&summary.slowest, html));
    }
    page.table(
        "Rate of failures",
        ["Tool", "Calls", "Failed", "Percent"],
        summary.failing.iter().map(|it| {
            let percent = format!("{:.1}", it.failed_percent);
            [it.tool.clone(), it.calls.to_string(), it.failed.to_string(), percent]
        }),
    );
    page.table(
        "Size of arguments",
        ["Tool", "p95 bytes", "Max bytes"],
        summary.largest_inputs.iter().map(|it| {
            [it.tool.clone(), it.input_p95_bytes.to_string(), it.input_max_bytes.to_string()]
        }),
    );
    page.table(
        "Limits near their end",
        ["Limit", "Used", "Of", "Alerts", "Refusals"],
        summary.limits.iter().map(|it| {
            let [used, of, alerts, refusals] =
                [it.used, it.of, it.alerts, it.refusals].map(|number| number.to_string());
            [it.limit.clone(), used, of, alerts, refusals]
        }),
    );
    page.table(
        "Tools that changed",
        ["Tool, kind, action", "Times", "Last"],
        summary.drift.iter().map(|it| [it.drift.clone(), it.times.to_string(), it.last.clone()]),
    );
    page.counts("Failed authentication", ["Address, reason", "Requests"], &summary.auth_failures);
    page.counts("Events", ["Event", "Times"], &summary.events);
    page.raw("</body></html>\n");
    page.0
}

struct Page(String);

impl Page {
    fn raw(&mut self, markup: &str) {
        self.0.push_str(markup);
    }

    fn paragraph(&mut self, text: &str) {
        // Writing to a `String` does not fail.
        let _ = writeln!(self.0, "<p>{}</p>", html(text));
    }

    fn heading(&mut self, text: &str) {
        let _ = writeln!(self.0, "<h2>{}</h2>", html(text));
    }

    fn counts(&mut self, title: &str, header: [&str; 2], counts: &[Count]) {
        self.table(title, header, counts.iter().map(|it| [it.name.clone(), it.count.to_string()]));
    }

    /// A table; empty without rows. Numbers are aligned to the right.
    fn table<const N: usize>(
        &mut self,
        title: &str,
        header: [&str; N],
        rows: impl Iterator<Item = [String; N]>,
    ) {
        let mut rows = rows.peekable();
        let Some(first) = rows.peek() else { return };
        let is_number = |text: &String| text.parse::<f64>().is_ok();
        let numbers = first.clone().map(|cell| is_number(&cell));
        self.heading(title);
        self.raw("<div class=\"scroll\"><table><tr>");
        for (name, is_number) in header.iter().zip(numbers) {
            let class = if is_number { " class=\"n\"" } else { "" };
            let _ = write!(self.0, "<th{class}>{}</th>", html(name));
        }
        self.raw("</tr>\n");
        for row in rows {
            self.raw("<tr>");
            for (cell, is_number) in row.iter().zip(numbers) {
                let class = if is_number { " class=\"n\"" } else { "" };
                let _ = write!(self.0, "<td{class}>{}</td>", html(cell));
            }
            self.raw("</tr>\n");
        }
        self.raw("</table></div>\n");
    }
}

/// Escapes a text for markup or an attribute.
fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in escape::line(text).chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    out
}

/// The title `FIRST USE: 3 (…)` as a heading.
fn sentence(title: &str) -> String {
    let (name, rest) = title.split_once(':').unwrap_or((title, ""));
    let name = name.to_lowercase();
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    format!("{}{}:{rest}", first.map(String::from).unwrap_or_default(), letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_of_others_is_text() {
        assert_eq!(
            html("<b onclick=\"x\">'&\u{202e}\n"),
            "&lt;b onclick=&quot;x&quot;&gt;&#39;&amp;\\u{202e}\\n"
        );
        assert_eq!(sentence("FIRST USE OF A: 3 (b)"), "First use of a: 3 (b)");
    }
}
