//! Two gateways on one Redis, as in a deployment.
//!
//! Owns the evidence of both about a key. Starts its own stack; breaks nothing.

use std::collections::HashSet;
use std::time::Duration;

use portcullis_stack::{Envoy, Stack, ready};
use serde_json::Value;

use crate::crowd::Met;
use crate::gateway::{Gateway, sent_header};
use crate::world::World;

/// Two gateways with two workers each.
#[derive(Debug)]
pub struct Pair {
    pub stack: Stack,
    pub gateways: [Gateway; 2],
    _replica: Envoy,
}

impl Pair {
    pub fn start(world: &World<'_>) -> Self {
        let stack = world.own_stack(|options| options);
        let replica = stack.start_replica("envoy-2").unwrap_or_else(|fault| panic!("{fault}"));
        let second = Gateway::at(&replica, stack.connector.record());
        Self { gateways: [Gateway::of(&stack), second], stack, _replica: replica }
    }

    /// Checks that the upstream's record and both audit logs of a key agree with the results of its calls. Returns the
    /// entries.
    pub fn assert_evidence(&self, id: &str, met: &[Met]) -> Vec<Value> {
        let admitted = met.iter().filter(|met| met.is_admitted()).count();
        let entries = || -> Vec<Value> {
            self.gateways
                .iter()
                .flat_map(|gateway| gateway.audit().entries_where("api_key_id", id))
                .collect()
        };
        let all = ready::eventually("an entry of every call", Duration::from_secs(10), || {
            Some(entries()).filter(|entries| entries.len() >= met.len())
        });
        let entries = all.unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(entries.len(), met.len(), "one entry per call");
        let allowed: Vec<&Value> =
            entries.iter().filter(|entry| entry["decision"]["effect"] == "allow").collect();
        assert_eq!(allowed.len(), admitted, "admitted as often as allowed");
        let ids: HashSet<&str> =
            allowed.iter().filter_map(|entry| entry["request_id"].as_str()).collect();
        let recorded = self.gateways[0].recorded();
        let reached = recorded.iter().filter(|request| {
            let sent = sent_header(request, "x-portcullis-request-id");
            request["body"] != "" && sent.iter().any(|id| ids.contains(id))
        });
        assert_eq!(reached.count(), admitted, "the upstream was reached as often");
        entries
    }
}
