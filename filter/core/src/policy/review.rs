//! Faults of a document that compiles, but cannot be intended.
//!
//! Owns these faults: names that do not exist, rules without effect, schemas that cannot be used. Runs once, before a
//! policy is pushed; workers accept what was pushed.

use super::{
    Access, CallRules, Connector, Globs, LimitMatch, Policy, PolicyErrors, Requirement, Role, Tool,
};
use crate::connector_credential::{ConnectorCredential, SecretPattern};
use crate::id::PolicyName;
use crate::nearest::{hint, one_of};
use crate::pattern;
use crate::policy::arguments::Demand;
use crate::schema;

impl Policy {
    /// All such faults.
    #[must_use]
    pub fn review(&self) -> PolicyErrors {
        let mut faults = self.schema_faults();
        for (name, connector) in &self.connectors {
            self.connector(name, connector, &mut faults);
        }
        for (name, role) in &self.roles {
            self.role(name, role, &mut faults);
        }
        for limit in &self.limits {
            self.limit_match(&format!("{}.match", limit.name), &limit.only, &mut faults);
        }
        faults
    }

    /// The reasons why pinned input schemas cannot be used. A worker compiles one when its first call comes. No value
    /// is checked against an output schema, so it may be any.
    #[must_use]
    pub fn schema_faults(&self) -> PolicyErrors {
        let mut faults = PolicyErrors::default();
        for (connector, tool, pin) in self.connectors.iter().flat_map(|(name, connector)| {
            let pinned = connector.tools.iter();
            pinned.filter_map(move |(tool, it)| Some((name, tool, it.pin.as_ref()?)))
        }) {
            if let Some(Err(fault)) = pin.member("inputSchema").map(schema::compile) {
                let inside = fault.place.replace('/', ".");
                let path = format!("connectors.{connector}.tools.{tool}.input_schema{inside}");
                faults.push(&path, fault.found, fault.expected);
            }
        }
        faults
    }

    fn connector(&self, name: &PolicyName, connector: &Connector, faults: &mut PolicyErrors) {
        let place = format!("connectors.{name}");
        if let Some(credential) = &connector.credential {
            review_credential(&format!("{place}.credential"), credential, faults);
        }
        self.conditions(&connector.conditions, &[name], faults);
        for stated in connector.tools.values() {
            self.call_rules(&stated.rules, name, faults);
        }
        let opens: Vec<&Role> =
            self.roles.values().filter(|role| role.connectors.contains_key(name)).collect();
        for (tool, stated) in &connector.tools {
            let place = format!("{place}.tools.{tool}");
            if tool.contains(['*', '?']) {
                let expected = "a tool's own name: patterns stand in roles, limits and conditions";
                faults.push(&place, format!("the name {tool:?}"), expected);
            }
            pinned(stated, &stated.rules, faults);
            let open = |role: &&Role| {
                let access = role.connectors.get(name);
                access.is_some_and(|it| it.allow.matches(tool) || it.show.matches(tool))
            };
            if has_rules(stated) && !opens.is_empty() && !opens.iter().any(open) {
                let named = opens.iter().filter_map(|role| role.connectors.get(name));
                let named: Vec<&str> = named
                    .flat_map(|access| [access.allow.exact(), access.show.exact()].concat())
                    .collect();
                let expected = "a tool that some role allows or shows: nobody reaches these rules";
                faults.push(
                    &place,
                    format!("the tool {tool:?}"),
                    expected.to_owned() + &hint(tool, &named),
                );
            }
        }
    }

    fn role(&self, name: &PolicyName, role: &Role, faults: &mut PolicyErrors) {
        let every: Vec<&PolicyName> = role.connectors.keys().collect();
        self.conditions(&role.conditions, &every, faults);
        for (connector, access) in &role.connectors {
            let place = format!("roles.{name}.{connector}");
            self.conditions(&access.conditions, &[connector], faults);
            self.role_rules(&place, connector, access, faults);
            for (list, globs) in
                [("allow", &access.allow), ("show", &access.show), ("deny", &access.deny)]
            {
                tools(&format!("{place}.{list}"), globs, faults);
            }
            let not_both = |list: &str,
                            one: &Globs,
                            other: (&str, &Globs),
                            faults: &mut PolicyErrors| {
                for name in one.exact().into_iter().filter(|name| other.1.exact().contains(name)) {
                    let expected =
                        format!("a name in `{list}` or in `{}`, not in both: `deny` wins", other.0);
                    faults.push(&format!("{place}.{list}"), format!("{name:?}"), expected);
                }
            };
            not_both("deny", &access.deny, ("allow", &access.allow), faults);
            not_both("deny", &access.deny, ("show", &access.show), faults);
            for (list, names) in
                [("prompts", &access.prompts), ("resources", &access.resources.names)]
            {
                let list = format!("{list}.deny");
                not_both(&list, &names.deny, ("allow", &names.allow), faults);
            }
        }
    }

