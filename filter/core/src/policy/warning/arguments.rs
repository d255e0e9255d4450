//! Rules about calls that say nothing, or that no call meets: of roles, and of arguments.
//!
//! Owns what the pinned schema tells of an argument.

use super::{Warning, WarningKind, patterns};
use crate::id::PolicyName;
use crate::policy::arguments::Demand;
use crate::policy::condition::lint::Type;
use crate::policy::{Access, CallRules, Globs, Policy, Tool};
use crate::schema::same;

/// Of a pattern that more tools have than these, so many are looked at.
const MOST_TOOLS: usize = 64;

impl Policy {
    pub(super) fn warn_of_arguments(&self, warnings: &mut Vec<Warning>) {
        for connector in self.connectors.values() {
            for tool in connector.tools.values() {
                of_rules(&tool.rules, &[tool], warnings);
            }
        }
        for (role, name, access) in self.roles.iter().flat_map(|(role, stated)| {
            stated.connectors.iter().map(move |(name, access)| (role, name, access))
        }) {
            if access.tools.is_some() {
                self.warn_of_role_rules(
                    &format!("roles.{role}.{name}.tools"),
                    name,
                    access,
                    warnings,
                );
            }
        }
    }

    fn warn_of_role_rules(
        &self,
        place: &str,
        name: &PolicyName,
        access: &Access,
        warnings: &mut Vec<Warning>,
    ) {
        for (tool, rules) in access.tools.iter().flat_map(|rules| rules.each()) {
            let mut about = Globs::default();
            about.insert(&tool);
            let (path, effect) = (format!("{place}.{tool}"), "these rules guard nothing there");
            self.warn_of_unknown(&path, &about, &[name], effect, warnings);
            let stated = self.connectors.get(name).map(|it| &it.tools);
            let open = |name: &str| access.allow.matches(name) && !access.deny.matches(name);
            let meant: Vec<&Tool> = match about.names(&tool) {
                true => stated.and_then(|tools| tools.get(&tool)).into_iter().collect(),
                false => {
                    let all = stated.into_iter().flatten();
                    let meant = all.filter(|(name, _)| about.matches(name) && open(name));
                    meant.map(|(_, tool)| tool).take(MOST_TOOLS).collect()
                }
            };
            of_rules(rules, &meant, warnings);
        }
    }
}

/// What a pinned tool says of an argument.
enum Pinned<'a> {
    /// Nothing: it is not pinned, or its schema is open.
    Unknown,
    /// It has no such argument.
    Absent,
    /// It is one of this schema.
    Of(&'a serde_json::Value),
}

fn pinned<'a>(tool: &'a Tool, argument: &str) -> Pinned<'a> {
    let schema = tool.pin.as_ref().and_then(|pin| pin.member("inputSchema"));
    match schema.and_then(|schema| schema.get("properties")?.as_object()) {
        Some(properties) => properties.get(argument).map_or(Pinned::Absent, Pinned::Of),
        None => Pinned::Unknown,
    }
}

fn of_rules(rules: &CallRules, tools: &[&Tool], warnings: &mut Vec<Warning>) {
    let cap = rules.max_records.iter().map(|cap| (rules.cap_name(), &*cap.argument));
    let arguments = rules.arguments.iter();
    let each = arguments.map(|rule| (rules.argument_name(rule), &*rule.argument)).chain(cap);
    // Of one tool, that is a fault.
    for (name, argument) in each.filter(|_| tools.len() > 1) {
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
        Demand::OneOf(_) => ("enum", None),
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
        Demand::OneOf(values) => {
            let fits = |schema: &&serde_json::Value| {
                let listed = schema.get("enum").and_then(|listed| listed.as_array());
                listed.is_none_or(|it| it.iter().any(|one| values.iter().any(|own| same(own, one))))
            };
            if !schemas.iter().all(fits) {
                warnings.push(Warning {
                    path,
                    kind: WarningKind::NothingLeft,
                    found: "values of which the pinned schema has none: every call with the argument is refused"
                        .to_owned(),
                    expected: "at least one value of the pinned schema's enum".to_owned(),
                });
            }
        }
        Demand::Items(inside) => {
            let items: Vec<_> = schemas.iter().filter_map(|schema| schema.get("items")).collect();
            inside.iter().for_each(|demand| of_demand((&path, demand), &items, warnings));
        }
        Demand::Matches(_)
        | Demand::MinLength(_)
        | Demand::MaxLength(_)
        | Demand::Minimum(_)
        | Demand::Maximum(_)
        | Demand::MaxItems(_) => {}
    }
}
