//! The windows of a request, and their descriptions for clients.
//!
//! Owns the mapping from limits of the policy to keys in Redis, and the cost of a call in each. Counts nothing: the
//! admission script does, atomically.

pub mod cool_off;
pub mod fields;
pub mod leases;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::Duration;

use portcullis_redis_lua::{Alert, Key, Scope, Window};

use crate::auth::{IdentityKind, Principal};
use crate::id::PolicyName;
use crate::policy::{Cost, Dimension, Globs, Limit, Policy, Price};
use crate::time::micros;

/// A request as limits see it.
#[derive(Clone, Copy, Debug)]
pub struct Called<'a> {
    /// The connector.
    pub connector: &'a PolicyName,
    /// The JSON-RPC method, or the HTTP method of a request without a body.
    pub method: &'a str,
    /// The tool of a tool call, otherwise empty.
    pub tool: &'a str,
    /// Whether its response will open a session or a task, which Redis then stores.
    pub opens: bool,
    /// The length of the request's body.
    pub bytes: u64,
}

/// A window that a call draws from, with its public name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The limit's name: `tiers.free.calls`.
    pub name: String,
    /// The unit that is counted.
    pub cost: Cost,
    /// The interval that the limit is for.
    pub length: Duration,
    /// How many units a worker draws in advance.
    pub lease: Option<u64>,
    /// The lifetime of a lease, by which every unit of this window counts longer.
    pub lasts: Duration,
    /// The window in the question to Redis.
    pub window: Window,
}

/// The method that limits count unless they say otherwise.
pub const CALL: &str = "tools/call";

/// The number of windows that tools which the policy does not name share, for a limit that is kept per tool. Made-up
/// names give a caller no more windows than these.
const UNNAMED: u32 = 256;

/// A lease lasts for a tenth of its window, and at most this long.
const LONGEST_LEASE: Duration = Duration::from_secs(1);

impl Called<'_> {
    /// Its price in credits.
    #[must_use]
    pub fn price(&self, policy: &Policy) -> Price {
        let connector = policy.connectors.get(self.connector);
        connector.map(|connector| connector.price(self.tool)).unwrap_or_default()
    }

    /// All windows that it draws from: the key's own first, then its tier's, then the others. The former two count
    /// calls of tools.
    #[must_use]
    pub fn quotas(&self, policy: &Policy, principal: &Principal) -> Vec<Quota> {
        let own = of_key(policy, principal).filter(|_| self.method == CALL);
        let further = policy.limits.iter().filter(|limit| self.counts(limit, principal));
        let price = self.price(policy);
        own.chain(further)
            .map(|limit| {
                let cost = match limit.cost {
                    Cost::Calls => 1,
                    Cost::Credits => price.call,
                    Cost::Bytes => self.bytes,
                };
                match limit.per.contains(&Dimension::Tool) {
                    true => {
                        let tool = &shared_name(policy, self.connector, self.tool);
                        limit.quota(principal, &Called { tool, ..*self }, cost)
                    }
                    false => limit.quota(principal, self, cost),
                }
            })
            .collect()
    }

    /// The window for a request that opens a session.
    #[must_use]
    pub fn opening(&self, policy: &Policy, principal: &Principal) -> Option<Quota> {
        let opened = policy.sessions.opened.as_ref();
        opened.map(|limit| limit.quota(principal, self, 1))
    }

    fn counts(&self, limit: &Limit, principal: &Principal) -> bool {
        let only = &limit.only;
        let matches = |globs: &Option<Globs>, name: &str| {
            globs.as_ref().is_none_or(|globs| globs.matches(name))
        };
        let counted = match &only.methods {
            Some(methods) => methods.matches(self.method),
            None => self.method == CALL,
        };
        counted
            && matches(&only.connectors, self.connector.as_str())
            && matches(&only.tools, self.tool)
            && limit.counts_role(&principal.role)
    }
}

/// A tool's name in windows that are kept per tool: its own, if the policy names it. A caller may have made up any
/// other name; its window depends only on the name, so all gateways agree.
fn shared_name<'a>(policy: &Policy, connector: &PolicyName, tool: &'a str) -> Cow<'a, str> {
    if tool.is_empty() || policy.names_tool(connector, tool) {
        return Cow::Borrowed(tool);
    }
    let number = crc32fast::hash(tool.as_bytes()) % UNNAMED;
    Cow::Owned(format!("~{number:02x}"))
}

