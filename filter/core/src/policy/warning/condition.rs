//! Compares conditions with the known facts about their calls.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::facts::{Facts, PinnedFacts, PinnedTool};
use super::{Warning, WarningKind, patterns};
use crate::id::PolicyName;
use crate::nearest::hint;
use crate::policy::condition::lint::{Domain, Domains, Kind, Known, Mistake, Shape, Type};
use crate::policy::{Globs, Policy, Requirement, Unpinned};

/// The most pinned tools that are inspected for a condition that applies to more.
const MOST_TOOLS: usize = 64;

/// Pinned tools that are equal for a condition.
struct Alike<'a> {
    facts: Rc<Facts>,
    tools: Vec<PinnedTool<'a>>,
}

/// The position of a condition.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// The role that contains it.
    role: Option<&'a PolicyName>,
    /// The tool that contains it.
    tool: Option<&'a str>,
    /// The pattern of tools that contains it.
    pattern: Option<&'a Globs>,
}

impl Policy {
    pub(super) fn warn_of_conditions(&self, types: &PinnedFacts<'_>, warnings: &mut Vec<Warning>) {
        for (name, connector) in &self.connectors {
            let place = Place { role: None, tool: None, pattern: None };
            let (own, one) = (connector.conditions.iter(), [name]);
            own.for_each(|it| self.warn_of_condition(it, place, &one, (types, warnings)));
            for (tool, stated) in &connector.tools {
                let place = Place { role: None, tool: Some(tool), pattern: None };
                let own = stated.rules.conditions.iter();
                own.for_each(|it| self.warn_of_condition(it, place, &one, (types, warnings)));
            }
        }
        for (name, role) in &self.roles {
            let place = Place { role: Some(name), tool: None, pattern: None };
            let every: Vec<&PolicyName> = role.connectors.keys().collect();
            let own = role.conditions.iter();
            own.for_each(|it| self.warn_of_condition(it, place, &every, (types, warnings)));
            for (connector, access) in &role.connectors {
                let (own, one) = (access.conditions.iter(), [connector]);
                own.for_each(|it| self.warn_of_condition(it, place, &one, (types, warnings)));
                for (tool, rules) in access.tools.iter().flat_map(|rules| rules.each()) {
                    let mut named = Globs::default();
                    named.insert(&tool);
                    let (exact, role) = (named.names(&tool).then_some(tool.as_str()), Some(name));
                    let pattern = exact.is_none().then_some(&named);
                    let place = Place { role, tool: exact, pattern };
                    let own = rules.conditions.iter();
                    own.for_each(|it| self.warn_of_condition(it, place, &one, (types, warnings)));
                }
            }
        }
    }

