//! The handling of tools without a pin, or with a drift.
//!
//! Owns the defaults. `pin` classifies changes.

use super::Connector;
use crate::pin::{Action, Drift};

/// How a connector handles tools that differ from the policy.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    /// The handling of tools without a review.
    pub unpinned: Unpinned,
    /// By class, where the policy differs from [`Drift::default_action`].
    pub on_drift: Vec<(Drift, Action)>,
    /// The handling of tools that no gateway saw in a list recently.
    pub unverified: Unverified,
}

/// The handling of a call of a pinned tool that no list has shown yet, or not for a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unverified {
    /// The call passes. A worker uses the lists that it saw.
    #[default]
    Allow,
    /// The call is refused, on every worker, until a list passes one of them.
    Block,
}

/// The handling of a tool without a pin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unpinned {
    /// It is a tool like any other. The default of a connector without pins, so that an operator can start without
    /// them.
    #[default]
    Allow,
    /// It does not exist. The default of a connector with a pin.
    Hide,
}

impl Pins {
    /// The action for a drift.
    #[must_use]
    pub fn action(&self, drift: Drift) -> Action {
        let stated = self.on_drift.iter().find(|(class, _)| *class == drift);
        stated.map_or(drift.default_action(), |(_, action)| *action)
    }
}

impl Connector {
    /// Whether `tool` is hidden because it was not reviewed.
    #[must_use]
    pub fn hides_unpinned(&self, tool: &str) -> bool {
        let pinned = || self.tools.get(tool).is_some_and(|tool| tool.pin.is_some());
        match self.pins.unpinned {
            Unpinned::Allow => false,
            Unpinned::Hide => !pinned(),
        }
    }
}
