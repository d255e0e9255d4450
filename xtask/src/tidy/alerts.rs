//! Alert rules and the dashboard against the code and the pages: names and labels exist, runbooks exist, tables agree.
//!
//! Owns which labels a metric has. `alerts::rules` owns the form of the rules; `cargo xtask alerts` checks that alerts
//! fire.

use std::collections::BTreeMap;

use super::{names, pages};
use crate::alerts::rules::{self, Alert, DASHBOARD, DIGEST, PanelQuery, RULES, Rule, SEEN, TESTS};
use crate::source::Source;
use serde_json::Value;

const GUIDE: &str = "docs/guides/alerts.md";
const METRICS: &str = "docs/reference/metrics.md";
const RUNBOOKS: &str = "docs/troubleshooting.md";
/// Labels of targets, and labels that Prometheus adds.
const OF_TARGETS: [&str; 5] = ["namespace", "job", "instance", "pod", "le"];

/// The faults of rules and dashboard.
pub(super) fn sound(sources: &[Source]) -> Vec<String> {
    let rules = match rules::document(text(sources, RULES)) {
        Ok(document) => rules::rules(&document),
        Err(failure) => return vec![failure.to_string()],
    };
    let dashboard: Value = match serde_json::from_str(text(sources, DASHBOARD)) {
        Ok(dashboard) => dashboard,
        Err(error) => return vec![format!("{DASHBOARD}: {error}")],
    };
    let panels = rules::panel_queries(&dashboard);
    let mut complaints = Vec::new();
    if rules.len() < 40 || panels.len() < 40 {
        complaints.push(format!("{RULES}, {DASHBOARD}: rules or queries are not found"));
    }
    let known = Known::from(sources, &rules);
    for Rule { name, query, .. } in &rules {
        complaints.extend(known.unknown(query).map(|it| format!("{RULES}: {name}: {it}")));
    }
    for PanelQuery { panel, query } in &panels {
        complaints.extend(known.unknown(query).map(|it| format!("{DASHBOARD}: {panel}: {it}")));
    }
    let alerts: Vec<&Alert> = rules.iter().filter_map(|rule| rule.alert.as_ref()).collect();
    complaints.extend(of_people(sources, &alerts));
    complaints.extend(labels_of_page(sources));
    complaints.extend(of_run(text(sources, SEEN), &rules, &panels));
    complaints
}

/// Checks that the page's run used these rules and queries, and that the page lists every alert.
fn of_run(page: &str, rules: &[Rule], panels: &[PanelQuery]) -> Vec<String> {
    let mut complaints = Vec::new();
    let digest = rules::digest(rules, panels);
    if !page.contains(&format!("{DIGEST}{digest}`")) {
        complaints.push(format!(
            "{SEEN}:0: rules or queries changed ({digest}); run `cargo xtask alerts --record`"
        ));
    }
    let alerts = rules.iter().filter_map(|rule| rule.alert.as_ref());
    let missing = alerts.filter(|it| !page.contains(&format!("| `{}`", it.name)));
    complaints.extend(missing.map(|it| format!("{SEEN}:0: {} is neither caused nor not", it.name)));
    complaints
}

/// The known names.
struct Known {
    /// Labels by metric.
    metrics: BTreeMap<String, Vec<String>>,
    /// Series that rules record.
    recorded: Vec<String>,
}

impl Known {
    fn from(sources: &[Source], rules: &[Rule]) -> Self {
        let mut metrics = names::labels(sources);
        metrics.extend(rows(sources).filter(|(name, _)| name.starts_with("envoy_")));
        let recorded = rules.iter().filter(|it| it.alert.is_none()).map(|it| it.name.clone());
        Self { metrics, recorded: recorded.collect() }
    }

