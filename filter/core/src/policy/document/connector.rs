//! The form of a connector.
//!
//! Owns the allowed fields of a connector. Connects to none.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::credential::credential;
use super::globs;
use super::role::RESERVED;
use super::rule::{About, conditions};
use super::tool::{Schemas, credits, pins, tools};
use crate::decode::settings::scopes;
use crate::decode::{Faults, Node};
use crate::http::request_headers;
use crate::http::response_headers;
use crate::id::PolicyName;
use crate::policy::{Connector, Globs, StreamRefusals, Unpinned, UpstreamBinding};

pub(super) fn connector(
    name: &PolicyName,
    node: Node<'_>,
    schemas: Schemas,
    faults: &mut Faults,
) -> Option<Connector> {
    if RESERVED.contains(&name.as_str()) {
        let expected = "another name: a role has a field of this one";
        faults.push(node.path(), format!("the name {:?}", name.as_str()), expected);
    }
    let mut fields =
        node.object(faults, "a connector: an object with `path`, such as {path: /demo/mcp}")?;
    let path = fields
        .required("path", faults, Connector::PATH)
        .and_then(|node| node.text(faults, Connector::PATH, path_of));
    let messages = match fields.optional("messages") {
        Some(node) => node.text(faults, Connector::PATH, path_of).map(Some),
        None => Some(None),
    };
    let refusals = match fields.optional("refusals") {
        Some(node) => node.text(faults, "stream or status", |text| match text {
            "stream" => Some(StreamRefusals::Stream),
            "status" => Some(StreamRefusals::Status),
            _ => None,
        }),
        None => Some(StreamRefusals::default()),
    };
    let upstream = match fields.optional("upstream") {
        Some(node) => upstream(node, faults),
        None => Some(UpstreamBinding::default()),
    };
    let credential = match fields.optional("credential") {
        Some(node) => credential(node, faults).map(|it| Some(Rc::new(it))),
        None => Some(None),
    };
    let request_headers = match fields.optional("request_headers") {
        Some(node) => request_headers::NAMED.others(node, faults),
        None => Some(Vec::new()),
    };
    let response_headers = match fields.optional("response_headers") {
        Some(node) => response_headers::NAMED.others(node, faults),
        None => Some(Vec::new()),
    };
    let query = match fields.optional("query") {
        Some(node) => globs(
            node,
            faults,
            "a list of names of query parameters, such as [toolsets]; * and ? are wildcards",
        ),
        None => Some(Globs::default()),
    };
    let methods = match fields.optional("methods") {
        Some(node) => globs(
            node,
            faults,
            "a list of JSON-RPC methods, such as [vendor/*]; * and ? are wildcards",
        ),
        None => Some(Globs::default()),
    };
    let price = match fields.optional("price") {
        Some(node) => credits(node, faults),
        None => Some(1),
    };
    let tools = match fields.optional("tools") {
        Some(node) => tools(node, schemas, faults),
        None => Some(BTreeMap::new()),
    };
    let scopes = match fields.optional("scopes") {
        Some(node) => scopes(node, faults),
        None => Some(Vec::new()),
    };
    let conditions = conditions(&mut fields, About::Tools, faults);
    let amends = tools.iter().flat_map(BTreeMap::values).any(|tool| tool.rules.amends());
    let pinned = tools.iter().flat_map(BTreeMap::values).any(|tool| tool.pin.is_some());
    let pins = pins(&mut fields, faults, if pinned { Unpinned::Hide } else { Unpinned::Allow });
    fields.finish(faults);
    Some(Connector {
        path: path?,
        messages: messages?,
        refusals: refusals?,
        upstream: upstream?,
        credential: credential?,
        request_headers: request_headers?,
        response_headers: response_headers?,
        query: query?,
        methods: methods?,
        price: price?,
        scopes: scopes?,
        tools: tools?,
        conditions: conditions?,
        pins: pins?,
        amends,
    })
}

fn path_of(text: &str) -> Option<String> {
    Connector::is_path(text).then(|| text.to_owned())
}

fn upstream(node: Node<'_>, faults: &mut Faults) -> Option<UpstreamBinding> {
    const EITHER: &str = "an object with `clusters`, `hosts` or both, such as {clusters: [crm], hosts: [mcp.example]}";
    const CLUSTERS: &str = "a list of Envoy clusters, such as [crm]; * and ? are wildcards";
    const HOSTS: &str = "a list of hosts, such as [mcp.example]";
    const HOST: &str =
        "a host, with its port if only that one will do, such as mcp.example or localhost:10000";
    let place = node.clone();
    let mut fields = node.object(faults, EITHER)?;
    let clusters = match fields.optional("clusters") {
        Some(node) => globs(node, faults, CLUSTERS),
        None => Some(Globs::default()),
    };
    let hosts: Option<Vec<String>> = match fields.optional("hosts") {
        Some(node) => {
            let items = node.items(faults, HOSTS)?.into_iter();
            items.map(|item| item.text(faults, HOST, host)).collect()
        }
        None => Some(Vec::new()),
    };
    fields.finish(faults);
    let binding = UpstreamBinding { clusters: clusters?, hosts: hosts? };
    if binding == UpstreamBinding::default() {
        place.fault(faults, EITHER);
        return None;
    }
    Some(binding)
}

fn host(text: &str) -> Option<String> {
    let valid = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    valid.then(|| text.to_ascii_lowercase())
}

pub(super) fn distinct_paths(
    connectors: &BTreeMap<PolicyName, Box<Connector>>,
    faults: &mut Faults,
) {
    let mut owners = BTreeMap::new();
    for (name, connector) in connectors {
        for (field, path) in ["path", "messages"].into_iter().zip(connector.paths()) {
            if let Some(first) = owners.insert(path, name) {
                faults.push(
                    &format!("connectors.{name}.{field}"),
                    format!("{path:?}, the path of {first}"),
                    "a path that no other connector has",
                );
            }
        }
    }
}
