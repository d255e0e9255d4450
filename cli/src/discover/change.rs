//! Differences between pins and live definitions, for operators and scripts.
//!
//! Owns the list of differing parts and their output. The core owns their classes.

use std::collections::BTreeSet;

use portcullis_core::id::PolicyName;
use portcullis_core::pin::{Definition, Suspicion, suspicions};
use portcullis_core::policy::Connector;
use portcullis_core::schema;
use serde_json::{Map, Value, json};

use crate::args::Class;
use crate::escape;

/// One tool that differs from the policy.
pub(crate) struct Change {
    pub(crate) connector: PolicyName,
    pub(crate) tool: String,
    kind: Kind,
    pub(crate) class: Class,
    /// The live definition; none if the tool is gone.
    pub(crate) live: Option<Definition>,
    parts: Vec<FieldChange>,
    new_marks: Vec<Suspicion>,
}

#[derive(Clone, Copy)]
enum Kind {
    New,
    Changed,
    Gone,
    /// The gateway does not show it: it was removed, or is hidden because of a drift or from this role.
    NotShown,
}

/// The source of the live list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The server: a missing tool was removed.
    Server,
    /// A gateway, which may hide tools.
    Gateway,
}

/// One differing place in a definition.
struct FieldChange {
    place: String,
    old: Option<Value>,
    new: Option<Value>,
}

/// Every differing tool of a connector, in the order of the live list; removed ones last.
pub(crate) fn changes(
    name: &PolicyName,
    connector: &Connector,
    (answered, live): (Answered, &[Value]),
) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut present = BTreeSet::new();
    for tool in live {
        let Some(tool_name) = tool.get("name").and_then(Value::as_str) else {
            continue;
        };
        present.insert(tool_name);
        let pin = connector.tools.get(tool_name).and_then(|tool| tool.pin.as_deref());
        changes.extend(change(name, tool_name, pin, tool));
    }
    for (tool, pin) in
        connector.tools.iter().filter_map(|(name, it)| Some((name, it.pin.as_ref()?)))
    {
        if !present.contains(tool.as_str()) {
            changes.push(Change {
                connector: name.clone(),
                tool: tool.clone(),
                kind: match answered {
                    Answered::Server => Kind::Gone,
                    Answered::Gateway => Kind::NotShown,
                },
                class: match answered {
                    Answered::Server => Class::Breaking,
                    // A change of any class may be the reason.
                    Answered::Gateway => Class::Suspicious,
                },
                live: None,
                parts: parts(Some(pin), None),
                new_marks: Vec::new(),
            });
        }
    }
    changes
}

fn change(name: &PolicyName, tool: &str, pin: Option<&Definition>, live: &Value) -> Option<Change> {
    let definition = Definition::of(live);
    let known = pin.map(suspicions).unwrap_or_default();
    let new_marks: Vec<_> = suspicions(&definition).difference(&known).copied().collect();
    let (kind, class) = match pin {
        Some(pin) => (Kind::Changed, Class::from(pin.drift(live)?)),
        None if new_marks.is_empty() => (Kind::New, Class::Widening),
        None => (Kind::New, Class::Suspicious),
    };
    Some(Change {
        connector: name.clone(),
        tool: tool.to_owned(),
        kind,
        class,
        parts: parts(pin, Some(&definition)),
        live: Some(definition),
        new_marks,
    })
}

fn parts(old: Option<&Definition>, new: Option<&Definition>) -> Vec<FieldChange> {
    let members = |definition: Option<&Definition>| {
        let members = definition.into_iter().flat_map(Definition::members);
        members.map(|(name, value)| (name.to_owned(), value.clone())).collect::<Map<_, _>>()
    };
    let mut parts = Vec::new();
    differences("", &members(old), &members(new), &mut parts);
    parts
}

fn differences(
    place: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    parts: &mut Vec<FieldChange>,
) {
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    for name in names {
        let place = if place.is_empty() { name.clone() } else { format!("{place}/{name}") };
        match (old.get(name), new.get(name)) {
            (Some(Value::Object(old)), Some(Value::Object(new))) => {
                differences(&place, old, new, parts);
            }
            (Some(old), Some(new)) if schema::same(old, new) => {}
            (old, new) => parts.push(FieldChange { place, old: old.cloned(), new: new.cloned() }),
        }
    }
}

