//! Conditions against what is known of the calls that they are about.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::{Warning, WarningKind, patterns};
use crate::id::PolicyName;
use crate::nearest::hint;
use crate::policy::condition::lint::{Domain, Kind, Known, Mistake, Type};
use crate::policy::{Globs, Policy, Requirement};

/// Of a condition about more pinned tools than these, so many are looked at.
const MOST_TOOLS: usize = 64;

/// A pinned tool: its connector, its name, and its schema.
type Pinned<'a> = (&'a PolicyName, &'a str, &'a Value);

/// What pinned schemas describe, each read once: hundreds of conditions may be about one tool.
#[derive(Default)]
struct Types(RefCell<HashMap<usize, Type>>);

impl Types {
    fn of(&self, schema: &Value) -> Type {
        let address = std::ptr::from_ref(schema).addr();
        let mut known = self.0.borrow_mut();
        known.entry(address).or_insert_with(|| Type::of_schema(schema, "the pinned schema")).clone()
    }
}

/// Where a condition stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// The role that it stands under.
    role: Option<&'a PolicyName>,
    /// The tool that it stands under.
    tool: Option<&'a str>,
    /// The pattern of tools that it stands under.
    pattern: Option<&'a Globs>,
}

impl Policy {
    pub(super) fn warn_of_conditions(&self, warnings: &mut Vec<Warning>) {
        let types = Types::default();
        for (name, connector) in &self.connectors {
            let place = Place { role: None, tool: None, pattern: None };
            let (own, one) = (connector.conditions.iter(), [name]);
            own.for_each(|it| self.warn_of_condition(it, place, &one, (&types, warnings)));
            for (tool, stated) in &connector.tools {
                let place = Place { role: None, tool: Some(tool), pattern: None };
                let own = stated.rules.conditions.iter();
                own.for_each(|it| self.warn_of_condition(it, place, &one, (&types, warnings)));
            }
        }
        for (name, role) in &self.roles {
            let place = Place { role: Some(name), tool: None, pattern: None };
            let every: Vec<&PolicyName> = role.connectors.keys().collect();
            let own = role.conditions.iter();
            own.for_each(|it| self.warn_of_condition(it, place, &every, (&types, warnings)));
            for (connector, access) in &role.connectors {
                let (own, one) = (access.conditions.iter(), [connector]);
                own.for_each(|it| self.warn_of_condition(it, place, &one, (&types, warnings)));
                for (tool, rules) in access.tools.iter().flat_map(|rules| rules.each()) {
                    let mut named = Globs::default();
                    named.insert(&tool);
                    let (exact, role) = (named.names(&tool).then_some(tool.as_str()), Some(name));
                    let pattern = exact.is_none().then_some(&named);
                    let place = Place { role, tool: exact, pattern };
                    let own = rules.conditions.iter();
                    own.for_each(|it| self.warn_of_condition(it, place, &one, (&types, warnings)));
                }
            }
        }
    }

    fn warn_of_condition(
        &self,
        requirement: &Requirement,
        place: Place<'_>,
        connectors: &[&PolicyName],
        (types, warnings): (&Types, &mut Vec<Warning>),
    ) {
        let path = format!("{}.when", requirement.name);
        if let Some(tools) = &requirement.tools {
            let list = format!("{}.tools", requirement.name);
            let effect = "the condition guards nothing there";
            self.warn_of_unknown(&list, tools, connectors, effect, warnings);
        }
        let pinned = match requirement.when.asks_for_arguments() {
            true => self.pinned_tools(requirement, place, connectors),
            false => Vec::new(),
        };
        let mut domains = self.domains(requirement, place, connectors);
        if let [(_, _, schema)] = &*pinned {
            choices("arguments", schema, &mut domains);
        }
        let mut mistakes = mistakes_of_type(requirement, place, &pinned, &domains, types);
        if mistakes.is_empty() {
            mistakes.extend(requirement.when.constant_part(&domains));
        }
        warnings.extend(mistakes.into_iter().map(|mistake| warning(&path, mistake)));
        let never = requirement.when.patterns().filter(|source| patterns::never_matches(source));
        warnings.extend(never.map(|source| patterns::warning(path.clone(), source, "")));
        if place.tool.is_none() {
            self.warn_of_compared(&path, requirement, connectors, warnings);
        }
    }

    /// Tools that an expression compares `tool` with.
    fn warn_of_compared(
        &self,
        path: &str,
        requirement: &Requirement,
        connectors: &[&PolicyName],
        warnings: &mut Vec<Warning>,
    ) {
        for name in requirement.when.texts_compared_with("tool") {
            if self.knows_tool(connectors, &name) {
                continue;
            }
            let known = self.known_names(connectors);
            warnings.push(Warning {
                path: path.to_owned(),
                kind: WarningKind::UnknownTool,
                found: format!(
                    "tool compared with {name:?}, which no pinned or named tool is called"
                ),
                expected: format!(
                    "a tool that the policy pins, states or allows by name{}",
                    hint(&name, &known)
                ),
            });
        }
    }

