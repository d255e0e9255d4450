//! The form of limits, tiers and single keys' limits.
//!
//! Owns the allowed fields of a window. Counts nothing.

use std::time::Duration;

use super::{globs, name_of};
use crate::decode::{Faults, Fields, Node};
use crate::id::{KeyId, PolicyName};
use crate::order;
use crate::policy::{Cost, Dimension, Limit, LimitMatch};

/// An exact window keeps one entry per draw, so its limit bounds its memory. Larger windows have coarse timestamps; a
/// precision may not require more entries than this either.
const MOST_EXACT: u64 = 100_000;
/// The number of parts of a large window without a precision.
const DEFAULT_GRAINS: u32 = 1_000;
/// A trillion, for example for the bytes of a day.
const MOST_UNITS: u64 = 1_000_000_000_000;
/// Running totals are exact up to 2^53: at this rate, for three years without an idle window.
const MOST_UNITS_A_SECOND: u128 = 100_000_000;
const LONGEST_WINDOW: Duration = Duration::from_secs(31 * 86_400);
/// A larger lease would be a limit of its own.
const MOST_LEASED: u64 = 10_000;
/// The default share at which a budget reports that it is nearly used up.
const DEFAULT_ALERT_PERCENT: u64 = 80;

const LIMIT: &str = "a limit: an object with `limit` and `window`, such as {limit: 5, window: 1s}";
pub(super) const DURATION: &str = "a duration from 1ms to 31d, such as 500ms, 1s, 5m, 1h, 30d";
const DIMENSIONS: &str =
    "a list such as [key, tool], of: global, org, key, role, tier, connector, tool";
const DIMENSION: &str = "one of: global, org, key, role, tier, connector, tool";
const MEMBERS: &str = "one member for each limit, such as {calls: {limit: 5, window: 1s}}";

pub(super) fn tier(tier: &PolicyName, node: Node<'_>, faults: &mut Faults) -> Option<Vec<Limit>> {
    per_key(&format!("tiers.{tier}"), node, faults)
}

/// Windows of single keys, which replace windows of the same name in their tier or are added to them.
pub(super) fn keys(node: Node<'_>, faults: &mut Faults) -> Option<Vec<(KeyId, Vec<Limit>)>> {
    let mut keys = Vec::new();
    for (id, node) in node.members(faults, "an object: one member for each key's id")? {
        let Some(key) = KeyId::new(id) else {
            // The operator may have put the whole key here: neither it nor a path through it is shown.
            let expected = format!("the id of a key, never the key: {}", KeyId::EXPECTED);
            faults.push("keys", "a name that is no key's id (not shown)", expected);
            continue;
        };
        let limits = per_key(&format!("keys.{id}"), node, faults);
        keys.extend(limits.map(|limits| (key, limits)));
    }
    Some(keys)
}

/// Windows that each key has for itself.
fn per_key(owner: &str, node: Node<'_>, faults: &mut Faults) -> Option<Vec<Limit>> {
    let expected = "an object with `limits`, such as {limits: {calls: {limit: 5, window: 1s}}}";
    let mut fields = node.clone().object(faults, expected)?;
    let Some(limits) = fields.optional("limits") else {
        // Other fields in its place were meant to be in it.
        node.fault(faults, expected);
        return None;
    };
    let members = limits.members(faults, MEMBERS);
    fields.finish(faults);
    let mut limits = Vec::new();
    for (name, node) in members? {
        let (Some(name), Some(mut fields)) =
            (name_of(name, &node, faults), node.object(faults, LIMIT))
        else {
            continue;
        };
        let size = Size::read(&mut fields, faults);
        fields.finish(faults);
        let own = |size: Size| {
            size.limit(format!("{owner}.{name}"), vec![Dimension::Key], LimitMatch::default())
        };
        limits.extend(size.map(own));
    }
    Some(limits)
}

pub(super) fn limits(node: Node<'_>, faults: &mut Faults) -> Option<Vec<Limit>> {
    let mut limits = Vec::new();
    for (name, node) in node.members(faults, MEMBERS)? {
        let (Some(name), Some(mut fields)) =
            (name_of(name, &node, faults), node.clone().object(faults, LIMIT))
        else {
            continue;
        };
        let size = Size::read(&mut fields, faults);
        let per =
            fields.required("per", faults, DIMENSIONS).and_then(|node| dimensions(node, faults));
        let only = match fields.optional("match") {
            Some(node) => limit_match(node, faults),
            None => Some(LimitMatch::default()),
        };
        fields.finish(faults);
        let (Some(size), Some(per), Some(only)) = (size, per, only) else {
            continue;
        };
        if only.methods.is_some() && size.cost == Cost::Credits {
            node.fault(
                faults,
                "calls or bytes as `cost` where `match` has `methods`: only tools have a price",
            );
            continue;
        }
        limits.push(size.limit(format!("limits.{name}"), per, only));
    }
    Some(limits)
}

/// The size of a window: units, length, what is counted, and precision.
struct Size {
    limit: u64,
    window: Duration,
    precision: Duration,
    cost: Cost,
    lease: Option<u64>,
    alert_percent: u64,
}

