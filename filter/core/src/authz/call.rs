//! What a call of a tool may carry: conditions, caps on records, approval.
//!
//! Owns the order of these checks. Cheap ones that need no arguments come first, so that they can be
//! made before a body is read.

use std::time::Duration;

use serde_json::{Map, Value};

use super::trail::{Broken, Consideration, Trail};
use super::{Case, Seen};
use crate::condition::{Facts, Undecided};
use crate::denial::{Denial, INSUFFICIENT_SCOPE};
use crate::json::{Decimal, misspelt};
use crate::mcp::ToolCall;
use crate::policy::{Cap, Check, Enforcement, OnExcess, Requirement, Tool};

/// An argument that goes on with another value than it came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amendment {
    /// The argument.
    pub argument: String,
    /// What was asked for; `None` when it was absent.
    pub asked: Option<Value>,
    /// What goes on.
    pub value: u64,
}

/// A person has to agree first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The rule that says so.
    pub rule: String,
    /// How long the request waits to be decided on.
    pub expires: Duration,
}

/// Whether the credential has the scopes that an operation takes. All of them are named, so that a
/// client asks once (MCP 2025-11-25, step-up authorization).
pub(super) fn scopes(
    case: &Case<'_>,
    tool: Option<&Tool>,
    trail: &mut Trail,
) -> Result<(), Denial> {
    let mut needed = case.connector.scopes.clone();
    for scope in tool.into_iter().flat_map(|tool| &tool.scopes) {
        if !needed.contains(scope) {
            needed.push(scope.clone());
        }
    }
    if needed.is_empty() {
        return Ok(());
    }
    if case.principal.scopes.missing(&needed).is_empty() {
        trail.passed(|| INSUFFICIENT_SCOPE.to_owned());
        return Ok(());
    }
    let broken = Broken::new(INSUFFICIENT_SCOPE, Denial::InsufficientScope(needed));
    trail.enforce(case.policy, (Check::Scopes, Enforcement::Enforce), broken)
}

pub(super) fn conditions(
    case: &Case<'_>,
    call: &ToolCall,
    (requirements, about): (&Requirements<'_>, About),
    trail: &mut Trail,
) -> Result<(), Denial> {
    let facts = Facts {
        principal: case.principal,
        claims: case.claims,
        connector: case.name,
        tool: &call.name,
        arguments: &call.arguments,
        now: case.now,
        source: case.source,
    };
    requirements
        .iter()
        .copied()
        .flatten()
        .filter(|requirement| about.covers(requirement) && requirement.is_about(&call.name))
        .try_for_each(|requirement| require(case, requirement, &facts, trail))
}

/// Which conditions are decided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// Those that ask for no arguments.
    Circumstances,
    /// Those that do.
    Arguments,
}

impl About {
    fn covers(self, requirement: &Requirement) -> bool {
        requirement.when.asks_for_arguments() == (self == Self::Arguments)
    }
}

/// Everything that calls of a tool must meet: of the connector, of the tool, of the role.
pub(super) type Requirements<'a> = [&'a [Requirement]; 4];

pub(super) fn requirements<'a>(case: &Case<'a>, tool: &str) -> Requirements<'a> {
    let of_tool = case.connector.tools.get(tool).map(|tool| tool.conditions.as_slice());
    let role = case.policy.roles.get(&case.principal.role);
    let access = role.and_then(|role| role.connectors.get(case.name));
    [
        case.connector.conditions.as_slice(),
        of_tool.unwrap_or_default(),
        role.map(|role| role.conditions.as_slice()).unwrap_or_default(),
        access.map(|access| access.conditions.as_slice()).unwrap_or_default(),
    ]
}

fn require(
    case: &Case<'_>,
    requirement: &Requirement,
    facts: &Facts<'_>,
    trail: &mut Trail,
) -> Result<(), Denial> {
    let why = match requirement.when.holds(facts) {
        Ok(true) => {
            trail.passed(|| requirement.name.clone());
            return Ok(());
        }
        Ok(false) => format!("{} is false", requirement.when.text()),
        Err(undecided) => told(requirement, &undecided),
    };
    let (rule, message) = (requirement.name.clone(), requirement.message.clone());
    let denial = if requirement.when.asks_for_arguments() {
        let detail = message.unwrap_or_else(|| "The arguments do not meet a condition".to_owned());
        Denial::Arguments { rule, detail: detail.into() }
    } else {
        Denial::Condition { rule, message: message.map(String::into_boxed_str) }
    };
    let broken = Broken::new(requirement.name.clone(), denial).because(why);
    trail.enforce(case.policy, (Check::Conditions, requirement.enforcement), broken)
}

