//! The form of a policy document, version 1.
//!
//! Owns reading it field by field, and what each fault says. Unknown fields are faults; so is a
//! reference to something the document does not define.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::{Access, Connector, Dimension, Globs, Limit, LimitMatch, Policy, PolicyErrors, Role};
use crate::decode::{Faults, Fields, Node};
use crate::id::{OrgId, PolicyName};
use crate::vault::{CredentialTemplate, SecretRef};

/// An exact window keeps one entry per call that is inside it, so its limit bounds its memory.
const MOST_CALLS: u64 = 100_000;
const LONGEST_WINDOW: Duration = Duration::from_secs(31 * 86_400);
/// Longest glob and longest tool name: MCP advises 128 characters.
const LONGEST_GLOB: usize = 256;

pub(super) fn read(document: &Value) -> Result<Policy, PolicyErrors> {
    let mut faults = Faults::default();
    let policy = policy(document, &mut faults);
    faults.unless(policy)
}

fn policy(document: &Value, faults: &mut Faults) -> Option<Policy> {
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
    let connectors = named(&mut fields, "connectors", faults, connector);
    if let Some(connectors) = &connectors {
        distinct_paths(connectors, faults);
    }
    // Also those with a fault of their own: a role that names one is right.
    let known: Vec<&str> =
        fields.optional("connectors").map(|node| node.names()).unwrap_or_default();
    let roles = named(&mut fields, "roles", faults, |_, node, faults| role(node, faults, &known));
    let tiers = named(&mut fields, "tiers", faults, tier);
    let limits = match fields.optional("limits") {
        Some(node) => limits(node, faults),
        None => Some(Vec::new()),
    };
    let redact = match fields.optional("redact") {
        Some(node) => texts(node, faults, "a list of argument names", "an argument name"),
        None => Some(Vec::new()),
    };
    fields.finish(faults);
    Some(Policy {
        organisations: organisations?,
        connectors: connectors?,
        roles: roles?,
        tiers: tiers?,
        limits: limits?,
        redact: redact?,
    })
}

fn organisations(node: Node<'_>, faults: &mut Faults) -> Option<BTreeSet<OrgId>> {
    let items = node.clone().items(faults, "a list of organisations, such as [acme]")?;
    if items.is_empty() {
        node.fault(faults, "at least one organisation");
    }
    items.into_iter().map(|item| item.text(faults, OrgId::EXPECTED, OrgId::new)).collect()
}

/// An object of named things, each read by `read`; nothing when the field is absent or not one.
fn named<T>(
    fields: &mut Fields<'_>,
    field: &'static str,
    faults: &mut Faults,
    mut read: impl FnMut(&PolicyName, Node<'_>, &mut Faults) -> Option<T>,
) -> Option<BTreeMap<PolicyName, T>> {
    let expected = format!("an object: one member for each of the {field}");
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

fn connector(_: &PolicyName, node: Node<'_>, faults: &mut Faults) -> Option<Connector> {
    const PATH: &str = "an absolute path without query, `//`, `.` or `..`, such as /demo/mcp";
    let mut fields = node.object(faults, "a connector: an object with `path`")?;
    let path = fields
        .required("path", faults, PATH)
        .and_then(|node| node.text(faults, PATH, |text| plain_path(text).then(|| text.to_owned())));
    let messages = match fields.optional("messages") {
        Some(node) => {
            node.text(faults, PATH, |text| plain_path(text).then(|| text.to_owned())).map(Some)
        }
        None => Some(None),
    };
    let credential = match fields.optional("credential") {
        Some(node) => credential(node, faults).map(Some),
        None => Some(None),
    };
    let methods = match fields.optional("methods") {
        Some(node) => globs(node, faults, "a list of JSON-RPC methods; * and ? are wildcards"),
        None => Some(Globs::default()),
    };
    fields.finish(faults);
    Some(Connector { path: path?, messages: messages?, credential: credential?, methods: methods? })
}

/// Only paths that Envoy's normalisation leaves alone can be compared with what it routes.
fn plain_path(text: &str) -> bool {
    text.len() > 1
        && text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|segment| !matches!(segment, "" | "." | "..")))
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b))
}

fn credential(node: Node<'_>, faults: &mut Faults) -> Option<CredentialTemplate> {
    let mut fields = node.object(faults, "an object with `secret`, `header` and `template`")?;
    let secret = fields
        .required("secret", faults, SecretRef::EXPECTED)
        .and_then(|node| node.unseen_text(faults, SecretRef::EXPECTED, SecretRef::parse));
    let header = fields.required("header", faults, CredentialTemplate::HEADER).and_then(|node| {
        node.text(faults, CredentialTemplate::HEADER, CredentialTemplate::header_name)
    });
    let template =
        fields.required("template", faults, CredentialTemplate::TEMPLATE).and_then(|node| {
            node.text(faults, CredentialTemplate::TEMPLATE, CredentialTemplate::split)
        });
    fields.finish(faults);
    Some(CredentialTemplate::new(secret?, header?, template?))
}

