//! Rules about calls that have no effect, or that no call meets: of roles, and of arguments.
//!
//! Owns the comparison of rules with the pinned schema of an argument.

use std::rc::Rc;

use serde_json::Value;

use super::facts::{PinnedFacts, PinnedTool};
use super::{Warning, WarningKind, bounds, patterns};
use crate::id::PolicyName;
use crate::policy::arguments::{Demand, Presence};
use crate::policy::condition::lint::{Arguments, Type};
use crate::policy::{
    Access, CallRules, Cap, Check, Enforcement, Globs, OnExcess, Policy, Role, Tool, Unpinned,
};

/// The most tools that are inspected for a pattern that matches more.
const MOST_TOOLS: usize = 64;

/// The tools to which some rules apply.
struct Meant<'a> {
    tools: Vec<&'a Tool>,
    /// The domains of the arguments of those that are pinned, before the rules.
    left: Vec<Rc<Arguments>>,
    /// Whether the rules apply to no other tool, and all of these are pinned.
    closed: bool,
    /// The pattern of the rules. For a tool by name, an argument that it does not have is a fault.
    pattern: Option<&'a str>,
}

impl Policy {
    pub(super) fn warn_of_arguments(&self, facts: &PinnedFacts<'_>, warnings: &mut Vec<Warning>) {
        for (name, connector) in &self.connectors {
            let ruled = connector.tools.iter().filter(|(_, stated)| !stated.rules.is_empty());
            for (tool, stated) in ruled {
                let pinned = pinned_tool(name, tool, stated);
                let left: Vec<_> =
                    pinned.iter().map(|pinned| Rc::new(facts.before_rules(pinned))).collect();
                let closed = !left.is_empty();
                self.of_rules(
                    &stated.rules,
                    &Meant { tools: vec![stated], left, closed, pattern: None },
                    warnings,
                );
            }
        }
        for ((role, stated), name, access) in self.roles.iter().flat_map(|(role, stated)| {
            stated.connectors.iter().map(move |(name, access)| ((role, stated), name, access))
        }) {
            if access.tools.is_some() {
                let place = format!("roles.{role}.{name}.tools");
                self.warn_of_role_rules((&place, stated), (name, access), facts, warnings);
            }
        }
    }

    fn warn_of_role_rules(
        &self,
        (place, role): (&str, &Role),
        (name, access): (&PolicyName, &Access),
        facts: &PinnedFacts<'_>,
        warnings: &mut Vec<Warning>,
    ) {
        let Some((name, connector)) = self.connectors.get_key_value(name) else { return };
        for (tool, rules) in access.tools.iter().flat_map(|rules| rules.each()) {
            let mut about = Globs::default();
            about.insert(&tool);
            let (path, effect) = (format!("{place}.{tool}"), "these rules guard nothing there");
            // A pattern that matches no tool of the role has a warning of its own.
            if about.names(&tool) || access.allow.meets(&tool) {
                self.warn_of_unknown(&path, &about, (&[name], Some(role)), effect, warnings);
            }
            let open = |name: &str| self.opens(access, name);
            let exact = about.names(&tool);
            let meant: Vec<(&String, &Tool)> = match exact {
                true => connector.tools.get_key_value(&tool).into_iter().collect(),
                false => {
                    let all = connector.tools.iter();
                    let meant = all.filter(|(name, _)| about.matches(name) && open(name));
                    meant.take(MOST_TOOLS).collect()
                }
            };
            let pinned: Vec<_> =
                meant.iter().filter_map(|(tool, stated)| pinned_tool(name, tool, stated)).collect();
            let hides = connector.pins.unpinned == Unpinned::Hide;
            let closed = pinned.len() == meant.len()
                && (1..MOST_TOOLS).contains(&meant.len())
                && (exact || hides);
            let left = pinned.iter().map(|pinned| Rc::clone(&facts.of(pinned).arguments)).collect();
            let pattern = (!exact).then_some(tool.as_str());
            if let (Some(cap), Some(pattern)) = (rules.max_records.as_ref(), pattern) {
                self.of_absent(&rules.cap_name(), (cap, pattern), &meant, warnings);
            }
            let tools: Vec<&Tool> = meant.into_iter().map(|(_, stated)| stated).collect();
            if exact || hides {
                self.covered(rules, &tools, warnings);
            }
            self.of_rules(rules, &Meant { tools, left, closed, pattern }, warnings);
        }
    }

