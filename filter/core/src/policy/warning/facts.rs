//! What pinned schemas, caps and argument rules leave for the arguments of a tool.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde_json::Value;

use crate::id::PolicyName;
use crate::policy::arguments::{Demand, Presence};
use crate::policy::condition::lint::{Arguments, Type, allowed};
use crate::policy::{Cap, Check, Enforcement, Globs, Policy, Tool};

/// A tool with a pinned input schema.
#[derive(Clone, Copy)]
pub(super) struct PinnedTool<'a> {
    pub(super) connector: &'a PolicyName,
    pub(super) tool: &'a str,
    pub(super) stated: &'a Tool,
    pub(super) schema: &'a Value,
}

/// What is known of the arguments of a pinned tool.
#[derive(Debug)]
pub(super) struct Facts {
    /// What the pinned schema describes.
    pub(super) of: Type,
    /// What the pinned schema, caps and the tool's argument rules leave for conditions.
    pub(super) arguments: Rc<Arguments>,
}

/// The facts of all pinned tools, each found once: hundreds of conditions may be about one tool, and thousands of
/// tools have the same schema.
pub(super) struct PinnedFacts<'a> {
    policy: &'a Policy,
    /// Arguments that caps of roles change, by connector and by tools; each once, however many roles have the cap.
    capped: BTreeMap<&'a PolicyName, Vec<(Globs, &'a str)>>,
    by_tool: RefCell<HashMap<usize, Rc<Facts>>>,
    by_text: RefCell<HashMap<String, Rc<Facts>>>,
}

impl<'a> PinnedFacts<'a> {
    pub(super) fn new(policy: &'a Policy) -> Self {
        let mut capped: BTreeMap<_, Vec<(Globs, &str)>> = BTreeMap::new();
        for (name, access) in policy.roles.values().flat_map(|role| &role.connectors) {
            for (tool, rules) in access.tools.iter().flat_map(|rules| rules.each()) {
                if let Some(cap) = rules.max_records.as_ref().filter(|cap| policy.holds(cap)) {
                    let mut tools = Globs::default();
                    tools.insert(&tool);
                    let cap = (tools, cap.argument.as_str());
                    let of_connector = capped.entry(name).or_default();
                    if !of_connector.contains(&cap) {
                        of_connector.push(cap);
                    }
                }
            }
        }
        let (by_tool, by_text) = (RefCell::default(), RefCell::default());
        Self { policy, capped, by_tool, by_text }
    }

    pub(super) fn of(&self, pinned: &PinnedTool<'_>) -> Rc<Facts> {
        let address = std::ptr::from_ref(pinned.stated).addr();
        if let Some(known) = self.by_tool.borrow().get(&address) {
            return Rc::clone(known);
        }
        let schema = pinned.schema;
        let text = match self.is_narrowed(pinned) {
            true => format!("{address}"),
            false => schema.to_string(),
        };
        let mut by_text = self.by_text.borrow_mut();
        let facts = by_text.entry(text).or_insert_with(|| {
            let mut arguments = self.before_rules(pinned);
            for rule in &pinned.stated.rules.arguments {
                if self.policy.is_enforced(Check::Arguments, rule.enforcement) {
                    let path = format!("arguments.{}", rule.argument);
                    allowed::demanded(&path, &rule.demands, rule.presence, &mut arguments);
                }
            }
            let of = Type::of_schema(schema, "the pinned schema");
            Rc::new(Facts { of, arguments: Rc::new(arguments) })
        });
        self.by_tool.borrow_mut().insert(address, Rc::clone(facts));
        Rc::clone(facts)
    }

    /// What the pinned schema and caps leave.
    pub(super) fn before_rules(&self, pinned: &PinnedTool<'_>) -> Arguments {
        // In shadow mode a schema refuses nothing.
        if !self.policy.is_enforced(Check::Schema, Enforcement::Enforce) {
            return Arguments::new();
        }
        let mut arguments = allowed::of_schema(pinned.schema);
        for argument in self.capped_by_roles(pinned) {
            arguments.remove(&format!("arguments.{argument}"));
        }
        let cap = pinned.stated.rules.max_records.as_ref();
        if let Some(cap) = cap.filter(|cap| self.policy.holds(cap)) {
            let path = format!("arguments.{}", cap.argument);
            match allowed::capped(cap.max) {
                Some(domain) => arguments.insert(path, domain),
                None => arguments.remove(&path),
            };
        }
        arguments
    }

    fn capped_by_roles<'s>(
        &'s self,
        pinned: &'s PinnedTool<'_>,
    ) -> impl Iterator<Item = &'a str> + 's {
        let of_connector = self.capped.get(pinned.connector).into_iter().flatten();
        let about = of_connector.filter(move |(tools, _)| tools.matches(pinned.tool));
        about.map(|(_, argument)| *argument)
    }

    /// Whether more than the schema decides what is left.
    fn is_narrowed(&self, pinned: &PinnedTool<'_>) -> bool {
        let bounds = |demand: &Demand| match demand {
            Demand::OneOf(_) | Demand::Matches(_) | Demand::Items(_) => false,
            Demand::MinLength(_)
            | Demand::MaxLength(_)
            | Demand::Minimum(_)
            | Demand::Maximum(_)
            | Demand::MaxItems(_) => true,
        };
        let rules = &pinned.stated.rules;
        rules.max_records.is_some()
            || self.capped_by_roles(pinned).next().is_some()
            || rules
                .arguments
                .iter()
                .any(|rule| rule.presence == Presence::Required || rule.demands.iter().any(bounds))
    }
}

impl Policy {
    /// Whether a rule refuses where others do: a policy that is in shadow mode as a whole is looked at as if it were
    /// enforced.
    pub(super) fn is_enforced(&self, check: Check, rule: Enforcement) -> bool {
        rule == Enforcement::Enforce && !self.shadow.contains(&check)
    }

    /// Whether a cap changes or refuses calls.
    pub(super) fn holds(&self, cap: &Cap) -> bool {
        self.is_enforced(Check::Caps, cap.enforcement)
    }
}
