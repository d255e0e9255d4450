//! Warnings about a policy: rules that protect nothing, names that do not exist, conditions with the same value for
//! every call.
//!
//! Owns the warnings for a policy without faults; `review` owns the faults. Runs in `policy check` and before a push,
//! never in a worker.

mod arguments;
mod bounds;
mod condition;
mod facts;
mod form;
mod patterns;
mod query;
mod reach;
mod redaction;
mod secrets;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::review::has_rules;
use super::{Access, Connector, Globs, Policy, Requirement, Unpinned, Unverified};
use crate::auth::Writes;
use crate::id::PolicyName;
use crate::nearest::hint;

/// One part of a policy that is probably a mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// Its position: `roles.analyst.crm.deny`.
    pub path: String,
    /// Its kind.
    pub kind: WarningKind,
    /// The finding and its consequence.
    pub found: String,
    /// The suggestion.
    pub expected: String,
}

/// Kinds of warnings, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WarningKind {
    /// A name or pattern matches no tool that the policy pins or names.
    UnknownTool,
    /// A member that does not exist in `time`, `principal`, `source` or the pinned schema.
    UnknownMember,
    /// Incompatible types.
    WrongType,
    /// A condition that no call meets.
    NeverTrue,
    /// A condition that every call meets.
    AlwaysTrue,
    /// A list of which another list leaves nothing.
    NothingLeft,
    /// Tools in `show` that `allow` makes callable.
    ShownAndAllowed,
    /// Something is used that is defined nowhere.
    NeverStated,
    /// A regular expression that matches no text, or a name that no parameter of a query has.
    NeverMatches,
    /// A rule that applies to no request.
    NeverReached,
    /// A role, or its grant on a connector, that permits nothing.
    OpensNothing,
    /// Something that another member overrides.
    NoEffect,
    /// A price that no limit counts, or a limit for calls without a price.
    NeverCounted,
    /// A limit of a key whose name no tier has.
    UnknownLimit,
    /// A text that has the form of a secret.
    Secret,
    /// Two names that differ by case alone.
    LookAlike,
}

impl WarningKind {
    /// The name in the output for scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownTool => "unknown_tool",
            Self::UnknownMember => "unknown_member",
            Self::WrongType => "wrong_type",
            Self::NeverTrue => "never_true",
            Self::AlwaysTrue => "always_true",
            Self::NothingLeft => "nothing_left",
            Self::ShownAndAllowed => "shown_and_allowed",
            Self::NeverStated => "never_stated",
            Self::NeverMatches => "never_matches",
            Self::NeverReached => "never_reached",
            Self::OpensNothing => "opens_nothing",
            Self::NoEffect => "no_effect",
            Self::NeverCounted => "never_counted",
            Self::UnknownLimit => "unknown_limit",
            Self::Secret => "secret",
            Self::LookAlike => "look_alike",
        }
    }
}

/// The members of a section of a document, with their names.
fn members<'a>(
    document: &'a Value,
    section: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    document.get(section).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// Warns about names that differ by case alone: a key or a mapping has one of them, and a reader takes it for the other.
fn look_alikes<'a>(
    place: &str,
    names: impl Iterator<Item = &'a PolicyName>,
    warnings: &mut Vec<Warning>,
) {
    let mut seen: BTreeMap<String, &PolicyName> = BTreeMap::new();
    for name in names {
        let Some(first) = seen.insert(name.as_str().to_lowercase(), name) else { continue };
        warnings.push(Warning {
            path: format!("{place}.{name}"),
            kind: WarningKind::LookAlike,
            found: format!("{name} beside {first}, which differ by case alone: they are two"),
            expected: "one of them, or names that differ by more".to_owned(),
        });
    }
}

