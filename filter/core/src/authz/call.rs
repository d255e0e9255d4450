//! Checks of a tool call: caps on records, rules on arguments, conditions, approval.
//!
//! Owns the order of these checks. Cheap checks without arguments come first, so that they run before the body is read.
//! Caps come before all checks of arguments, which judge the forwarded values.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value};

use super::trail::{Broken, Consideration, Trail};
use super::{Case, Seen};
use crate::denial::{Denial, INSUFFICIENT_SCOPE, InsufficientScope};
use crate::json::{Decimal, misspelt, whole_number};
use crate::mcp::ToolCall;
use crate::order;
use crate::pattern::Budget;
use crate::policy::condition::{Facts, Undecided};
use crate::policy::{CallRules, Cap, Check, Enforcement, OnExcess, Requirement, Tool};

/// An argument that is forwarded with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amendment {
    /// The argument.
    pub argument: String,
    /// The client's value; `None` when it was absent.
    pub asked: Option<Value>,
    /// The forwarded value.
    pub value: u64,
    /// The cap that changes it.
    pub rule: String,
}

impl Amendment {
    /// The refusal of a call that cannot be forwarded with the other value.
    #[must_use]
    pub fn refusal(&self) -> Denial {
        too_many(self.rule.clone(), &self.argument, self.value)
    }
}

/// An approval that the call needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The rule that requires it.
    pub rule: String,
    /// How long the request waits for a decision.
    pub expires: Duration,
}

/// Whether the credential has the scopes that an operation needs. The refusal names all of them, so that a client asks
/// once (MCP 2025-11-25, step-up authorization).
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
    let missing = case.principal.scopes.missing(&needed);
    if missing.is_empty() {
        trail.passed(|| INSUFFICIENT_SCOPE.to_owned());
        return Ok(());
    }
    let missing: Vec<String> = missing.into_iter().map(str::to_owned).collect();
    let why = format!("the credential lacks {}", missing.join(" "));
    let scopes = InsufficientScope { needed, missing };
    let denial = Denial::InsufficientScope(Box::new(scopes));
    let broken = Broken::new(INSUFFICIENT_SCOPE, denial).because(why);
    trail.enforce(case.policy, (Check::Scopes, Enforcement::Enforce), broken)
}

pub(super) fn conditions(
    case: &Case<'_>,
    (tool, arguments): (&str, &Map<String, Value>),
    (rules, about): (&Rules<'_>, About),
    trail: &mut Trail,
) -> Result<(), Denial> {
    let facts = Facts {
        principal: case.principal,
        claims: case.claims,
        connector: case.name,
        tool,
        arguments,
        now: case.now,
        source: case.source,
    };
    rules
        .conditions()
        .filter(|requirement| about.covers(requirement) && requirement.is_about(tool))
        .try_for_each(|requirement| require(case, requirement, &facts, trail))
}

/// Which conditions are evaluated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// Conditions that use no arguments.
    Circumstances,
    /// Conditions that use arguments.
    Arguments,
}

impl About {
    fn covers(self, requirement: &Requirement) -> bool {
        requirement.when.asks_for_arguments() == (self == Self::Arguments)
    }
}

/// All rules for calls of one tool by one caller.
pub(super) struct Rules<'a> {
    /// The conditions of the connector, the tool, the role, and the role's connector.
    conditions: [&'a [Requirement]; 4],
    of_tool: Option<&'a CallRules>,
    /// The role's rules for the tool; nearly always empty.
    of_role: Vec<&'a CallRules>,
}

impl<'a> Rules<'a> {
    pub(super) fn of(case: &Case<'a>, tool: &str) -> Self {
        let of_tool = case.connector.tools.get(tool).map(|tool| &tool.rules);
        let role = case.policy.roles.get(&case.principal.role);
        let access = role.and_then(|role| role.connectors.get(case.name));
        let conditions = [
            case.connector.conditions.as_slice(),
            of_tool.map(|rules| rules.conditions.as_slice()).unwrap_or_default(),
            role.map(|role| role.conditions.as_slice()).unwrap_or_default(),
            access.map(|access| access.conditions.as_slice()).unwrap_or_default(),
        ];
        let of_role = access.into_iter().flat_map(|access| access.rules(tool)).collect();
        Self { conditions, of_tool, of_role }
    }