fn distinct_paths(connectors: &BTreeMap<PolicyName, Connector>, faults: &mut Faults) {
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

fn role(node: Node<'_>, faults: &mut Faults, connectors: &[&str]) -> Option<Role> {
    let members = node.members(faults, "a role: an object with one member for each connector")?;
    let mut role = Role::default();
    for (name, node) in members {
        if !connectors.contains(&name) {
            let expected = format!("one of the connectors: {}", connectors.join(", "));
            faults.push(node.path(), format!("{name:?}"), expected);
        }
        let access = access(node, faults);
        if let (Some(name), Some(access)) = (PolicyName::new(name), access) {
            role.connectors.insert(name, access);
        }
    }
    Some(role)
}

fn access(node: Node<'_>, faults: &mut Faults) -> Option<Access> {
    const TOOLS: &str = "a list of tool names; * and ? are wildcards";
    let expected = "an object with `allow`, `show`, `prompts` or `resources`";
    let mut fields = node.object(faults, expected)?;
    let mut list = |name, expected| match fields.optional(name) {
        Some(node) => globs(node, faults, expected),
        None => Some(Globs::default()),
    };
    let (allow, show) = (list("allow", TOOLS), list("show", TOOLS));
    let prompts = list("prompts", "a list of prompt names; * and ? are wildcards");
    let resources = list("resources", "a list of resource URIs; * and ? are wildcards");
    fields.finish(faults);
    Some(Access { allow: allow?, show: show?, prompts: prompts?, resources: resources? })
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

fn tier(tier: &PolicyName, node: Node<'_>, faults: &mut Faults) -> Option<Vec<Limit>> {
    let expected = "an object with `limits`";
    let mut fields = node.object(faults, expected)?;
    let members = fields
        .required("limits", faults, expected)
        .and_then(|node| node.members(faults, "an object: one member for each limit"));
    fields.finish(faults);
    let mut limits = Vec::new();
    for (name, node) in members? {
        let Some(name) = name_of(name, &node, faults) else {
            continue;
        };
        let Some(mut fields) = node.object(faults, WINDOW) else {
            continue;
        };
        let rate = rate(&mut fields, faults);
        fields.finish(faults);
        let Some((limit, window)) = rate else {
            continue;
        };
        let name = format!("tiers.{tier}.{name}");
        let (per, only) = (vec![Dimension::Key], LimitMatch::default());
        limits.push(Limit { name, limit, window, per, only });
    }
    Some(limits)
}

fn limits(node: Node<'_>, faults: &mut Faults) -> Option<Vec<Limit>> {
    let mut limits = Vec::new();
    for (name, node) in node.members(faults, "an object: one member for each limit")? {
        let Some(name) = name_of(name, &node, faults) else {
            continue;
        };
        let Some(mut fields) = node.object(faults, WINDOW) else {
            continue;
        };
        let rate = rate(&mut fields, faults);
        let per =
            fields.required("per", faults, DIMENSIONS).and_then(|node| dimensions(node, faults));
        let only = match fields.optional("match") {
            Some(node) => limit_match(node, faults),
            None => Some(LimitMatch::default()),
        };
        fields.finish(faults);
        let (Some((limit, window)), Some(per), Some(only)) = (rate, per, only) else {
            continue;
        };
        limits.push(Limit { name: format!("limits.{name}"), limit, window, per, only });
    }
    Some(limits)
}

const WINDOW: &str = "a limit: an object with `limit` and `window`";
const DIMENSIONS: &str = "a list of: org, key, role, tier, connector, tool";

fn rate(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<(u64, Duration)> {
    const DURATION: &str = "a duration from 1ms to 31d, such as 500ms, 1s, 5m, 1h, 30d";
    let limit = fields
        .required("limit", faults, "how many calls the window admits")
        .and_then(|node| node.integer(faults, 1..=MOST_CALLS, "calls"));
    let window = fields
        .required("window", faults, DURATION)
        .and_then(|node| node.text(faults, DURATION, duration));
    Some((limit?, window?))
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(milliseconds)?);
    (!duration.is_zero() && duration <= LONGEST_WINDOW).then_some(duration)
}

fn dimensions(node: Node<'_>, faults: &mut Faults) -> Option<Vec<Dimension>> {
    let items = node.clone().items(faults, DIMENSIONS)?;
    if items.is_empty() {
        node.fault(faults, "at least one of: org, key, role, tier, connector, tool");
    }
    let mut per: Vec<_> = items
        .into_iter()
        .map(|node| {
            node.text(faults, "one of: org, key, role, tier, connector, tool", |text| {
                Some(match text {
                    "org" => Dimension::Org,
                    "key" => Dimension::Key,
                    "role" => Dimension::Role,
                    "tier" => Dimension::Tier,
                    "connector" => Dimension::Connector,
                    "tool" => Dimension::Tool,
                    _ => return None,
                })
            })
        })
        .collect::<Option<_>>()?;
    // The order in which a person lists them must not make another counter.
    per.sort_unstable();
    per.dedup();
    Some(per)
}

fn limit_match(node: Node<'_>, faults: &mut Faults) -> Option<LimitMatch> {
    let mut fields = node.object(faults, "an object with `connectors`, `tools` or `roles`")?;
    let mut list = |name| match fields.optional(name) {
        Some(node) => globs(node, faults, "a list of names; * and ? are wildcards").map(Some),
        None => Some(None),
    };
    let (connectors, tools, roles) = (list("connectors"), list("tools"), list("roles"));
    fields.finish(faults);
    Some(LimitMatch { connectors: connectors?, tools: tools?, roles: roles? })
}
