//! Windows that count nothing, or that never fill because of another window for the same calls.

use super::{Warning, WarningKind};
use crate::id::PolicyName;
use crate::limit::CALL;
use crate::mcp::methods;
use crate::nearest::{hint, slip};
use crate::policy::{Check, Connector, Cost, Enforcement, Globs, Limit, Policy, Tool};

/// HTTP methods that are counted for requests without a body.
const HTTP: [&str; 2] = ["GET", "DELETE"];

impl Policy {
    pub(super) fn warn_of_windows(&self, warnings: &mut Vec<Warning>) {
        for limit in &self.limits {
            self.warn_of_match(limit, warnings);
        }
        self.warn_of_keys(warnings);
        self.warn_of_covered(warnings);
        self.warn_of_prices(warnings);
    }

    /// Warns about a limit that counts no request.
    fn warn_of_match(&self, limit: &Limit, warnings: &mut Vec<Warning>) {
        let (only, name) = (&limit.only, &limit.name);
        let mut counts_none = |part: &str, found: String, expected: String| {
            warnings.push(Warning {
                path: format!("{name}.match{part}"),
                kind: WarningKind::NeverReached,
                found: format!("{found}: the limit counts none of them"),
                expected,
            });
        };
        for glob in only.methods.iter().flat_map(Globs::all) {
            let mut own = Globs::default();
            own.insert(&glob);
            let known = own.matches(CALL)
                || HTTP.iter().any(|http| own.matches(http))
                || methods().any(|method| own.matches(method))
                || self.connectors.values().any(|connector| connector.methods.meets(&glob));
            if !known {
                let slip = hint(&glob, &methods().collect::<Vec<_>>());
                let expected =
                    format!("a method of MCP, GET, DELETE, or one that a connector opens{slip}");
                counts_none(
                    ".methods",
                    format!("{glob:?}, a method that is open nowhere"),
                    expected,
                );
            }
        }
        let calls = only.methods.as_ref().is_none_or(|methods| methods.matches(CALL));
        if let (Some(tools), false) = (&only.tools, calls)
            && !tools.matches("")
        {
            let found = "tools, and `methods` without tools/call".to_owned();
            counts_none(".tools", found, format!("{CALL} in `methods`, or no `tools`"));
            return;
        }
        let (roles, connectors) = (only.roles.as_ref(), only.connectors.as_ref());
        if self.roles.is_empty() {
            return;
        }
        if !self.calls(roles, connectors, None) {
            let found = "roles of which none has one of the connectors".to_owned();
            counts_none("", found, "roles and connectors that go together".to_owned());
            return;
        }
        for glob in only.tools.iter().flat_map(Globs::all) {
            let named: Vec<&PolicyName> = self.connectors.keys().collect();
            if self.knows_tool(&named, &glob) && !self.calls(roles, connectors, Some(&glob)) {
                let found = format!("{glob:?}, which no role that is counted may call");
                counts_none(".tools", found, "a tool that a counted role may call".to_owned());
            }
        }
    }

    /// Warns about windows of single keys that were meant to replace another one.
    fn warn_of_keys(&self, warnings: &mut Vec<Warning>) {
        let known: Vec<&str> = self.tiers.values().flatten().map(Limit::last_name).collect();
        for (key, limits) in &self.keys {
            if limits.is_empty() {
                warnings.push(Warning {
                    path: format!("keys.{key}.limits"),
                    kind: WarningKind::NoEffect,
                    found: "no limit: the key keeps all windows of its tier".to_owned(),
                    expected: "at least one limit, such as {calls: {limit: 5, window: 1s}}"
                        .to_owned(),
                });
            }
            for limit in limits.iter().filter(|limit| !known.contains(&limit.last_name())) {
                let slip = slip(limit.last_name(), &known);
                // A window that the key itself replaces no longer counts.
                let stays =
                    |own: &&Limit| limits.iter().all(|it| it.last_name() != own.last_name());
                let looser = |tier: &Vec<Limit>| {
                    tier.iter().filter(stays).any(|own| covers(own, limit).is_some())
                };
                let idle = !self.tiers.is_empty() && self.tiers.values().all(looser);
                if slip.is_empty() && !idle {
                    continue;
                }
                let what = match idle {
                    true => {
                        "the tier's own windows hold as well and are stricter, so it refuses nothing"
                    }
                    false => "the tier's own windows hold as well",
                };
                let names = known.iter().copied().collect::<std::collections::BTreeSet<_>>();
                let names: Vec<&str> = names.into_iter().collect();
                let list = names.get(..30).unwrap_or(&names).join(", ");
                warnings.push(Warning {
                    path: limit.name.clone(),
                    kind: WarningKind::UnknownLimit,
                    found: format!(
                        "{:?}, which no tier has and which so replaces none: {what}",
                        limit.last_name()
                    ),
                    expected: format!("the name of the tier's limit to replace, of: {list}{slip}"),
                });
            }
        }
    }

