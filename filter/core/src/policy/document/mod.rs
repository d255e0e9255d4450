//! The form of a policy document, version 1.
//!
//! Owns reading it field by field, and the message of each fault. Unknown fields are faults, and so are references to
//! names that the document does not define.

mod argument;
mod connector;
mod cool_off;
mod credential;
mod enforcement;
mod limit;
mod open;
mod role;
mod rule;
mod stored;
mod tool;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Globs, Policy, PolicyErrors, Sessions, Streams};
use crate::decode::{Faults, Fields, Node};
use crate::id::{OrgId, PolicyName};
use crate::order;
use connector::{connector, distinct_paths};
use cool_off::cool_off;
use enforcement::enforcement;
use limit::{keys, limits, tier};
use open::{sessions, streams};
use role::role;
use rule::shadow;
use tool::Schemas;

/// Longest glob and longest tool name: MCP advises 128 characters.
const LONGEST_GLOB: usize = 256;

/// Reads a document that an operator wrote.
pub(super) fn read(document: &Value) -> Result<Policy, PolicyErrors> {
    let mut faults = Faults::default();
    let policy = policy(document, Schemas::Values, &mut faults);
    faults.unless(policy)
}

/// Reads a document whose pinned schemas are texts; see [`stored`].
pub(super) fn read_stored(text: &[u8]) -> Option<Policy> {
    let mut faults = Faults::default();
    let policy = policy(&stored::read(text)?, Schemas::Texts, &mut faults);
    faults.unless(policy).ok()
}

fn policy(document: &Value, schemas: Schemas, faults: &mut Faults) -> Option<Policy> {
    let mut fields = Node::root(document).object(faults, "a policy document: an object")?;
    let expected = "1, the version of this document format";
    if let Some(node) = fields.required("version", faults, expected)
        && !node.is_integer(1)
    {
        node.fault(faults, expected);
    }
    let organisations = fields
        .required("organisations", faults, "a list of organisations, such as [acme]")
        .and_then(|node| organisations(node, faults));
    let connectors = named(&mut fields, "connectors", faults, |name, node, faults| {
        connector(name, node, schemas, faults).map(Box::new)
    });
    if let Some(connectors) = &connectors {
        distinct_paths(connectors, faults);
    }
    // Including faulty ones, because a role that names one is right.
    let known: Vec<&str> =
        fields.optional("connectors").map(|node| node.names()).unwrap_or_default();
    let roles = named(&mut fields, "roles", faults, |_, node, faults| role(node, faults, &known));
    let tiers = named(&mut fields, "tiers", faults, tier);
    let limits = match fields.optional("limits") {
        Some(node) => limits(node, faults),
        None => Some(Vec::new()),
    };
    let keys = match fields.optional("keys") {
        Some(node) => keys(node, faults),
        None => Some(Vec::new()),
    };
    let cool_off = match fields.optional("cool_off") {
        Some(node) => cool_off(node, faults).map(Some),
        None => Some(None),
    };
    let sessions = match fields.optional("sessions") {
        Some(node) => sessions(node, faults),
        None => Some(Sessions::default()),
    };
    let streams = match fields.optional("streams") {
        Some(node) => streams(node, faults),
        None => Some(Streams::default()),
    };
    let redact = match fields.optional("redact") {
        Some(node) => {
            texts(node, faults, "a list of argument names, such as [ssn]", "an argument name")
        }
        None => Some(Vec::new()),
    };
    let (enforcement, shadow) = (enforcement(&mut fields, faults), shadow(&mut fields, faults));
    fields.finish(faults);
    let (organisations, mut connectors) = (organisations?, connectors?);
    let roles = roles?;
    for (name, access) in roles.values().flat_map(|role| &role.connectors) {
        let amends = access.tools.iter().any(|rules| rules.each().any(|(_, it)| it.amends()));
        if let (true, Some(connector)) = (amends, connectors.get_mut(name)) {
            connector.amends = true;
        }
    }
    let paths = connectors.iter().flat_map(|(name, connector)| {
        connector.paths().map(|path| (path.to_owned(), name.clone()))
    });
    Some(Policy {
        organisations,
        paths: paths.collect(),
        connectors,
        roles,
        tiers: tiers?,
        limits: limits?,
        keys: order::map(keys?),
        cool_off: cool_off?,
        sessions: sessions?,
        streams: streams?,
        redact: redact?,
        enforcement: enforcement?,
        shadow: shadow?,
        weight: 0,
    })
}

fn organisations(node: Node<'_>, faults: &mut Faults) -> Option<BTreeSet<OrgId>> {
    let items = node.clone().items(faults, "a list of organisations, such as [acme]")?;
    if items.is_empty() {
        node.fault(faults, "at least one organisation");
    }
    let read = items.into_iter().map(|item| item.text(faults, OrgId::EXPECTED, OrgId::new));
    read.collect::<Option<Vec<_>>>().map(order::set)
}

/// The shortest valid value of a field with named objects.
fn example(field: &str) -> &'static str {
    match field {
        "connectors" => "{crm: {path: /crm/mcp}}",
        "roles" => "{analyst: {crm: {allow: [query_*]}}}",
        _ => "{free: {limits: {calls: {limit: 5, window: 1s}}}}",
    }
}

/// An object of named objects, each read by `read`; none when the field is absent or no object.
fn named<T>(
    fields: &mut Fields<'_>,
    field: &'static str,
    faults: &mut Faults,
    mut read: impl FnMut(&PolicyName, Node<'_>, &mut Faults) -> Option<T>,
) -> Option<BTreeMap<PolicyName, T>> {
    let expected = format!("one member for each of the {field}, such as {}", example(field));
    let members = fields.required(field, faults, &expected)?.members(faults, &expected)?;
    let mut things = BTreeMap::new();
    for (name, node) in members {
        let Some(name) = name_of(name, &node, faults) else {
            continue;
        };
        if let Some(thing) = read(&name, node, faults) {
            things.insert(name, thing);
        }
    }
    Some(things)
}

fn name_of(name: &str, node: &Node<'_>, faults: &mut Faults) -> Option<PolicyName> {
    let valid = PolicyName::new(name);
    if valid.is_none() {
        faults.push(node.path(), format!("the name {name:?}"), PolicyName::EXPECTED);
    }
    valid
}
fn globs(node: Node<'_>, faults: &mut Faults, expected: &str) -> Option<Globs> {
    let texts = texts(node, faults, expected, "a name")?;
    let mut globs = Globs::default();
    for text in texts {
        globs.insert(&text);
    }
    Some(globs)
}

fn texts(node: Node<'_>, faults: &mut Faults, list: &str, item: &str) -> Option<Vec<String>> {
    let expected = format!("{item} of 1 to {LONGEST_GLOB} bytes");
    node.items(faults, list)?
        .into_iter()
        .map(|node| {
            node.text(faults, &expected, |text| {
                (1..=LONGEST_GLOB).contains(&text.len()).then(|| text.to_owned())
            })
        })
        .collect()
}
