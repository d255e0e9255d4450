//! Rules that no call reaches: what stands with a role that opens nothing, with tools that no role may call, or with
//! tools that are hidden.
//!
//! Owns who may call what, as far as a whole policy tells.

use super::{Warning, WarningKind, any_matches, has_rules, is_pattern};
use crate::auth::Writes;
use crate::glob::covers;
use crate::id::PolicyName;
use crate::nearest::slip;
use crate::policy::{
    Access, Check, Connector, Enforcement, Globs, Policy, Requirement, Role, Tool, Unpinned,
};

impl Policy {
    pub(super) fn warn_of_reach(&self, warnings: &mut Vec<Warning>) {
        // On trial, what no role opens passes.
        let closes = self.is_enforced(Check::Authorisation, Enforcement::Enforce);
        for (name, connector) in &self.connectors {
            let opened = self.accesses(name).next().is_some();
            if closes && !opened && !self.roles.is_empty() {
                warnings.push(Warning {
                    path: format!("connectors.{name}"),
                    kind: WarningKind::NeverReached,
                    found: "a connector that no role has: every request to it is refused"
                        .to_owned(),
                    expected: format!("{name} in a role, such as {{{name}: {{allow: [query_*]}}}}"),
                });
            }
            self.warn_of_hidden_rules((name, connector), warnings);
            self.warn_of_unwritable((name, connector), warnings);
            self.warn_of_methods((name, connector), warnings);
            self.warn_of_closed(&connector.conditions, &[name], None, warnings);
        }
        for (name, role) in &self.roles {
            let place = format!("roles.{name}");
            if role.connectors.is_empty() && closes {
                warnings.push(Warning {
                    path: place,
                    kind: WarningKind::OpensNothing,
                    found: "a role without a connector: every request of it is refused".to_owned(),
                    expected: "at least one connector, such as {crm: {allow: [query_*]}}"
                        .to_owned(),
                });
                continue;
            }
            let every: Vec<&PolicyName> = role.connectors.keys().collect();
            self.warn_of_closed(&role.conditions, &every, Some(role), warnings);
            for (connector, access) in &role.connectors {
                let place = format!("{place}.{connector}");
                if self.is_enforced(Check::Authorisation, access.enforcement) {
                    self.of_access(&place, connector, access, warnings);
                }
                self.warn_of_closed(&access.conditions, &[connector], Some(role), warnings);
            }
        }
    }

    /// What the roles may do on a connector.
    fn accesses(&self, connector: &PolicyName) -> impl Iterator<Item = &Access> {
        self.roles.values().filter_map(|role| role.connectors.get(connector)).map(Box::as_ref)
    }

    /// Conditions on tools that no caller whom they are about may call.
    fn warn_of_closed(
        &self,
        conditions: &[Requirement],
        connectors: &[&PolicyName],
        role: Option<&Role>,
        warnings: &mut Vec<Warning>,
    ) {
        for requirement in conditions {
            for glob in requirement.tools.iter().flat_map(Globs::all) {
                let called = connectors.iter().any(|name| match role {
                    Some(role) => {
                        role.connectors.get(*name).is_some_and(|it| self.may_call(it, &glob))
                    }
                    None => self.accesses(name).any(|access| self.may_call(access, &glob)),
                });
                if called {
                    continue;
                }
                let known = match is_pattern(&glob) {
                    true => any_matches(&glob, &self.known_names(connectors)),
                    false => self.knows_tool(connectors, &glob),
                };
                if known {
                    warnings.push(Warning {
                        path: format!("{}.tools", requirement.name),
                        kind: WarningKind::NeverReached,
                        found: match role {
                            Some(_) => format!(
                                "{glob:?}, which the role may not call: the condition guards nothing there"
                            ),
                            None => format!(
                                "{glob:?}, which no role may call: the condition guards nothing there"
                            ),
                        },
                        expected: "a tool that `allow` opens and `deny` does not take away".to_owned(),
                    });
                }
            }
        }
    }

    /// Whether one of the roles and connectors that a limit is about may call what `glob` names.
    pub(super) fn calls(
        &self,
        roles: Option<&Globs>,
        connectors: Option<&Globs>,
        glob: Option<&str>,
    ) -> bool {
        let within = |globs: Option<&Globs>, name: &PolicyName| {
            globs.is_none_or(|globs| globs.matches(name.as_str()))
        };
        self.roles.iter().filter(|(name, _)| within(roles, name)).any(|(_, role)| {
            let about = role.connectors.iter().filter(|(name, _)| within(connectors, name));
            about.into_iter().any(|(_, it)| glob.is_none_or(|glob| self.may_call(it, glob)))
        })
    }