    /// Warns about windows that never fill, because another one for the same calls fills before.
    fn warn_of_covered(&self, warnings: &mut Vec<Warning>) {
        // In shadow mode, a full window lets calls pass, and the others count them.
        if !self.is_enforced(Check::Limits, Enforcement::Enforce) {
            return;
        }
        let replaced = |limit: &Limit| {
            let mut own = self.keys.values().flatten();
            own.any(|own| own.last_name() == limit.last_name())
        };
        for tier in self.tiers.values() {
            of_each_other(tier, |stricter| !replaced(stricter), warnings);
        }
        for key in self.keys.values() {
            of_each_other(key, |_| true, warnings);
        }
        of_each_other(&self.limits, |_| true, warnings);
    }

    /// Warns about prices that no limit counts, and about limits without any price.
    fn warn_of_prices(&self, warnings: &mut Vec<Warning>) {
        let credits = || self.every_limit().filter(|limit| limit.cost == Cost::Credits);
        let free = self.connectors.values().all(|connector| {
            let tool = |tool: &Tool| tool.price.unwrap_or(0) > 0 || tool.row_price > 0;
            connector.price == 0 && !connector.tools.values().any(tool)
        });
        warnings.extend(credits().filter(|_| free).map(|limit| Warning {
            path: format!("{}.cost", limit.name),
            kind: WarningKind::NeverCounted,
            found: "credits, and every call is free: the limit counts nothing".to_owned(),
            expected: "prices of tools or connectors, or calls or bytes as `cost`".to_owned(),
        }));
        warnings.extend(credits().filter_map(|limit| self.unaffordable(limit)));
        let of_keys = self.tiers.values().chain(self.keys.values()).flatten();
        if of_keys.into_iter().any(|limit| limit.cost == Cost::Credits) {
            return;
        }
        let further: Vec<&Limit> = credits().collect();
        let counted = |name: &PolicyName, tool: Option<&str>| {
            further.iter().any(|limit| {
                let within = limit.only.connectors.as_ref();
                let about = limit.only.tools.as_ref();
                within.is_none_or(|globs| globs.matches(name.as_str()))
                    && tool.is_none_or(|tool| about.is_none_or(|globs| globs.matches(tool)))
            })
        };
        let mut uncounted = self.connectors.iter().flat_map(|(name, connector)| {
            priced(name, connector)
                .into_iter()
                .filter(move |(tool, _)| !counted(name, *tool))
                .map(|(_, path)| path)
        });
        let Some(first) = uncounted.next() else { return };
        let more = match uncounted.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let none =
            if further.is_empty() { "no limit counts credits" } else { "no limit counts it" };
        warnings.push(Warning {
            path: first,
            kind: WarningKind::NeverCounted,
            found: format!("a price{more}, and {none}: nothing is drawn"),
            expected: "a limit with cost: credits in a tier, in keys or in limits".to_owned(),
        });
    }
}

