//! Names to redact that are probably misspelt.
//!
//! Owns which names arguments have. A name that no pinned tool has is none to blame: calls that are refused are logged with
//! their arguments, too, and a schema leaves room for others.

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