    /// Names in a query that do not exist.
    fn unknown(&self, query: &str) -> impl Iterator<Item = String> + use<> {
        let names = rules::names(query);
        let mut complaints = Vec::new();
        let mut possible: Vec<&str> = OF_TARGETS.to_vec();
        for (metric, labels) in &names.metrics {
            let of_metric: Vec<&str> = if metric.contains(':') {
                if !self.recorded.contains(metric) {
                    complaints.push(format!("no rule records `{metric}`"));
                }
                self.metrics.values().flatten().map(String::as_str).collect()
            } else if let Some(labels) = self.labels(metric) {
                labels.iter().map(String::as_str).collect()
            } else {
                complaints.push(format!("neither the code nor {METRICS} has `{metric}`"));
                continue;
            };
            possible.extend(&of_metric);
            let known = |label: &&String| {
                of_metric.contains(&label.as_str()) || OF_TARGETS.contains(&label.as_str())
            };
            let missing = labels.iter().filter(|label| !known(label));
            complaints.extend(missing.map(|label| format!("`{metric}` has no label `{label}`")));
        }
        let kept = names.kept.iter().filter(|label| !possible.contains(&label.as_str()));
        complaints.extend(kept.map(|label| format!("nothing here has the label `{label}`")));
        complaints.into_iter()
    }

    /// Labels of a metric, or of the histogram that it is a part of.
    fn labels(&self, metric: &str) -> Option<&Vec<String>> {
        let parts = ["_bucket", "_sum", "_count"];
        let whole = parts.iter().find_map(|part| metric.strip_suffix(part));
        self.metrics.get(metric).or_else(|| self.metrics.get(whole?))
    }
}

/// Checks severity, texts, runbook, the guide's row and the test of each alert.
fn of_people(sources: &[Source], alerts: &[&Alert]) -> Vec<String> {
    let mut complaints = Vec::new();
    let headings = pages::anchors(text(sources, RUNBOOKS));
    let tests = text(sources, TESTS);
    let mut expected = Vec::new();
    for Alert { name, severity, summary, description, runbook } in alerts.iter().copied() {
        if !["critical", "warning"].contains(&severity.as_str()) {
            complaints.push(format!("{RULES}: {name}: the severity `{severity}` is none"));
        }
        if summary.is_empty() || description.is_empty() || summary.contains("{{") {
            complaints
                .push(format!("{RULES}: {name}: a fixed summary and a description are missing"));
        }
        let anchor = name.to_lowercase();
        if *runbook != format!("{RUNBOOKS}#{anchor}") || !headings.contains(&anchor) {
            complaints.push(format!("{RULES}: {name}: the runbook `{runbook}` does not exist"));
        }
        if !tests.contains(&format!("\n- name: {name}\n")) {
            complaints.push(format!("{TESTS}: no test is named {name}"));
        }
        expected.push(format!(
            "| [`{name}`](../troubleshooting.md#{anchor}) | {severity} | {summary} |"
        ));
    }
    let rows = text(sources, GUIDE).lines().map(str::trim);
    let found: Vec<&str> = rows.filter(|row| row.starts_with("| [`Portcullis")).collect();
    let missing = expected.iter().filter(|row| !found.contains(&row.as_str()));
    complaints.extend(missing.map(|row| format!("{GUIDE}:0: this row is missing: {row}")));
    let stale = found.iter().filter(|row| !expected.iter().any(|it| it == *row));
    complaints.extend(stale.map(|row| format!("{GUIDE}:0: the rules have no such alert: {row}")));
    complaints
}

/// Checks that the page and the code give our metrics the same labels.
fn labels_of_page(sources: &[Source]) -> Vec<String> {
    let code = names::labels(sources);
    let ours = rows(sources).filter(|(name, _)| name.starts_with("portcullis_"));
    ours.filter_map(|(name, page)| {
        let code = code.get(&name)?;
        let same = code.len() == page.len() && code.iter().all(|label| page.contains(label));
        (!same).then(|| format!("{METRICS}:0: `{name}` has the labels {code:?}, not {page:?}"))
    })
    .collect()
}

