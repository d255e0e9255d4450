//! Fields that several parts of the plugin configuration have.
//!
//! Owns how each is read.

use std::time::Duration;

use super::{Faults, Fields};

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
