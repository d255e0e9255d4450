//! The form of what a policy states about single tools of a connector.
//!
//! Owns what may stand where a tool is described. What a server says of its tools is not asked here.

use std::collections::BTreeMap;

use super::LONGEST_GLOB;
use super::rule::{About, approval, cap, conditions};
use crate::config::scopes;
use crate::decode::{Faults, Node};
use crate::policy::Tool;

pub(super) fn tools(node: Node<'_>, faults: &mut Faults) -> Option<BTreeMap<String, Tool>> {
    let mut tools = BTreeMap::new();
    for (name, node) in node.members(faults, "an object: one member for each tool")? {
        if !(1..=LONGEST_GLOB).contains(&name.len()) {
            let expected = format!("a tool's name of 1 to {LONGEST_GLOB} bytes");
            faults.push(node.path(), format!("a name of {} bytes", name.len()), expected);
        }
        if let Some(tool) = tool(node, faults) {
            tools.insert(name.to_owned(), tool);
        }
    }
    Some(tools)
}

fn tool(node: Node<'_>, faults: &mut Faults) -> Option<Tool> {
    let mut fields = node.object(faults, "a tool: an object such as {read_only: true}")?;
    let read_only = match fields.optional("read_only") {
        Some(node) => node.boolean(faults),
        None => Some(false),
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
    let max_records = match fields.optional("max_records") {
        Some(node) => cap(node, faults).map(Some),
        None => Some(None),
    };
    let approval = match fields.optional("approval") {
        Some(node) => approval(node, faults).map(Some),
        None => Some(None),
    };
    let conditions = conditions(&mut fields, About::Own, faults);
    fields.finish(faults);
    Some(Tool {
        read_only: read_only?,
        price: price?,
        row_price: row_price?,
        scopes: scopes?,
        max_records: max_records?,
        approval: approval?,
        conditions: conditions?,
    })
}

pub(super) fn credits(node: Node<'_>, faults: &mut Faults) -> Option<u64> {
    const MOST: u64 = 1_000_000_000;
    node.integer(faults, 0..=MOST, "credits")
}
