//! Checks a value against a schema, with a budget.
//!
//! Owns the evaluation. Inside of alternatives it stops at the first fault; elsewhere it continues, so that a model can
//! repair a call in one step. Never repeats a value: it may be a secret.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Map, Value};

use super::number::{compare, is_multiple, key, same};
use super::rule::{Body, Demand, Evaluated, Id, Node, Rule};
use super::{MAX_NESTING, MAX_STEPS, MAX_VIOLATIONS, Schema, Violation};
use crate::json;
use crate::pattern::{Effort, Pattern, TooCostly};

/// The most characters of an expectation in a message.
const MAX_TEXT: usize = 300;

pub(super) fn check(schema: &Schema, value: &Value) -> Result<(), Vec<Violation>> {
    let mut check = Check {
        schema,
        steps: MAX_STEPS,
        nesting: 0,
        scope: Vec::new(),
        path: Vec::new(),
        found: Vec::new(),
        quiet: false,
        misspelt: Vec::new(),
    };
    let held = check.node(0, value, &mut Evaluated::default());
    match held {
        Ok(_) if !check.misspelt.is_empty() => Err(check.misspelt),
        Ok(true) => Ok(()),
        Ok(false) => {
            check.found.truncate(MAX_VIOLATIONS);
            Err(check.found)
        }
        Err(Exhausted) => Err(vec![Violation {
            path: String::new(),
            rule: "budget".to_owned(),
            expected: "something simpler: this cannot be checked in reasonable time".to_owned(),
        }]),
    }
}

/// The budget is used up.
pub(super) struct Exhausted;

pub(super) type Held = Result<bool, Exhausted>;

/// One step on the path to the checked value.
#[derive(Clone)]
pub(super) enum Segment<'v> {
    Member(&'v str),
    Item(usize),
}

pub(super) struct Check<'s, 'v> {
    pub(super) schema: &'s Schema,
    pub(super) steps: u32,
    pub(super) nesting: u32,
    /// Resources on the path, outermost first: `$dynamicRef` depends on them.
    pub(super) scope: Vec<usize>,
    pub(super) path: Vec<Segment<'v>>,
    pub(super) found: Vec<Violation>,
    /// Whether only the first fault matters.
    pub(super) quiet: bool,
    /// Members that are no property, but are one for a case-insensitive reader. They are faults in any case: a `not`
    /// around them must not turn them into valid members.
    pub(super) misspelt: Vec<Violation>,
}

impl<'s, 'v> Check<'s, 'v> {
    pub(super) fn node(&mut self, id: Id, value: &'v Value, seen: &mut Evaluated<'v>) -> Held {
        let schema = self.schema;
        let node = schema.nodes.get(id).ok_or(Exhausted)?;
        self.spend(1)?;
        self.nesting = self.nesting.saturating_add(1);
        if self.nesting > MAX_NESTING {
            return Err(Exhausted);
        }
        let enters = self.scope.last() != Some(&node.resource);
        if enters {
            self.scope.push(node.resource);
        }
        let held = match &node.body {
            Body::Constant(true) => true,
            Body::Constant(false) => {
                self.report(node, "false", "nothing here: it is not allowed");
                false
            }
            Body::Rules(rules) => self.rules(node, rules, value, seen)?,
        };
        if enters {
            self.scope.pop();
        }
        self.nesting = self.nesting.saturating_sub(1);
        Ok(held)
    }

    fn rules(
        &mut self,
        node: &'s Node,
        rules: &'s [Rule],
        value: &'v Value,
        seen: &mut Evaluated<'v>,
    ) -> Held {
        let mut own = Evaluated::default();
        let mut held = true;
        for rule in rules {
            self.spend(1)?;
            held &= self.demand(node, rule, value, &mut own)?;
            if !held && (self.quiet || self.found.len() >= MAX_VIOLATIONS) {
                return Ok(false);
            }
        }
        if held {
            seen.merge(own);
        }
        Ok(held)
    }