impl Policy {
    /// Warns about a budget that is smaller than the price of a call that a counted role may make.
    fn unaffordable(&self, limit: &Limit) -> Option<Warning> {
        if !self.is_enforced(Check::Limits, Enforcement::Enforce) {
            return None;
        }
        let only = &limit.only;
        let within = |globs: Option<&Globs>, name: &str| globs.is_none_or(|it| it.matches(name));
        let about = self.connectors.iter();
        let about = about.filter(|(name, _)| within(only.connectors.as_ref(), name.as_str()));
        let mut dear = about.flat_map(|(name, connector)| {
            let tools =
                connector.tools.iter().filter(|(tool, _)| within(only.tools.as_ref(), tool));
            let priced = tools.map(|(tool, it)| (tool, it.price.unwrap_or(connector.price)));
            let dear = priced
                .filter(|(tool, price)| *price > limit.limit && !connector.hides_unpinned(tool));
            dear.map(move |(tool, price)| (name, tool, price))
        });
        let mut own = Globs::default();
        let (name, tool, price) = dear.find(|(name, tool, _)| {
            own = Globs::default();
            own.insert(name.as_str());
            self.calls(only.roles.as_ref(), Some(&own), Some(tool))
        })?;
        Some(Warning {
            path: limit.name.clone(),
            kind: WarningKind::NothingLeft,
            found: format!(
                "{} credits, and one call of {name}/{tool} costs {price}: who has this limit can never make it",
                limit.limit
            ),
            expected: format!("at least {price} credits, a lower price, or roles without the tool"),
        })
    }
}

/// The explicit prices of a connector, with their positions.
fn priced<'a>(name: &PolicyName, connector: &'a Connector) -> Vec<(Option<&'a str>, String)> {
    let of_tools = connector.tools.iter().filter_map(|(tool, stated)| {
        let price = stated.price.filter(|price| *price > 0).map(|_| "price");
        let row = (stated.row_price > 0).then_some("row_price");
        let path = format!("connectors.{name}.tools.{tool}.{}", price.or(row)?);
        Some((Some(tool.as_str()), path))
    });
    let own = (connector.price > 1).then(|| (None, format!("connectors.{name}.price")));
    of_tools.chain(own).collect()
}

/// How many units `strict` admits in any interval of `loose`'s length, when that is too few to fill `loose`.
fn covers(strict: &Limit, loose: &Limit) -> Option<u64> {
    let same = strict.cost == loose.cost && strict.per == loose.per && strict.only == loose.only;
    let most = match strict.window >= loose.window {
        true => strict.limit,
        // Rows of a response are charged even to a budget that is used up.
        false if loose.cost == Cost::Credits => return None,
        false => {
            let longest = loose.window.saturating_add(loose.precision).as_millis();
            // The draws at both ends of the interval.
            let within = longest.checked_div(strict.window.as_millis().max(1)).unwrap_or(0);
            let windows = within.saturating_add(1);
            strict.limit.saturating_mul(u64::try_from(windows).unwrap_or(u64::MAX))
        }
    };
    // The alert of a window that never fills may still occur.
    let alerts = loose.alert.is_some_and(|from| from <= most);
    (same && !alerts && most <= loose.limit).then_some(most)
}

fn of_each_other(limits: &[Limit], counts: impl Fn(&Limit) -> bool, warnings: &mut Vec<Warning>) {
    for (at, loose) in limits.iter().enumerate() {
        let strict = limits.iter().enumerate().find(|(other, strict)| {
            // Of two equal windows, the second one is reported.
            let alike = covers(loose, strict).is_some() && *other > at;
            *other != at && counts(strict) && covers(strict, loose).is_some() && !alike
        });
        let Some((_, strict)) = strict else { continue };
        let what = match strict.window >= loose.window {
            true => "as few units in at least as long".to_owned(),
            false => {
                let most = covers(strict, loose).unwrap_or_default();
                format!("at most {most} of its {} units can be drawn in its time", loose.limit)
            }
        };
        warnings.push(Warning {
            path: loose.name.clone(),
            kind: WarningKind::NoEffect,
            found: format!("a window that {} never lets fill: {what}", strict.name),
            expected: "more units in a longer window, or fewer in a shorter one".to_owned(),
        });
    }
}