    /// The reasons why rules about calls cannot be used.
    fn call_rules(&self, rules: &CallRules, connector: &PolicyName, faults: &mut PolicyErrors) {
        self.conditions(&rules.conditions, &[connector], faults);
        for rule in &rules.arguments {
            demands(&rules.argument_name(rule), &rule.demands, faults);
        }
    }

    /// A role's rules for tools that do not exist, or that it cannot call.
    fn role_rules(
        &self,
        place: &str,
        connector: &PolicyName,
        access: &Access,
        faults: &mut PolicyErrors,
    ) {
        let Some(rules) = &access.tools else { return };
        let tools_of = self.connectors.get(connector).map(|connector| &connector.tools);
        for (tool, rules) in rules.each() {
            let place = format!("{place}.tools.{tool}");
            self.call_rules(rules, connector, faults);
            let mut named = Globs::default();
            named.insert(&tool);
            tools(&place, &named, faults);
            if !named.names(&tool) {
                continue;
            }
            let effect = "its rules guard nothing";
            let misspelt = self.misspelt(&named, &[connector], effect);
            if let Some((found, expected)) = misspelt.into_iter().next() {
                faults.push(&place, found, expected);
            } else if !access.allow.matches(&tool) || access.deny.matches(&tool) {
                let expected = "a tool that the role may call: nobody reaches these rules";
                faults.push(&place, format!("the tool {tool:?}"), expected);
            }
            if let Some(stated) = tools_of.and_then(|tools| tools.get(&tool)) {
                pinned(stated, rules, faults);
            }
        }
    }

    fn conditions(
        &self,
        conditions: &[Requirement],
        connectors: &[&PolicyName],
        faults: &mut PolicyErrors,
    ) {
        for condition in conditions {
            let when = format!("{}.when", condition.name);
            condition.when.patterns().for_each(|source| compiled(&when, source, faults));
            let Some(globs) = &condition.tools else { continue };
            let place = format!("{}.tools", condition.name);
            some(&place, globs, faults);
            tools(&place, globs, faults);
            for (found, expected) in self.misspelt_tools(condition, connectors) {
                faults.push(&place, found, expected);
            }
        }
    }

    fn limit_match(&self, place: &str, only: &LimitMatch, faults: &mut PolicyErrors) {
        if let Some(methods) = &only.methods {
            some(&format!("{place}.methods"), methods, faults);
        }
        let connectors: Vec<&str> = self.connectors.keys().map(PolicyName::as_str).collect();
        let roles: Vec<&str> = self.roles.keys().map(PolicyName::as_str).collect();
        let known = [("connectors", &only.connectors, connectors), ("roles", &only.roles, roles)];
        for (list, globs, known) in known {
            let Some(globs) = globs else { continue };
            let place = format!("{place}.{list}");
            some(&place, globs, faults);
            for name in globs.exact().into_iter().filter(|name| !known.contains(name)) {
                let expected = one_of(&format!("one of the {list}: "), name, &known);
                faults.push(&place, format!("{name:?}"), expected);
            }
            for pattern in globs.patterns() {
                let mut alone = Globs::default();
                alone.insert(&pattern);
                if !known.iter().any(|name| alone.matches(name)) {
                    let expected = format!("a pattern that one of the {list} matches");
                    faults.push(&place, format!("{pattern:?}"), expected);
                }
            }
        }
        if let Some(globs) = &only.tools {
            some(&format!("{place}.tools"), globs, faults);
            tools(&format!("{place}.tools"), globs, faults);
        }
    }
}