    /// Rules of tools without a pin, where these are hidden or look like a slip.
    fn warn_of_hidden_rules(
        &self,
        (name, connector): (&PolicyName, &Connector),
        warnings: &mut Vec<Warning>,
    ) {
        let ruled = connector.tools.iter().filter(|(tool, stated)| {
            let says = has_rules(stated) || stated.read_only || !stated.redact.is_empty();
            stated.pin.is_none() && says && !is_pattern(tool)
        });
        let ruled: Vec<(&String, &Tool)> = ruled.collect();
        if ruled.is_empty() {
            return;
        }
        let pinned = connector.tools.iter().filter(|(_, stated)| stated.pin.is_some());
        let meant: Vec<&str> = pinned.map(|(tool, _)| tool.as_str()).collect();
        let hides = connector.pins.unpinned == Unpinned::Hide && !meant.is_empty();
        let granted = |tool: &str| {
            self.accesses(name).any(|access| access.allow.names(tool) || access.show.names(tool))
        };
        for (tool, stated) in ruled {
            let slip = slip(tool, &meant);
            // Calls of hidden tools are logged, too: what is only redacted there has its effect.
            let hides = hides && (has_rules(stated) || stated.read_only);
            let found = match (hides, slip.is_empty() || granted(tool)) {
                (true, _) => {
                    "rules of a tool without a pin, and unpinned tools are hidden: they guard nothing"
                }
                (false, true) => continue,
                (false, false) => {
                    "rules of a tool that no role names and that is not pinned, beside one of nearly that name"
                }
            };
            warnings.push(Warning {
                path: format!("connectors.{name}.tools.{tool}"),
                kind: if hides { WarningKind::NeverReached } else { WarningKind::UnknownTool },
                found: format!("{tool:?}, {found}"),
                expected: format!(
                    "the name of a tool that is pinned or granted, or its pin (portcullis discover --write){slip}"
                ),
            });
        }
    }

    /// Approvals of tools that `allow_write: false` keeps the role that they stand at, or every role, from.
    fn warn_of_unwritable(
        &self,
        (name, connector): (&PolicyName, &Connector),
        warnings: &mut Vec<Warning>,
    ) {
        if !self.is_enforced(Check::Authorisation, Enforcement::Enforce) {
            return;
        }
        let roles = || {
            self.roles.values().filter_map(|stated| {
                let access = stated.connectors.get(name)?;
                let closed = [stated.writes, access.writes].contains(&Writes::Closed);
                Some((access, closed && access.enforcement == Enforcement::Enforce))
            })
        };
        let mut warn = |path: String, who: &str| {
            warnings.push(Warning {
                path,
                kind: WarningKind::NeverReached,
                found: format!(
                    "an approval, and `allow_write: false` keeps {who} from the tool: nobody ever asks for it"
                ),
                expected: "read_only: true at a tool that only reads, a role that may write, or no approval"
                    .to_owned(),
            });
        };
        if roles().next().is_some() && roles().all(|(_, closed)| closed) {
            let writes = connector.tools.iter().filter(|(tool, _)| !connector.reads_only(tool));
            for (_, stated) in writes.filter(|(_, stated)| stated.rules.approval.is_some()) {
                warn(stated.rules.approval_name(), "every role");
            }
        }
        for (access, _) in roles().filter(|(_, closed)| *closed) {
            for (tool, rules) in access.tools.iter().flat_map(|rules| rules.each()) {
                if rules.approval.is_some() && !is_pattern(&tool) && !connector.reads_only(&tool) {
                    warn(rules.approval_name(), "the role");
                }
            }
        }
    }

    /// Methods of MCP among those that are opened beyond it.
    fn warn_of_methods(
        &self,
        (name, connector): (&PolicyName, &Connector),
        warnings: &mut Vec<Warning>,
    ) {
        let own = connector.methods.exact().into_iter().filter(|it| crate::mcp::is_of_mcp(it));
        warnings.extend(own.map(|method| Warning {
            path: format!("connectors.{name}.methods"),
            kind: WarningKind::NoEffect,
            found: format!("{method:?}, a method of MCP, which this list neither opens nor closes"),
            expected: "methods beyond MCP's own, such as vendor/search".to_owned(),
        }));
    }

    /// Whether calls of what `glob` names, or of some of it, may pass.
    fn may_call(&self, access: &Access, glob: &str) -> bool {
        !self.is_enforced(Check::Authorisation, access.enforcement)
            || access.allow.meets(glob) && access.deny.covering(glob).is_none()
    }

    /// Whether calls of this tool pass; on trial, all do.
    pub(super) fn opens(&self, access: &Access, tool: &str) -> bool {
        !self.is_enforced(Check::Authorisation, access.enforcement)
            || access.allow.matches(tool) && !access.deny.matches(tool)
    }

    /// Lists and rules of a role on one connector that take away from nothing.
    fn of_access(
        &self,
        place: &str,
        connector: &PolicyName,
        access: &Access,
        warnings: &mut Vec<Warning>,
    ) {
        let opens = access.opens_something();
        // Methods beyond MCP's own are for every role that has the connector.
        let methods = self.connectors.get(connector).is_some_and(|it| !it.methods.is_empty());
        match opens || methods {
            true => of_lists(place, access, warnings),
            false => warnings.push(opens_nothing(place, connector)),
        }
        if let Some(stated) = self.connectors.get(connector) {
            of_denied_patterns(place, (connector, stated), access, warnings);
        }
    }
}