/// Name and labels of each row of the metrics page. Text in parentheses is a value.
fn rows(sources: &[Source]) -> impl Iterator<Item = (String, Vec<String>)> {
    text(sources, METRICS).lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `")?.split_once('`')?;
        let cell = rest.split('|').nth(1)?;
        let outside = cell.split('(').map(|part| part.split_once(')').map_or(part, |(_, it)| it));
        let outside: String = outside.collect();
        let labels = outside.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some((name.to_owned(), labels))
    })
}

fn text<'a>(sources: &'a [Source], path: &str) -> &'a str {
    sources.iter().find(|it| it.path == path).map(|it| it.text.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    fn code() -> Source {
        source(
            "filter/core/src/metric.rs",
            "pub enum Metric {}\n named(\n \"a_total\",\n &[(\"org\", org), (\"tool\", tool)],\n),\nnamed(\"b_ms\", &[])",
        )
    }

    #[test]
    fn names_that_do_not_exist_are_found() {
        let page = source(METRICS, "| `envoy_c` | `who` | |\n");
        let rule =
            Rule { name: "x:y".into(), query: String::new(), wait: String::new(), alert: None };
        let known = Known::from(&[code(), page], &[rule]);
        let said = |query: &str| known.unknown(query).collect::<Vec<_>>().join("; ");
        assert_eq!(said("sum by (org, le) (portcullis_a_total{tool=\"x\"}) / x:y"), "");
        assert_eq!(said("portcullis_b_ms_bucket{le=\"1\"} + envoy_c{who=\"x\", pod=\"p\"}"), "");
        assert!(said("portcullis_z_total").contains("`portcullis_z_total`"));
        assert!(said("portcullis_a_total{connector=\"x\"}").contains("no label `connector`"));
        assert!(said("sum by (connector) (portcullis_a_total)").contains("label `connector`"));
        assert!(said("x:z").contains("no rule records"));
        assert!(said("envoy_d").contains("`envoy_d`"));
    }

    #[test]
    fn pages_agree_with_the_rules() {
        let alert = Alert {
            name: "PortcullisA".into(),
            severity: "warning".into(),
            summary: "S.".into(),
            description: "D.".into(),
            runbook: format!("{RUNBOOKS}#portcullisa"),
        };
        let row = "   | [`PortcullisA`](../troubleshooting.md#portcullisa) | warning | S. |\n";
        let good = [
            source(RUNBOOKS, "### PortcullisA\n"),
            source(TESTS, "tests:\n- name: PortcullisA\n"),
            source(GUIDE, row),
        ];
        assert_eq!(of_people(&good, &[&alert]), [""; 0]);
        let bad = [source(GUIDE, "| [`PortcullisB`](x) | warning | S. |\n")];
        assert_eq!(of_people(&bad, &[&alert]).len(), 4);
    }

    #[test]
    fn a_run_of_other_rules_does_not_count() {
        let rule = |query: &str| Rule {
            name: "A".into(),
            query: query.into(),
            wait: String::new(),
            alert: Some(Alert {
                name: "A".into(),
                severity: String::new(),
                summary: String::new(),
                description: String::new(),
                runbook: String::new(),
            }),
        };
        let of = |query: &str| format!("| `A` |\n{DIGEST}{}`", rules::digest(&[rule(query)], &[]));
        assert_eq!(of_run(&of("x > 1"), &[rule("x > 1")], &[]), [""; 0]);
        assert_eq!(of_run(&of("x > 1"), &[rule("x > 2")], &[]).len(), 1);
        assert_eq!(of_run("", &[rule("x > 1")], &[]).len(), 2);
    }

    #[test]
    fn labels_of_the_page_are_those_of_the_code() {
        let page =
            |labels: &str| source(METRICS, &format!("| `portcullis_a_total` | {labels} | |\n"));
        assert_eq!(labels_of_page(&[code(), page("`tool` (`x`, `y`), `org`")]), [""; 0]);
        assert_eq!(labels_of_page(&[code(), page("`tool`")]).len(), 1);
    }
}
