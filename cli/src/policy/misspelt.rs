//! Names in cases that the policy does not know: such a case is refused by another rule than it is about, and is green.
//!
//! Owns which names are suspicious. A case that states its `rule` says what refuses it, and is left alone.

use portcullis_core::authz::explain::Decision;
use portcullis_core::decode::Faults;
use portcullis_core::id::PolicyName;
use portcullis_core::nearest::slip;
use portcullis_core::policy::Policy;

use super::cases::Case;

/// Adds a fault for each name of `case` that is probably misspelt.
pub(super) fn look(
    policy: &Policy,
    connector: Option<&PolicyName>,
    case: &Case,
    faults: &mut Faults,
) {
    if case.rule.is_some() {
        return;
    }
    let may_be_refused = case.expect != Decision::Allow;
    if let Ok(caller) = &case.caller
        && may_be_refused
        && let Some(roles) = policy.role_hint(&caller.principal.role)
    {
        faults.push(
            &format!("{}.caller", case.path),
            format!("the role {}, which the policy does not have{roles}", caller.principal.role),
            "a role of the policy, or `rule`: every call of an unknown role is refused",
        );
    }
    let Some(connector) = connector else { return };
    if may_be_refused {
        tool(policy, connector, case, faults);
    }
    arguments(policy, connector, case, faults);
}

/// Where tools are pinned, all that there are have a name in the policy.
fn tool(policy: &Policy, connector: &PolicyName, case: &Case, faults: &mut Faults) {
    let Some(stated) = policy.connectors.get(connector) else { return };
    let denies = |tool: &str| {
        let mut of_roles = policy.roles.values().filter_map(|role| role.connectors.get(connector));
        of_roles.any(|access| access.deny.names(tool))
    };
    let is_pinned = stated.tools.values().any(|tool| tool.pin.is_some());
    if !is_pinned || policy.names_tool(connector, &case.tool) || denies(&case.tool) {
        return;
    }
    let known: Vec<&str> = stated.tools.keys().map(String::as_str).collect();
    let near = slip(&case.tool, &known);
    faults.push(
        &format!("{}.tool", case.path),
        format!("the tool {}, which {connector} neither pins nor names", case.tool),
        format!("a tool of {connector}, or `rule`: an unknown tool may be refused as such{near}"),
    );
}

fn arguments(policy: &Policy, connector: &PolicyName, case: &Case, faults: &mut Faults) {
    let stated = policy.connectors.get(connector);
    let pin = stated.and_then(|stated| stated.tools.get(&case.tool)?.pin.as_ref());
    let schema = pin.and_then(|pin| pin.member("inputSchema"));
    let properties = schema.and_then(|schema| schema.get("properties")?.as_object());
    let Some(properties) = properties else { return };
    let known: Vec<&str> = properties.keys().map(String::as_str).collect();
    for argument in case.arguments.keys().filter(|name| !properties.contains_key(*name)) {
        let near = slip(argument, &known);
        if near.is_empty() {
            continue;
        }
        faults.push(
            &format!("{}.arguments.{argument}", case.path),
            format!("the argument {argument}, which the pinned schema does not have"),
            format!("an argument of {}, or `rule`{near}", case.tool),
        );
    }
}
