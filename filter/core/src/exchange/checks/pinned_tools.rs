//! Compares calls and lists with the reviewed state: pinned schemas, pinned definitions.
//!
//! Owns the consequence of a drift, and the state that a worker keeps for it. `pin` decides how far a tool drifted,
//! `schema` whether arguments fit.

use std::collections::BTreeMap;

use crate::denial::Denial;
use crate::id::{OrgId, PolicyName};
use crate::mcp::ToolCall;
use crate::observed::{self, Watched};
use crate::pin::Action;
use crate::policy::{Connector, Unverified};
use crate::reviewed::Listed;
use crate::schema::Mirror;
use crate::time::UnixTime;
use crate::worker::Worker;

/// Checks a call against the pin of its tool, if it has one.
///
/// # Errors
/// The tool drifted too far, a header differs from its argument, or the arguments violate the schema.
pub(crate) fn check(
    call: &ToolCall,
    parameters: Option<&BTreeMap<String, Option<Vec<u8>>>>,
    (org, name, connector): (&OrgId, &PolicyName, &Connector),
    watched: Option<&Watched>,
    worker: &mut Worker,
) -> Result<(), Denial> {
    let Some(pin) = connector.tools.get(&call.name).and_then(|tool| tool.pin.as_ref()) else {
        return Ok(());
    };
    if let Some(drift) = worker.drifts.seen(|| connector.listed(org, &call.name), pin)
        && connector.pins.action(drift) == Action::Block
    {
        let rule = format!("connectors.{name}.on_drift.{}", drift.name());
        return Err(Denial::Forbidden { rule });
    }
    if watched.is_some_and(Watched::is_unverified) {
        return Err(Denial::unverified(observed::unverified(name)));
    }
    // `policy push` refuses such a schema. If one is in Redis anyway, its calls are refused.
    let reviewed = worker.schemas.of(pin).ok_or(Denial::PolicyUnusable)?;
    if let Some(parameters) = parameters {
        mirrored(call, parameters, &reviewed.mirrors)?;
    }
    reviewed.fits(&call.name, &call.arguments)
}

/// The tool of a call, where the policy requires that a list showed it.
pub(crate) fn watched(
    call: &ToolCall,
    (org, connector): (&OrgId, &Connector),
    worker: &mut Worker,
    now: UnixTime,
) -> Option<Watched> {
    match connector.pins.unverified {
        Unverified::Allow => return None,
        Unverified::Block => {}
    }
    let pin = connector.tools.get(&call.name)?.pin.as_ref()?;
    let reviewed = worker.schemas.of(pin)?;
    let tool = connector.listed(org, &call.name);
    Some(Watched::new((tool, pin), &reviewed.pin, &mut worker.observations, now))
}

/// A proxy that routes on such a header must get the argument's value (MCP 2026-07-28, custom headers).
fn mirrored(
    call: &ToolCall,
    parameters: &BTreeMap<String, Option<Vec<u8>>>,
    mirrors: &[Mirror],
) -> Result<(), Denial> {
    for mirror in mirrors {
        match (mirror.argument(&call.arguments), parameters.get(&mirror.header)) {
            (None, None) => {}
            (Some(argument), Some(Some(header))) if Mirror::agrees(argument, header) => {}
            (Some(_), None) => {
                return Err(Denial::HeaderMismatch("An Mcp-Param header is missing"));
            }
            _ => {
                let text = "An Mcp-Param header does not match its argument";
                return Err(Denial::HeaderMismatch(text));
            }
        }
    }
    Ok(())
}

impl Connector {
    /// The tool as this server lists it to this organisation.
    pub(crate) fn listed(&self, org: &OrgId, tool: &str) -> Listed {
        observed::listed(org, &self.path, tool)
    }
}