impl Policy {
    /// All warnings, by path.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        self.warn_of_connectors(&mut warnings);
        self.warn_of_roles(&mut warnings);
        look_alikes("roles", self.roles.keys(), &mut warnings);
        look_alikes("tiers", self.tiers.keys(), &mut warnings);
        self.warn_of_limits(&mut warnings);
        let facts = facts::PinnedFacts::new(self);
        self.warn_of_conditions(&facts, &mut warnings);
        self.warn_of_arguments(&facts, &mut warnings);
        self.warn_of_reach(&mut warnings);
        self.warn_of_windows(&mut warnings);
        self.warn_of_redaction(&mut warnings);
        warnings.sort();
        warnings.dedup();
        warnings
    }

    /// Tools of `connector` that the policy pins, defines or grants by name.
    #[must_use]
    pub fn known_tools(&self, connector: &PolicyName) -> BTreeSet<&str> {
        let stated = self.connectors.get(connector).into_iter().flat_map(|it| it.tools.keys());
        let access = self.roles.values().filter_map(|role| role.connectors.get(connector));
        let granted = access.flat_map(|access| [access.allow.exact(), access.show.exact()]);
        stated.map(String::as_str).chain(granted.flatten()).collect()
    }

    /// Whether the policy pins, defines or grants `tool` by name on one of these connectors.
    fn knows_tool(&self, connectors: &[&PolicyName], tool: &str) -> bool {
        connectors.iter().any(|name| {
            let stated = self.connectors.get(*name).is_some_and(|it| it.tools.contains_key(tool));
            let granted = |access: &Access| access.allow.names(tool) || access.show.names(tool);
            let by = |role: &super::Role| role.connectors.get(*name).is_some_and(|it| granted(it));
            stated || self.roles.values().any(by)
        })
    }

    /// The names of all of them.
    fn known_names(&self, connectors: &[&PolicyName]) -> Vec<&str> {
        let known: BTreeSet<&str> =
            connectors.iter().flat_map(|name| self.known_tools(name)).collect();
        known.into_iter().collect()
    }

    fn warn_of_connectors(&self, warnings: &mut Vec<Warning>) {
        for (name, connector) in &self.connectors {
            let place = format!("connectors.{name}");
            let pinned = connector.is_pinned();
            if connector.pins.unpinned == Unpinned::Hide && !pinned {
                warnings.push(Warning {
                    path: format!("{place}.unpinned"),
                    kind: WarningKind::NeverStated,
                    found: "hide, and no tool is pinned: the connector has no tools".to_owned(),
                    expected: "pins, as portcullis discover --write writes them".to_owned(),
                });
            }
            let verifies = connector.pins.unverified == Unverified::Block;
            if (verifies || !connector.pins.on_drift.is_empty()) && !pinned {
                warnings.push(Warning {
                    path: format!("{place}.on_drift"),
                    kind: WarningKind::NeverStated,
                    found: "actions on drift, and no tool is pinned: nothing can drift".to_owned(),
                    expected: "pins, as portcullis discover --write writes them".to_owned(),
                });
            }
            patterns::warn(&place, connector, warnings);
        }
    }

    fn warn_of_roles(&self, warnings: &mut Vec<Warning>) {
        for (role_name, role) in &self.roles {
            for (name, access) in &role.connectors {
                let Some(connector) = self.connectors.get(name) else { continue };
                let place = format!("roles.{role_name}.{name}");
                let reads_only = [role.writes, access.writes].contains(&Writes::Closed);
                grants(&place, access, reads_only, warnings);
                if reads_only {
                    warn_of_writes(&place, role_name, (name, connector), access, warnings);
                }
                self.warn_of_names(&place, (name, connector), access, warnings);
            }
        }
    }

    /// Warns about names in a role's lists that are no tools of the connector.
    fn warn_of_names(
        &self,
        place: &str,
        (name, connector): (&PolicyName, &Connector),
        access: &Access,
        warnings: &mut Vec<Warning>,
    ) {
        if connector.tools.is_empty() {
            return;
        }
        // There may be thousands of tools, so they are only searched for an unknown name.
        let stated = || -> Vec<&str> { connector.tools.keys().map(String::as_str).collect() };
        let any = |pattern: &str| {
            let mut alone = Globs::default();
            alone.insert(pattern);
            connector.tools.keys().any(|tool| alone.matches(tool))
        };
        for (list, globs) in
            [("allow", &access.allow), ("show", &access.show), ("deny", &access.deny)]
        {
            for glob in globs.all() {
                // A pattern in `deny` also applies to future tools.
                let open = list == "deny" || !connector.is_pinned();
                let passes = match is_pattern(&glob) {
                    true => open || any(&glob),
                    false => connector.tools.contains_key(&glob),
                };
                if passes {
                    continue;
                }
                let slip = hint(&glob, &stated());
                if !connector.is_pinned() && slip.is_empty() {
                    continue;
                }
                let what = match (list, connector.pins.unpinned) {
                    ("deny", _) => "nothing is denied by it",
                    (_, Unpinned::Hide) => "the tool is hidden, since it is not pinned",
                    (_, Unpinned::Allow) => {
                        "nothing that the policy pins or states is opened by it"
                    }
                };
                warnings.push(Warning {
                    path: format!("{place}.{list}"),
                    kind: WarningKind::UnknownTool,
                    found: format!(
                        "{glob:?}, which matches no tool of {name} that is pinned or stated: {what}"
                    ),
                    expected: format!("a tool of connectors.{name}.tools{slip}"),
                });
            }
        }
    }

    fn warn_of_limits(&self, warnings: &mut Vec<Warning>) {
        for limit in &self.limits {
            let Some(tools) = &limit.only.tools else { continue };
            let about = |name: &PolicyName| {
                limit.only.connectors.as_ref().is_none_or(|only| only.matches(name.as_str()))
            };
            let connectors: Vec<&PolicyName> =
                self.connectors.keys().filter(|name| about(name)).collect();
            let path = format!("{}.match.tools", limit.name);
            self.warn_of_unknown(
                &path,
                tools,
                (&connectors, None),
                "the limit counts none of its calls",
                warnings,
            );
        }
    }

    /// Warns about names and patterns that match no tool of these connectors: their rules protect nothing.
    fn warn_of_unknown(
        &self,
        path: &str,
        globs: &Globs,
        (connectors, role): (&[&PolicyName], Option<&super::Role>),
        effect: &str,
        warnings: &mut Vec<Warning>,
    ) {
        let unknown = |name: &&str| !self.knows_tool(connectors, name);
        let exact: Vec<String> =
            globs.exact().into_iter().filter(unknown).map(str::to_owned).collect();
        // Nearly every pattern matches a tool of the connector, and collecting all known names is slow.
        let stated = |pattern: &String| {
            let mut alone = Globs::default();
            alone.insert(pattern);
            connectors.iter().any(|name| {
                let tools = self.connectors.get(*name).into_iter().flat_map(|it| it.tools.keys());
                tools.into_iter().any(|tool| alone.matches(tool))
            })
        };
        let patterns: Vec<String> =
            globs.patterns().into_iter().filter(|pattern| !stated(pattern)).collect();
        if exact.is_empty() && patterns.is_empty() {
            return;
        }
        let known = self.known_names(connectors);
        for glob in exact.into_iter().chain(patterns) {
            if is_pattern(&glob)
                && (any_matches(&glob, &known) || self.may_be((connectors, role), &glob, &known))
            {
                continue;
            }
            let what = if is_pattern(&glob) { "pattern" } else { "name" };
            warnings.push(Warning {
                path: path.to_owned(),
                kind: WarningKind::UnknownTool,
                found: format!("{glob:?}, a {what} that no pinned or named tool has: {effect}"),
                expected: format!(
                    "a tool that the policy pins, states or allows by name{}; a tool of the server is stated by `{}: {{}}` under tools",
                    hint(&glob, &known),
                    if is_pattern(&glob) { "NAME" } else { &glob }
                ),
            });
        }
    }

    /// Whether a pattern may match tools that the policy does not know yet: nothing is pinned, the role of the rule, or
    /// any role, may call such tools, and the pattern is similar to no known name.
    fn may_be(
        &self,
        (connectors, role): (&[&PolicyName], Option<&super::Role>),
        pattern: &str,
        known: &[&str],
    ) -> bool {
        let name: String = pattern.chars().filter(|letter| !['*', '?'].contains(letter)).collect();
        let open = connectors.iter().filter(|name| {
            self.connectors.get(**name).is_some_and(|connector| !connector.is_pinned())
        });
        let open: Vec<&PolicyName> = open.copied().collect();
        if open.is_empty() || !hint(&name, known).is_empty() {
            return false;
        }
        let opens = |role: &super::Role| {
            let access = open.iter().filter_map(|name| role.connectors.get(*name));
            access.into_iter().any(|access| access.allow.meets(pattern))
        };
        match role {
            Some(role) => opens(role),
            None => self.roles.values().any(opens),
        }
    }

    /// Warns about tools in conditions that are misspelled, or that certainly do not exist: such a condition protects
    /// nothing, and the calls for which it was written pass.
    pub(super) fn misspelt_tools(
        &self,
        requirement: &Requirement,
        connectors: &[&PolicyName],
    ) -> Vec<(String, String)> {
        let effect = "the condition guards nothing";
        let tools = requirement.tools.iter();
        tools.flat_map(|tools| self.misspelt(tools, connectors, effect)).collect()
    }

    /// The same, for any list of tools.
    pub(super) fn misspelt(
        &self,
        tools: &Globs,
        connectors: &[&PolicyName],
        effect: &str,
    ) -> Vec<(String, String)> {
        let named = tools.exact().into_iter();
        let unknown: Vec<&str> = named.filter(|name| !self.knows_tool(connectors, name)).collect();
        if unknown.is_empty() {
            return Vec::new();
        }
        let known = self.known_names(connectors);
        let closed = !connectors.is_empty()
            && connectors.iter().all(|name| {
                let connector = self.connectors.get(*name);
                connector.is_some_and(|it| it.pins.unpinned == Unpinned::Hide && it.is_pinned())
            });
        let faults = unknown.into_iter().filter_map(|name| {
            let slip = hint(name, &known);
            (closed || !slip.is_empty()).then(|| {
                let found = format!("{name:?}, which is no tool here: {effect}");
                let expected = format!(
                    "a tool that the policy pins, states or allows by name{slip}; if the server has a {name}, state it as `{name}: {{}}` under tools"
                );
                (found, expected)
            })
        });
        faults.collect()
    }
}

