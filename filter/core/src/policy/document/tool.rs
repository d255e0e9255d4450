//! The form of a policy's settings for single tools of a connector.
//!
//! Owns the allowed fields of a tool. Does not use the server's own description.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use super::LONGEST_GLOB;
use super::rule::call_rules;
use crate::decode::settings::scopes;
use crate::decode::{Faults, Fields, Node};
use crate::json_path::JsonPath;
use crate::pin::{Action, Definition, Drift, Member};
use crate::policy::{CallRules, Pins, Tool, Unpinned, Unverified};

/// The form of pinned schemas in the value.
#[derive(Clone, Copy)]
pub(super) enum Schemas {
    /// JSON values.
    Values,
    /// Texts that contain the JSON.
    Texts,
}

pub(super) fn tools(
    node: Node<'_>,
    schemas: Schemas,
    faults: &mut Faults,
) -> Option<BTreeMap<String, Tool>> {
    let mut tools = BTreeMap::new();
    for (name, node) in
        node.members(faults, "one member for each tool, such as {query_users: {read_only: true}}")?
    {
        if !(1..=LONGEST_GLOB).contains(&name.len()) {
            let expected = format!("a tool's name of 1 to {LONGEST_GLOB} bytes");
            faults.push(node.path(), format!("a name of {} bytes", name.len()), expected);
        }
        if let Some(tool) = tool(node, schemas, faults) {
            tools.insert(name.to_owned(), tool);
        }
    }
    Some(tools)
}

fn tool(node: Node<'_>, schemas: Schemas, faults: &mut Faults) -> Option<Tool> {
    let place = node.path().to_owned();
    let mut fields = node.object(faults, "a tool: an object such as {read_only: true}")?;
    let read_only = match fields.optional("read_only") {
        Some(node) => node.boolean(faults).map(Some),
        None => Some(None),
    };
    let price = match fields.optional("price") {
        Some(node) => credits(node, faults).map(Some),
        None => Some(None),
    };
    let row_price = match fields.optional("row_price") {
        Some(node) => credits(node, faults),
        None => Some(0),
    };
    let scopes = match fields.optional("scopes") {
        Some(node) => scopes(node, faults),
        None => Some(Vec::new()),
    };
    let rules = call_rules(&place, &mut fields, faults);
    let redact = match fields.optional("redact") {
        Some(node) => secret_places(node, faults),
        None => Some(Vec::new()),
    };
    let pin = pin(&mut fields, schemas, faults);
    fields.finish(faults);
    let (read_only, pin) = (read_only?, pin?);
    let hinted = pin.as_ref().is_some_and(|pin| pin.is_read_only());
    Some(Tool {
        read_only: read_only.unwrap_or(hinted),
        price: price?,
        row_price: row_price?,
        scopes: scopes?,
        // Most tools are only pinned, and their rules need no name.
        rules: rules.map(|rules| if rules.is_empty() { CallRules::default() } else { rules })?,
        redact: redact?,
        pin,
    })
}

/// The paths in the arguments that the audit log redacts.
fn secret_places(node: Node<'_>, faults: &mut Faults) -> Option<Vec<JsonPath>> {
    const MOST: usize = 50;
    const EXPECTED: &str = "a list of 1 to 50 JSON paths, such as [$.customer.ssn]";
    let items = node.clone().items(faults, EXPECTED)?;
    if !(1..=MOST).contains(&items.len()) {
        node.fault(faults, EXPECTED);
        return None;
    }
    items.into_iter().map(|item| item.text(faults, JsonPath::EXPECTED, JsonPath::new)).collect()
}

pub(super) fn credits(node: Node<'_>, faults: &mut Faults) -> Option<u64> {
    const MOST: u64 = 1_000_000_000;
    node.integer(faults, 0..=MOST, "credits")
}

/// The reviewed definition; complete, or none.
fn pin(
    fields: &mut Fields<'_>,
    schemas: Schemas,
    faults: &mut Faults,
) -> Option<Option<Rc<Definition>>> {
    let (mut members, mut whole, mut any) = (Vec::new(), true, false);
    for (field, member, form) in PINNED {
        let Some(node) = fields.optional(field) else {
            continue;
        };
        any = true;
        let value = node.value();
        let (pinned, expected) = match (form, schemas, value) {
            (PinField::Text, _, Value::String(_)) => (Some(Member::from(value.clone())), ""),
            (PinField::Text, ..) => (None, "a text"),
            (PinField::Schema, Schemas::Texts, Value::String(text)) if text.starts_with('{') => {
                (Some(Member::unread(text)), "")
            }
            (PinField::Object, _, Value::Object(_))
            | (PinField::Schema, Schemas::Values, Value::Object(_)) => {
                (Some(Member::from(value.clone())), "")
            }
            (PinField::Object | PinField::Schema, ..) => {
                (None, "an object, as the server lists it")
            }
        };
        let Some(pinned) = pinned else {
            node.fault(faults, expected);
            whole = false;
            continue;
        };
        members.push((member.to_owned(), pinned));
    }
    if any {
        let expected = "the pinned input schema, as `portcullis discover` writes it";
        fields.required("input_schema", faults, expected)?;
    }
    let pinned = any.then(|| Rc::new(members.into_iter().collect()));
    whole.then_some(pinned)
}

enum PinField {
    Text,
    Object,
    /// An object that may be a text with its JSON.
    Schema,
}

/// Fields of a pin, and MCP's names of them.
const PINNED: [(&str, &str, PinField); 5] = [
    ("title", "title", PinField::Text),
    ("description", "description", PinField::Text),
    ("input_schema", "inputSchema", PinField::Schema),
    ("output_schema", "outputSchema", PinField::Schema),
    ("annotations", "annotations", PinField::Object),
];

/// `unpinned` and `on_drift` of a connector.
pub(super) fn pins(
    fields: &mut Fields<'_>,
    faults: &mut Faults,
    default: Unpinned,
) -> Option<Pins> {
    let unpinned = match fields.optional("unpinned") {
        Some(node) => node.text(faults, "hide or allow", |text| match text {
            "hide" => Some(Unpinned::Hide),
            "allow" => Some(Unpinned::Allow),
            _ => None,
        }),
        None => Some(default),
    };
    let on_drift = match fields.optional("on_drift") {
        Some(node) => on_drift(node, faults),
        None => Some((Vec::new(), Unverified::default())),
    };
    let (on_drift, unverified) = on_drift?;
    Some(Pins { unpinned: unpinned?, on_drift, unverified })
}

fn on_drift(node: Node<'_>, faults: &mut Faults) -> Option<(Vec<(Drift, Action)>, Unverified)> {
    let expected = "an object with text, widening, breaking, suspicious or unverified";
    let mut fields = node.object(faults, expected)?;
    let mut actions = Vec::new();
    for drift in Drift::ALL {
        let Some(node) = fields.optional(drift.name()) else {
            continue;
        };
        let action = node.text(faults, "allow, warn, hide or block", |text| {
            Action::ALL.into_iter().find(|action| action.name() == text)
        });
        actions.push(action.map(|action| (drift, action)));
    }
    let unverified = match fields.optional("unverified") {
        Some(node) => node.text(faults, "allow or block", |text| match text {
            "allow" => Some(Unverified::Allow),
            "block" => Some(Unverified::Block),
            _ => None,
        }),
        None => Some(Unverified::default()),
    };
    fields.finish(faults);
    let actions: Option<Vec<_>> = actions.into_iter().collect();
    actions.zip(unverified)
}
