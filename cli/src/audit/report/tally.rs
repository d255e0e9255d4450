//! What a report counts, entry by entry.
//!
//! Owns the bounds: whatever a log says, this takes some tens of megabytes. What has no room is counted as "other".

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use hdrhistogram::Histogram;
use jiff::Timestamp;

use crate::audit::entry::Entry;

/// Callers, rules, addresses, limits and tools that are counted apart.
const MANY: usize = 10_000;
const TOOLS: usize = 1_000;
const DAYS: usize = 400;
/// Pairs of caller and tool that are remembered.
const PAIRS: usize = 500_000;
/// First uses that are listed; all are counted.
const LISTED: usize = 200;
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// Durations and sizes are distinguished up to here, to two digits.
const LARGEST: u64 = 3_600_000;

pub(super) struct Tally {
    since: Option<Timestamp>,
    /// The first and the last full hour of a working day, in UTC.
    working: (u8, u8),
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
    /// Requests in the time that is reported.
    pub(super) requests: u64,
    /// Entries before it, which say what is not new.
    pub(super) before: u64,
    /// Changes by administrators.
    pub(super) changes: u64,
    pub(super) statuses: Capped<u64>,
    /// By day since 1970.
    pub(super) days: BTreeMap<i64, Outcomes>,
    /// Monday to Sunday, by hour in UTC.
    pub(super) hours: [[u64; 24]; 7],
    pub(super) outside_hours: u64,
    pub(super) callers: Capped<Caller>,
    pub(super) tools: Capped<Tool>,
    pub(super) denials: Capped<u64>,
    pub(super) limits: Capped<Limit>,
    pub(super) drift: Capped<Drift>,
    pub(super) auth_failures: Capped<u64>,
    pub(super) events: Capped<u64>,
    /// By pair, at most [`LISTED`].
    pub(super) first_uses: HashMap<u64, FirstUse>,
    pub(super) first_uses_total: u64,
    /// Whether there were more pairs of caller and tool than are remembered.
    pub(super) pairs_are_full: bool,
    /// The pairs of caller and tool that are known, and how long.
    pairs: HashMap<u64, Known>,
}

/// Since when a caller has used a tool. Logs of several gateways come one after the other, so an earlier use may be read
/// later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// From before the time that is reported.
    Before,
    /// As far as was read, only in that time.
    Within,
}

/// How requests ended.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Outcomes {
    pub(super) calls: u64,
    /// `tool_error` and `error`.
    pub(super) failed: u64,
    /// `denied` and `limited`.
    pub(super) refused: u64,
}

#[derive(Debug, Default)]
pub(super) struct Caller {
    pub(super) outcomes: Outcomes,
    pub(super) outside_hours: u64,
}

pub(super) struct Tool {
    pub(super) outcomes: Outcomes,
    /// Of calls that the gateway let pass.
    pub(super) latency: Histogram<u32>,
    /// Bytes of arguments as the log has them.
    pub(super) input: Histogram<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Limit {
    pub(super) alerts: u64,
    /// In the last alert.
    pub(super) used: u64,
    pub(super) of: u64,
    pub(super) refusals: u64,
}

#[derive(Debug, Default)]
pub(super) struct Drift {
    pub(super) times: u64,
    pub(super) last: String,
}

pub(super) struct FirstUse {
    pub(super) at: Timestamp,
    /// As the entry has it.
    pub(super) time: String,
    pub(super) caller: String,
    pub(super) tool: String,
}

/// Values by name, as many as have room.
pub(super) struct Capped<T> {
    most: usize,
    pub(super) known: HashMap<String, T>,
    pub(super) other: T,
}

impl<T: Default> Capped<T> {
    fn new(most: usize) -> Self {
        Self { most, known: HashMap::new(), other: T::default() }
    }

