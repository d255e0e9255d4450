//! The rules and the dashboard as data: the alerts, and every query with its names.
//!
//! Owns how a query is parsed: names, the labels in their selectors, and the labels that are kept. Runs no query;
//! `prometheus` does.

use crate::failure::{Failure, Result};
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// The recording and alert rules.
pub(crate) const RULES: &str = "observability/prometheus/portcullis.rules.yaml";
/// The file with promtool's tests of them.
pub(crate) const TESTS: &str = "observability/prometheus/portcullis.rules.test.yaml";
/// The dashboard.
pub(crate) const DASHBOARD: &str = "observability/grafana/portcullis.json";
/// The page that a run writes.
pub(crate) const SEEN: &str = "docs/reference/alerts.md";
/// The line with the digest on that page.
pub(crate) const DIGEST: &str = "Digest of rules and queries: `";

/// One alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) severity: String,
    pub(crate) summary: String,
    pub(crate) description: String,
    pub(crate) runbook: String,
}

/// An alert rule or a recording rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The name of the alert, or of the recorded series.
    pub(crate) name: String,
    pub(crate) query: String,
    /// How long an alert waits.
    pub(crate) wait: String,
    pub(crate) alert: Option<Alert>,
}

/// The groups of a rule file, as Prometheus parses them.
pub(crate) fn document(text: &str) -> Result<Value> {
    let fault = |why: String| Failure::new(format!("{RULES}: {why}"));
    let documents = Yaml::load_from_str(text).map_err(|error| fault(error.to_string()))?;
    let document = documents.first().ok_or_else(|| fault("it is empty".to_owned()))?;
    Ok(json(document))
}

/// All rules of a document, in order.
pub(crate) fn rules(document: &Value) -> Vec<Rule> {
    let text = |value: &Value, pointer: &str| {
        value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let groups = document.get("groups").and_then(Value::as_array).into_iter().flatten();
    let rules = groups.filter_map(|group| group.get("rules")?.as_array()).flatten();
    rules
        .map(|rule| {
            let alert = rule.get("alert").map(|_| Alert {
                name: text(rule, "/alert"),
                severity: text(rule, "/labels/severity"),
                summary: text(rule, "/annotations/summary"),
                description: text(rule, "/annotations/description"),
                runbook: text(rule, "/annotations/runbook_url"),
            });
            let recorded = text(rule, "/record");
            Rule {
                name: alert.as_ref().map_or(recorded, |alert| alert.name.clone()),
                query: text(rule, "/expr"),
                wait: text(rule, "/for"),
                alert,
            }
        })
        .collect()
}

/// A query of the dashboard, and its panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PanelQuery {
    pub(crate) panel: String,
    pub(crate) query: String,
}

/// Every query of a dashboard's panels, in order.
pub(crate) fn panel_queries(dashboard: &Value) -> Vec<PanelQuery> {
    let mut all = Vec::new();
    for panel in dashboard.get("panels").and_then(Value::as_array).into_iter().flatten() {
        let title = panel.get("title").and_then(Value::as_str).unwrap_or_default();
        for target in panel.get("targets").and_then(Value::as_array).into_iter().flatten() {
            let query = target.get("expr").and_then(Value::as_str).unwrap_or_default();
            all.push(PanelQuery { panel: title.to_owned(), query: query.to_owned() });
        }
    }
    all
}

/// A digest of everything that affects a run: queries, waits and panels, not the texts for people.
pub(crate) fn digest(rules: &[Rule], panels: &[PanelQuery]) -> String {
    let mut hash = Sha256::new();
    for Rule { name, query, wait, .. } in rules {
        hash.update(format!("{name}\n{query}\n{wait}\n"));
    }
    for PanelQuery { query, .. } in panels {
        hash.update(format!("{query}\n"));
    }
    let mut text = String::new();
    for byte in hash.finalize().iter().take(8) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The names of a query.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Metrics, each with the labels that its selector names.
    pub(crate) metrics: Vec<(String, Vec<String>)>,
    /// Labels after `by`, `on` and the like.
    pub(crate) kept: Vec<String>,
}

/// Keywords whose parentheses contain labels.
const CLAUSES: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Reads the names of a PromQL query.
pub(crate) fn names(query: &str) -> Names {
    let mut names = Names::default();
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            rest = after_string(rest);
            continue;
        }
        let word: &str = rest.split(|c| !is_of_word(c)).next().unwrap_or_default();
        if word.is_empty() {
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        }
        rest = rest.get(word.len()..).unwrap_or_default();
        let next = rest.trim_start();
        if CLAUSES.contains(&word) {
            let list = next.strip_prefix('(').and_then(|list| list.split(')').next());
            let labels = list.unwrap_or_default().split(',').map(str::trim);
            names.kept.extend(labels.filter(|it| !it.is_empty()).map(str::to_owned));
            rest = next.get(list.map_or(0, |list| list.len() + 2)..).unwrap_or_default();
        } else if is_metric(word) {
            let mut labels = Vec::new();
            if let Some(selector) = next.strip_prefix('{') {
                rest = selector;
                labels = selected(&mut rest);
            }
            names.metrics.push((word.to_owned(), labels));
        }
    }
    names
}