    fn each(&self) -> impl Iterator<Item = &'a CallRules> {
        self.of_tool.into_iter().chain(self.of_role.iter().copied())
    }

    fn conditions(&self) -> impl Iterator<Item = &'a Requirement> {
        let of_role = self.of_role.iter().flat_map(|rules| &rules.conditions);
        self.conditions.into_iter().flatten().chain(of_role)
    }
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

/// The changes that caps make to the arguments. Those that change a call come before those that refuse it, and the
/// lowest bound comes first.
pub(super) fn caps(
    case: &Case<'_>,
    call: &ToolCall,
    rules: &Rules<'_>,
    trail: &mut Trail,
) -> Result<Vec<Amendment>, Denial> {
    let caps = rules.each().filter_map(|rules| Some((rules, rules.max_records.as_ref()?)));
    let mut caps: Vec<(&CallRules, &Cap)> = caps.collect();
    let rank = |cap: &Cap| (cap.on_excess == OnExcess::Refuse, cap.max);
    order::sort_by(&mut caps, |(_, one), (_, other)| rank(one).cmp(&rank(other)));
    let mut amendments = Vec::new();
    for own in caps {
        amendments.extend(cap(case, call, (own, &amendments), trail)?);
    }
    Ok(amendments)
}

/// The change that one cap makes to the arguments, as the caps before it left them.
fn cap(
    case: &Case<'_>,
    call: &ToolCall,
    ((rules, cap), before): ((&CallRules, &Cap), &[Amendment]),
    trail: &mut Trail,
) -> Result<Option<Amendment>, Denial> {
    let rule = || rules.cap_name();
    if let Some(twin) = misspelt(&call.arguments, &[&cap.argument]) {
        let detail = format!("{} must be spelled exactly so; found {twin:?}", cap.argument);
        let denial = Denial::Arguments { rule: rule(), detail: detail.into() };
        let broken = Broken::new(rule(), denial);
        trail.enforce(case.policy, (Check::Caps, cap.enforcement), broken)?;
    }
    let amended = before.iter().find(|amendment| amendment.argument == cap.argument);
    let asked = call.arguments.get(&cap.argument);
    let excess =
        match amended.map_or_else(|| asked_for(asked), |it| RecordsAsked::Records(it.value)) {
            RecordsAsked::Records(number) if number <= cap.max => {
                trail.passed(rule);
                return Ok(None);
            }
            RecordsAsked::Records(_) | RecordsAsked::Everything => cap.on_excess,
            // A value that is no number cannot be lowered.
            RecordsAsked::Nonsense => OnExcess::Refuse,
        };
    let shadow = case.policy.enforcement(Check::Caps, cap.enforcement);
    match (excess, shadow) {
        (OnExcess::Clamp, Enforcement::Enforce) => {
            trail.note(Consideration::Changed, || {
                (rule(), format!("{} becomes {}", cap.argument, cap.max))
            });
            let (argument, value) = (cap.argument.clone(), cap.max);
            Ok(Some(Amendment { argument, asked: asked.cloned(), value, rule: rule() }))
        }
        (OnExcess::Clamp, Enforcement::Shadow) | (OnExcess::Refuse, _) => {
            let broken = Broken::new(rule(), too_many(rule(), &cap.argument, cap.max));
            trail.enforce(case.policy, (Check::Caps, cap.enforcement), broken)?;
            Ok(None)
        }
    }
}

/// How many records an argument asks for.
enum RecordsAsked {
    Records(u64),
    /// No number, or a value that servers take for "no limit".
    Everything,
    Nonsense,
}

