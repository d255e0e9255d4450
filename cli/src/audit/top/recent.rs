//! The calls of the last while, and their totals.
//!
//! Owns the bounds: whatever the logs contain, memory stays at some tens of megabytes. Names without room count as
//! "other".

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::audit::entry::Entry;

/// At most this many requests are kept.
const MOST: usize = 1_000_000;
/// At most this many callers, tools and rules have a name of their own.
const MANY: usize = 10_000;
const OTHER: &str = "other";
/// Longer durations count as this one. Durations keep two digits.
const LONGEST_MS: u64 = 3_600_000;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Fine,
    Failed,
    Refused,
    Limited,
    Unavailable,
}

impl Outcome {
    fn of(status: &str) -> Self {
        match status {
            "tool_error" | "error" => Self::Failed,
            "denied" => Self::Refused,
            "limited" => Self::Limited,
            "unavailable" => Self::Unavailable,
            _ => Self::Fine,
        }
    }
}

/// One request. Each name is an index into [`Names`].
struct Request {
    at: Duration,
    caller: usize,
    tool: usize,
    rule: usize,
    outcome: Outcome,
    latency_ms: u64,
}

pub(super) struct Recent {
    span: Duration,
    requests: VecDeque<Request>,
    callers: Names,
    tools: Names,
    rules: Names,
    /// The time of the newest request that had no room.
    left_out: Option<Duration>,
}

/// Requests and how they ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) refused: u64,
    pub(super) limited: u64,
    pub(super) unavailable: u64,
}

/// The totals of a caller, of a tool, or of all requests.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) outcomes: Outcomes,
    pub(super) p50_ms: u64,
    pub(super) p95_ms: u64,
    pub(super) p99_ms: u64,
}

/// The refusals of one rule.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Refusals {
    pub(super) rule: String,
    pub(super) requests: u64,
    pub(super) callers: usize,
}

/// The totals of the last while; groups with the most requests come first.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) now: Duration,
    pub(super) span: Duration,
    pub(super) all: Group,
    pub(super) callers: Vec<Group>,
    pub(super) tools: Vec<Group>,
    pub(super) rules: Vec<Refusals>,
    /// Some requests had no room and are not counted.
    pub(super) is_cut: bool,
}

impl Recent {
    pub(super) fn new(span: Duration) -> Self {
        let [callers, tools, rules] = [(); 3].map(|()| Names::default());
        Self { span, requests: VecDeque::new(), callers, tools, rules, left_out: None }
    }

    /// Counts an entry. Entries of administrators' changes belong to no caller, so they do not count.
    pub(super) fn count(&mut self, entry: &Entry<'_>) {
        let Some(at) = entry.time().and_then(|time| Duration::try_from(time.as_duration()).ok())
        else {
            return;
        };
        if !entry.action.is_empty() || entry.is_open() {
            return;
        }
        // A stranger has no organisation, but in entries of older releases.
        let caller = entry.named_caller().unwrap_or_else(|| match entry.org_id.is_empty() {
            true => entry.client_address.to_string(),
            false => format!("{}/{}", &*entry.org_id, &*entry.client_address),
        });
        let call = match (&*entry.connector, entry.subject()) {
            ("", "") => entry.operation().to_owned(),
            (connector, "") => format!("{connector} {}", entry.operation()),
            (connector, subject) => format!("{connector}/{subject}"),
        };
        self.requests.push_back(Request {
            at,
            caller: self.callers.place(&caller),
            tool: self.tools.place(&call),
            rule: self.rules.place(&entry.decision.rule),
            outcome: Outcome::of(&entry.status),
            latency_ms: entry.latency_ms.unwrap_or_default(),
        });
        if self.requests.len() > MOST {
            self.left_out = self.requests.pop_front().map(|request| request.at);
        }
    }

    /// The totals of the time before `now`. Forgets older requests.
    pub(super) fn summary(&mut self, now: Duration) -> Summary {
        let since = now.saturating_sub(self.span);
        // Several gateways write in turn, so requests may be slightly out of order: the loop below skips older ones.
        while self.requests.front().is_some_and(|request| request.at < since) {
            self.requests.pop_front();
        }
        let mut all = Tally::default();
        let mut callers: HashMap<usize, Tally> = HashMap::new();
        let mut tools: HashMap<usize, Tally> = HashMap::new();
        let mut rules: HashMap<usize, (u64, HashSet<usize>)> = HashMap::new();
        for request in self.requests.iter().filter(|request| request.at >= since) {
            all.add(request);
            callers.entry(request.caller).or_default().add(request);
            tools.entry(request.tool).or_default().add(request);
            if !matches!(request.outcome, Outcome::Fine | Outcome::Failed) {
                let (requests, of) = rules.entry(request.rule).or_default();
                *requests = requests.saturating_add(1);
                of.insert(request.caller);
            }
        }
        let mut rules: Vec<Refusals> = rules
            .into_iter()
            .map(|(rule, (requests, callers))| Refusals {
                rule: self.rules.at(rule).to_owned(),
                requests,
                callers: callers.len(),
            })
            .collect();
        rules.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.rule.cmp(&b.rule)));
        Summary {
            now,
            span: self.span,
            all: all.group(String::new()),
            callers: groups(callers, &self.callers),
            tools: groups(tools, &self.tools),
            rules,
            is_cut: self.left_out.is_some_and(|at| at >= since),
        }
    }
}

