//! A policy inside the plugin configuration.
//!
//! Owns which features such a policy must not use without Redis.

use std::rc::Rc;

use serde_json::Value;

use super::InlinePolicy;
use crate::decode::{Faults, Fields};
use crate::policy;

/// Reads the field `policy`, whose value is `document`.
pub(super) fn policy(
    fields: &mut Fields<'_>,
    document: Option<&Value>,
    faults: &mut Faults,
) -> Option<InlinePolicy> {
    let (_, document) = fields.optional("policy").zip(document)?;
    match policy::compile(document) {
        Err(wrong) => {
            for fault in &wrong {
                faults.push(&format!("policy.{}", fault.path), &fault.found, &fault.expected);
            }
            None
        }
        Ok(policy) => {
            let version = policy::version_of(document)?;
            Some(InlinePolicy { version, policy: Rc::new(policy) })
        }
    }
}

/// Reports a missing policy, and features of the policy that need Redis, when Redis is not configured.
pub(super) fn without_redis(policy: Option<&InlinePolicy>, faults: &mut Faults) {
    let Some(InlinePolicy { policy, .. }) = policy else {
        let expected = "an object with `cluster`; only a `policy` here works without Redis";
        return faults.push("redis", "nothing", expected);
    };
    if let Some(limit) = policy.every_limit().next() {
        let expected = "no limits without Redis, which counts them";
        faults.push("policy", format!("the limit {}", limit.name), expected);
    }
    for (name, connector) in &policy.connectors {
        let stated = connector.tools.iter().map(|(tool, stated)| (tool.clone(), &stated.rules));
        let of_roles = policy.roles.values().filter_map(|role| role.connectors.get(name));
        let of_roles = of_roles.flat_map(|access| access.tools.iter().flat_map(|it| it.each()));
        for (tool, _) in stated.chain(of_roles).filter(|(_, rules)| rules.approval.is_some()) {
            let found = format!("the approval of {name}'s tool {tool:?}");
            faults.push("policy", found, "no approvals without Redis, which keeps them");
        }
    }
}

/// Reports features of the policy that a sharded Redis cannot provide.
pub(super) fn sharded(policy: Option<&InlinePolicy>, faults: &mut Faults) {
    if let Some(limit) = policy.and_then(|inline| inline.policy.global_limit()) {
        let expected =
            "no global limits with Redis Cluster: one script cannot count them beside others";
        faults.push("policy", format!("the limit {}", limit.name), expected);
    }
}