/// The windows of a key: its own, and its tier's unless the key has one of that name.
pub fn of_key<'a>(
    policy: &'a Policy,
    principal: &Principal,
) -> impl Iterator<Item = &'a Limit> + use<'a> {
    let own = match principal.identity.kind() {
        IdentityKind::Key(id) => policy.keys.get(id).map(Vec::as_slice).unwrap_or_default(),
        IdentityKind::Token { .. } | IdentityKind::Certificate(_) => &[],
    };
    let tier = policy.tiers.get(&principal.tier).into_iter().flatten();
    let replaced = |limit: &Limit| own.iter().any(|own| own.last_name() == limit.last_name());
    own.iter().chain(tier.filter(move |limit| !replaced(limit)))
}

impl Limit {
    /// The last part of its name: `calls` of `tiers.free.calls`.
    #[must_use]
    pub(crate) fn last_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// Whether it counts calls of this role.
    #[must_use]
    pub fn counts_role(&self, role: &PolicyName) -> bool {
        self.only.roles.as_ref().is_none_or(|roles| roles.matches(role.as_str()))
    }

    /// Whether one caller has several windows of it, per connector or tool.
    #[must_use]
    pub fn is_per_target(&self) -> bool {
        self.per.iter().any(|dimension| dimension.is_of_target())
    }

    /// The common prefix of its windows' names for all calls of `principal`; the whole name, unless
    /// [`Limit::is_per_target`].
    #[must_use]
    pub fn prefix(&self, principal: &Principal) -> Key {
        let known = self.per.iter().copied();
        let known = known.filter(|one| !one.is_of_target());
        let nowhere =
            Called { connector: &principal.role, method: CALL, tool: "", opens: false, bytes: 0 };
        Self { per: known.collect(), ..self.clone() }.quota(principal, &nowhere, 0).window.key
    }

    /// Its window for a call of `principal` that costs `cost` there.
    #[must_use]
    pub fn quota(&self, principal: &Principal, called: &Called<'_>, cost: u64) -> Quota {
        let holder = principal.identity.holder();
        let value = |dimension: &Dimension| match dimension {
            Dimension::Global => None,
            Dimension::Org => Some(("org", principal.org.as_str())),
            Dimension::Key => Some(("key", holder)),
            Dimension::Role => Some(("role", principal.role.as_str())),
            Dimension::Tier => Some(("tier", principal.tier.as_str())),
            Dimension::Connector => Some(("connector", called.connector.as_str())),
            Dimension::Tool => Some(("tool", called.tool)),
        };
        let partition: Vec<(&str, &str)> = self.per.iter().filter_map(value).collect();
        let scope = match self.per.first() {
            Some(Dimension::Global) => Scope::Global,
            _ => Scope::Org(principal.org.as_str()),
        };
        let tenth = self.window.checked_div(10).unwrap_or_default();
        let lasts = self.lease.map_or(Duration::ZERO, |_| tenth.min(LONGEST_LEASE));
        let (length_us, grain_us) =
            (micros(self.window.saturating_add(lasts)), micros(self.precision));
        // Policies of several organisations may define different limits with one name: each definition has its own
        // window, which no other one can empty or fill.
        let name = match scope {
            Scope::Org(_) => Cow::Borrowed(self.name.as_str()),
            Scope::Global => {
                let (limit, cost) = (self.limit, self.cost.name());
                Cow::Owned(format!("{}~{limit}-{length_us}-{grain_us}-{cost}", self.name))
            }
        };
        let mark = || Key::mark(scope, &name, &partition);
        let window = Window {
            key: Key::window(scope, &name, &partition),
            limit: self.limit,
            length_us,
            grain_us,
            cost,
            alert: self.alert.map(|from| Alert { mark: mark(), from }),
        };
        let (name, length, lease) = (self.name.clone(), self.window, self.lease);
        Quota { name, cost: self.cost, length, lease, lasts, window }
    }
}
