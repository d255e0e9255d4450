//! The rules that were considered for a ruling.
//!
//! Owns how refusals in shadow mode are recorded, and the list of steps that `explain` prints. The data path keeps no
//! list and pays nothing for it.

use serde::Serialize;

use crate::denial::Denial;
use crate::policy::{Check, Enforcement, Policy};

/// The considered rules, in order.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// Refusals in shadow mode.
    pub shadowed: Vec<Shadowed>,
    steps: Option<Vec<ConsideredRule>>,
}

/// A refusal that shadow mode suppressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// The kind of check.
    pub check: Check,
    /// The rule.
    pub rule: String,
}

/// One considered rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsideredRule {
    /// Its position in the policy, or `credential…`.
    pub rule: String,
    /// Its result.
    pub outcome: Consideration,
    /// The reason, where the rule alone does not say it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The result of one considered rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Consideration {
    /// The request complies.
    Passed,
    /// The request is forwarded with changes.
    Changed,
    /// The request waits for an approval.
    Waits,
    /// The request would have been refused.
    ShadowDenied,
    /// The request is refused.
    Refused,
}

impl Consideration {
    /// The name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Changed => "changed",
            Self::Waits => "waits",
            Self::ShadowDenied => "shadow_denied",
            Self::Refused => "refused",
        }
    }
}

/// A rule that the request breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// The rule's position, which the caller of a hidden tool does not see.
    pub(super) rule: String,
    pub(super) denial: Denial,
    pub(super) detail: String,
}

impl Broken {
    pub(super) fn new(rule: impl Into<String>, denial: Denial) -> Self {
        Self { rule: rule.into(), denial, detail: String::new() }
    }

    pub(super) fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// A refusal because the rule forbids the request.
    pub(super) fn forbidden(rule: impl Into<String>) -> Self {
        let rule = rule.into();
        Self::new(rule.clone(), Denial::Forbidden { rule })
    }
}

impl Trail {
    /// A trail that keeps the list of steps.
    #[must_use]
    pub fn kept() -> Self {
        Self { steps: Some(Vec::new()), ..Self::default() }
    }

    /// The list of steps; empty unless it is kept.
    #[must_use]
    pub fn steps(&self) -> &[ConsideredRule] {
        self.steps.as_deref().unwrap_or_default()
    }

    /// Records a check that is made elsewhere.
    pub fn considered(&mut self, outcome: Consideration, rule: String) {
        self.note(outcome, || (rule, String::new()));
    }

    /// Records a considered rule.
    pub(super) fn note(&mut self, outcome: Consideration, told: impl FnOnce() -> (String, String)) {
        if let Some(steps) = &mut self.steps {
            let (rule, detail) = told();
            steps.push(ConsideredRule { rule, outcome, detail });
        }
    }

    pub(super) fn passed(&mut self, rule: impl FnOnce() -> String) {
        self.note(Consideration::Passed, || (rule(), String::new()));
    }

    /// Refuses regardless of shadow mode.
    pub(super) fn refuse(&mut self, broken: Broken) -> Denial {
        let Broken { rule, denial, detail } = broken;
        self.note(Consideration::Refused, || (rule, detail));
        denial
    }

    /// Refuses with `denial`, from a check that is made elsewhere, unless that check is in shadow mode.
    ///
    /// # Errors
    /// The refusal.
    pub fn judged(&mut self, policy: &Policy, check: Check, denial: Denial) -> Result<(), Denial> {
        let broken = Broken::new(denial.rule(), denial);
        self.enforce(policy, (check, Enforcement::Enforce), broken)
    }

    /// Refuses because of the broken rule, unless its check is in shadow mode.
    pub(super) fn enforce(
        &mut self,
        policy: &Policy,
        (check, rule): (Check, Enforcement),
        broken: Broken,
    ) -> Result<(), Denial> {
        match policy.enforcement(check, rule) {
            Enforcement::Enforce => Err(self.refuse(broken)),
            Enforcement::Shadow => {
                let (rule, detail) = (broken.rule.clone(), broken.detail);
                self.note(Consideration::ShadowDenied, || (rule, detail));
                self.shadowed.push(Shadowed { check, rule: broken.rule });
                Ok(())
            }
        }
    }
}