/// An API path, or a secret instead of a reference to one.
fn review_credential(place: &str, credential: &ConnectorCredential, faults: &mut PolicyErrors) {
    let pattern = credential.pattern();
    let found = pattern.map(|pattern| format!("\"{}\"", pattern.text(None))).unwrap_or_default();
    if pattern.is_some_and(SecretPattern::has_api_form) {
        let expected = "a reference without `data`, which is part of the API's path only";
        faults.push(&format!("{place}.secret"), found, expected);
    } else if pattern.is_some_and(SecretPattern::has_api_version) {
        let expected = "a reference without `v1`, which is part of the API's path only";
        faults.push(&format!("{place}.secret"), found, expected);
    }
    if credential.texts().any(looks_like_secret) {
        let expected = "templates without secrets: put the value into Vault and name its field";
        faults.push(place, "a text that looks like a secret (not shown)", expected);
    }
}

/// Whether `text` has the form of a generated token or password: one long word of letters and digits.
pub(crate) fn looks_like_secret(text: &str) -> bool {
    const LONGEST_WORD: usize = 19;
    let of_secret = |c: char| c.is_ascii_alphanumeric() || "+/_-=.".contains(c);
    let words = text.split(|c: char| !of_secret(c));
    words.filter(|word| word.len() > LONGEST_WORD).any(|word| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let letters = word.bytes().filter(u8::is_ascii_alphabetic).count();
        digits > 2 && letters > 2
    })
}

/// Whether the policy has rules for a tool beyond its definition.
pub(super) fn has_rules(tool: &Tool) -> bool {
    let Tool { price, row_price, scopes, rules, read_only: _, redact: _, pin: _ } = tool;
    price.is_some() || *row_price > 0 || !scopes.is_empty() || !rules.is_empty()
}

/// Rules on arguments that the pinned schema does not define.
fn pinned(tool: &Tool, rules: &CallRules, faults: &mut PolicyErrors) {
    let schema = tool.pin.as_ref().and_then(|pin| pin.member("inputSchema"));
    let Some(arguments) = schema.and_then(|it| it.get("properties")?.as_object()) else { return };
    let known: Vec<&str> = arguments.keys().map(String::as_str).collect();
    let place = format!("{}.argument", rules.cap_name());
    let cap = rules.max_records.iter().map(|cap| (place.clone(), &*cap.argument));
    let each = rules.arguments.iter();
    let demanded = each.map(|rule| (rules.argument_name(rule), &*rule.argument));
    for (place, argument) in cap.chain(demanded).filter(|(_, it)| !known.contains(it)) {
        let expected = one_of("an argument of the pinned schema: ", argument, &known);
        faults.push(&place, format!("{argument:?}"), expected);
    }
}

/// Regular expressions that exceed their memory limit.
fn demands(place: &str, demands_of: &[Demand], faults: &mut PolicyErrors) {
    for demand in demands_of {
        match demand {
            Demand::Matches(source) => compiled(&format!("{place}.pattern"), source, faults),
            Demand::Items(inside) => demands(&format!("{place}.items"), inside, faults),
            Demand::OneOf(_)
            | Demand::MinLength(_)
            | Demand::MaxLength(_)
            | Demand::Minimum(_)
            | Demand::Maximum(_)
            | Demand::MaxItems(_) => {}
        }
    }
}

fn compiled(place: &str, source: &str, faults: &mut PolicyErrors) {
    if !pattern::compiles(source) {
        faults.push(place, format!("the pattern {source:?}"), pattern::EXPECTED);
    }
}

/// A list that restricts by name must name at least one object.
fn some(place: &str, globs: &Globs, faults: &mut PolicyErrors) {
    if globs.is_empty() {
        faults.push(place, "an empty list", "at least one name; without the list it is about all");
    }
}

/// Operators write names from elsewhere that would match no tool.
fn tools(place: &str, globs: &Globs, faults: &mut PolicyErrors) {
    const ELSEWHERE: [char; 9] = ['[', ']', '{', '}', '(', ')', '|', '^', '$'];
    let exact = globs.exact().into_iter().map(str::to_owned);
    for text in exact.chain(globs.patterns()) {
        if text.contains(ELSEWHERE) {
            let expected =
                "a tool name; only * (any number of characters) and ? (one) are wildcards";
            faults.push(place, format!("{text:?}"), expected);
        }
    }
}