    fn warn_of_condition(
        &self,
        requirement: &Requirement,
        place: Place<'_>,
        connectors: &[&PolicyName],
        (types, warnings): (&PinnedFacts<'_>, &mut Vec<Warning>),
    ) {
        let path = format!("{}.when", requirement.name);
        if let Some(tools) = &requirement.tools {
            let list = format!("{}.tools", requirement.name);
            let effect = "the condition guards nothing there";
            let role = place.role.and_then(|role| self.roles.get(role));
            self.warn_of_unknown(&list, tools, (connectors, role), effect, warnings);
        }
        let pinned = match requirement.when.asks_for_arguments() {
            true => self.pinned_tools(requirement, place, connectors),
            false => Vec::new(),
        };
        let closed =
            pinned.len() < MOST_TOOLS && self.is_closed(requirement, place, connectors, &pinned);
        let named = self.domains(requirement, place, connectors);
        let domains = Domains { named, ..Domains::default() };
        let groups = grouped(requirement, pinned, types);
        let capped = self.capped(requirement, place, connectors);
        let mut mistakes = mistakes_of_type(requirement, place, (&groups, capped), &domains);
        if mistakes.is_empty() {
            let constant = requirement.when.constant_part(&domains);
            mistakes.extend(constant.or_else(|| beyond(requirement, (&groups, closed), &domains)));
        }
        if mistakes.is_empty() {
            mistakes.extend(requirement.when.idle_calls());
        }
        warnings.extend(mistakes.into_iter().map(|mistake| warning(&path, mistake)));
        let never = requirement.when.patterns().filter(|source| patterns::never_matches(source));
        warnings.extend(never.map(|source| patterns::warning(path.clone(), source, "")));
        warnings.extend(no_dates(&path, requirement));
        if place.tool.is_none() {
            self.warn_of_compared(&path, requirement, connectors, warnings);
        }
    }

    /// Warns about names with which an expression compares `tool`.
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

    /// What caps say of arguments where no tool is pinned: the capped one is a number.
    fn capped(
        &self,
        requirement: &Requirement,
        place: Place<'_>,
        connectors: &[&PolicyName],
    ) -> Type {
        let tools = match (place.tool, &requirement.tools) {
            (Some(tool), _) => vec![tool],
            (None, Some(tools)) if tools.patterns().is_empty() => tools.exact(),
            (None, _) => Vec::new(),
        };
        let stated = connectors.iter().filter_map(|name| self.connectors.get(*name));
        let caps = stated.flat_map(|stated| {
            let cap = |tool: &&str| stated.tools.get(*tool)?.rules.max_records.as_ref();
            tools.iter().map(move |tool| cap(tool).map(|cap| cap.argument.as_str()))
        });
        let mut caps = caps.collect::<BTreeSet<Option<&str>>>().into_iter();
        match (caps.next(), caps.next()) {
            (Some(Some(argument)), None) => Type::Object(Rc::new(Shape {
                name: "arguments".to_owned(),
                members: BTreeMap::from([(argument.to_owned(), Type::Number)]),
                open: true,
            })),
            (_, _) => Type::Any,
        }
    }

    /// The pinned tools to which a condition applies, with their schemas.
    fn pinned_tools<'a>(
        &'a self,
        requirement: &Requirement,
        place: Place<'_>,
        connectors: &[&'a PolicyName],
    ) -> Vec<PinnedTool<'a>> {
        let mut pinned = Vec::new();
        for name in connectors {
            let Some((name, connector)) = self.connectors.get_key_value(*name) else { continue };
            let open = |tool: &str| match place.role.and_then(|role| self.access(role, name)) {
                Some(access) => self.opens(access, tool),
                None => true,
            };
            // For one tool, the others are not searched: a policy has thousands.
            let own = place.tool.and_then(|tool| connector.tools.get_key_value(tool));
            let every = place.tool.is_none().then_some(&connector.tools).into_iter().flatten();
            for (tool, stated) in own.into_iter().chain(every) {
                let about = place.tool.is_some() || {
                    let within = place.pattern.is_none_or(|pattern| pattern.matches(tool));
                    within && requirement.is_about(tool) && open(tool)
                };
                let schema = stated.pin.as_ref().and_then(|pin| pin.member("inputSchema"));
                if let (true, Some(schema)) = (about, schema) {
                    pinned.push(PinnedTool { connector: name, tool, stated, schema });
                }
                if pinned.len() >= MOST_TOOLS {
                    return pinned;
                }
            }
        }
        pinned
    }

    /// Whether a condition applies only to the tools in `pinned`.
    fn is_closed(
        &self,
        requirement: &Requirement,
        place: Place<'_>,
        connectors: &[&PolicyName],
        pinned: &[PinnedTool<'_>],
    ) -> bool {
        let hidden = connectors.iter().all(|name| {
            let connector = self.connectors.get(*name);
            connector.is_some_and(|it| it.pins.unpinned == Unpinned::Hide)
        });
        let all_named = requirement.tools.as_ref().is_some_and(|tools| {
            let names = tools.exact().len().saturating_mul(connectors.len());
            tools.patterns().is_empty() && names == pinned.len()
        });
        !pinned.is_empty() && (hidden || all_named || place.tool.is_some())
    }

    /// The possible values of paths, given the role and the tools of a condition.
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
        // There may be hundreds of names, and thousands of conditions that do not use them.
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

/// Warnings about texts with which `time.date` is compared and that no date begins with.
fn no_dates(path: &str, requirement: &Requirement) -> Vec<Warning> {
    let compared = requirement.when.texts_compared_with("time.date").into_iter();
    let wrong = compared.filter(|text| !begins_a_date(text));
    let warning = |text| Warning {
        path: path.to_owned(),
        kind: WarningKind::WrongType,
        found: format!("time.date compared with {text:?}, which is no date"),
        expected: "a date, such as \"2026-12-01\", or its begin, such as \"2026-12\"".to_owned(),
    };
    wrong.map(warning).collect()
}

/// Whether a text is `2026`, `2026-12` or `2026-12-31`.
fn begins_a_date(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut within = |digits: usize, least: u16, most: u16| match parts.next() {
        Some(part) => {
            let plain = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
            plain && part.parse().is_ok_and(|number| (least..=most).contains(&number))
        }
        None => true,
    };
    let year = within(4, 0, 9_999);
    let month = within(2, 1, 12);
    let day = within(2, 1, 31);
    year && month && day && parts.next().is_none()
}

/// Groups tools that are equal for a condition.
fn grouped<'a>(
    requirement: &Requirement,
    pinned: Vec<PinnedTool<'a>>,
    types: &PinnedFacts<'_>,
) -> Vec<Alike<'a>> {
    let apart = requirement.when.asks_for_target();
    let mut groups: Vec<Alike<'a>> = Vec::new();
    for tool in pinned {
        let facts = types.of(&tool);
        let same = groups.iter_mut().find(|it| !apart && Rc::ptr_eq(&it.facts, &facts));
        match same {
            Some(group) => group.tools.push(tool),
            None => groups.push(Alike { facts, tools: vec![tool] }),
        }
    }
    groups
}