    fn at(&mut self, name: &str) -> &mut T {
        if !self.known.contains_key(name) && self.known.len() >= self.most {
            return &mut self.other;
        }
        if !self.known.contains_key(name) {
            self.known.insert(name.to_owned(), T::default());
        }
        self.known.get_mut(name).unwrap_or(&mut self.other)
    }
}

impl Capped<u64> {
    fn count(&mut self, name: &str) {
        add(self.at(name));
    }
}

impl Default for Tool {
    fn default() -> Self {
        let histogram = || {
            // These bounds are valid; others would be those of a histogram that grows.
            Histogram::new_with_bounds(1, LARGEST, 2).or_else(|_| Histogram::new(2)).ok()
        };
        let empty = || histogram().unwrap_or_else(|| unreachable!("two digits are valid"));
        Self { outcomes: Outcomes::default(), latency: empty(), input: empty() }
    }
}

impl Outcomes {
    fn count(&mut self, status: &str) {
        add(&mut self.calls);
        match status {
            "tool_error" | "error" => add(&mut self.failed),
            "denied" | "limited" | "unavailable" => add(&mut self.refused),
            _ => {}
        }
    }
}

fn add(count: &mut u64) {
    *count = count.saturating_add(1);
}

impl Tally {
    pub(super) fn new(since: Option<Timestamp>, working: (u8, u8)) -> Self {
        Self {
            since,
            working,
            first: None,
            last: None,
            requests: 0,
            before: 0,
            changes: 0,
            statuses: Capped::new(MANY),
            days: BTreeMap::new(),
            hours: [[0; 24]; 7],
            outside_hours: 0,
            callers: Capped::new(MANY),
            tools: Capped::new(TOOLS),
            denials: Capped::new(MANY),
            limits: Capped::new(MANY),
            drift: Capped::new(MANY),
            auth_failures: Capped::new(MANY),
            events: Capped::new(MANY),
            first_uses: HashMap::new(),
            first_uses_total: 0,
            pairs_are_full: false,
            pairs: HashMap::new(),
        }
    }

    pub(super) fn take(&mut self, entry: &Entry<'_>) {
        // A request is counted with its end.
        let Some(time) = entry.time().filter(|_| !entry.is_open()) else { return };
        let is_before = self.since.is_some_and(|since| time < since);
        let caller = caller(entry);
        let tool = tool(entry);
        let is_call = &*entry.mcp_method == "tools/call" && !entry.tool_name.is_empty();
        // Who was refused has not used it.
        let is_use = is_call && !matches!(&*entry.status, "denied" | "limited");
        if is_use && !entry.caller().is_empty() {
            let known = if is_before { Known::Before } else { Known::Within };
            self.used((&caller, &tool), (time, &entry.timestamp), known);
        }
        if is_before {
            add(&mut self.before);
            return;
        }
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = Some(self.last.map_or(time, |last| last.max(time)));
        if !entry.action.is_empty() {
            add(&mut self.changes);
            return;
        }
        add(&mut self.requests);
        let outside = self.clock(time, &entry.status);
        self.statuses.count(&entry.status);
        let of_caller = self.callers.at(&caller);
        of_caller.outcomes.count(&entry.status);
        if outside {
            add(&mut of_caller.outside_hours);
        }
        if matches!(&*entry.status, "denied" | "limited" | "unavailable") {
            self.denials.count(&entry.decision.rule);
        }
        if is_call {
            self.call(entry, &tool);
        }
        self.happened(entry, &caller);
    }

    /// Notes that a caller used a tool, and whether for the first time, as far as the logs go back.
    fn used(&mut self, (caller, tool): (&str, &str), (at, time): (Timestamp, &str), known: Known) {
        let mut pair = DefaultHasher::new();
        (caller, tool).hash(&mut pair);
        let pair = pair.finish();
        let first = || FirstUse {
            at,
            time: time.to_owned(),
            caller: caller.to_owned(),
            tool: tool.to_owned(),
        };
        match (self.pairs.get(&pair), known) {
            (None, _) if self.pairs.len() >= PAIRS => self.pairs_are_full = true,
            (None, Known::Before) => {
                self.pairs.insert(pair, known);
            }
            (None, Known::Within) => {
                self.pairs.insert(pair, known);
                add(&mut self.first_uses_total);
                if self.first_uses.len() < LISTED {
                    self.first_uses.insert(pair, first());
                }
            }
            (Some(Known::Within), Known::Before) => {
                self.pairs.insert(pair, known);
                self.first_uses_total = self.first_uses_total.saturating_sub(1);
                self.first_uses.remove(&pair);
            }
            (Some(Known::Within), Known::Within) => {
                let listed = self.first_uses.get_mut(&pair);
                if let Some(listed) = listed.filter(|listed| at < listed.at) {
                    *listed = first();
                }
            }
            (Some(Known::Before), _) => {}
        }
    }