/// The labels up to the end of a selector; removes the selector from `rest`.
fn selected(rest: &mut &str) -> Vec<String> {
    let mut labels = Vec::new();
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            *rest = after_string(rest);
            continue;
        }
        let word = rest.split(|c| !is_of_word(c)).next().unwrap_or_default();
        if !word.is_empty() {
            labels.push(word.to_owned());
        }
        *rest = rest.get(word.len().max(first.len_utf8())..).unwrap_or_default();
        if first == '}' {
            break;
        }
    }
    labels
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Metrics of Portcullis and of Envoy, and recorded series.
fn is_metric(word: &str) -> bool {
    word.starts_with("portcullis_") || word.starts_with("envoy_") || word.contains(':')
}

/// The text after a string in quotation marks.
fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return text.get(at + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
}

/// The rules with all times divided by `times`, at least a second: windows, offsets and waits.
pub(crate) fn faster(document: &Value, times: u32) -> Value {
    match document {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(name, value)| {
                    let value = match (name.as_str(), value) {
                        ("for", Value::String(wait)) => Value::from(shorter(wait, times)),
                        ("expr", Value::String(query)) => Value::from(faster_query(query, times)),
                        _ => faster(value, times),
                    };
                    (name.clone(), value)
                })
                .collect::<Map<_, _>>(),
        ),
        Value::Array(items) => items.iter().map(|item| faster(item, times)).collect(),
        other => other.clone(),
    }
}

/// A query with its times divided by `times`.
pub(crate) fn faster_query(query: &str, times: u32) -> String {
    let mut out = String::new();
    let mut rest = query;
    let places = |text: &str| {
        ["[", "offset "].iter().filter_map(|it| Some((text.find(it)?, it.len()))).min()
    };
    while let Some((at, length)) = places(rest) {
        let (before, after) = rest.split_at(at + length);
        let time = after.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        out.push_str(before);
        out.push_str(&shorter(time, times));
        rest = after.get(time.len()..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

fn shorter(time: &str, times: u32) -> String {
    let (number, unit) = time.split_at(time.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return time.to_owned(),
    };
    let Ok(number) = number.parse::<u32>() else { return time.to_owned() };
    format!("{}s", number.saturating_mul(seconds).div_ceil(times.max(1)).max(1))
}

/// A YAML document as JSON.
pub(crate) fn json(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Boolean(value)) => Value::from(*value),
        Yaml::Value(Scalar::Integer(value)) => Value::from(*value),
        Yaml::Value(Scalar::FloatingPoint(value)) => Value::from(value.into_inner()),
        Yaml::Value(Scalar::String(value)) => Value::from(value.as_ref()),
        Yaml::Sequence(items) => items.iter().map(json).collect(),
        Yaml::Mapping(members) => Value::Object(
            members
                .iter()
                .map(|(name, value)| (name.as_str().unwrap_or_default().to_owned(), json(value)))
                .collect(),
        ),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_query_are_found_and_strings_are_none() {
        let found = names(
            "sum by (org, le) (rate(portcullis_a_total{org=~\"$org\", tool!=\"envoy_x{\"}[5m])) / on (org) instance:b:rate5m",
        );
        let metrics = [
            ("portcullis_a_total".to_owned(), vec!["org".to_owned(), "tool".to_owned()]),
            ("instance:b:rate5m".to_owned(), Vec::new()),
        ];
        assert_eq!(found.metrics, metrics);
        assert_eq!(found.kept, ["org", "le", "org"]);
    }

    #[test]
    fn times_get_shorter_and_names_stay() {
        let query = "increase(a:increase5m{b=\"5m\"}[5m]) unless x offset 5m or y[15m]";
        let expected = "increase(a:increase5m{b=\"5m\"}[30s]) unless x offset 30s or y[90s]";
        assert_eq!(faster_query(query, 10), expected);
        assert_eq!(shorter("1h", 10), "360s");
        assert_eq!(faster_query("rate(x[$__rate_interval])", 10), "rate(x[$__rate_interval])");
    }

    #[test]
    fn rules_are_read_with_what_people_see() {
        let text = "groups:\n- name: g\n  rules:\n  - record: a:b\n    expr: x\n  - alert: A\n    expr: 'y > 1'\n    for: 5m\n    labels: {severity: warning}\n    annotations: {summary: S, description: D, runbook_url: R}\n";
        let found = rules(&document(text).unwrap());
        let [recorded, alert] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((recorded.name.as_str(), recorded.query.as_str()), ("a:b", "x"));
        assert_eq!((alert.query.as_str(), alert.wait.as_str()), ("y > 1", "5m"));
        assert_eq!(alert.alert.as_ref().map(|it| it.severity.as_str()), Some("warning"));
        assert_ne!(digest(&found, &[]), digest(&found[..1], &[]));
    }
}
