//! What becomes of tools that are not pinned, or not as they were pinned.
//!
//! Owns the defaults. What a change is, `pin` says.

use super::Connector;
use crate::pin::{Action, Drift};

/// What a connector does about tools that differ from the policy.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    /// What becomes of tools that nobody reviewed.
    pub unpinned: Unpinned,
    /// By class, where the policy says something else than [`Drift::default_action`].
    pub on_drift: Vec<(Drift, Action)>,
    /// What becomes of tools that no gateway saw in a list lately.
    pub unverified: Unverified,
}

/// What becomes of a call of a pinned tool that no list showed yet, or not for a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unverified {
    /// It passes. A worker goes by the lists that it saw.
    #[default]
    Allow,
    /// It is refused, on every worker, until a list passed any of them.
    Block,
}

/// What becomes of a tool without a pin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unpinned {
    /// It is there like any other. The default of a connector without any pin, so that one can start.
    #[default]
    Allow,
    /// It does not exist. The default of a connector with a pin.
    Hide,
}

impl Pins {
    /// What is done about a drift.
    #[must_use]
    pub fn action(&self, drift: Drift) -> Action {
        let stated = self.on_drift.iter().find(|(class, _)| *class == drift);
        stated.map_or(drift.default_action(), |(_, action)| *action)
    }
}

impl Connector {
    /// Whether `tool` is not there because nobody reviewed it.
    #[must_use]
    pub fn hides_unpinned(&self, tool: &str) -> bool {
        let pinned = || self.tools.get(tool).is_some_and(|tool| tool.pin.is_some());
        match self.pins.unpinned {
            Unpinned::Allow => false,
            Unpinned::Hide => !pinned(),
        }
    }
}
