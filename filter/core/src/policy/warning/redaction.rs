//! Names to redact that no argument has.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Warning, WarningKind};
use crate::audit::same_name;
use crate::nearest::hint;
use crate::policy::{Policy, Unpinned};

/// Schemas that nest deeper are not looked into.
const DEEPEST: usize = 16;

/// The names of arguments that pinned schemas have.
#[derive(Default)]
struct Arguments<'a> {
    names: BTreeSet<&'a str>,
    /// Whether there may be others: an object without `properties`, a reference.
    open: bool,
}

impl Policy {
    pub(super) fn warn_of_redaction(&self, warnings: &mut Vec<Warning>) {
        if self.redact.is_empty() {
            return;
        }
        let mut arguments = Arguments::default();
        for connector in self.connectors.values() {
            arguments.open |= connector.pins.unpinned != Unpinned::Hide;
            for pin in connector.tools.values().filter_map(|tool| tool.pin.as_ref()) {
                match pin.member("inputSchema") {
                    Some(schema) => arguments.visit(schema, DEEPEST),
                    None => arguments.open = true,
                }
            }
        }
        // Prompts have arguments of their own, which no pin states.
        let mut access = self.roles.values().flat_map(|role| role.connectors.values());
        arguments.open |= access.any(|access| !access.prompts.allow.is_empty());
        if arguments.names.is_empty() {
            return;
        }
        let known: Vec<&str> = arguments.names.iter().copied().collect();
        for (at, name) in self.redact.iter().enumerate() {
            let slip = hint(name, &known);
            let has = known.iter().any(|argument| same_name(argument, name));
            if has || (arguments.open && slip.is_empty()) {
                continue;
            }
            warnings.push(Warning {
                path: format!("redact[{at}]"),
                kind: WarningKind::UnknownMember,
                found: format!("{name:?}, and no argument of a pinned tool has that name: nothing is redacted by it"),
                expected: format!("the name of an argument{slip}"),
            });
        }
    }
}

impl<'a> Arguments<'a> {
    fn visit(&mut self, schema: &'a Value, depth: usize) {
        let (Some(members), Some(depth)) = (schema.as_object(), depth.checked_sub(1)) else {
            self.open |= depth == 0 || schema.as_bool() != Some(false);
            return;
        };
        for (keyword, value) in members {
            match (keyword.as_str(), value) {
                (
                    "properties" | "$defs" | "definitions" | "dependentSchemas",
                    Value::Object(each),
                ) => {
                    for (name, schema) in each {
                        if keyword == "properties" {
                            self.names.insert(name);
                        }
                        self.visit(schema, depth);
                    }
                }
                ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(each)) => {
                    each.iter().for_each(|schema| self.visit(schema, depth));
                }
                ("items" | "if" | "then" | "else" | "not" | "contains", schema) => {
                    self.visit(schema, depth);
                }
                ("patternProperties" | "propertyNames" | "$ref" | "$dynamicRef", _) => {
                    self.open = true;
                }
                ("additionalProperties", Value::Object(_)) => self.open = true,
                _ => {}
            }
        }
        let kind = members.get("type");
        let scalar = kind
            .and_then(Value::as_str)
            .is_some_and(|kind| ["string", "integer", "number", "boolean", "null"].contains(&kind));
        let described = ["properties", "items", "enum", "const", "allOf", "anyOf", "oneOf"];
        let closed = kind.is_some() && members.get("additionalProperties") == Some(&false.into());
        self.open |= !scalar && !closed && !described.iter().any(|it| members.contains_key(*it));
    }
}
