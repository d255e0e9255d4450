//! The final outcome of a call: the policy's decision, and then the state of the caller in the gateway and in Redis.
//!
//! Owns the order of these for `explain`: cool-off, then approval, then windows. The exchange has the same order in its
//! stages; a property test compares the two.

use portcullis_redis_lua::WindowStanding;

use super::explain::{Answer, Decision};
use crate::limit::cool_off::Reason;
use crate::policy::{Check, Cost, Enforcement, Policy};

/// The state of a caller and a call.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// The decision on the call's request for approval, if there is one.
    pub approval: Option<PersonsWord>,
    /// The state of each window of [`Answer::quotas`], in their order; empty when the question names no single caller.
    pub windows: Vec<WindowStanding>,
    /// Why the caller has to cool off, on the worker that handles the call.
    pub cooling: Option<Reason>,
}

/// The state of a request for approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersonsWord {
    /// No decision yet.
    Pending,
    /// The call may be made, once.
    Granted,
    /// The call must not be made.
    Denied,
}

impl PersonsWord {
    /// Reads the revision of an approval; `None` for one that another version wrote.
    #[must_use]
    pub fn read(rev: &str) -> Option<Self> {
        [Self::Pending, Self::Granted, Self::Denied].into_iter().find(|word| word.name() == rev)
    }

    /// Its revision in Redis.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Granted => portcullis_redis_lua::GRANTED,
            Self::Denied => "denied",
        }
    }
}

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the call is forwarded.
    pub end: End,
    /// The rule that decides; absent when no rule refuses the call.
    pub rule: Option<String>,
    /// The window that refuses it, or would if limits were not in shadow mode: its index in [`Answer::quotas`].
    pub window: Option<usize>,
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The call is forwarded.
    Passes,
    /// The call is refused for now: a window is used up, or the caller has to cool off.
    Limited,
    /// The call waits for an approval.
    Waits,
    /// The call is refused.
    Refused,
}

impl End {
    /// The name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passes => "allow",
            Self::Limited => "limited",
            Self::Waits => "needs_approval",
            Self::Refused => "deny",
        }
    }
}

impl Answer {
    /// The outcome of the call under `policy`, given the caller's state.
    #[must_use]
    pub fn outcome(&self, policy: &Policy, standing: &Standing) -> Outcome {
        if self.decision == Decision::Deny {
            return self.ends(End::Refused, None);
        }
        let shadow = match policy.enforcement(Check::Limits, Enforcement::Enforce) {
            Enforcement::Enforce => false,
            Enforcement::Shadow => true,
        };
        if let (Some(reason), Some(_), false) = (standing.cooling, &policy.cool_off, shadow) {
            let rule = Some(reason.rule().to_owned());
            return Outcome { end: End::Limited, rule, window: None };
        }
        let waits = self.decision == Decision::NeedsApproval
            && standing.approval != Some(PersonsWord::Granted);
        let refusing = self.refusing(&standing.windows, waits);
        match refusing {
            Some((at, wait)) if !shadow => {
                let end = if wait.is_some() { End::Limited } else { End::Refused };
                let rule = self.quotas.get(at).map(|quota| quota.name.clone());
                return Outcome { end, rule, window: Some(at) };
            }
            Some(_) | None => {}
        }
        let window = refusing.map(|(at, _)| at);
        match (waits, standing.approval) {
            (true, Some(PersonsWord::Denied)) => self.ends(End::Refused, window),
            (true, _) => self.ends(End::Waits, window),
            (false, _) => {
                let of_window = window.and_then(|at| self.quotas.get(at)).map(|it| it.name.clone());
                let rule = self.shadowed.first().cloned().or(of_window);
                Outcome { end: End::Passes, rule, window }
            }
        }
    }

    fn ends(&self, end: End, window: Option<usize>) -> Outcome {
        Outcome { end, rule: self.rule.clone(), window }
    }

    /// The window with the longest wait, as the admission script selects it, and that wait: a window that can never
    /// admit the call comes first. A call that needs an approval draws only when it is made.
    fn refusing(
        &self,
        windows: &[WindowStanding],
        asks: bool,
    ) -> Option<(usize, Option<std::time::Duration>)> {
        let mut longest: Option<(usize, Option<std::time::Duration>)> = None;
        for (at, (quota, standing)) in self.quotas.iter().zip(windows).enumerate() {
            let free = asks && quota.cost == Cost::Credits;
            if free || standing.wait.is_some_and(|wait| wait.is_zero()) {
                continue;
            }
            let longer = match (longest, standing.wait) {
                (None, _) => true,
                (Some((_, None)), _) => false,
                (Some((_, Some(_))), None) => true,
                (Some((_, Some(before))), Some(wait)) => wait > before,
            };
            if longer {
                longest = Some((at, standing.wait));
            }
        }
        longest
    }
}
