//! The form of a role.
//!
//! Owns the allowed fields of a role. Decides nothing about a caller.

use super::enforcement::enforcement;
use super::rule::{About, call_rules, conditions, names};
use super::{LONGEST_GLOB, globs};
use crate::auth::Writes;
use crate::decode::{Faults, Fields, Node};
use crate::id::PolicyName;
use crate::nearest::{hint, one_of};
use crate::order;
use crate::policy::{Access, Globs, Role, RoleRules};

/// Members of a role that are not connectors, so no connector may have these names.
pub(super) const RESERVED: [&str; 2] = ["allow_write", "conditions"];

pub(super) fn role(node: Node<'_>, faults: &mut Faults, connectors: &[&str]) -> Option<Role> {
    let expected = "a role: one member for each connector, such as {crm: {allow: [query_*]}}";
    let members = node.clone().members(faults, expected)?;
    let mut own = node.object(faults, expected)?;
    let writes = writes(&mut own, faults);
    let conditions = conditions(&mut own, About::Tools, faults);
    let mut role = Role::default();
    for (name, node) in members.into_iter().filter(|(name, _)| !RESERVED.contains(name)) {
        if !connectors.contains(&name) {
            let own = hint(name, &RESERVED);
            if !own.is_empty() {
                let expected = format!("a connector, or a member of the role itself{own}");
                faults.push(node.path(), format!("{name:?}"), expected);
                continue;
            }
            let expected = one_of("one of the connectors: ", name, connectors);
            faults.push(node.path(), format!("{name:?}"), expected);
        }
        let access = access(node, faults);
        if let (Some(name), Some(access)) = (PolicyName::new(name), access) {
            role.connectors.insert(name, Box::new(access));
        }
    }
    (role.writes, role.conditions) = (writes?, conditions?);
    Some(role)
}

fn access(node: Node<'_>, faults: &mut Faults) -> Option<Access> {
    const TOOLS: &str = "a list of tool names, such as [query_*]; * and ? are wildcards";
    const PROMPTS: &str = "a list of prompt names, such as [weekly_*]; * and ? are wildcards";
    const RESOURCES: &str = "a list of resource URIs, such as [note://*]; * and ? are wildcards";
    let expected = "an object with `allow`, `show`, `deny`, `prompts` or `resources`, such as {allow: [query_*]}";
    let mut fields = node.object(faults, expected)?;
    let mut list = |name| match fields.optional(name) {
        Some(node) => globs(node, faults, TOOLS),
        None => Some(Globs::default()),
    };
    let (allow, show, deny) = (list("allow"), list("show"), list("deny"));
    let mut objects = |name, list| match fields.optional(name) {
        Some(node) => names(node, list, faults),
        None => Some(Default::default()),
    };
    let (prompts, resources) = (objects("prompts", PROMPTS), objects("resources", RESOURCES));
    let writes = writes(&mut fields, faults);
    let conditions = conditions(&mut fields, About::Tools, faults);
    let tools = match fields.optional("tools") {
        Some(node) => tools(node, faults).map(Some),
        None => Some(None),
    };
    let enforcement = enforcement(&mut fields, faults);
    fields.finish(faults);
    Some(Access {
        allow: allow?,
        show: show?,
        deny: deny?,
        prompts: prompts?,
        resources: resources?.into(),
        writes: writes?,
        conditions: conditions?,
        tools: tools?.filter(|rules| **rules != RoleRules::default()),
        enforcement: enforcement?,
    })
}

/// The role's additional rules for single tools: by name, or by pattern.
fn tools(node: Node<'_>, faults: &mut Faults) -> Option<Box<RoleRules>> {
    let expected = "one member for each tool or pattern, such as {query_*: {max_records: {argument: limit, max: 50}}}";
    let rule =
        "rules about calls: an object with `max_records`, `approval`, `arguments` or `conditions`";
    let (mut exact, mut patterns) = (Vec::new(), Vec::new());
    let mut whole = true;
    // The order of rules in the document does not matter: the same rules are the same policy.
    let mut members = node.members(faults, expected)?;
    order::sort_by(&mut members, |(one, _), (other, _)| one.cmp(other));
    for (name, node) in members {
        if !(1..=LONGEST_GLOB).contains(&name.len()) {
            let expected = format!("a tool's name or a pattern of 1 to {LONGEST_GLOB} bytes");
            faults.push(node.path(), format!("a name of {} bytes", name.len()), expected);
        }
        let place = node.clone();
        let read = node.object(faults, rule).and_then(|mut fields| {
            let read = call_rules(place.path(), &mut fields, faults);
            fields.finish(faults);
            read
        });
        let Some(read) = read else {
            whole = false;
            continue;
        };
        if place.names().is_empty() {
            place.fault(faults, rule);
        }
        if name.contains(['*', '?']) {
            let mut pattern = Globs::default();
            pattern.insert(name);
            patterns.push((pattern, read));
        } else {
            exact.push((name.into(), read));
        }
    }
    whole.then(|| Box::new(RoleRules { exact: exact.into(), patterns: patterns.into() }))
}

/// The field `allow_write`, which is true by default.
fn writes(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Writes> {
    match fields.optional("allow_write") {
        Some(node) => {
            node.boolean(faults).map(|allow| if allow { Writes::Open } else { Writes::Closed })
        }
        None => Some(Writes::Open),
    }
}