    fn demand(
        &mut self,
        node: &'s Node,
        rule: &'s Rule,
        value: &'v Value,
        seen: &mut Evaluated<'v>,
    ) -> Held {
        Ok(match (&rule.demand, value) {
            (Demand::Type(kinds), _) => {
                let held = kinds.iter().any(|kind| kind.is_of(value));
                self.told(held, node, rule, || {
                    let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
                    names.join(" or ")
                })
            }
            (Demand::Enum(values), _) => {
                self.spend_on(values)?;
                let held = values.iter().any(|one| same(one, value));
                self.told(held, node, rule, || format!("one of {}", listed(values)))
            }
            (Demand::Const(only), _) => {
                self.told(same(only, value), node, rule, || only.to_string())
            }
            (Demand::MultipleOf(of), Value::Number(number)) => {
                let held = is_multiple(number, of);
                self.told(held, node, rule, || format!("a multiple of {of}"))
            }
            (Demand::Bound(bound, limit), Value::Number(number)) => {
                let held = compare(number, limit).is_some_and(|order| bound.holds(order));
                self.told(held, node, rule, || format!("{} {limit}", bound.words()))
            }
            (Demand::Length(range), Value::String(text)) => {
                self.spend_bytes(text.len())?;
                let held = range.has(text.chars().count());
                self.told(held, node, rule, || format!("{} characters", range.words()))
            }
            (Demand::Pattern(pattern), Value::String(text)) => {
                let held = self.matches(pattern, text)?;
                self.told(held, node, rule, || format!("a text that matches {}", pattern.source))
            }
            (Demand::ItemCount(range), Value::Array(items)) => {
                self.told(range.has(items.len()), node, rule, || format!("{} items", range.words()))
            }
            (Demand::Unique, Value::Array(items)) => {
                let held = self.unique(items)?;
                self.told(held, node, rule, || "items that all differ".to_owned())
            }
            (Demand::MemberCount(range), Value::Object(members)) => {
                let held = range.has(members.len());
                self.told(held, node, rule, || format!("{} members", range.words()))
            }
            (Demand::Required(names), Value::Object(members)) => {
                self.required(names, members, node, rule)
            }
            (Demand::DependentRequired(dependent), Value::Object(members)) => {
                let present = dependent.iter().filter(|(name, _)| members.contains_key(name));
                let mut held = true;
                for (_, names) in present {
                    held &= self.required(names, members, node, rule);
                }
                held
            }
            (Demand::Spelling(names), Value::Object(members)) => {
                self.spend(u32::try_from(members.len() / 8).map_err(|_| Exhausted)?)?;
                self.spelling(names, members, node, rule);
                true
            }
            (Demand::Members { .. } | Demand::MemberNames(_), Value::Object(members)) => {
                self.members(&rule.demand, node, members, seen)?
            }
            (Demand::Items { .. } | Demand::Contains { .. }, Value::Array(items)) => {
                self.items(node, rule, items, seen)?
            }
            (Demand::UnevaluatedMembers(id), Value::Object(members)) => {
                let mut held = true;
                for (name, value) in members {
                    if !seen.all_members && !seen.members.contains(name.as_str()) {
                        held &= self.inside(Segment::Member(name), *id, value)?;
                    }
                }
                seen.all_members = true;
                held
            }
            (Demand::UnevaluatedItems(id), Value::Array(items)) => {
                let mut held = true;
                for (index, value) in items.iter().enumerate() {
                    if !seen.all_items && !seen.items.contains(&index) {
                        held &= self.inside(Segment::Item(index), *id, value)?;
                    }
                }
                seen.all_items = true;
                held
            }
            (
                Demand::AllOf(_)
                | Demand::AnyOf(_)
                | Demand::OneOf(_)
                | Demand::Not(_)
                | Demand::If { .. }
                | Demand::DependentSchemas(_)
                | Demand::Ref(_)
                | Demand::DynamicRef { .. },
                _,
            ) => self.in_place(node, rule, value, seen)?,
            // The rule does not apply to a value of another type.
            _ => true,
        })
    }

