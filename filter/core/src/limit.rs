//! Which windows a call draws from.
//!
//! Owns the mapping from limits of the policy to keys in Redis. Counts nothing: the admission
//! script does, atomically.

use portcullis_redis_lua::{Key, Window};

use crate::auth::Principal;
use crate::id::PolicyName;
use crate::policy::{Dimension, Limit, LimitMatch, Policy};

/// Every window that a call of `tool` draws from, with the limit's name; the tier's first.
#[must_use]
pub fn windows(
    policy: &Policy,
    principal: &Principal,
    connector: &PolicyName,
    tool: &str,
) -> Vec<(String, Window)> {
    let tier = policy.tiers.get(&principal.tier).into_iter().flatten();
    let further =
        policy.limits.iter().filter(|limit| counts(&limit.only, principal, connector, tool));
    tier.chain(further)
        .map(|limit| (limit.name.clone(), window(limit, principal, connector, tool)))
        .collect()
}

fn counts(only: &LimitMatch, principal: &Principal, connector: &PolicyName, tool: &str) -> bool {
    let matches = |globs: &Option<crate::policy::Globs>, name: &str| {
        globs.as_ref().is_none_or(|globs| globs.matches(name))
    };
    matches(&only.connectors, connector.as_str())
        && matches(&only.tools, tool)
        && matches(&only.roles, principal.role.as_str())
}

fn window(limit: &Limit, principal: &Principal, connector: &PolicyName, tool: &str) -> Window {
    let holder = principal.identity.holder();
    let partition: Vec<(&str, &str)> = limit
        .per
        .iter()
        .map(|dimension| match dimension {
            Dimension::Org => ("org", principal.org.as_str()),
            Dimension::Key => ("key", holder.as_str()),
            Dimension::Role => ("role", principal.role.as_str()),
            Dimension::Tier => ("tier", principal.tier.as_str()),
            Dimension::Connector => ("connector", connector.as_str()),
            Dimension::Tool => ("tool", tool),
        })
        .collect();
    Window {
        key: Key::window(principal.org.as_str(), &limit.name, &partition),
        limit: limit.limit,
        length_us: u64::try_from(limit.window.as_micros()).unwrap_or(u64::MAX),
        cost: 1,
    }
}
