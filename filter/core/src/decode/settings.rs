//! Values that the plugin configuration and policies share.
//!
//! Owns how each is parsed.

use std::time::Duration;

use super::{Faults, Fields, Node};

const CLUSTER: &str = "the name of an Envoy cluster";

/// The name of an Envoy cluster, in the field `cluster`.
pub(crate) fn cluster(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<String> {
    fields
        .required("cluster", faults, CLUSTER)?
        .text(faults, CLUSTER, |text| (!text.is_empty()).then(|| text.to_owned()))
}

/// A time limit of up to a minute.
pub(crate) fn milliseconds(
    fields: &mut Fields<'_>,
    name: &'static str,
    default: u64,
    faults: &mut Faults,
) -> Option<Duration> {
    let milliseconds = match fields.optional(name) {
        Some(node) => node.integer(faults, 1..=60_000, "milliseconds"),
        None => Some(default),
    };
    milliseconds.map(Duration::from_millis)
}

/// A list of scopes.
pub(crate) fn scopes(node: Node<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let items = node.items(faults, "a list of scopes, such as [tools:read]")?.into_iter();
    items
        .map(|item| item.text(faults, SCOPE, |text| is_scope(text).then(|| text.to_owned())))
        .collect()
}

const SCOPE: &str =
    "a scope of 1 to 128 visible characters, no quote and no backslash, such as tools:read";

/// A `scope-token` (RFC 6749 §3.3).
fn is_scope(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    (1..=128).contains(&text.len()) && text.bytes().all(plain)
}
