//! Compares passing lists of tools with their pins.
//!
//! Owns the worker's memory of drifts, and their part of the audit entry. `pin` decides how far a tool drifted.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::Value;

use crate::audit::AuditEvent;
use crate::driver::call::DependencyCall;
use crate::exchange::turn::Turn;
use crate::id::{OrgId, PolicyName};
use crate::mcp::{Listing, Operation};
use crate::observed::{self, Observed};
use crate::pin::{Action, Drift};
use crate::policy::{Connector, Policy, Unverified};

/// The most drifts in one audit entry; a metric counts all, and lists are frequent.
const MAX_TOLD: usize = 20;

/// The most tools without a pin of one list that become labels of metrics.
const MAX_UNPINNED: usize = 400;

/// How much a list in a response says about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    /// The list is current: it answers a request for it, or comes on the only stream on which an HTTP+SSE server
    /// answers.
    OfNow,
    /// The list may be old, or a product of the caller.
    OfAnyTime,
}

/// Compares the tools of passing lists with their pins.
#[derive(Debug)]
pub(crate) struct Watch {
    policy: Rc<Policy>,
    org: OrgId,
    connector: PolicyName,
    /// Whether the list is current: a resumed stream may repeat an old one.
    evidence: Evidence,
    /// Drifts that are not reported yet.
    seen: RefCell<Vec<(String, Option<Drift>)>>,
}

impl Watch {
    /// The watch for the responses to `operation`.
    pub(crate) fn new(
        policy: &Rc<Policy>,
        org: &OrgId,
        connector: &PolicyName,
        operation: &Operation,
    ) -> Self {
        let (policy, org, connector) = (policy.clone(), org.clone(), connector.clone());
        let has_messages =
            policy.connectors.get(&connector).is_some_and(|it| it.messages.is_some());
        let evidence = match operation {
            Operation::List(Listing::Tools) => Evidence::OfNow,
            Operation::Listen if has_messages => Evidence::OfNow,
            _ => Evidence::OfAnyTime,
        };
        Self { policy, org, connector, evidence, seen: RefCell::default() }
    }

    fn connector(&self) -> Option<&Connector> {
        self.policy.connectors.get(&self.connector).map(Box::as_ref)
    }

    /// Whether a list item that the caller may see passes.
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

    /// Reports the drifts that were seen, and records them in the worker.
    pub(crate) fn settle(&self, turn: &mut Turn<'_>) {
        let Some(connector) = self.connector() else {
            return;
        };
        let mut observed = Vec::new();
        for (tool, drift) in self.seen.take() {
            turn.worker.labels.learn(&self.org, &tool);
            if self.evidence == Evidence::OfAnyTime {
                continue;
            }
            let Some(pin) = connector.tools.get(&tool).and_then(|tool| tool.pin.as_ref()) else {
                continue;
            };
            let listed = connector.listed(&self.org, &tool);
            if connector.pins.unverified == Unverified::Block {
                observed.push((observed::key(&listed, pin), Observed::of(drift)));
            }
            turn.worker.drifts.note(listed, pin, drift);
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
        if observed.is_empty() {
            return;
        }
        let at = turn.worker.by_redis_clock(&self.org, turn.now);
        let calls = turn.worker.observations.saw(observed, at, turn.now);
        if turn.worker.config.redis.is_some() {
            for call in calls {
                turn.start(DependencyCall::Observe(call));
            }
        }
    }
}
