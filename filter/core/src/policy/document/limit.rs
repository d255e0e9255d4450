//! The form of limits and tiers.
//!
//! Owns what may stand where a window is described. Counts nothing.

use std::time::Duration;

use super::{globs, name_of};
use crate::decode::{Faults, Fields, Node};
use crate::id::PolicyName;
use crate::policy::{Dimension, Limit, LimitMatch};

/// An exact window keeps one entry per call that is inside it, so its limit bounds its memory.
const MOST_CALLS: u64 = 100_000;
const LONGEST_WINDOW: Duration = Duration::from_secs(31 * 86_400);

pub(super) fn tier(tier: &PolicyName, node: Node<'_>, faults: &mut Faults) -> Option<Vec<Limit>> {
    let expected = "an object with `limits`";
    let mut fields = node.object(faults, expected)?;
    let members = fields
        .required("limits", faults, expected)
        .and_then(|node| node.members(faults, "an object: one member for each limit"));
    fields.finish(faults);
    let mut limits = Vec::new();
    for (name, node) in members? {
        let Some(name) = name_of(name, &node, faults) else {
            continue;
        };
        let Some(mut fields) = node.object(faults, WINDOW) else {
            continue;
        };
        let rate = rate(&mut fields, faults);
        fields.finish(faults);
        let Some((limit, window)) = rate else {
            continue;
        };
        let name = format!("tiers.{tier}.{name}");
        let (per, only) = (vec![Dimension::Key], LimitMatch::default());
        limits.push(Limit { name, limit, window, per, only });
    }
    Some(limits)
}

pub(super) fn limits(node: Node<'_>, faults: &mut Faults) -> Option<Vec<Limit>> {
    let mut limits = Vec::new();
    for (name, node) in node.members(faults, "an object: one member for each limit")? {
        let Some(name) = name_of(name, &node, faults) else {
            continue;
        };
        let Some(mut fields) = node.object(faults, WINDOW) else {
            continue;
        };
        let rate = rate(&mut fields, faults);
        let per =
            fields.required("per", faults, DIMENSIONS).and_then(|node| dimensions(node, faults));
        let only = match fields.optional("match") {
            Some(node) => limit_match(node, faults),
            None => Some(LimitMatch::default()),
        };
        fields.finish(faults);
        let (Some((limit, window)), Some(per), Some(only)) = (rate, per, only) else {
            continue;
        };
        limits.push(Limit { name: format!("limits.{name}"), limit, window, per, only });
    }
    Some(limits)
}

const WINDOW: &str = "a limit: an object with `limit` and `window`";
const DIMENSIONS: &str = "a list of: org, key, role, tier, connector, tool";

pub(super) const DURATION: &str = "a duration from 1ms to 31d, such as 500ms, 1s, 5m, 1h, 30d";

fn rate(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<(u64, Duration)> {
    let limit = fields
        .required("limit", faults, "how many calls the window admits")
        .and_then(|node| node.integer(faults, 1..=MOST_CALLS, "calls"));
    let window = fields
        .required("window", faults, DURATION)
        .and_then(|node| node.text(faults, DURATION, duration));
    Some((limit?, window?))
}

pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(milliseconds)?);
    (!duration.is_zero() && duration <= LONGEST_WINDOW).then_some(duration)
}

fn dimensions(node: Node<'_>, faults: &mut Faults) -> Option<Vec<Dimension>> {
    let items = node.clone().items(faults, DIMENSIONS)?;
    if items.is_empty() {
        node.fault(faults, "at least one of: org, key, role, tier, connector, tool");
    }
    let mut per: Vec<_> = items
        .into_iter()
        .map(|node| {
            node.text(faults, "one of: org, key, role, tier, connector, tool", |text| {
                Some(match text {
                    "org" => Dimension::Org,
                    "key" => Dimension::Key,
                    "role" => Dimension::Role,
                    "tier" => Dimension::Tier,
                    "connector" => Dimension::Connector,
                    "tool" => Dimension::Tool,
                    _ => return None,
                })
            })
        })
        .collect::<Option<_>>()?;
    // The order in which a person lists them must not make another counter.
    per.sort_unstable();
    per.dedup();
    Some(per)
}

fn limit_match(node: Node<'_>, faults: &mut Faults) -> Option<LimitMatch> {
    let mut fields = node.object(faults, "an object with `connectors`, `tools` or `roles`")?;
    let mut list = |name| match fields.optional(name) {
        Some(node) => globs(node, faults, "a list of names; * and ? are wildcards").map(Some),
        None => Some(None),
    };
    let (connectors, tools, roles) = (list("connectors"), list("tools"), list("roles"));
    fields.finish(faults);
    Some(LimitMatch { connectors: connectors?, tools: tools?, roles: roles? })
}