impl Access {
    fn opens_something(&self) -> bool {
        let resources = &self.resources.names.allow;
        let lists = [&self.allow, &self.show, &self.prompts.allow, resources];
        lists.iter().any(|list| !list.is_empty())
    }
}

fn opens_nothing(place: &str, connector: &PolicyName) -> Warning {
    Warning {
        path: format!("{place}.allow"),
        kind: WarningKind::OpensNothing,
        found: format!(
            "no tool, prompt or resource: an absent or empty `allow` opens nothing, so the role can use nothing of {connector}"
        ),
        expected: format!(
            "the tools that it may call, such as [query_*]; or the role without {connector}"
        ),
    }
}

/// Patterns in `allow` of which `deny` takes every tool that there is, where others are hidden.
fn of_denied_patterns(
    place: &str,
    (name, connector): (&PolicyName, &Connector),
    access: &Access,
    warnings: &mut Vec<Warning>,
) {
    if connector.pins.unpinned != Unpinned::Hide || access.deny.is_empty() {
        return;
    }
    for pattern in access.allow.patterns() {
        // What `deny` covers by its form alone is said of `deny`.
        if access.deny.covering(&pattern).is_some() || !access.deny.meets(&pattern) {
            continue;
        }
        let mut alone = Globs::default();
        alone.insert(&pattern);
        let tools = connector.tools.keys().filter(|tool| !connector.hides_unpinned(tool));
        let mut matched = tools.filter(|tool| alone.matches(tool)).peekable();
        if matched.peek().is_some() && matched.all(|tool| access.deny.matches(tool)) {
            warnings.push(Warning {
                path: format!("{place}.allow"),
                kind: WarningKind::NothingLeft,
                found: format!(
                    "{pattern:?}, and `deny` takes away every pinned tool of {name} that it matches"
                ),
                expected: "a pattern that `deny` leaves something of: `deny` wins".to_owned(),
            });
        }
    }
}

/// Denials that are a slip of what a list opens, and rules of what no list opens. Any other denial of what is not opened
/// is a second lock: it stays when a change opens more.
fn of_lists(place: &str, access: &Access, warnings: &mut Vec<Warning>) {
    let (allow, show, deny) = (&access.allow, &access.show, &access.deny);
    let prompts = &access.prompts;
    for (list, of, denied, allowed) in [
        ("deny", "`allow` and `show`", deny, [allow, show]),
        ("prompts.deny", "`prompts.allow`", &prompts.deny, [&prompts.allow; 2]),
    ] {
        let idle = denied.exact().into_iter();
        for name in idle.filter(|name| !allowed.iter().any(|it| it.meets(name))) {
            let meant: Vec<&str> = allowed.iter().flat_map(|globs| globs.exact()).collect();
            let slip = slip(name, &meant);
            if slip.is_empty() {
                continue;
            }
            warnings.push(Warning {
                path: format!("{place}.{list}"),
                kind: WarningKind::NeverReached,
                found: format!(
                    "{name:?}, and nothing in {of} can be that: nothing is denied by it"
                ),
                expected: format!("a name or pattern of what is allowed{slip}"),
            });
        }
    }
    if allow.is_empty() && !access.conditions.is_empty() {
        warnings.push(Warning {
            path: format!("{place}.conditions"),
            kind: WarningKind::NeverReached,
            found: "conditions on calls, and `allow` opens no tool: they guard nothing".to_owned(),
            expected: "the tools that the role may call in `allow`".to_owned(),
        });
    }
    for (tool, _) in access.tools.iter().flat_map(|rules| rules.each()) {
        let denied = || deny.all().iter().any(|deny| covers(deny, &tool));
        if is_pattern(&tool) && (!allow.meets(&tool) || denied()) {
            warnings.push(Warning {
                path: format!("{place}.tools.{tool}"),
                kind: WarningKind::NeverReached,
                found: format!(
                    "{tool:?}, of which the role may call nothing: these rules guard nothing"
                ),
                expected: "a pattern of tools that `allow` opens".to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    /// A second lock was called a mistake, and a push with `--strict` refused a sensible policy.
    #[test]
    fn a_denial_of_what_is_not_allowed_is_no_mistake_unless_it_is_a_slip() {
        let warned = |allow: &[&str], deny: &[&str]| {
            let crm = json!({"allow": allow, "deny": deny});
            let policy = crate::policy::compile(&json!({
                "version": 1, "organisations": ["acme"], "connectors": {"crm": {"path": "/crm/mcp"}},
                "roles": {"analyst": {"crm": crm}}, "tiers": {"free": {"limits": {}}},
            }));
            let warnings = policy.unwrap().warnings();
            warnings.iter().any(|warning| warning.path == "roles.analyst.crm.deny")
        };
        assert!(!warned(&["query_*"], &["delete_*", "drop_table"]));
        assert!(!warned(&["query_users"], &["*_admin"]));
        assert!(warned(&["query_users"], &["qery_users"]));
    }
}