    /// Rules of a role next to stricter ones of all tools to which they apply.
    fn covered(&self, rules: &CallRules, tools: &[&Tool], warnings: &mut Vec<Warning>) {
        let mut stricter = |path: String, found: String, of: Option<&Tool>, what: &str| {
            let Some(tool) = of else { return };
            let place = &tool.rules.place;
            warnings.push(Warning {
                path,
                kind: WarningKind::NoEffect,
                found: format!("{found}, where {place} has {what}: the stricter one holds"),
                expected: "a stricter rule than that of the tool".to_owned(),
            });
        };
        if let Some(cap) = &rules.max_records {
            let lower = |tool: &&&Tool| {
                let own = tool.rules.max_records.as_ref().filter(|own| self.holds(own));
                // Caps that lower a value run before those that refuse: equal ones have different effects.
                let idle = |own: &Cap| {
                    own.max < cap.max
                        || own.max == cap.max
                            && (own.on_excess == cap.on_excess || cap.on_excess == OnExcess::Refuse)
                };
                own.is_some_and(|own| own.argument == cap.argument && idle(own))
            };
            let all = (tools.len() < MOST_TOOLS && tools.iter().all(|it| lower(&it)))
                .then(|| tools.first().copied())
                .flatten();
            let what = all.and_then(|tool| tool.rules.max_records.as_ref()).map_or(0, |it| it.max);
            let found = format!("a cap of {}", cap.max);
            stricter(rules.cap_name(), found, all, &format!("one of {what}"));
        }
        if let Some(approval) = &rules.approval {
            let shorter = |tool: &&&Tool| {
                let own = tool.rules.approval.as_ref();
                own.is_some_and(|own| {
                    self.is_enforced(Check::Approval, own.enforcement)
                        && own.expires <= approval.expires
                })
            };
            let all = (tools.len() < MOST_TOOLS && tools.iter().all(|it| shorter(&it)))
                .then(|| tools.first().copied())
                .flatten();
            let found = "an approval".to_owned();
            stricter(rules.approval_name(), found, all, "one that stands at most as long");
        }
    }

    fn of_rules(&self, rules: &CallRules, meant: &Meant<'_>, warnings: &mut Vec<Warning>) {
        of_rules(rules, meant, warnings);
        if let Some(cap) = &rules.max_records {
            self.of_cap(&rules.cap_name(), cap, meant, warnings);
        }
        for rule in &rules.arguments {
            let (name, path) = (rules.argument_name(rule), format!("arguments.{}", rule.argument));
            for demand in &rule.demands {
                bounds::warn(&name, &path, demand, (&meant.left, meant.closed), warnings);
            }
            let needed = |left: &Rc<Arguments>| bounds::is_required(&path, left);
            let asks_only = rule.demands.is_empty() && rule.presence == Presence::Required;
            if asks_only && meant.closed && meant.left.iter().all(needed) {
                warnings.push(Warning {
                    path: format!("{name}.required"),
                    kind: WarningKind::AlwaysTrue,
                    found: "an argument that the pinned schema or a cap gives every call: the rule refuses nothing"
                        .to_owned(),
                    expected: "a rule that calls within the pinned schema can break".to_owned(),
                });
            }
        }
        self.of_bounds_beyond_cap(rules, meant, warnings);
    }
}

fn pinned_tool<'a>(
    connector: &'a PolicyName,
    tool: &'a str,
    stated: &'a Tool,
) -> Option<PinnedTool<'a>> {
    let schema = stated.pin.as_ref()?.member("inputSchema")?;
    Some(PinnedTool { connector, tool, stated, schema })
}

/// The pinned schema of an argument.
enum Pinned<'a> {
    /// Unknown: the tool is not pinned, or its schema is open.
    Unknown,
    /// The tool has no such argument.
    Absent,
    /// This schema.
    Of(&'a serde_json::Value),
}

fn pinned<'a>(tool: &'a Tool, argument: &str) -> Pinned<'a> {
    let schema = tool.pin.as_ref().and_then(|pin| pin.member("inputSchema"));
    match schema.and_then(|schema| schema.get("properties")?.as_object()) {
        Some(properties) => properties.get(argument).map_or(Pinned::Absent, Pinned::Of),
        None => Pinned::Unknown,
    }
}

