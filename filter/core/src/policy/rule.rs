//! Rules about single calls: conditions, caps, approvals, and whether what they refuse is refused.
//!
//! Owns their meaning. Judges nothing: that is [`crate::authz`].

use std::time::Duration;

use super::Globs;
use super::enforcement::Enforcement;
use crate::policy::arguments::ArgumentRule;
use crate::policy::condition::Condition;

/// A kind of check that may be in shadow. Who a caller is, and what its own credential was narrowed to,
/// is none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// What the role may see and call.
    Authorisation,
    /// What scopes a tool needs.
    Scopes,
    /// Arguments against the tool's schema.
    Schema,
    /// Conditions.
    Conditions,
    /// Caps on records.
    Caps,
    /// What the policy demands of arguments.
    Arguments,
    /// Approval by a person.
    Approval,
    /// Windows and budgets.
    Limits,
}

impl Check {
    /// All of them, in the order in which they are made.
    pub const ALL: [Self; 8] = [
        Self::Authorisation,
        Self::Scopes,
        Self::Schema,
        Self::Conditions,
        Self::Caps,
        Self::Arguments,
        Self::Approval,
        Self::Limits,
    ];

    /// The name in policies, events and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authorisation => "authorisation",
            Self::Scopes => "scopes",
            Self::Schema => "schema",
            Self::Conditions => "conditions",
            Self::Caps => "caps",
            Self::Arguments => "arguments",
            Self::Approval => "approval",
            Self::Limits => "limits",
        }
    }
}

/// A condition that calls must meet.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    /// Where it stands in the document: `roles.analyst.demo.conditions[0]`.
    pub name: String,
    /// The tools whose calls it is about; absent means all.
    pub tools: Option<Globs>,
    /// What must be true.
    pub when: Condition,
    /// What a refused caller is told.
    pub message: Option<String>,
    /// Whether it is in shadow mode.
    pub enforcement: Enforcement,
}

impl Requirement {
    /// Whether it is about calls of `tool`.
    #[must_use]
    pub fn is_about(&self, tool: &str) -> bool {
        self.tools.as_ref().is_none_or(|tools| tools.matches(tool))
    }
}

/// Rules about the calls of a tool: for every role where they stand at the connector's tool, for one where they stand
/// at the role's. Of several all hold, so the stricter wins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallRules {
    /// Where they stand in the document: `roles.analyst.crm.tools.query_*`.
    pub place: Box<str>,
    /// The most records that a call may ask for.
    pub max_records: Option<Cap>,
    /// Whether a person has to agree to each call.
    pub approval: Option<Approval>,
    /// What single arguments must be.
    pub arguments: Box<[ArgumentRule]>,
    /// What every call must meet.
    pub conditions: Vec<Requirement>,
}

impl CallRules {
    /// Whether there is any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { place: _, max_records, approval, arguments, conditions } = self;
        max_records.is_none() && approval.is_none() && arguments.is_empty() && conditions.is_empty()
    }

    /// The name of its cap in refusals.
    #[must_use]
    pub fn cap_name(&self) -> String {
        format!("{}.max_records", self.place)
    }

    /// The name of its approval in refusals.
    #[must_use]
    pub fn approval_name(&self) -> String {
        format!("{}.approval", self.place)
    }

    /// The name of what it says of an argument, in refusals.
    #[must_use]
    pub fn argument_name(&self, rule: &ArgumentRule) -> String {
        format!("{}.arguments.{}", self.place, rule.argument)
    }

    /// Whether a call may go on with another argument than it came with.
    #[must_use]
    pub fn amends(&self) -> bool {
        self.max_records.as_ref().is_some_and(|cap| cap.on_excess == OnExcess::Clamp)
    }
}

/// What a role adds to the rules of a connector's tools.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoleRules {
    /// By a tool's whole name, in their order.
    pub exact: Box<[(Box<str>, CallRules)]>,
    /// By patterns, each of them alone in its list.
    pub patterns: Box<[(Globs, CallRules)]>,
}

impl RoleRules {
    /// Those about `tool`.
    pub fn about(&self, tool: &str) -> impl Iterator<Item = &CallRules> {
        let patterns = self.patterns.iter().filter(move |(pattern, _)| pattern.matches(tool));
        let exact = self.exact.binary_search_by(|(name, _)| (**name).cmp(tool)).ok();
        let exact = exact.and_then(|at| self.exact.get(at)).map(|(_, rules)| rules);
        exact.into_iter().chain(patterns.map(|(_, rules)| rules))
    }

    /// All of them, with the name or pattern they stand under.
    pub fn each(&self) -> impl Iterator<Item = (String, &CallRules)> {
        let exact = self.exact.iter().map(|(tool, rules)| (tool.to_string(), rules));
        let patterns = self.patterns.iter();
        exact.chain(patterns.flat_map(|(pattern, rules)| {
            pattern.patterns().into_iter().map(move |pattern| (pattern, rules))
        }))
    }
}

/// The most records that a call may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cap {
    /// The argument that says how many.
    pub argument: String,
    /// The largest value that it may have.
    pub max: u64,
    /// What happens to a larger one.
    pub on_excess: OnExcess,
    /// Whether it is in shadow mode.
    pub enforcement: Enforcement,
}

/// What happens to a call that asks for too many records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExcess {
    /// The argument becomes the largest value that it may have.
    Clamp,
    /// It is refused.
    Refuse,
}

/// A person has to agree to each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Approval {
    /// How long a call waits to be decided on; and, once it is granted, to be made.
    pub expires: Duration,
    /// Whether it is in shadow mode.
    pub enforcement: Enforcement,
}

/// Names that are open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names {
    /// These are.
    pub allow: Globs,
    /// These are not, whatever is allowed.
    pub deny: Globs,
}

impl Names {
    /// Whether `name` is open.
    #[must_use]
    pub fn opens(&self, name: &str) -> bool {
        self.allow.matches(name) && !self.deny.matches(name)
    }
}
