//! Pinned definitions of tools, and how far a live one has drifted from its pin.
//!
//! Owns the comparison and the classes of change. A server may change a tool at any time, and a model follows the new
//! text. So the reviewed definition is pinned, and differences are reported by class. The policy decides on the action.
//! Asks no server.

mod member;
mod shape;
mod suspicion;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::order;
use crate::schema;
pub use member::Member;
pub use suspicion::{Suspicion, suspicions};

/// The pinned members of a tool: those that a model or a policy uses.
const MEMBERS: [&str; 5] = ["title", "description", "inputSchema", "outputSchema", "annotations"];

/// A tool's definition, by MCP's names of its members; absent members are absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition(BTreeMap<String, Member>);

/// The difference between a definition and its pin; a greater value is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drift {
    /// Only texts for users and models changed.
    Text,
    /// It accepts, returns or may do more than before; old calls are still valid.
    Widening,
    /// Valid calls may become invalid, or results may have another form.
    Breaking,
    /// A new text hides characters, or addresses the model without the user's knowledge.
    Suspicious,
}

/// The action for a tool that drifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Nothing.
    Allow,
    /// It is reported: an event, a metric.
    Warn,
    /// It is also left out of lists.
    Hide,
    /// Calls are also refused, while the last seen list shows the drift.
    Block,
}

impl Definition {
    /// The pinned members of a tool as a server lists it.
    #[must_use]
    pub fn of(tool: &Value) -> Self {
        let member = |name: &str| {
            let value = tool.get(name).filter(|value| !value.is_null())?;
            Some((name.to_owned(), Member::from(value.clone())))
        };
        Self(order::map(MEMBERS.iter().filter_map(|name| member(name))))
    }

    /// A pinned member.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.0.get(name).map(Member::value)
    }

    /// The members in their order.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Value)> {
        MEMBERS.iter().filter_map(|name| Some((*name, self.member(name)?)))
    }

    /// Whether the tool's annotation declares it read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.hint("readOnlyHint", false)
    }

    /// The difference to `live`, the tool in a server's list. Equality is checked first, because it is nearly always
    /// the result.
    #[must_use]
    pub fn drift(&self, live: &Value) -> Option<Drift> {
        let unchanged = MEMBERS.iter().all(|name| {
            match (self.member(name), live.get(*name).filter(|value| !value.is_null())) {
                (None, None) => true,
                (Some(pinned), Some(live)) => schema::same(pinned, live),
                _ => false,
            }
        });
        if unchanged { None } else { Some(self.class(&Self::of(live))) }
    }

    fn class(&self, live: &Self) -> Drift {
        let before = suspicions(self);
        if suspicions(live).iter().any(|new| !before.contains(new)) {
            return Drift::Suspicious;
        }
        let input = shape::change(self.member("inputSchema"), live.member("inputSchema"));
        let output = shape::change(self.member("outputSchema"), live.member("outputSchema"));
        input.max(output).max(self.power(live))
    }

    /// Clients must not trust annotations, but a policy that uses the pinned ones relies on them.
    fn power(&self, live: &Self) -> Drift {
        let more = [("readOnlyHint", false, false), ("idempotentHint", false, false)]
            .into_iter()
            .chain([("destructiveHint", true, true), ("openWorldHint", true, true)])
            .any(|(hint, default, power)| {
                self.hint(hint, default) != power && live.hint(hint, default) == power
            });
        if more { Drift::Widening } else { Drift::Text }
    }

    fn hint(&self, name: &str, default: bool) -> bool {
        let hint = self.member("annotations").and_then(|annotations| annotations.get(name));
        hint.and_then(Value::as_bool).unwrap_or(default)
    }
}

impl FromIterator<(String, Member)> for Definition {
    fn from_iter<T: IntoIterator<Item = (String, Member)>>(members: T) -> Self {
        Self(order::map(members))
    }
}

impl Drift {
    /// From the mildest to the worst.
    pub const ALL: [Self; 4] = [Self::Text, Self::Widening, Self::Breaking, Self::Suspicious];

    /// Its name in policies, events and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Widening => "widening",
            Self::Breaking => "breaking",
            Self::Suspicious => "suspicious",
        }
    }

    /// The action where the policy has none.
    #[must_use]
    pub const fn default_action(self) -> Action {
        match self {
            Self::Text | Self::Widening => Action::Warn,
            Self::Breaking => Action::Hide,
            Self::Suspicious => Action::Block,
        }
    }
}

impl Action {
    /// From the mildest to the strictest.
    pub const ALL: [Self; 4] = [Self::Allow, Self::Warn, Self::Hide, Self::Block];

    /// Its name in policies and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Warn => "warn",
            Self::Hide => "hide",
            Self::Block => "block",
        }
    }
}