fn of_rules(rules: &CallRules, meant: &Meant<'_>, warnings: &mut Vec<Warning>) {
    let tools = &meant.tools;
    let cap = rules.max_records.iter().map(|cap| (rules.cap_name(), &*cap.argument));
    let arguments = rules.arguments.iter();
    let each = arguments.map(|rule| (rules.argument_name(rule), &*rule.argument)).chain(cap);
    for (name, argument) in each.filter(|_| meant.pattern.is_some() && !tools.is_empty()) {
        if tools.iter().all(|tool| matches!(pinned(tool, argument), Pinned::Absent)) {
            warnings.push(Warning {
                path: name,
                kind: WarningKind::UnknownMember,
                found: format!(
                    "{argument:?}, which the pinned schema of no tool here has: the rule guards nothing"
                ),
                expected: "an argument of the tools that the rule is about".to_owned(),
            });
        }
    }
    for rule in &rules.arguments {
        let schemas: Vec<_> = tools
            .iter()
            .filter_map(|tool| match pinned(tool, &rule.argument) {
                Pinned::Of(schema) => Some(schema),
                Pinned::Unknown | Pinned::Absent => None,
            })
            .collect();
        let name = rules.argument_name(rule);
        for demand in &rule.demands {
            of_demand((&name, demand), &schemas, warnings);
        }
    }
}

fn of_demand(
    (place, demand): (&str, &Demand),
    schemas: &[&serde_json::Value],
    warnings: &mut Vec<Warning>,
) {
    let (field, kind) = match demand {
        Demand::OneOf(values) => ("enum", kind_of_all(values)),
        Demand::Matches(_) => ("pattern", Some("a text")),
        Demand::MinLength(_) => ("min_length", Some("a text")),
        Demand::MaxLength(_) => ("max_length", Some("a text")),
        Demand::Minimum(_) => ("minimum", Some("a number")),
        Demand::Maximum(_) => ("maximum", Some("a number")),
        Demand::MaxItems(_) => ("max_items", Some("a list")),
        Demand::Items(_) => ("items", Some("a list")),
    };
    let path = format!("{place}.{field}");
    let types = schemas.iter().map(|schema| Type::of_schema(schema, "the argument"));
    let other = types.filter_map(|of| of.kind()).find(|of| kind.is_some_and(|kind| kind != *of));
    if let (Some(other), Some(kind)) = (other, kind) {
        warnings.push(Warning {
            path: path.clone(),
            kind: WarningKind::WrongType,
            found: format!(
                "a demand on {kind}, where the pinned schema has {other}: every call with the argument is refused"
            ),
            expected: format!("a demand on {other}"),
        });
    }
    match demand {
        Demand::Matches(source) if patterns::never_matches(source) => {
            warnings.push(patterns::warning(path, source, patterns::REFUSED));
        }
        Demand::Matches(source) if patterns::always_matches(source) => {
            warnings.push(patterns::idle(path, source));
        }
        Demand::Items(inside) => {
            let items: Vec<_> = schemas.iter().filter_map(|schema| schema.get("items")).collect();
            inside.iter().for_each(|demand| of_demand((&path, demand), &items, warnings));
        }
        Demand::OneOf(_)
        | Demand::Matches(_)
        | Demand::MinLength(_)
        | Demand::MaxLength(_)
        | Demand::Minimum(_)
        | Demand::Maximum(_)
        | Demand::MaxItems(_) => {}
    }
}

/// The common type of all values of an `enum`, if there is one.
fn kind_of_all(values: &[Value]) -> Option<&'static str> {
    let kind = |value: &Value| match value {
        Value::String(_) => Some("a text"),
        Value::Number(_) => Some("a number"),
        Value::Bool(_) => Some("true or false"),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let first = kind(values.first()?)?;
    values.iter().all(|value| kind(value) == Some(first)).then_some(first)
}

/// Whether a tool's pinned schema refuses unknown arguments.
fn is_closed(tool: &Tool) -> bool {
    let schema = tool.pin.as_ref().and_then(|pin| pin.member("inputSchema"));
    schema.is_some_and(|schema| schema.get("additionalProperties") == Some(&Value::Bool(false)))
}

