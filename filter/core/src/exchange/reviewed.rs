//! Calls and lists against what was reviewed: pinned schemas, pinned definitions.
//!
//! Owns what a drift leads to, and what a worker has to remember for it. How far something drifted is
//! `pin`'s business, whether arguments fit is `schema`'s.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use super::turn::Turn;
use crate::audit::AuditEvent;
use crate::denial::{Denial, Unfit};
use crate::id::{OrgId, PolicyName};
use crate::mcp::{Listing, ToolCall};
use crate::pin::{Action, Drift};
use crate::policy::{Connector, Policy};
use crate::reviewed::Listed;
use crate::schema::{Mirror, Violation};
use crate::worker::Worker;

/// The most drifts that one audit entry tells; a metric counts these, and lists come often.
const MAX_TOLD: usize = 20;

/// The most tools without a pin that one list makes known as labels of metrics.
const MAX_UNPINNED: usize = 400;

/// Judges a call by the pin of its tool, if it has one.
///
/// # Errors
/// The tool drifted too far, a header says something else than its argument, or the arguments break
/// the schema.
pub(crate) fn check(
    call: &ToolCall,
    parameters: Option<&BTreeMap<String, Option<Vec<u8>>>>,
    (org, name, connector): (&OrgId, &PolicyName, &Connector),
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
    // `policy push` refuses such a schema; whoever got it here all the same gets no call through.
    let reviewed = worker.schemas.of(pin).ok_or(Denial::PolicyUnusable)?;
    if let Some(parameters) = parameters {
        mirrored(call, parameters, &reviewed.mirrors)?;
    }
    let arguments = Value::Object(call.arguments.clone());
    reviewed.schema.check(&arguments).map_err(|violations| {
        Denial::BadArguments(Unfit { tool: call.name.clone(), text: told(&call.name, &violations) })
    })
}

/// Whoever routes on a header must not be misled (MCP 2026-07-28, custom headers).
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

fn told(tool: &str, violations: &[Violation]) -> String {
    let tool: String = tool.chars().take(128).collect();
    let lines = violations.iter().map(|violation| format!("\n- {violation}"));
    format!("The arguments of {tool} do not fit its input schema:{}", lines.collect::<String>())
}

impl Connector {
    fn listed(&self, org: &OrgId, tool: &str) -> Listed {
        Listed { org: org.clone(), path: self.path.clone(), tool: tool.to_owned() }
    }
}

/// Compares the tools of passing lists with their pins.
#[derive(Debug)]
pub(crate) struct Watch {
    policy: Rc<Policy>,
    org: OrgId,
    connector: PolicyName,
    /// What was seen and is not told yet.
    seen: RefCell<Vec<(String, Option<Drift>)>>,
}

impl Watch {
    pub(crate) fn new(policy: &Rc<Policy>, org: &OrgId, connector: &PolicyName) -> Self {
        let (policy, org, connector) = (policy.clone(), org.clone(), connector.clone());
        Self { policy, org, connector, seen: RefCell::default() }
    }

    fn connector(&self) -> Option<&Connector> {
        self.policy.connectors.get(&self.connector).map(Box::as_ref)
    }

    /// Whether the item of a list, which the caller may see, goes on.
    pub(crate) fn passes(&self, listing: Listing, item: &Value) -> bool {
        let (Listing::Tools, Some(connector)) = (listing, self.connector()) else {
            return true;
        };
        let Some(name) = item.get("name").and_then(Value::as_str) else {
            return false;
        };
        let Some(pin) = connector.tools.get(name).and_then(|tool| tool.pin.as_ref()) else {
            let mut seen = self.seen.borrow_mut();
            if seen.len() < MAX_UNPINNED {
                seen.push((name.to_owned(), None));
            }
            return true;
        };
        let drift = pin.drift(item);
        self.seen.borrow_mut().push((name.to_owned(), drift));
        drift.is_none_or(|drift| connector.pins.action(drift) < Action::Hide)
    }

    /// Tells what was seen, and remembers it.
    pub(crate) fn settle(&self, turn: &mut Turn<'_>) {
        let Some(connector) = self.connector() else {
            return;
        };
        for (tool, drift) in self.seen.take() {
            turn.worker.labels.learn(&self.org, &tool);
            let Some(pin) = connector.tools.get(&tool).and_then(|tool| tool.pin.as_ref()) else {
                continue;
            };
            turn.worker.drifts.note(connector.listed(&self.org, &tool), pin, drift);
            let Some((drift, action)) = drift.map(|drift| (drift, connector.pins.action(drift)))
            else {
                continue;
            };
            let events = &mut turn.context.entry.events;
            if action > Action::Allow && events.len() < MAX_TOLD {
                let (connector, kind) = (self.connector.to_string(), drift.name());
                events.push(AuditEvent::SchemaDrift {
                    connector,
                    tool,
                    kind,
                    action: action.name(),
                });
            }
        }
    }
}