impl Change {
    /// The output for operators: the changes, old and new.
    pub(crate) fn text(&self) -> String {
        let marks: Vec<_> = self.new_marks.iter().map(|mark| mark.words()).collect();
        let marks =
            if marks.is_empty() { String::new() } else { format!(": {}", marks.join("; ")) };
        let mut text = format!(
            "{} {}  {}, {}{marks}",
            self.connector,
            escape::line(&self.tool),
            self.kind.name(),
            self.class.name()
        );
        for part in &self.parts {
            text.push_str(&format!("\n    {}", escape::line(&part.place)));
            for (sign, value) in [('-', &part.old), ('+', &part.new)] {
                if let Some(value) = value {
                    text.push_str(&format!("\n      {sign} {}", told(value)));
                }
            }
        }
        text
    }

    /// The first part of the reviewed pin that the live definition would remove or loosen.
    pub(crate) fn loosens(&self) -> Option<String> {
        match self.kind {
            Kind::New => None,
            Kind::Gone | Kind::NotShown => {
                Some("the tool, which the answer does not have".to_owned())
            }
            Kind::Changed => {
                self.parts.iter().find(|part| part.loosens()).map(|part| part.place.clone())
            }
        }
    }

    /// The reason why the live definition cannot be pinned: nothing can be checked against its input schema.
    pub(crate) fn unsupported(&self) -> Option<String> {
        if let Kind::NotShown = self.kind {
            return Some("the gateway does not show it: it is gone, or hidden because it drifted, or from this role; \
                 --direct asks the server".to_owned());
        }
        let live = self.live.as_ref()?;
        if self.tool.contains(['*', '?']) {
            return Some(
                "its name has * or ?, which are wildcards of a policy: no policy can name the tool"
                    .to_owned(),
            );
        }
        let schema = live.member("inputSchema")?;
        let fault = schema::compile(schema).err()?;
        Some(format!(
            "input_schema{}: found {}, expected {}",
            fault.place, fault.found, fault.expected
        ))
    }

    pub(crate) fn json(&self) -> Value {
        let parts: Vec<_> = self
            .parts
            .iter()
            .map(|part| json!({"place": part.place, "old": part.old, "new": part.new}))
            .collect();
        let marks: Vec<_> = self.new_marks.iter().map(|mark| mark.words()).collect();
        json!({
            "connector": self.connector, "tool": self.tool, "kind": self.kind.name(),
            "class": self.class.name(), "suspicions": marks, "parts": parts,
        })
    }
}

impl FieldChange {
    /// Whether the new definition allows more than the old one. A change that cannot be compared counts as one that
    /// does.
    fn loosens(&self) -> bool {
        let keyword = self.place.rsplit('/').next().unwrap_or_default();
        if self.place == "annotations/readOnlyHint" || self.place == "annotations" {
            // The change opens the tool to read-only roles.
            let hint = |value: &Option<Value>| match value {
                Some(Value::Object(members)) => {
                    members.get("readOnlyHint") == Some(&Value::Bool(true))
                }
                value => *value == Some(Value::Bool(true)),
            };
            return hint(&self.new) && !hint(&self.old);
        }
        let in_schema = self.place.starts_with("inputSchema/");
        let is_text = ["title", "description", "default", "examples", "$comment", "format"]
            .contains(&keyword);
        // The name of an argument is not a keyword.
        let is_argument = self.place.rsplit('/').nth(1) == Some("properties");
        if !in_schema || (is_text && !is_argument) {
            return false;
        }
        match (&self.old, &self.new) {
            // A new argument is part of the review; an additional constraint loosens nothing.
            (None, _) => false,
            (Some(_), None) => true,
            (Some(Value::Number(old)), Some(Value::Number(new))) => {
                let (old, new) = (old.as_f64(), new.as_f64());
                match keyword {
                    "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties" => {
                        new > old
                    }
                    "minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties" => {
                        new < old
                    }
                    _ => true,
                }
            }
            (Some(Value::Array(old)), Some(Value::Array(new))) => match keyword {
                "enum" => !new.iter().all(|choice| old.contains(choice)),
                "required" => !old.iter().all(|name| new.contains(name)),
                _ => true,
            },
            (Some(_), Some(Value::Bool(false))) if keyword == "additionalProperties" => false,
            (Some(_), Some(_)) => true,
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Gone => "gone",
            Self::NotShown => "not_shown",
        }
    }
}

impl Class {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Widening => "widening",
            Self::Breaking => "breaking",
            Self::Suspicious => "suspicious",
            Self::Never => "never",
        }
    }
}

/// Complete texts, because a model reads them; only the start of schemas, the rest is in the JSON.
fn told(value: &Value) -> String {
    const LONGEST: usize = 160;
    match value {
        Value::String(text) => escape::line(text),
        value => {
            let text = value.to_string();
            match text.char_indices().nth(LONGEST) {
                Some((end, _)) => {
                    format!("{} …", escape::line(text.get(..end).unwrap_or_default()))
                }
                None => escape::line(&text),
            }
        }
    }
}
