//! The clients that see the state of the gateway's dependencies.
//!
//! Owns the field `health`. `crate::health` owns the content.

use std::net::IpAddr;

use crate::auth::source::SourceRange;
use crate::decode::{Faults, Fields, Node};

/// The clients that see the details, not only the gateway's own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    details_to: Vec<SourceRange>,
}

impl Default for HealthConfig {
    /// Only clients on the same machine: other clients must not learn the names of connectors and issuers.
    fn default() -> Self {
        let loopback = ["127.0.0.0/8", "::1"];
        Self { details_to: loopback.into_iter().filter_map(SourceRange::new).collect() }
    }
}

impl HealthConfig {
    /// Reads `health`.
    pub fn read(fields: &mut Fields<'_>, faults: &mut Faults) -> Self {
        let node = fields.optional("health").and_then(|node| node.object(faults, "an object"));
        let Some(mut fields) = node else { return Self::default() };
        let ranges = fields.optional("details_to").map(|node| {
            let items = node.items(faults, "a list").unwrap_or_default().into_iter();
            let read = |item: Node<'_>, faults: &mut Faults| {
                item.text(faults, SourceRange::EXPECTED, SourceRange::new)
            };
            items.filter_map(|item| read(item, faults)).collect()
        });
        fields.finish(faults);
        ranges.map_or_else(Self::default, |details_to| Self { details_to })
    }

    /// Whether a client at `address` sees the details.
    #[must_use]
    pub fn tells_details_to(&self, address: &str) -> bool {
        let address = address.parse::<IpAddr>();
        address.is_ok_and(|address| self.details_to.iter().any(|range| range.contains(address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_for_those_who_were_named() {
        let read = |text: &str| HealthConfig {
            details_to: vec![SourceRange::new(text).expect("a range")],
        };
        let default = HealthConfig::default();
        assert!(default.tells_details_to("127.0.0.1") && default.tells_details_to("::1"));
        assert!(!default.tells_details_to("10.1.2.3") && !default.tells_details_to("unknown"));
        assert!(read("10.0.0.0/8").tells_details_to("10.1.2.3"));
        assert!(!read("10.0.0.0/8").tells_details_to("127.0.0.1"));
    }
}