impl Size {
    fn read(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Self> {
        const COST: &str = "one of: calls, credits, bytes";
        let limit_node = fields.required("limit", faults, "how many units the window admits");
        let limit =
            limit_node.clone().and_then(|node| node.integer(faults, 1..=MOST_UNITS, "units"));
        let window = fields
            .required("window", faults, DURATION)
            .and_then(|node| node.text(faults, DURATION, duration));
        let precision_node = fields.optional("precision");
        let precision = precision_node.clone().map(|node| node.text(faults, DURATION, duration));
        let cost = fields.optional("cost").map_or(Some(Cost::Calls), |node| {
            node.text(faults, COST, |text| match text {
                "calls" => Some(Cost::Calls),
                "credits" => Some(Cost::Credits),
                "bytes" => Some(Cost::Bytes),
                _ => None,
            })
        });
        let lease_node = fields.optional("lease");
        let lease = lease_node.clone().map(|node| node.integer(faults, 2..=MOST_LEASED, "units"));
        let alert = fields.optional("alert").map(|node| node.integer(faults, 0..=100, "percent"));
        let (limit, window, cost) = (limit?, window?, cost?);
        if u128::from(limit).saturating_mul(1_000)
            > window.as_millis().saturating_mul(MOST_UNITS_A_SECOND)
            && limit > MOST_EXACT
        {
            limit_node?.fault(faults, format!("at most {MOST_UNITS_A_SECOND} units a second"));
            return None;
        }
        let precision = match precision {
            Some(given) => given?,
            None if limit > MOST_EXACT => coarse(window),
            None => Duration::ZERO,
        };
        let grains = window.as_micros().checked_div(precision.as_micros());
        if precision > window || grains.is_some_and(|grains| grains > u128::from(MOST_EXACT)) {
            let expected = format!("from a {MOST_EXACT}th of the window to all of it");
            precision_node?.fault(faults, expected);
            return None;
        }
        let lease = match lease {
            Some(given) => Some(given?),
            None => None,
        };
        if lease.is_some_and(|units| units > limit || cost != Cost::Calls) {
            lease_node?.fault(faults, "at most the limit, and only where `cost` is calls");
            return None;
        }
        let alert_percent = match (alert, cost) {
            (Some(given), _) => given?,
            (None, Cost::Credits) => DEFAULT_ALERT_PERCENT,
            (None, Cost::Calls | Cost::Bytes) => 0,
        };
        Some(Self { limit, window, precision, cost, lease, alert_percent })
    }

    fn limit(self, name: String, per: Vec<Dimension>, only: LimitMatch) -> Limit {
        let Self { limit, window, precision, cost, lease, alert_percent } = self;
        let alert = (alert_percent > 0).then(|| limit.saturating_mul(alert_percent).div_ceil(100));
        Limit { name, limit, window, precision, cost, lease, alert, per, only }
    }
}

/// A whole number of microseconds, because otherwise the window would keep more timestamps than allowed.
fn coarse(window: Duration) -> Duration {
    let micros = window.as_micros().div_ceil(u128::from(DEFAULT_GRAINS));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
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
        node.fault(faults, DIMENSION.replacen("one", "at least one", 1));
    }
    let read = |node: Node<'_>| node.text(faults, DIMENSION, dimension);
    let mut per: Vec<_> = items.into_iter().map(read).collect::<Option<_>>()?;
    // The order of the list must not create another counter.
    order::sort(&mut per);
    per.dedup();
    // A window of an organisation or of a key never covers several organisations.
    if per.contains(&Dimension::Global)
        && (per.contains(&Dimension::Org) || per.contains(&Dimension::Key))
    {
        node.fault(faults, "global without org and key: those are never shared");
        return None;
    }
    Some(per)
}

fn dimension(text: &str) -> Option<Dimension> {
    Some(match text {
        "global" => Dimension::Global,
        "org" => Dimension::Org,
        "key" => Dimension::Key,
        "role" => Dimension::Role,
        "tier" => Dimension::Tier,
        "connector" => Dimension::Connector,
        "tool" => Dimension::Tool,
        _ => return None,
    })
}

fn limit_match(node: Node<'_>, faults: &mut Faults) -> Option<LimitMatch> {
    const METHODS: &str = "a list of methods, such as [initialize, resources/read]; * and ? are wildcards; GET for streams";
    let mut fields =
        node.object(faults, "an object with `methods`, `connectors`, `tools` or `roles`")?;
    let methods = match fields.optional("methods") {
        Some(node) => globs(node, faults, METHODS).map(Some),
        None => Some(None),
    };
    let mut list = |name| match fields.optional(name) {
        Some(node) => {
            globs(node, faults, "a list of names, such as [a, b*]; * and ? are wildcards").map(Some)
        }
        None => Some(None),
    };
    let (connectors, tools, roles) = (list("connectors"), list("tools"), list("roles"));
    fields.finish(faults);
    Some(LimitMatch { methods: methods?, connectors: connectors?, tools: tools?, roles: roles? })
}
