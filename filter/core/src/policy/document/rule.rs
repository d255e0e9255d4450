//! The form of rules about single calls: conditions, caps, approvals, shadow.
//!
//! Owns the allowed fields of such a rule. A condition is compiled here, so a mistake in one is a fault of the
//! document.

use std::collections::BTreeSet;
use std::time::Duration;

use super::argument::arguments;
use super::enforcement::enforcement;
use super::limit::duration;
use super::{LONGEST_GLOB, globs};
use crate::decode::{Faults, Fields, Node};
use crate::order;
use crate::policy::condition::Condition;
use crate::policy::{Approval, CallRules, Cap, Check, Enforcement, Names, OnExcess, Requirement};

/// The longest message for a refused caller.
const LONGEST_MESSAGE: usize = 300;
/// An object with more conditions needs a program, not a policy.
const MOST_CONDITIONS: usize = 50;

/// The scope of conditions.
#[derive(Clone, Copy)]
pub(super) enum About {
    /// The tools that they name.
    Tools,
    /// Only the tool in whose rules they are.
    Own,
}

/// The field `conditions`; none when it is absent.
pub(super) fn conditions(
    fields: &mut Fields<'_>,
    about: About,
    faults: &mut Faults,
) -> Option<Vec<Requirement>> {
    let Some(node) = fields.optional("conditions") else {
        return Some(Vec::new());
    };
    let items =
        node.clone().items(faults, "a list of conditions, such as [{when: tool == 'a'}]")?;
    if items.len() > MOST_CONDITIONS {
        node.fault(faults, format!("at most {MOST_CONDITIONS} conditions"));
    }
    all(items.into_iter().map(|item| requirement(item, about, faults)).collect())
}

fn requirement(node: Node<'_>, about: About, faults: &mut Faults) -> Option<Requirement> {
    let name = node.path().to_owned();
    let mut fields =
        node.object(faults, "an object with `when`, such as {when: arguments.amount <= 100}")?;
    let tools = match about {
        About::Tools => fields.optional("tools"),
        About::Own => None,
    };
    let tools = match tools {
        Some(node) => {
            globs(node, faults, "a list of tool names, such as [query_*]; * and ? are wildcards")
                .map(Some)
        }
        None => Some(None),
    };
    let when = fields.required("when", faults, WHEN).and_then(|node| condition(&node, faults));
    let message = match fields.optional("message") {
        Some(node) => message(node, faults).map(Some),
        None => Some(None),
    };
    let enforcement = enforcement(&mut fields, faults);
    fields.finish(faults);
    let (tools, when, message) = (tools?, when?, message?);
    Some(Requirement { name, tools, when, message, enforcement: enforcement? })
}

const WHEN: &str = "a text: what must be true, in CEL, such as arguments.amount <= 100";

fn condition(node: &Node<'_>, faults: &mut Faults) -> Option<Condition> {
    let text = node.clone().text(faults, WHEN, Some)?;
    match Condition::compile(text) {
        Ok(condition) => Some(condition),
        Err(fault) => {
            faults.push(node.path(), fault.found, fault.expected);
            None
        }
    }
}

fn message(node: Node<'_>, faults: &mut Faults) -> Option<String> {
    let expected = format!("a message of 1 to {LONGEST_MESSAGE} bytes");
    node.text(faults, &expected, |text| {
        (1..=LONGEST_MESSAGE).contains(&text.len()).then(|| text.to_owned())
    })
}