    /// Rules that apply other schemas to the same value.
    fn in_place(
        &mut self,
        node: &'s Node,
        rule: &'s Rule,
        value: &'v Value,
        seen: &mut Evaluated<'v>,
    ) -> Held {
        match &rule.demand {
            Demand::AllOf(ids) => {
                let mut held = true;
                for id in ids {
                    held &= self.node(*id, value, seen)?;
                }
                Ok(held)
            }
            Demand::AnyOf(ids) => self.alternatives(ids, 1, node, rule, value, seen),
            Demand::OneOf(ids) => self.alternatives(ids, 2, node, rule, value, seen),
            Demand::Not(id) => {
                let held = !self.silently(*id, value, &mut Evaluated::default())?;
                Ok(self.told(held, node, rule, || "something else".to_owned()))
            }
            Demand::If { condition, then, otherwise } => {
                let branch = if self.silently(*condition, value, seen)? { then } else { otherwise };
                branch.map_or(Ok(true), |id| self.node(id, value, seen))
            }
            Demand::DependentSchemas(dependent) => {
                let mut held = true;
                for (name, id) in dependent {
                    if value.get(name).is_some() && value.is_object() {
                        held &= self.node(*id, value, seen)?;
                    }
                }
                Ok(held)
            }
            Demand::Ref(id) => self.node(*id, value, seen),
            Demand::DynamicRef { fallback, anchor } => {
                let outermost = anchor.as_ref().and_then(|anchor| {
                    let resources =
                        self.scope.iter().filter_map(|it| self.schema.resources.get(*it));
                    let mut known = resources.filter_map(|own| own.dynamic.get(anchor)?.1);
                    known.next()
                });
                self.node(outermost.unwrap_or(*fallback), value, seen)
            }
            _ => Ok(true),
        }
    }

    /// At least one of several, and fewer than `enough`: `oneOf` searches for a second one.
    fn alternatives(
        &mut self,
        ids: &[Id],
        enough: usize,
        node: &'s Node,
        rule: &'s Rule,
        value: &'v Value,
        seen: &mut Evaluated<'v>,
    ) -> Held {
        let mut fitting: usize = 0;
        let mut why = Vec::new();
        for id in ids {
            let start = self.found.len();
            let mut own = Evaluated::default();
            if self.quietly(*id, value, &mut own)? {
                fitting = fitting.saturating_add(1);
                seen.merge(own);
            } else if !self.quiet && why.len() < 3 {
                why.extend(self.found.get(start).map(|it| format!("({it})")));
            }
            self.found.truncate(start);
            // The evaluated members must be known for every alternative.
            if fitting >= enough && (enough > 1 || !self.schema.tracks) {
                break;
            }
        }
        let held = if enough == 1 { fitting >= 1 } else { fitting == 1 };
        Ok(self.told(held, node, rule, || match fitting {
            0 => format!("one of {} alternatives, none fits: {}", ids.len(), why.join(" ")),
            _ => "exactly one of the alternatives; more than one fits".to_owned(),
        }))
    }

    /// Whether it is valid, otherwise its first fault.
    fn quietly(&mut self, id: Id, value: &'v Value, seen: &mut Evaluated<'v>) -> Held {
        let quiet = std::mem::replace(&mut self.quiet, true);
        let held = self.node(id, value, seen)?;
        self.quiet = quiet;
        Ok(held)
    }

    /// Whether it is valid.
    pub(super) fn silently(&mut self, id: Id, value: &'v Value, seen: &mut Evaluated<'v>) -> Held {
        let start = self.found.len();
        let held = self.quietly(id, value, seen)?;
        self.found.truncate(start);
        Ok(held)
    }

    pub(super) fn inside(&mut self, segment: Segment<'v>, id: Id, value: &'v Value) -> Held {
        self.path.push(segment);
        let held = self.node(id, value, &mut Evaluated::default())?;
        self.path.pop();
        Ok(held)
    }