fn told(requirement: &Requirement, undecided: &Undecided) -> String {
    format!("{} cannot be decided: {undecided}", requirement.when.text())
}

/// The change that a cap makes to the arguments, if it makes one.
pub(super) fn cap(
    case: &Case<'_>,
    call: &ToolCall,
    trail: &mut Trail,
) -> Result<Option<Amendment>, Denial> {
    let Some(cap) = case.connector.tools.get(&call.name).and_then(|tool| tool.max_records.as_ref())
    else {
        return Ok(None);
    };
    let rule = || format!("connectors.{}.tools.{}.max_records", case.name, call.name);
    if let Some(twin) = misspelt(&call.arguments, &[&cap.argument]) {
        let detail = format!("{} must be spelled exactly so; found {twin:?}", cap.argument);
        let denial = Denial::Arguments { rule: rule(), detail: detail.into() };
        let broken = Broken::new(rule(), denial);
        trail.enforce(case.policy, (Check::Caps, cap.enforcement), broken)?;
    }
    let asked = call.arguments.get(&cap.argument);
    let excess = match asked_for(asked) {
        RecordsAsked::Records(number) if number <= cap.max => {
            trail.passed(rule);
            return Ok(None);
        }
        RecordsAsked::Records(_) | RecordsAsked::Everything => cap.on_excess,
        // What is no number cannot be made a smaller one.
        RecordsAsked::Nonsense => OnExcess::Refuse,
    };
    let shadow = case.policy.enforcement(Check::Caps, cap.enforcement);
    match (excess, shadow) {
        (OnExcess::Clamp, Enforcement::Enforce) => {
            trail.note(Consideration::Changed, || {
                (rule(), format!("{} becomes {}", cap.argument, cap.max))
            });
            let (argument, value) = (cap.argument.clone(), cap.max);
            Ok(Some(Amendment { argument, asked: asked.cloned(), value }))
        }
        (OnExcess::Clamp, Enforcement::Shadow) | (OnExcess::Refuse, _) => {
            let broken = Broken::new(rule(), too_many(rule(), cap));
            trail.enforce(case.policy, (Check::Caps, cap.enforcement), broken)?;
            Ok(None)
        }
    }
}

/// How many records an argument asks for.
enum RecordsAsked {
    Records(u64),
    /// No number, or one that servers take for none.
    Everything,
    Nonsense,
}

fn asked_for(value: Option<&Value>) -> RecordsAsked {
    match value {
        None | Some(Value::Null) => RecordsAsked::Everything,
        Some(Value::Number(number)) => match number.as_u64() {
            Some(0) => RecordsAsked::Everything,
            Some(number) => RecordsAsked::Records(number),
            // `-1` is how many servers are told that there is no limit.
            None if Decimal::of(number.as_str()).is_some_and(|it| it.is_whole()) => {
                RecordsAsked::Everything
            }
            None => RecordsAsked::Nonsense,
        },
        Some(Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
            RecordsAsked::Nonsense
        }
    }
}

fn too_many(rule: String, cap: &Cap) -> Denial {
    let Cap { argument, max, .. } = cap;
    let detail = format!("{argument} must be a whole number from 1 to {max}");
    Denial::Arguments { rule, detail: detail.into() }
}

/// Whether a person has to agree first.
pub(super) fn approval(
    case: &Case<'_>,
    call: &ToolCall,
    trail: &mut Trail,
) -> Result<Option<Needed>, Denial> {
    let Some(approval) = case.connector.tools.get(&call.name).and_then(|tool| tool.approval) else {
        return Ok(None);
    };
    let rule = format!("connectors.{}.tools.{}.approval", case.name, call.name);
    match case.policy.enforcement(Check::Approval, approval.enforcement) {
        Enforcement::Enforce => {
            trail.note(Consideration::Waits, || (rule.clone(), String::new()));
            Ok(Some(Needed { rule, expires: approval.expires }))
        }
        Enforcement::Shadow => {
            let broken = Broken::forbidden(rule);
            trail.enforce(case.policy, (Check::Approval, approval.enforcement), broken)?;
            Ok(None)
        }
    }
}

/// The arguments as they go on.
#[must_use]
pub fn amended(
    arguments: &Map<String, Value>,
    amendment: Option<&Amendment>,
) -> Map<String, Value> {
    let mut arguments = arguments.clone();
    if let Some(Amendment { argument, value, .. }) = amendment {
        arguments.insert(argument.clone(), (*value).into());
    }
    arguments
}

/// Whether the arguments are there to be judged.
pub(super) fn are_seen(seen: Seen) -> bool {
    match seen {
        Seen::Whole => true,
        Seen::Head => false,
    }
}
