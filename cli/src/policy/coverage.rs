//! The rules of a policy that test cases reach.
//!
//! Owns the list of rules that a tool call can meet, by the core's names.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_core::auth::Writes;
use portcullis_core::authz::Consideration;
use portcullis_core::policy::{CallRules, Policy, Requirement};

/// The rules that cases reached.
#[derive(Default)]
pub(super) struct Reached {
    rules: BTreeMap<String, BTreeSet<&'static str>>,
}

/// The rules that no case reached.
pub(super) struct Coverage {
    pub(super) rules: usize,
    /// No case reaches them.
    pub(super) unreached: Vec<String>,
    /// Conditions that are true in every case that reaches them.
    pub(super) never_false: Vec<String>,
}

impl Coverage {
    pub(super) fn reached(&self) -> usize {
        self.rules.saturating_sub(self.unreached.len())
    }
}

impl Reached {
    pub(super) fn note(&mut self, rule: &str, outcome: Consideration) {
        self.rules.entry(rule.to_owned()).or_default().insert(outcome.name());
    }

    /// Adds the rules that other cases reached.
    pub(super) fn add(&mut self, other: &Self) {
        for (rule, outcomes) in &other.rules {
            self.rules.entry(rule.clone()).or_default().extend(outcomes);
        }
    }

    pub(super) fn of(&self, policy: &Policy) -> Coverage {
        let (rules, conditions) = rules(policy);
        let unreached = rules.iter().filter(|rule| !self.rules.contains_key(*rule)).cloned();
        let only_passed = BTreeSet::from([Consideration::Passed.name()]);
        let never_false =
            conditions.into_iter().filter(|rule| self.rules.get(rule) == Some(&only_passed));
        Coverage {
            rules: rules.len(),
            unreached: unreached.collect(),
            never_false: never_false.collect(),
        }
    }
}

/// Every rule that a tool call can meet, and those of them that are conditions.
fn rules(policy: &Policy) -> (BTreeSet<String>, Vec<String>) {
    let (mut rules, mut conditions) = (BTreeSet::new(), Vec::new());
    let mut noted = |of: &[Requirement]| conditions.extend(of.iter().map(|it| it.name.clone()));
    let of_call = |own: &CallRules| {
        let cap = own.max_records.iter().map(|_| own.cap_name());
        let approval = own.approval.iter().map(|_| own.approval_name());
        let arguments = own.arguments.iter().map(|rule| own.argument_name(rule));
        cap.chain(approval).chain(arguments).collect::<Vec<_>>()
    };
    for connector in policy.connectors.values() {
        noted(&connector.conditions);
        for stated in connector.tools.values() {
            noted(&stated.rules.conditions);
            rules.extend(of_call(&stated.rules));
        }
    }
    for (name, role) in &policy.roles {
        noted(&role.conditions);
        for (connector, access) in &role.connectors {
            noted(&access.conditions);
            for (_, own) in access.tools.iter().flat_map(|own| own.each()) {
                noted(&own.conditions);
                rules.extend(of_call(own));
            }
            let place = format!("roles.{name}.{connector}");
            for (list, globs) in
                [("allow", &access.allow), ("show", &access.show), ("deny", &access.deny)]
            {
                rules.extend((!globs.is_empty()).then(|| format!("{place}.{list}")));
            }
            rules.extend((access.writes == Writes::Closed).then(|| format!("{place}.allow_write")));
        }
        let closed = role.writes == Writes::Closed && !role.connectors.is_empty();
        rules.extend(closed.then(|| format!("roles.{name}.allow_write")));
    }
    rules.extend(conditions.iter().cloned());
    (rules, conditions)
}