    /// Pinned tools that a condition is about, with their schemas.
    fn pinned_tools<'a>(
        &'a self,
        requirement: &Requirement,
        place: Place<'_>,
        connectors: &[&'a PolicyName],
    ) -> Vec<Pinned<'a>> {
        let mut pinned = Vec::new();
        for name in connectors {
            let Some(connector) = self.connectors.get(*name) else { continue };
            let open = |tool: &str| match place.role.and_then(|role| self.access(role, name)) {
                Some(access) => access.allow.matches(tool) && !access.deny.matches(tool),
                None => true,
            };
            // Of one tool, the others are not looked at: a policy has thousands.
            let own = place.tool.and_then(|tool| connector.tools.get_key_value(tool));
            let every = place.tool.is_none().then_some(&connector.tools).into_iter().flatten();
            for (tool, stated) in own.into_iter().chain(every) {
                let about = place.tool.is_some() || {
                    let within = place.pattern.is_none_or(|pattern| pattern.matches(tool));
                    within && requirement.is_about(tool) && open(tool)
                };
                let schema = stated.pin.as_ref().and_then(|pin| pin.member("inputSchema"));
                if let (true, Some(schema)) = (about, schema) {
                    pinned.push((*name, tool.as_str(), schema));
                }
                if pinned.len() >= MOST_TOOLS {
                    return pinned;
                }
            }
        }
        pinned
    }

    /// What values there are for whom and what a condition may be asked about.
    fn domains(
        &self,
        requirement: &Requirement,
        place: Place<'_>,
        connectors: &[&PolicyName],
    ) -> BTreeMap<String, Domain> {
        const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let texts = |texts: BTreeSet<String>| match texts.is_empty() {
            true => Domain::AnyText,
            false => Domain::Texts(texts),
        };
        let names = |names: Vec<&PolicyName>| {
            texts(names.into_iter().map(|name| name.as_str().to_owned()).collect())
        };
        // Hundreds of names, for thousands of conditions that do not speak of them.
        let roles = match (place.role, requirement.when.asks_for_principal()) {
            (Some(role), _) => vec![role],
            (None, true) => self.roles.keys().collect(),
            (None, false) => Vec::new(),
        };
        let tool = match (place.tool, &requirement.tools) {
            (Some(tool), _) => one(tool),
            (None, Some(tools)) if tools.patterns().is_empty() => {
                texts(tools.exact().into_iter().map(str::to_owned).collect())
            }
            (None, _) => Domain::AnyText,
        };
        let organisations = self.organisations.iter().map(|org| org.as_str().to_owned());
        let set = |names: &[&str]| texts(names.iter().map(|name| (*name).to_owned()).collect());
        BTreeMap::from(
            [
                ("time.unix", Domain::AnyNumber),
                ("time.year", Domain::AnyNumber),
                ("time.month", Domain::Numbers(1, 12)),
                ("time.day", Domain::Numbers(1, 31)),
                ("time.hour", Domain::Numbers(0, 23)),
                ("time.minute", Domain::Numbers(0, 59)),
                ("time.weekday", set(&WEEKDAYS)),
                ("time.date", Domain::AnyText),
                ("source.address", Domain::AnyText),
                ("principal.name", Domain::AnyText),
                ("principal.method", set(&["api_key", "jwt", "mtls"])),
                ("principal.org", texts(organisations.collect())),
                ("principal.role", names(roles)),
                ("principal.tier", names(self.tiers.keys().collect())),
                ("connector", names(connectors.to_vec())),
                ("tool", tool),
            ]
            .map(|(path, domain)| (path.to_owned(), domain)),
        )
    }
}

/// Mistakes of type, against the pinned schema of every tool that the condition is about.
fn mistakes_of_type(
    requirement: &Requirement,
    place: Place<'_>,
    pinned: &[Pinned<'_>],
    domains: &BTreeMap<String, Domain>,
    types: &Types,
) -> Vec<Mistake> {
    if pinned.is_empty() {
        let known = Known { arguments: Type::Any, domains: domains.clone() };
        return requirement.when.type_mistakes(&known);
    }
    let mut found: BTreeMap<Mistake, Vec<&str>> = BTreeMap::new();
    let mut known = Known { arguments: Type::Any, domains: domains.clone() };
    for (connector, tool, schema) in pinned {
        known.domains.insert("tool".to_owned(), one(tool));
        known.domains.insert("connector".to_owned(), one(connector.as_str()));
        known.arguments = types.of(schema);
        for mistake in requirement.when.type_mistakes(&known) {
            // The members differ from schema to schema, the mistake does not.
            let same = found.keys().find(|it| it.found == mistake.found).cloned();
            found.entry(same.unwrap_or(mistake)).or_default().push(tool);
        }
    }
    let mistakes = found.into_iter().filter_map(|(mut mistake, tools)| {
        let everywhere = tools.len() == pinned.len();
        // A tool without an argument that is asked for with `has` is what `has` is for.
        if mistake.kind == Kind::UnknownOptional && !everywhere {
            return None;
        }
        let ours = matches!(mistake.kind, Kind::UnknownMember);
        if let (None, false, Some(first)) = (place.tool, ours, tools.first()) {
            let others = tools.len().saturating_sub(1);
            let more = if others > 0 { format!(" and {others} more") } else { String::new() };
            mistake.found.push_str(&format!(" (tool {first}{more})"));
        }
        Some(mistake)
    });
    mistakes.collect()
}

/// The texts that the pinned schema leaves for an argument.
fn choices(path: &str, schema: &Value, domains: &mut BTreeMap<String, Domain>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let values = property.get("enum").and_then(Value::as_array);
        let texts = values.map(|values| {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<_>>()
        });
        if let Some(Some(texts)) = texts {
            domains.insert(format!("{path}.{name}"), Domain::SomeOf(texts));
        }
    }
}

fn one(name: &str) -> Domain {
    Domain::Texts(BTreeSet::from([name.to_owned()]))
}

fn warning(path: &str, mistake: Mistake) -> Warning {
    let kind = match mistake.kind {
        Kind::UnknownMember | Kind::UnknownArgument | Kind::UnknownOptional => {
            WarningKind::UnknownMember
        }
        Kind::WrongType => WarningKind::WrongType,
        Kind::NeverTrue => WarningKind::NeverTrue,
        Kind::AlwaysTrue => WarningKind::AlwaysTrue,
    };
    let Mistake { found, expected, .. } = mistake;
    Warning { path: path.to_owned(), kind, found, expected }
}
