//! Rules about what is inside a value: members of objects and items of arrays.
//!
//! Owns which subschema is for which part, and what of the value they looked at.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::check::{Check, Held, Segment};
use super::rule::{Body, Demand, Evaluated, Id, Node, Rule};
use crate::json;

impl<'s, 'v> Check<'s, 'v> {
    pub(super) fn members(
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

    /// Notes members that differ from a name of the schema only by case.
    pub(super) fn spelling(
        &mut self,
        names: &'s BTreeMap<String, BTreeSet<String>>,
        members: &'v Map<String, Value>,
        node: &'s Node,
    ) {
        for name in members.keys() {
            let known = names.get(&json::folded(name)).filter(|known| !known.contains(name));
            if let Some(known) = known.and_then(BTreeSet::first) {
                self.path.push(Segment::Member(name));
                self.report_spelling(node, known);
                self.path.pop();
            }
        }
    }

    /// A member that is neither named nor matched; when none may be there, says which are known.
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

    /// Names are values of their own, which live no longer than this check of them.
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

    pub(super) fn items(
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
