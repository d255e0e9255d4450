//! What a document says and another member of it makes void. A compiled policy no longer knows what was written and
//! what is a default, so this looks at the document.

use serde_json::Value;

use super::{Warning, WarningKind, members};
use crate::policy::{Check, Policy, Streams};

/// Members that are the server's, or that have no rules in them.
const NOT_LOOKED_INTO: [&str; 6] =
    ["input_schema", "output_schema", "annotations", "credential", "enum", "upstream"];

impl Policy {
    /// Members of `document`, which this is the policy of, that other members make void, names of parameters that no
    /// request has, and texts that look like secrets.
    #[must_use]
    pub fn void_members(&self, document: &Value) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let shadow = Shadow {
            whole: document.get("enforcement").and_then(Value::as_str) == Some("shadow"),
            checks: self.shadow.iter().copied().collect(),
        };
        for section in ["connectors", "roles"] {
            if let Some(value) = document.get(section) {
                shadow.visit(section, (value, Check::Authorisation), &mut warnings);
            }
        }
        for (name, connector) in members(document, "connectors") {
            if connector.get("refusals").is_some() && connector.get("messages").is_none() {
                warnings.push(no_effect(
                    format!("connectors.{name}.refusals"),
                    "how refusals are told on an HTTP+SSE stream, and the connector has no `messages`",
                    "`messages` beside it, or no `refusals`",
                ));
            }
        }
        super::query::warn(document, &mut warnings);
        super::secrets::warn(document, &mut warnings);
        let Streams { per_caller, per_organisation, .. } = self.streams;
        let written = |name: &str| document.get("streams").and_then(|it| it.get(name)).is_some();
        if per_caller > per_organisation && written("per_caller") {
            let found = format!(
                "{per_caller} streams of a caller, and all callers together have {per_organisation}"
            );
            let expected = "at most what `per_organisation` says";
            warnings.push(no_effect("streams.per_caller".to_owned(), &found, expected));
        }
        warnings
    }
}

fn no_effect(path: String, found: &str, expected: &str) -> Warning {
    let kind = WarningKind::NoEffect;
    Warning {
        path,
        kind,
        found: format!("{found}: it has no effect"),
        expected: expected.to_owned(),
    }
}

/// What is in shadow mode as a whole.
struct Shadow {
    whole: bool,
    checks: Vec<Check>,
}

impl Shadow {
    /// Rules that say that they are enforced.
    fn visit(&self, path: &str, (value, check): (&Value, Check), warnings: &mut Vec<Warning>) {
        if !self.whole && self.checks.is_empty() {
            return;
        }
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let path = format!("{path}.{name}");
                    if name == "enforcement" && value.as_str() == Some("enforce") {
                        self.overruled(path, check, warnings);
                    } else if !NOT_LOOKED_INTO.contains(&name.as_str()) {
                        let check = match name.as_str() {
                            "conditions" => Check::Conditions,
                            "max_records" => Check::Caps,
                            "approval" => Check::Approval,
                            "arguments" => Check::Arguments,
                            _ => check,
                        };
                        self.visit(&path, (value, check), warnings);
                    }
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.visit(&format!("{path}[{at}]"), (item, check), warnings);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn overruled(&self, path: String, check: Check, warnings: &mut Vec<Warning>) {
        let by = match (self.whole, self.checks.contains(&check)) {
            (true, _) => "the policy's `enforcement: shadow`".to_owned(),
            (false, true) => format!("`shadow: [{}]` of the policy", check.name()),
            (false, false) => return,
        };
        warnings.push(no_effect(
            path,
            &format!("enforce, which {by} overrules"),
            "`enforcement: shadow` at the rules on trial alone, so that others refuse",
        ));
    }
}
