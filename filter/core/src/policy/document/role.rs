//! The form of a role.
//!
//! Owns what may stand where a role is described. Decides nothing about a caller.

use super::globs;
use crate::decode::{Faults, Node};
use crate::id::PolicyName;
use crate::policy::{Access, Globs, Role};

pub(super) fn role(node: Node<'_>, faults: &mut Faults, connectors: &[&str]) -> Option<Role> {
    let members = node.members(faults, "a role: an object with one member for each connector")?;
    let mut role = Role::default();
    for (name, node) in members {
        if !connectors.contains(&name) {
            let expected = format!("one of the connectors: {}", connectors.join(", "));
            faults.push(node.path(), format!("{name:?}"), expected);
        }
        let access = access(node, faults);
        if let (Some(name), Some(access)) = (PolicyName::new(name), access) {
            role.connectors.insert(name, access);
        }
    }
    Some(role)
}

fn access(node: Node<'_>, faults: &mut Faults) -> Option<Access> {
    const TOOLS: &str = "a list of tool names; * and ? are wildcards";
    let expected = "an object with `allow`, `show`, `prompts` or `resources`";
    let mut fields = node.object(faults, expected)?;
    let mut list = |name, expected| match fields.optional(name) {
        Some(node) => globs(node, faults, expected),
        None => Some(Globs::default()),
    };
    let (allow, show) = (list("allow", TOOLS), list("show", TOOLS));
    let prompts = list("prompts", "a list of prompt names; * and ? are wildcards");
    let resources = list("resources", "a list of resource URIs; * and ? are wildcards");
    fields.finish(faults);
    Some(Access { allow: allow?, show: show?, prompts: prompts?, resources: resources? })
}
