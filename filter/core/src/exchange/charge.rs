//! What a call costs once its answer is known.
//!
//! Owns the charge for rows, which are counted after the admission. Nobody waits for it: a window
//! may be overdrawn by what one answer costs, and later calls wait until it has recovered.

use portcullis_redis_lua::Window;

use super::Turn;
use super::verdict::Grant;
use crate::call::Call;
use crate::mcp::outcome::Outcome;
use crate::policy::Cost;

/// What is still to be paid.
#[derive(Debug)]
pub(super) struct Tab {
    /// Credits per row; zero once they are charged.
    row_price: u64,
    /// Where they are drawn.
    windows: Vec<Window>,
}

impl Tab {
    pub(super) fn of(grant: &Grant) -> Self {
        let credits = grant.quotas.iter().filter(|quota| quota.cost == Cost::Credits);
        Self {
            row_price: grant.price.map_or(0, |price| price.row),
            windows: credits.map(|quota| quota.window.clone()).collect(),
        }
    }

    /// Charges the rows of `outcome`, if there are any, once.
    pub(super) fn charge(&mut self, outcome: Outcome, turn: &mut Turn<'_>) {
        let Outcome::Result { rows: Some(rows) } = outcome else { return };
        let cost = rows.saturating_mul(std::mem::take(&mut self.row_price));
        if cost == 0 {
            return;
        }
        let credits = &mut turn.context.entry.credits;
        *credits = credits.map(|credits| credits.saturating_add(cost));
        let windows = std::mem::take(&mut self.windows).into_iter();
        let windows: Vec<_> = windows.map(|window| Window { cost, ..window }).collect();
        if !windows.is_empty() {
            turn.start(Call::Charge(Window::overdraw(windows)));
        }
    }
}