impl Connector {
    /// Whether any of its tools is pinned.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.tools.values().any(|tool| tool.pin.is_some())
    }
}

/// Warns about a role that may not write, and can call no read-only tool.
fn warn_of_writes(
    place: &str,
    role_name: &PolicyName,
    (name, connector): (&PolicyName, &Connector),
    access: &Access,
    warnings: &mut Vec<Warning>,
) {
    let readable = || {
        let stated = connector.tools.iter();
        let reads = stated.filter(|(tool, it)| it.reads_only() && !connector.hides_unpinned(tool));
        reads.map(|(tool, _)| tool).filter(|tool| access.allow.matches(tool))
    };
    if access.allow.is_empty() || readable().any(|tool| !access.deny.matches(tool)) {
        return;
    }
    // `grants` reports a list that `deny` empties.
    let all = access.allow.all();
    if all.iter().all(|glob| access.deny.covering(glob).is_some()) {
        return;
    }
    if let Some(tool) = readable().next() {
        warnings.push(Warning {
            path: format!("{place}.deny"),
            kind: WarningKind::NothingLeft,
            found: format!(
                "patterns of every tool of {name} that is stated as read-only, such as {tool}: with `allow_write: false` it can call none"
            ),
            expected: "a narrower pattern, or further tools with read_only: true".to_owned(),
        });
        return;
    }
    warnings.push(Warning {
        path: match access.writes {
            Writes::Closed => format!("{place}.allow_write"),
            Writes::Open => format!("roles.{role_name}.allow_write"),
        },
        kind: WarningKind::NeverStated,
        found: format!(
            "false, and no tool of {name} that the role allows is stated as read-only: it can call none"
        ),
        expected: "read_only: true at the tools that only read, or pins with readOnlyHint (portcullis discover --write)"
            .to_owned(),
    });
}