fn asked_for(value: Option<&Value>) -> RecordsAsked {
    match value {
        None | Some(Value::Null) => RecordsAsked::Everything,
        Some(value @ Value::Number(number)) => match whole_number(value) {
            Some(0) => RecordsAsked::Everything,
            Some(number) => RecordsAsked::Records(number),
            // Many servers take `-1` for "no limit".
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

fn too_many(rule: String, argument: &str, max: u64) -> Denial {
    let detail = format!("{argument} must be a whole number from 1 to {max}");
    Denial::Arguments { rule, detail: detail.into() }
}

/// The policy's rules on single arguments, applied to the forwarded values. The refusal names all faults at once, so
/// that a model can repair a call in one step.
pub(super) fn arguments(
    case: &Case<'_>,
    arguments: &Map<String, Value>,
    rules: &Rules<'_>,
    trail: &mut Trail,
) -> Result<(), Denial> {
    /// The most faults in a refusal.
    const MOST_TOLD: usize = 5;
    if rules.each().all(|rules| rules.arguments.is_empty()) {
        return Ok(());
    }
    let mut budget = Budget::of(&case.principal.org);
    let mut refused: Vec<(String, String)> = Vec::new();
    let each = rules.each().flat_map(|rules| rules.arguments.iter().map(move |it| (rules, it)));
    for (rules, rule) in each {
        let Some(detail) = rule.broken_by(arguments, &mut budget) else {
            trail.passed(|| rules.argument_name(rule));
            continue;
        };
        let name = rules.argument_name(rule);
        match case.policy.enforcement(Check::Arguments, rule.enforcement) {
            Enforcement::Enforce => refused.push((name, detail)),
            Enforcement::Shadow => {
                let broken = Broken::forbidden(name).because(detail);
                trail.enforce(case.policy, (Check::Arguments, rule.enforcement), broken)?;
            }
        }
    }
    let Some(((name, detail), others)) = refused.split_first() else { return Ok(()) };
    for (name, detail) in others {
        trail.note(Consideration::Refused, || (name.clone(), detail.clone()));
    }
    let all: Vec<&str> =
        refused.iter().map(|(_, detail)| detail.as_str()).take(MOST_TOLD).collect();
    let denial = Denial::Arguments { rule: name.clone(), detail: all.join("; ").into() };
    Err(trail.refuse(Broken::new(name.clone(), denial).because(detail.clone())))
}

/// Whether the call needs an approval. Of several rules the shortest time holds, and one approval is enough.
pub(super) fn approval(
    case: &Case<'_>,
    rules: &Rules<'_>,
    trail: &mut Trail,
) -> Result<Option<Needed>, Denial> {
    let mut needed: Option<Needed> = None;
    for (rules, approval) in rules.each().filter_map(|rules| Some((rules, rules.approval?))) {
        let rule = rules.approval_name();
        match case.policy.enforcement(Check::Approval, approval.enforcement) {
            Enforcement::Enforce => {
                trail.note(Consideration::Waits, || (rule.clone(), String::new()));
                let expires = needed.as_ref().map_or(approval.expires, |first| first.expires);
                let rule = needed.map_or(rule, |first| first.rule);
                needed = Some(Needed { rule, expires: expires.min(approval.expires) });
            }
            Enforcement::Shadow => {
                let broken = Broken::forbidden(rule);
                trail.enforce(case.policy, (Check::Approval, approval.enforcement), broken)?;
            }
        }
    }
    Ok(needed)
}

/// The forwarded arguments.
#[must_use]
pub fn amended<'a>(
    arguments: &'a Map<String, Value>,
    amendments: &[Amendment],
) -> Cow<'a, Map<String, Value>> {
    let mut arguments = Cow::Borrowed(arguments);
    for Amendment { argument, value, .. } in amendments {
        arguments.to_mut().insert(argument.clone(), (*value).into());
    }
    arguments
}

/// Whether the arguments are available.
pub(super) fn are_seen(seen: Seen) -> bool {
    match seen {
        Seen::Whole => true,
        Seen::Head => false,
    }
}
