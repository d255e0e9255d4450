//! Rules about single calls: conditions, caps, approvals, and their shadow mode.
//!
//! Owns their meaning. Decides nothing: [`crate::authz`] does.

use std::time::Duration;

use super::Globs;
use super::enforcement::Enforcement;
use crate::policy::arguments::ArgumentRule;
use crate::policy::condition::Condition;

/// A kind of check that may be in shadow mode. Authentication, and the restrictions of a credential, never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// The role's permissions.
    Authorisation,
    /// The scopes that a tool needs.
    Scopes,
    /// Arguments against the tool's schema.
    Schema,
    /// Conditions.
    Conditions,
    /// Caps on records.
    Caps,
    /// The policy's rules on arguments.
    Arguments,
    /// Approvals.
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
    /// Its position in the document: `roles.analyst.demo.conditions[0]`.
    pub name: String,
    /// The tools to whose calls it applies; all when absent.
    pub tools: Option<Globs>,
    /// The expression that must be true.
    pub when: Condition,
    /// The message for a refused caller.
    pub message: Option<String>,
    /// Whether it is in shadow mode.
    pub enforcement: Enforcement,
}

impl Requirement {
    /// Whether it applies to calls of `tool`.
    #[must_use]
    pub fn is_about(&self, tool: &str) -> bool {
        self.tools.as_ref().is_none_or(|tools| tools.matches(tool))
    }
}

/// Rules about the calls of a tool: for every role when they are part of the connector's tool, for one when they are
/// part of the role's. All of them hold, so the stricter wins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallRules {
    /// Their position in the document: `roles.analyst.crm.tools.query_*`.
    pub place: Box<str>,
    /// The most records that a call may ask for.
    pub max_records: Option<Cap>,
    /// Whether each call needs an approval.
    pub approval: Option<Approval>,
    /// The rules on single arguments.
    pub arguments: Box<[ArgumentRule]>,
    /// The conditions on every call.
    pub conditions: Vec<Requirement>,
}

impl CallRules {
    /// Whether there are none.
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

    /// The name of its rule on an argument, in refusals.
    #[must_use]
    pub fn argument_name(&self, rule: &ArgumentRule) -> String {
        format!("{}.arguments.{}", self.place, rule.argument)
    }

    /// Whether a call may be forwarded with another argument.
    #[must_use]
    pub fn amends(&self) -> bool {
        self.max_records.as_ref().is_some_and(|cap| cap.on_excess == OnExcess::Clamp)
    }
}

/// A role's additional rules for a connector's tools.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoleRules {
    /// By a tool's name, sorted.
    pub exact: Box<[(Box<str>, CallRules)]>,
    /// By pattern, each alone in its list.
    pub patterns: Box<[(Globs, CallRules)]>,
}

impl RoleRules {
    /// The rules for `tool`.
    pub fn about(&self, tool: &str) -> impl Iterator<Item = &CallRules> {
        let patterns = self.patterns.iter().filter(move |(pattern, _)| pattern.matches(tool));
        let exact = self.exact.binary_search_by(|(name, _)| (**name).cmp(tool)).ok();
        let exact = exact.and_then(|at| self.exact.get(at)).map(|(_, rules)| rules);
        exact.into_iter().chain(patterns.map(|(_, rules)| rules))
    }

    /// All of them, each with its name or pattern.
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
    /// The argument with the number of records.
    pub argument: String,
    /// Its largest allowed value.
    pub max: u64,
    /// The handling of a larger one.
    pub on_excess: OnExcess,
    /// Whether it is in shadow mode.
    pub enforcement: Enforcement,
}

/// The handling of a call that asks for too many records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExcess {
    /// The argument is lowered to its largest allowed value.
    Clamp,
    /// The call is refused.
    Refuse,
}

/// The approval that each call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Approval {
    /// How long a call waits for a decision, and how long a granted one can be made.
    pub expires: Duration,
    /// Whether it is in shadow mode.
    pub enforcement: Enforcement,
}

/// Allowed names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names {
    /// Allowed names and patterns.
    pub allow: Globs,
    /// Names and patterns that are denied even if they are allowed.
    pub deny: Globs,
}

impl Names {
    /// Whether `name` is allowed.
    #[must_use]
    pub fn opens(&self, name: &str) -> bool {
        self.allow.matches(name) && !self.deny.matches(name)
    }
}
