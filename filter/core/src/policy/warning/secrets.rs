//! Secrets in a policy. Operators read it, it stands in a repository, and its messages go to callers.
//!
//! Owns which texts are looked at: all, but for those of a connector's credential, of which a secret is a fault. What a
//! secret looks like, the audit log's redaction knows.

use serde_json::Value;

use super::{Warning, WarningKind};
use crate::audit::has_token;

pub(super) fn warn(document: &Value, warnings: &mut Vec<Warning>) {
    visit(&Place::Document, document, warnings);
}

/// Where a value stands; written down where something is wrong with it, and a large policy has a hundred thousand values.
enum Place<'a> {
    Document,
    Member(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn path(&self) -> String {
        match self {
            Self::Document => String::new(),
            Self::Member(Place::Document, name) => (*name).to_owned(),
            Self::Member(within, name) => format!("{}.{name}", within.path()),
            Self::Item(within, at) => format!("{}[{at}]", within.path()),
        }
    }

    /// Whether it is a connector, whose credential has a check of its own.
    fn is_connector(&self) -> bool {
        matches!(self, Self::Member(Place::Member(Place::Document, "connectors"), _))
    }
}

fn visit(place: &Place<'_>, value: &Value, warnings: &mut Vec<Warning>) {
    match value {
        Value::String(text) if has_token(text) => warnings.push(Warning {
            path: place.path(),
            kind: WarningKind::Secret,
            found: "a text with a secret in it (not shown)".to_owned(),
            expected:
                "no key and no token: everybody who reads the policy has it now, so rotate it"
                    .to_owned(),
        }),
        Value::Object(members) => {
            let looked_at = |name: &str| !(name == "credential" && place.is_connector());
            for (name, value) in members.iter().filter(|(name, _)| looked_at(name)) {
                visit(&Place::Member(place, name), value, warnings);
            }
        }
        Value::Array(items) => {
            let each = items.iter().enumerate();
            each.for_each(|(at, item)| visit(&Place::Item(place, at), item, warnings));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