/// The field `shadow` of a policy: the checks that are in shadow mode.
pub(super) fn shadow(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<BTreeSet<Check>> {
    let Some(node) = fields.optional("shadow") else {
        return Some(BTreeSet::new());
    };
    let expected = format!("one of {}", Check::ALL.map(Check::name).join(", "));
    let items = node.items(faults, "a list of checks, such as [conditions, caps]")?;
    let check = |text: &str| Check::ALL.into_iter().find(|check| check.name() == text);
    let checks = items.into_iter().map(|item| item.text(faults, &expected, check)).collect();
    all(checks).map(order::set)
}

/// All items, if none has a fault.
fn all<T>(read: Vec<Option<T>>) -> Option<Vec<T>> {
    read.into_iter().collect()
}

/// Rules about the calls of a tool, of a connector or a role.
pub(super) fn call_rules(
    place: &str,
    fields: &mut Fields<'_>,
    faults: &mut Faults,
) -> Option<CallRules> {
    let max_records = match fields.optional("max_records") {
        Some(node) => cap(node, faults).map(Some),
        None => Some(None),
    };
    let approval = match fields.optional("approval") {
        Some(node) => approval(node, faults).map(Some),
        None => Some(None),
    };
    let arguments = match fields.optional("arguments") {
        Some(node) => arguments(node, faults),
        None => Some(Box::default()),
    };
    let conditions = conditions(fields, About::Own, faults);
    Some(CallRules {
        place: place.into(),
        max_records: max_records?,
        approval: approval?,
        arguments: arguments?,
        conditions: conditions?,
    })
}

/// `max_records` of a tool.
fn cap(node: Node<'_>, faults: &mut Faults) -> Option<Cap> {
    const ARGUMENT: &str = "the name of the argument that says how many, such as limit";
    const MOST: u64 = 1_000_000_000;
    let mut fields = node.object(
        faults,
        "an object with `argument` and `max`, such as {argument: limit, max: 50}",
    )?;
    let argument = fields.required("argument", faults, ARGUMENT).and_then(|node| {
        node.text(faults, ARGUMENT, |text| {
            (1..=LONGEST_GLOB).contains(&text.len()).then(|| text.to_owned())
        })
    });
    let max = fields
        .required("max", faults, "the most records that a call may ask for")
        .and_then(|node| node.integer(faults, 1..=MOST, "records"));
    let on_excess = match fields.optional("on_excess") {
        Some(node) => node.text(faults, "clamp or refuse", |text| match text {
            "clamp" => Some(OnExcess::Clamp),
            "refuse" => Some(OnExcess::Refuse),
            _ => None,
        }),
        None => Some(OnExcess::Clamp),
    };
    let enforcement = enforcement(&mut fields, faults);
    fields.finish(faults);
    let (argument, max, on_excess) = (argument?, max?, on_excess?);
    Some(Cap { argument, max, on_excess, enforcement: enforcement? })
}

/// `approval` of a tool: `required`, or an object with more fields.
fn approval(node: Node<'_>, faults: &mut Faults) -> Option<Approval> {
    const EXPECTED: &str = "required, or an object such as {expires: 15m}";
    const EXPIRES: &str = "a duration from 1m to 7d, such as 15m, 1h, 1d";
    const DEFAULT: Duration = Duration::from_secs(900);
    const LONGEST: Duration = Duration::from_secs(7 * 86_400);
    if node.is_text("required") {
        return Some(Approval { expires: DEFAULT, enforcement: Enforcement::Enforce });
    }
    let mut fields = node.object(faults, EXPECTED)?;
    let expires = match fields.optional("expires") {
        Some(node) => node.text(faults, EXPIRES, |text| {
            duration(text).filter(|expires| (Duration::from_secs(60)..=LONGEST).contains(expires))
        }),
        None => Some(DEFAULT),
    };
    let enforcement = enforcement(&mut fields, faults);
    fields.finish(faults);
    Some(Approval { expires: expires?, enforcement: enforcement? })
}

/// Prompts or resources: a list of allowed names, or an object that also denies names.
pub(super) fn names(node: Node<'_>, list: &str, faults: &mut Faults) -> Option<Names> {
    if node.is_list() {
        return Some(Names { allow: globs(node, faults, list)?, ..Names::default() });
    }
    let expected = format!("{list}; or an object with `allow` and `deny`");
    let mut fields = node.object(faults, &expected)?;
    let mut read = |name| match fields.optional(name) {
        Some(node) => globs(node, faults, list),
        None => Some(Default::default()),
    };
    let (allow, deny) = (read("allow"), read("deny"));
    fields.finish(faults);
    Some(Names { allow: allow?, deny: deny? })
}
