//! Names to redact that are probably misspelt.
//!
//! Owns which names arguments have, and where. A name that no pinned tool has is none to blame: calls that are refused are
//! logged with their arguments, too, and a schema leaves room for others. A path is about one schema.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Warning, WarningKind};
use crate::audit::same_name;
use crate::nearest::slip;
use crate::policy::Policy;

/// Schemas that nest deeper are not looked into.
const DEEPEST: usize = 16;

impl Policy {
    pub(super) fn warn_of_redaction(&self, warnings: &mut Vec<Warning>) {
        self.warn_of_secret_places(warnings);
        if self.redact.is_empty() {
            return;
        }
        let mut names = BTreeSet::new();
        for connector in self.connectors.values() {
            for pin in connector.tools.values().filter_map(|tool| tool.pin.as_ref()) {
                if let Some(schema) = pin.member("inputSchema") {
                    visit(schema, DEEPEST, &mut names);
                }
            }
        }
        let known: Vec<&str> = names.into_iter().collect();
        for (at, name) in self.redact.iter().enumerate() {
            let slip = slip(name, &known);
            if slip.is_empty() || known.iter().any(|argument| same_name(argument, name)) {
                continue;
            }
            warnings.push(Warning {
                path: format!("redact[{at}]"),
                kind: WarningKind::UnknownMember,
                found: format!("{name:?}, and no argument of a pinned tool has that name"),
                expected: format!("the name of an argument{slip}"),
            });
        }
    }
}

impl Policy {
    /// Paths to where the pinned schema has nothing.
    fn warn_of_secret_places(&self, warnings: &mut Vec<Warning>) {
        for (connector, stated) in &self.connectors {
            for (name, tool) in &stated.tools {
                let schema = tool.pin.as_ref().and_then(|pin| pin.member("inputSchema"));
                let Some(schema) = schema else { continue };
                for (at, path) in tool.redact.iter().enumerate() {
                    let steps: Vec<&str> = path.steps().collect();
                    let Err(known) = describes(schema, &steps, DEEPEST) else { continue };
                    let near =
                        steps.iter().find_map(|step| known.iter().find(|name| is_near(step, name)));
                    let hint = near.map(|name| format!("; did you mean {name}?"));
                    warnings.push(Warning {
                        path: format!("connectors.{connector}.tools.{name}.redact[{at}]"),
                        kind: WarningKind::UnknownMember,
                        found: format!("{path}, and the pinned schema has nothing there"),
                        expected: format!(
                            "a path to what the pinned schema describes{}",
                            hint.unwrap_or_default()
                        ),
                    });
                }
            }
        }
    }
}

/// Whether `schema` describes something at `steps`; if not, the names beside which it would be. What is not looked into
/// describes everything: a text may be JSON, and an object without properties has any.
fn describes<'a>(schema: &'a Value, steps: &[&str], depth: usize) -> Result<(), Vec<&'a str>> {
    const ELSEWHERE: [&str; 10] = [
        "$ref",
        "$dynamicRef",
        "allOf",
        "anyOf",
        "oneOf",
        "if",
        "not",
        "patternProperties",
        "dependentSchemas",
        "unevaluatedProperties",
    ];
    let Some((step, rest)) = steps.split_first() else { return Ok(()) };
    let (Some(members), Some(depth)) = (schema.as_object(), depth.checked_sub(1)) else {
        return Ok(());
    };
    if ELSEWHERE.iter().any(|keyword| members.contains_key(*keyword)) {
        return Ok(());
    }
    let properties = members.get("properties").and_then(Value::as_object);
    // Other names may stand here too, and the schema says so: only a slip of one that it has is a mistake.
    if members.get("additionalProperties") == Some(&Value::Bool(true)) {
        let known: Vec<&str> =
            properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        if !known.iter().any(|name| same_name(name, step)) {
            let near: Vec<&str> = known.into_iter().filter(|name| is_near(step, name)).collect();
            return if near.is_empty() { Ok(()) } else { Err(near) };
        }
    }
    let open = members.get("additionalProperties").filter(|it| it.is_object());
    let prefix = members.get("prefixItems").and_then(Value::as_array).into_iter().flatten();
    let items: Vec<&Value> = prefix.chain(members.get("items")).collect();
    let is = |kind: &str| match members.get("type") {
        Some(Value::String(of)) => of == kind,
        Some(Value::Array(of)) => of.iter().any(|of| of == kind),
        _ => properties.is_none() && open.is_none() && items.is_empty(),
    };
    let any = is("string") || (is("object") && properties.is_none() && open.is_none());
    if any || (is("array") && items.is_empty()) {
        return Ok(());
    }
    // A list is looked through on the way to a name.
    let inner = if *step == "*" { rest } else { steps };
    let of_items = items.into_iter().map(|schema| (schema, inner));
    let named = properties.into_iter().flatten();
    let named = named.filter(|(name, _)| *step == "*" || same_name(name, step));
    let of_members = named.map(|(_, schema)| schema).chain(open).map(|schema| (schema, rest));
    let mut known = properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    for (schema, steps) in of_items.chain(of_members) {
        match describes(schema, steps, depth) {
            Ok(()) => return Ok(()),
            Err(inner) => known = inner,
        }
    }
    Err(known)
}

/// Whether `step` is probably a misspelt `name`. Of a short name, one letter inside it may be wrong or missing.
fn is_near(step: &str, name: &str) -> bool {
    let ends = |text: &str| text.chars().next().zip(text.chars().next_back());
    let inside = ends(step).is_some() && ends(step) == ends(name);
    !slip(step, &[name]).is_empty() || inside && strsim::osa_distance(step, name) == 1
}

/// Gathers the names of properties.
fn visit<'a>(schema: &'a Value, depth: usize, names: &mut BTreeSet<&'a str>) {
    let (Some(members), Some(depth)) = (schema.as_object(), depth.checked_sub(1)) else { return };
    for (keyword, value) in members {
        match (keyword.as_str(), value) {
            ("properties" | "$defs" | "definitions" | "dependentSchemas", Value::Object(each)) => {
                for (name, schema) in each {
                    if keyword == "properties" {
                        names.insert(name);
                    }
                    visit(schema, depth, names);
                }
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(each)) => {
                each.iter().for_each(|schema| visit(schema, depth, names));
            }
            ("items" | "if" | "then" | "else" | "not" | "contains", schema) => {
                visit(schema, depth, names);
            }
            _ => {}
        }
    }
}