    fn unique(&mut self, items: &[Value]) -> Held {
        let mut known = HashSet::new();
        for item in items {
            let mut text = String::new();
            key(item, &mut text);
            self.spend_bytes(text.len())?;
            if !known.insert(text) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn required(
        &mut self,
        names: &[String],
        members: &Map<String, Value>,
        node: &'s Node,
        rule: &'s Rule,
    ) -> bool {
        let missing: Vec<_> =
            names.iter().filter(|name| !members.contains_key(*name)).map(String::as_str).collect();
        self.told(missing.is_empty(), node, rule, || {
            format!("the required members {}", missing.join(", "))
        })
    }

    pub(super) fn told(
        &mut self,
        held: bool,
        node: &Node,
        rule: &Rule,
        expected: impl FnOnce() -> String,
    ) -> bool {
        if !held {
            self.report(node, rule.keyword, &expected());
        }
        held
    }

    pub(super) fn report(&mut self, node: &Node, keyword: &str, expected: &str) {
        if self.found.len() >= MAX_VIOLATIONS.saturating_mul(2) {
            return;
        }
        let violation = self.violation(node, keyword, expected);
        self.found.push(violation);
    }

    /// Reports a member that must be spelled as in the schema.
    pub(super) fn report_spelling(&mut self, node: &Node, rule: &Rule, name: &str) {
        if self.misspelt.len() < MAX_VIOLATIONS {
            let expected = format!("{name}, spelled exactly so");
            let violation = self.violation(node, rule.keyword, &expected);
            self.misspelt.push(violation);
        }
    }

    fn violation(&self, node: &Node, keyword: &str, expected: &str) -> Violation {
        let mut path = String::new();
        for segment in &self.path {
            path = match segment {
                Segment::Member(name) => super::locate::join(&path, name),
                Segment::Item(index) => format!("{path}/{index}"),
            };
        }
        let cut = |text: &str, most| text.chars().take(most).collect::<String>();
        Violation {
            path: cut(&path, MAX_TEXT),
            rule: cut(&format!("{}/{keyword}", node.place), MAX_TEXT),
            expected: cut(expected, MAX_TEXT),
        }
    }

    /// Whether `text` matches; the cost is taken from this check's only budget.
    pub(super) fn matches(&mut self, pattern: &Pattern, text: &str) -> Held {
        self.spend(pattern.cost(text))?;
        match pattern.matches(text, Effort::Little) {
            Ok(held) => Ok(held),
            Err(TooCostly) => {
                self.spend(Effort::Much.cost())?;
                pattern.matches(text, Effort::Much).map_err(|TooCostly| Exhausted)
            }
        }
    }

    fn spend(&mut self, steps: u32) -> Result<(), Exhausted> {
        self.steps = self.steps.checked_sub(steps).ok_or(Exhausted)?;
        Ok(())
    }

    pub(super) fn spend_bytes(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.spend(u32::try_from(bytes / 64).map_err(|_| Exhausted)?)
    }

    fn spend_on(&mut self, values: &[Value]) -> Result<(), Exhausted> {
        self.spend(u32::try_from(values.len() / 8).map_err(|_| Exhausted)?)
    }
}

/// The contents of a value: members of objects and items of arrays.
impl<'s, 'v> Check<'s, 'v> {
    fn members(
        &mut self,
        demand: &'s Demand,
        node: &'s Node,
        members: &'v Map<String, Value>,
        seen: &mut Evaluated<'v>,
    ) -> Held {
        let mut held = true;
        for (name, value) in members {
            match demand {
                Demand::Members { named, patterns, others } => {
                    let mut known = false;
                    if let Some(id) = named.get(name) {
                        known = true;
                        held &= self.inside(Segment::Member(name), *id, value)?;
                    }
                    for (pattern, id) in patterns {
                        if self.matches(pattern, name)? {
                            known = true;
                            held &= self.inside(Segment::Member(name), *id, value)?;
                        }
                    }
                    if let (false, Some(id)) = (known, others) {
                        known = true;
                        held &= self.other(*id, name, value, named.keys(), node)?;
                    }
                    if known && self.schema.tracks {
                        seen.members.insert(name);
                    }
                }
                Demand::MemberNames(id) => held &= self.member_name(*id, name, node)?,
                _ => {}
            }
            if !held && self.quiet {
                break;
            }
        }
        Ok(held)
    }

    /// Reports members that differ from a name in the schema only by case.
    fn spelling(
        &mut self,
        names: &'s BTreeMap<String, BTreeSet<String>>,
        members: &'v Map<String, Value>,
        node: &'s Node,
        rule: &'s Rule,
    ) {
        for name in members.keys() {
            let known = names.get(&json::folded(name)).filter(|known| !known.contains(name));
            if let Some(known) = known.and_then(BTreeSet::first) {
                self.path.push(Segment::Member(name));
                self.report_spelling(node, rule, known);
                self.path.pop();
            }
        }
    }

    /// A member that is neither named nor matched; when none is allowed, reports the known names.
    fn other<'n>(
        &mut self,
        id: Id,
        name: &'v str,
        value: &'v Value,
        known: impl Iterator<Item = &'n String>,
        node: &'s Node,
    ) -> Held {
        let body = self.schema.nodes.get(id).map(|node| &node.body);
        if !matches!(body, Some(Body::Constant(false))) {
            return self.inside(Segment::Member(name), id, value);
        }
        self.path.push(Segment::Member(name));
        let known: Vec<_> = known.map(String::as_str).collect();
        let text = format!("no such member; known are {}", known.join(", "));
        self.report(node, "additionalProperties", &text);
        self.path.pop();
        Ok(false)
    }

    /// Names are checked as values of their own, which live only as long as this check.
    fn member_name(&mut self, id: Id, name: &str, node: &'s Node) -> Held {
        let value = Value::String(name.to_owned());
        let mut check = Check {
            schema: self.schema,
            steps: self.steps,
            nesting: self.nesting,
            scope: self.scope.clone(),
            path: Vec::new(),
            found: Vec::new(),
            quiet: true,
            misspelt: Vec::new(),
        };
        let held = check.node(id, &value, &mut Evaluated::default())?;
        let why = check.found.first().map(|it| it.expected.clone());
        self.steps = check.steps;
        if !held {
            let text = format!("members whose names are {}", why.unwrap_or_default());
            self.report(node, "propertyNames", &text);
        }
        Ok(held)
    }

    fn items(
        &mut self,
        node: &'s Node,
        rule: &'s Rule,
        items: &'v [Value],
        seen: &mut Evaluated<'v>,
    ) -> Held {
        let mut held = true;
        match &rule.demand {
            Demand::Items { prefix, rest } => {
                for (index, value) in items.iter().enumerate() {
                    let Some(id) = prefix.get(index).copied().or(*rest) else {
                        break;
                    };
                    held &= self.inside(Segment::Item(index), id, value)?;
                    if self.schema.tracks {
                        seen.items.insert(index);
                    }
                    if !held && self.quiet {
                        break;
                    }
                }
                seen.all_items |= rest.is_some();
            }
            Demand::Contains { item, range, evaluates } => {
                let mut fitting: usize = 0;
                for (index, value) in items.iter().enumerate() {
                    if self.silently(*item, value, &mut Evaluated::default())? {
                        fitting = fitting.saturating_add(1);
                        if *evaluates && self.schema.tracks {
                            seen.items.insert(index);
                        }
                    }
                }
                held = self.told(range.has(fitting), node, rule, || {
                    format!("{} items of the kind that it must contain", range.words())
                });
            }
            _ => {}
        }
        Ok(held)
    }
}

fn listed(values: &[Value]) -> String {
    let texts: Vec<_> = values.iter().take(20).map(Value::to_string).collect();
    texts.join(", ")
}