impl Alike<'_> {
    /// The known facts about calls of these tools.
    fn domains(&self, domains: &Domains) -> Domains {
        let mut domains = domains.clone();
        if let [tool] = &*self.tools {
            domains.named.insert("tool".to_owned(), one(tool.tool));
            domains.named.insert("connector".to_owned(), one(tool.connector.as_str()));
        }
        domains
    }
}

/// Mistakes with the tools that have them.
type Found<'a> = BTreeMap<Mistake, Vec<&'a str>>;

/// Adds a mistake. The members in its text differ from schema to schema, the mistake does not.
fn add<'a>(found: &mut Found<'a>, mistake: Mistake, group: &Alike<'a>) {
    let same = found.keys().find(|it| it.found == mistake.found).cloned();
    let tools = group.tools.iter().map(|tool| tool.tool);
    found.entry(same.unwrap_or(mistake)).or_default().extend(tools);
}

fn count(groups: &[Alike<'_>]) -> usize {
    groups.iter().map(|group| group.tools.len()).sum()
}

/// ` (tool pay and 3 more)`.
fn named(tools: &[&str]) -> String {
    let Some(first) = tools.first() else { return String::new() };
    match tools.len().saturating_sub(1) {
        0 => format!(" (tool {first})"),
        others => format!(" (tool {first} and {others} more)"),
    }
}

/// Type mistakes, against the pinned schema of every tool to which the condition applies.
fn mistakes_of_type(
    requirement: &Requirement,
    place: Place<'_>,
    (groups, capped): (&[Alike<'_>], Type),
    domains: &Domains,
) -> Vec<Mistake> {
    if groups.is_empty() {
        let known = Known { arguments: capped, domains: domains.clone() };
        return requirement.when.type_mistakes(&known);
    }
    let mut found = Found::new();
    for group in groups {
        let known = Known { arguments: group.facts.of.clone(), domains: group.domains(domains) };
        for mistake in requirement.when.type_mistakes(&known) {
            add(&mut found, mistake, group);
        }
    }
    let all = count(groups);
    let mistakes = found.into_iter().filter_map(|(mut mistake, tools)| {
        let everywhere = tools.len() == all;
        // `has` is meant for tools without the argument.
        if mistake.kind == Kind::UnknownOptional && !everywhere {
            return None;
        }
        let ours = matches!(mistake.kind, Kind::UnknownMember);
        if place.tool.is_none() && !ours {
            mistake.found.push_str(&named(&tools));
        }
        Some(mistake)
    });
    mistakes.collect()
}

/// A condition with the same value for every call that fits the pinned schemas.
fn beyond(
    requirement: &Requirement,
    (groups, closed): (&[Alike<'_>], bool),
    domains: &Domains,
) -> Option<Mistake> {
    let mut found = Found::new();
    for group in groups {
        let arguments = Some(Rc::clone(&group.facts.arguments));
        let domains = Domains { arguments, ..group.domains(domains) };
        if let Some(mistake) = requirement.when.part_beyond_schema(&domains) {
            add(&mut found, mistake, group);
        }
    }
    let all = count(groups);
    found.into_iter().find_map(|(mut mistake, tools)| {
        let everywhere = closed && tools.len() == all;
        // For one tool among several, only a condition that refuses all its calls is a mistake.
        let refuses = mistake.kind == Kind::NeverTrue && mistake.found.ends_with("is refused");
        if !everywhere && refuses {
            mistake.found.push_str(&named(&tools));
        }
        (everywhere || refuses).then_some(mistake)
    })
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