    /// Counts days and hours; whether the time is outside of working hours.
    fn clock(&mut self, time: Timestamp, status: &str) -> bool {
        let seconds = time.as_second();
        let day = seconds.div_euclid(DAY);
        if self.days.len() < DAYS || self.days.contains_key(&day) {
            self.days.entry(day).or_default().count(status);
        }
        // 1970 began on a Thursday.
        let weekday = usize::try_from(day.saturating_add(3).rem_euclid(7)).unwrap_or_default();
        let hour = seconds.rem_euclid(DAY).div_euclid(HOUR);
        let at = self.hours.get_mut(weekday);
        let at = at.and_then(|hours| hours.get_mut(usize::try_from(hour).unwrap_or_default()));
        at.into_iter().for_each(add);
        let (from, to) = self.working;
        let outside = weekday >= 5 || hour < i64::from(from) || hour >= i64::from(to);
        if outside {
            add(&mut self.outside_hours);
        }
        outside
    }

    fn call(&mut self, entry: &Entry<'_>, name: &str) {
        let tool = self.tools.at(name);
        tool.outcomes.count(&entry.status);
        if let Some(input) = entry.input {
            tool.input.saturating_record(u64::try_from(input.get().len()).unwrap_or(LARGEST));
        }
        if let Some(latency) = entry.latency_ms.filter(|_| &*entry.decision.effect != "deny") {
            tool.latency.saturating_record(latency.max(1));
        }
    }

    fn happened(&mut self, entry: &Entry<'_>, caller: &str) {
        if entry.notable_events().is_empty() {
            return;
        }
        for event in entry.events() {
            if event.event == "auth_success" {
                continue;
            }
            self.events.count(&event.event);
            match event.event.as_str() {
                "auth_failed" => {
                    let address = event.text("address");
                    self.auth_failures.count(&format!("{address}: {}", event.text("reason")));
                }
                "budget_alert" => {
                    let limit = self.limits.at(&format!("{} of {caller}", event.text("limit")));
                    add(&mut limit.alerts);
                    limit.used = event.number("used").unwrap_or_default();
                    limit.of = event.number("of").unwrap_or_default();
                }
                "rate_limit_exceeded" => {
                    let name = format!("{} of {caller}", event.text("limit"));
                    add(&mut self.limits.at(&name).refusals);
                }
                "schema_drift" => {
                    let [connector, tool, kind, action] =
                        ["connector", "tool", "kind", "action"].map(|field| event.text(field));
                    let drift = self.drift.at(&format!("{connector}/{tool}: {kind}, {action}"));
                    add(&mut drift.times);
                    drift.last = entry.timestamp.to_string();
                }
                _ => {}
            }
        }
    }
}

/// `acme/cursor (k1)`, or the address of a stranger.
fn caller(entry: &Entry<'_>) -> String {
    let stranger = || format!("unauthenticated, {}", &*entry.client_address);
    entry.named_caller().unwrap_or_else(stranger)
}

fn tool(entry: &Entry<'_>) -> String {
    match entry.connector.is_empty() {
        true => entry.tool_name.to_string(),
        false => format!("{}/{}", &*entry.connector, &*entry.tool_name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: C11
    #[test]
    fn names_without_room_are_counted_together() {
        let mut counts: Capped<u64> = Capped::new(2);
        for name in ["a", "b", "c", "a", "d"] {
            counts.count(name);
        }
        assert_eq!((counts.known["a"], counts.known["b"], counts.other), (2, 1, 2));
    }

    #[test]
    fn weekdays_and_hours_are_those_of_the_calendar() {
        let mut tally = Tally::new(None, (7, 19));
        // A Saturday, and the Monday after it.
        assert!(tally.clock("2026-11-28T10:00:00Z".parse().unwrap(), "success"));
        assert!(!tally.clock("2026-11-30T10:59:59Z".parse().unwrap(), "success"));
        assert!(tally.clock("2026-11-30T19:00:00Z".parse().unwrap(), "denied"));
        assert_eq!((tally.hours[5][10], tally.hours[0][10], tally.hours[0][19]), (1, 1, 1));
        assert_eq!((tally.outside_hours, tally.days.len()), (2, 2));
    }
}