fn groups(tallies: HashMap<usize, Tally>, names: &Names) -> Vec<Group> {
    let group = |(place, tally): (usize, Tally)| tally.group(names.at(place).to_owned());
    let mut groups: Vec<Group> = tallies.into_iter().map(group).collect();
    groups.sort_by(|a, b| {
        b.outcomes.requests.cmp(&a.outcomes.requests).then_with(|| a.name.cmp(&b.name))
    });
    groups
}

/// Outcomes and durations of one caller, of one tool, or of all requests.
#[derive(Default)]
struct Tally {
    outcomes: Outcomes,
    latency: Option<Histogram<u32>>,
}

impl Tally {
    fn add(&mut self, request: &Request) {
        let Outcomes { requests, failed, refused, limited, unavailable } = &mut self.outcomes;
        *requests = requests.saturating_add(1);
        let count = match request.outcome {
            Outcome::Fine => None,
            Outcome::Failed => Some(failed),
            Outcome::Refused => Some(refused),
            Outcome::Limited => Some(limited),
            Outcome::Unavailable => Some(unavailable),
        };
        if let Some(count) = count {
            *count = count.saturating_add(1);
        }
        if self.latency.is_none() {
            // These bounds are valid; without a histogram there would be no durations.
            self.latency = Histogram::new_with_bounds(1, LONGEST_MS, 2).ok();
        }
        if let Some(latency) = &mut self.latency {
            latency.saturating_record(request.latency_ms);
        }
    }

    fn group(self, name: String) -> Group {
        let at = |share: f64| match &self.latency {
            Some(latency) => latency.value_at_quantile(share),
            None => 0,
        };
        let [p50_ms, p95_ms, p99_ms] = [0.5, 0.95, 0.99].map(at);
        Group { name, outcomes: self.outcomes, p50_ms, p95_ms, p99_ms }
    }
}

/// Texts by number. All texts without room share the number of "other".
#[derive(Default)]
struct Names {
    known: HashMap<String, usize>,
    names: Vec<String>,
}

impl Names {
    fn place(&mut self, name: &str) -> usize {
        if let Some(place) = self.known.get(name) {
            return *place;
        }
        let name = if self.names.len() < MANY { name } else { OTHER };
        if let Some(place) = self.known.get(name) {
            return *place;
        }
        self.names.push(name.to_owned());
        let place = self.names.len().saturating_sub(1);
        self.known.insert(name.to_owned(), place);
        place
    }

    fn at(&self, place: usize) -> &str {
        self.names.get(place).map(String::as_str).unwrap_or(OTHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_796_000_000);

    fn line(ago: u64, caller: &str, status: &str, latency_ms: u64) -> String {
        let at = crate::time::Seconds(NOW.as_secs().saturating_sub(ago)).rfc3339();
        format!(
            r#"{{"timestamp":"{at}","org_id":"acme","principal":"{caller}","connector":"crm","tool_name":"find","status":"{status}","latency_ms":{latency_ms},"decision":{{"effect":"x","rule":"r.{status}"}},"chain":"a","seq":1}}"#
        )
    }

    fn counted(lines: &[String]) -> Recent {
        let mut recent = Recent::new(Duration::from_secs(60));
        for line in lines {
            recent.count(&Entry::read(line.as_bytes()).unwrap().0);
        }
        recent
    }

    // Proves: A28, A29, A30
    #[test]
    fn requests_of_the_last_while_are_summed_up_by_caller_tool_and_rule() {
        let lines = [
            line(61, "old", "success", 1),
            line(60, "bot", "success", 10),
            line(30, "bot", "limited", 1),
            line(20, "ada", "denied", 1),
            line(10, "bot", "tool_error", 500),
            // Out of order.
            line(90, "late", "success", 1),
            line(5, "bot", "unavailable", 2),
        ];
        let mut recent = counted(&lines);
        let summary = recent.summary(NOW);
        let all = Outcomes { requests: 5, failed: 1, refused: 1, limited: 1, unavailable: 1 };
        assert_eq!(summary.all.outcomes, all);
        assert_eq!((summary.all.p50_ms, summary.all.p99_ms), (2, 501));
        let names: Vec<&str> = summary.callers.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["acme/bot", "acme/ada"]);
        assert_eq!(summary.tools[0].name, "crm/find");
        let rules: Vec<_> =
            summary.rules.iter().map(|it| (it.rule.as_str(), it.requests)).collect();
        assert_eq!(rules, [("r.denied", 1), ("r.limited", 1), ("r.unavailable", 1)]);
        assert!(!summary.is_cut);
        assert_eq!(
            recent.summary(NOW.saturating_add(Duration::from_secs(55))).all.outcomes.requests,
            1
        );
        assert_eq!(
            recent.summary(NOW.saturating_add(Duration::from_secs(99))).all.outcomes.requests,
            0
        );
    }

    #[test]
    fn callers_without_room_are_counted_together() {
        let mut recent = Recent::new(Duration::from_secs(60));
        for caller in 0..MANY.saturating_add(50) {
            let line = line(1, &format!("c{caller}"), "success", 1);
            recent.count(&Entry::read(line.as_bytes()).unwrap().0);
        }
        let summary = recent.summary(NOW);
        assert_eq!(
            (summary.callers.len(), summary.callers[0].name.as_str()),
            (MANY.saturating_add(1), OTHER)
        );
        assert_eq!(summary.callers[0].outcomes.requests, 50);
    }
}
