//! What was considered on the way to a ruling.
//!
//! Owns what becomes of a refusal that is only in shadow mode, and the account that `explain` prints. Nobody
//! pays for an account that is not kept.

use serde::Serialize;

use crate::denial::Denial;
use crate::policy::{Check, Enforcement, Policy};

/// What was considered, in order.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// Refusals in shadow mode.
    pub shadowed: Vec<Shadowed>,
    steps: Option<Vec<ConsideredRule>>,
}

/// Something that would have been refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// By which kind of check.
    pub check: Check,
    /// By which rule.
    pub rule: String,
}

/// One thing that was considered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsideredRule {
    /// Where it stands: in the policy, or `credential…`.
    pub rule: String,
    /// What came of it.
    pub outcome: Consideration,
    /// Why, where the rule alone does not say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What came of one consideration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Consideration {
    /// Nothing is wrong with the request.
    Passed,
    /// The request goes on, but not as it came.
    Changed,
    /// The request goes on once a person agrees.
    Waits,
    /// It would have been refused.
    ShadowDenied,
    /// The request is refused.
    Refused,
}

impl Consideration {
    /// The name in the account.
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
    /// Where it stands; a hidden tool's caller is not told.
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

    /// Refused as something that the rule forbids.
    pub(super) fn forbidden(rule: impl Into<String>) -> Self {
        let rule = rule.into();
        Self::new(rule.clone(), Denial::Forbidden { rule })
    }
}

impl Trail {
    /// One that keeps an account.
    #[must_use]
    pub fn kept() -> Self {
        Self { steps: Some(Vec::new()), ..Self::default() }
    }

    /// The account, if one was kept.
    #[must_use]
    pub fn steps(&self) -> &[ConsideredRule] {
        self.steps.as_deref().unwrap_or_default()
    }

    /// Notes a check that is made elsewhere.
    pub fn considered(&mut self, outcome: Consideration, rule: String) {
        self.note(outcome, || (rule, String::new()));
    }

    /// Notes what was considered.
    pub(super) fn note(&mut self, outcome: Consideration, told: impl FnOnce() -> (String, String)) {
        if let Some(steps) = &mut self.steps {
            let (rule, detail) = told();
            steps.push(ConsideredRule { rule, outcome, detail });
        }
    }

    pub(super) fn passed(&mut self, rule: impl FnOnce() -> String) {
        self.note(Consideration::Passed, || (rule(), String::new()));
    }

    /// Refuses, whatever is in shadow mode.
    pub(super) fn refuse(&mut self, broken: Broken) -> Denial {
        let Broken { rule, denial, detail } = broken;
        self.note(Consideration::Refused, || (rule, detail));
        denial
    }

    /// Refuses with `denial`, of a check that is made elsewhere, unless that check is in shadow mode.
    ///
    /// # Errors
    /// The refusal.
    pub fn judged(&mut self, policy: &Policy, check: Check, denial: Denial) -> Result<(), Denial> {
        let broken = Broken::new(denial.rule(), denial);
        self.enforce(policy, (check, Enforcement::Enforce), broken)
    }

    /// Refuses what a check found broken, unless that is in shadow mode.
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