/// Lists of one role and connector that cancel each other.
fn grants(place: &str, access: &Access, reads_only: bool, warnings: &mut Vec<Warning>) {
    let resources = &access.resources.names;
    for (list, allowed, denied) in [
        ("allow", &access.allow, &access.deny),
        ("show", &access.show, &access.deny),
        ("prompts.allow", &access.prompts.allow, &access.prompts.deny),
        ("resources.allow", &resources.allow, &resources.deny),
    ] {
        let deny = match list.split_once('.') {
            Some((kind, _)) => format!("{place}.{kind}.deny"),
            None => format!("{place}.deny"),
        };
        for glob in allowed.all() {
            let covering = denied.covering(&glob).filter(|deny| *deny != glob || is_pattern(&glob));
            warnings.extend(covering.map(|covering| Warning {
                path: deny.clone(),
                kind: WarningKind::NothingLeft,
                found: format!("{covering:?}, which leaves nothing of {glob:?} in `{list}`"),
                expected:
                    "a narrower pattern, or `allow` without that name: `deny` wins".to_owned(),
            }));
        }
    }
    if reads_only {
        // In this case `show` makes tools visible that `allow` does not open, because they may write.
        return;
    }
    for glob in access.show.all() {
        warnings.extend(access.allow.covering(&glob).map(|covering| {
            Warning {
                path: format!("{place}.show"),
                kind: WarningKind::ShownAndAllowed,
                found: format!("{glob:?}, which {covering:?} in `allow` makes callable"),
                expected:
                    "in `show` only what is to be visible and refused: `allow` wins over `show`"
                        .to_owned(),
            }
        }));
    }
}

fn is_pattern(glob: &str) -> bool {
    glob.contains(['*', '?'])
}

fn any_matches(pattern: &str, tools: &[&str]) -> bool {
    let mut alone = Globs::default();
    alone.insert(pattern);
    tools.iter().any(|tool| alone.matches(tool))
}
