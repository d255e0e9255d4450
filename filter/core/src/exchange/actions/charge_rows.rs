//! The costs of a call that are known only with its response.
//!
//! Owns the charge for rows, which are counted after the admission. The exchange does not wait for it: a window may be
//! overdrawn by the cost of one response, and later calls wait until it has recovered. A response on another stream is
//! not seen here, so it costs the maximum.

use crate::driver::call::DependencyCall;
use crate::exchange::grant::Grant;
use crate::exchange::turn::Turn;
use crate::json;
use crate::mcp::Operation;
use crate::mcp::outcome::ToolOutcome;
use crate::policy::{Cap, Cost};
use portcullis_redis_lua::Window;

/// The assumed rows of an unseen response without a known maximum.
const MOST_ROWS: u64 = 1_000;

/// The charge that is still due.
#[derive(Debug)]
pub(crate) struct RowCharge {
    /// Credits per row; zero once they are charged.
    row_price: u64,
    /// The most rows that the response may have.
    most: u64,
    /// The windows from which it is drawn.
    windows: Vec<Window>,
}

impl RowCharge {
    pub(crate) fn of(grant: &Grant, operation: &Operation) -> Self {
        let credits = grant.quotas.iter().filter(|quota| quota.cost == Cost::Credits);
        Self {
            row_price: grant.price.map_or(0, |price| price.row),
            most: most(grant, operation).unwrap_or(MOST_ROWS),
            windows: credits.map(|quota| quota.window.clone()).collect(),
        }
    }

    /// Charges the rows of `outcome`, if it has any, once.
    pub(crate) fn charge(&mut self, outcome: ToolOutcome, turn: &mut Turn<'_>) {
        match outcome {
            ToolOutcome::Unseen => {}
            // Its rows come in another response, perhaps to another gateway.
            ToolOutcome::Task => self.charge_unseen(turn),
            ToolOutcome::Result { rows } => self.rows(rows.unwrap_or(0), turn),
            ToolOutcome::ToolError | ToolOutcome::ProtocolError(_) => self.rows(0, turn),
        }
    }

    /// Charges the maximum for a response that arrives elsewhere, unless it is charged already.
    pub(crate) fn charge_unseen(&mut self, turn: &mut Turn<'_>) {
        self.rows(self.most, turn);
    }

    fn rows(&mut self, rows: u64, turn: &mut Turn<'_>) {
        let cost = rows.saturating_mul(std::mem::take(&mut self.row_price));
        if cost == 0 {
            return;
        }
        let credits = &mut turn.context.entry.credits;
        *credits = credits.map(|credits| credits.saturating_add(cost));
        let windows = std::mem::take(&mut self.windows).into_iter();
        let windows: Vec<_> = windows.map(|window| Window { cost, ..window }).collect();
        if !windows.is_empty() {
            turn.start(DependencyCall::Charge(Window::overdraw(windows)));
        }
    }
}

/// How many rows the call may return: the number in its arguments, or the cap of its tool.
fn most(grant: &Grant, operation: &Operation) -> Option<u64> {
    let Operation::CallTool(call) = operation else { return None };
    let access = grant.policy.access(&grant.principal.role, &grant.connector);
    let of_role = access.into_iter().flat_map(|access| access.rules(&call.name));
    let tool = grant.policy.connectors.get(&grant.connector)?.tools.get(&call.name);
    let caps = tool.map(|tool| &tool.rules).into_iter().chain(of_role);
    let asked = |cap: &Cap| {
        let mut amendments = grant.ruling.amendments.iter();
        let amended = amendments.find(|amendment| amendment.argument == cap.argument);
        let sent = || call.arguments.get(&cap.argument).and_then(json::whole_number);
        amended.map(|it| it.value).or_else(sent).unwrap_or(cap.max)
    };
    caps.filter_map(|rules| rules.max_records.as_ref()).map(asked).min()
}