impl Policy {
    /// A cap in a pattern, for tools that do not know its argument: the gateway adds it to every call.
    fn of_absent(
        &self,
        path: &str,
        (cap, pattern): (&Cap, &str),
        meant: &[(&String, &Tool)],
        warnings: &mut Vec<Warning>,
    ) {
        let lacks =
            |tool: &Tool| is_closed(tool) && matches!(pinned(tool, &cap.argument), Pinned::Absent);
        let mut lacking = meant.iter().filter(|(_, tool)| lacks(tool)).map(|(name, _)| *name);
        let Some(first) = lacking.next().filter(|_| self.holds(cap)) else { return };
        let more = match lacking.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let effect = match cap.on_excess {
            OnExcess::Clamp => {
                "the gateway adds it to calls, and the server, which takes no other arguments, refuses them"
            }
            OnExcess::Refuse => "calls without it are refused, and the server refuses the others",
        };
        warnings.push(Warning {
            path: format!("{path}.argument"),
            kind: WarningKind::UnknownMember,
            found: format!(
                "a cap on {:?} for {pattern:?}, and the pinned schema of {first}{more} does not have it: {effect}",
                cap.argument
            ),
            expected: "a pattern, or names, of tools that have the argument".to_owned(),
        });
    }

    /// Bounds of an argument above its cap. Caps run first.
    fn of_bounds_beyond_cap(
        &self,
        rules: &CallRules,
        meant: &Meant<'_>,
        warnings: &mut Vec<Warning>,
    ) {
        let own = rules.max_records.iter();
        let of_tool = meant.tools.iter().filter(|_| meant.pattern.is_none());
        let of_tool = of_tool.filter_map(|tool| tool.rules.max_records.as_ref());
        let caps: Vec<&Cap> = own.chain(of_tool).filter(|cap| self.holds(cap)).collect();
        for rule in &rules.arguments {
            let lowest =
                caps.iter().filter(|cap| cap.argument == *rule.argument).map(|cap| cap.max);
            let Some(most) = lowest.min() else { continue };
            if !self.is_enforced(Check::Arguments, rule.enforcement) {
                continue;
            }
            for demand in &rule.demands {
                let Demand::Minimum(least) = demand else { continue };
                let path = format!("{}.minimum", rules.argument_name(rule));
                let above = least.as_str().parse::<f64>().is_ok_and(|it| it > bounds::number(most));
                // The comparison with the pinned schema and the tool's own cap has its own warning.
                if above && !warnings.iter().any(|warning| warning.path == path) {
                    warnings.push(Warning {
                        path,
                        kind: WarningKind::NothingLeft,
                        found: format!(
                            "{demand}, where max_records lowers the argument to {most}: every call with the argument is refused"
                        ),
                        expected: format!("at most {most}, or no minimum"),
                    });
                }
            }
        }
    }

    /// A cap on a value that is not a number, or above the pinned schema's maximum.
    fn of_cap(&self, path: &str, cap: &Cap, meant: &Meant<'_>, warnings: &mut Vec<Warning>) {
        let schemas: Vec<&Value> = meant
            .tools
            .iter()
            .filter_map(|tool| match pinned(tool, &cap.argument) {
                Pinned::Of(schema) => Some(schema),
                Pinned::Unknown | Pinned::Absent => None,
            })
            .collect();
        let kinds = schemas.iter().map(|schema| Type::of_schema(schema, "the argument").kind());
        if let Some(other) = kinds.flatten().find(|kind| *kind != "a number") {
            warnings.push(Warning {
            path: format!("{path}.argument"),
            kind: WarningKind::WrongType,
            found: format!(
                "a cap on {:?}, which is {other} in the pinned schema: calls with it are refused",
                cap.argument
            ),
            expected: "the argument that says how many records are asked for".to_owned(),
        });
        }
        let most: Vec<Option<f64>> =
            schemas.iter().map(|schema| schema.get("maximum").and_then(Value::as_f64)).collect();
        let above = |most: &Option<f64>| most.is_some_and(|most| most < bounds::number(cap.max));
        // A schema in shadow mode refuses no value.
        let kept = meant.closed && self.is_enforced(Check::Schema, Enforcement::Enforce);
        if kept && !most.is_empty() && most.len() == meant.tools.len() && most.iter().all(above) {
            let most = most.into_iter().flatten().fold(0.0, f64::max);
            let absent = match cap.on_excess {
                OnExcess::Clamp => format!("a call without it goes on with {}", cap.max),
                OnExcess::Refuse => "it refuses only calls without it".to_owned(),
            };
            warnings.push(Warning {
            path: format!("{path}.max"),
            kind: WarningKind::AlwaysTrue,
            found: format!(
                "{}, where the pinned schema has a maximum of {most}: the cap lowers nothing, and {absent}", cap.max
            ),
            expected: format!("at most {most}"),
        });
        }
    }
}
