//! The client certificates of scenarios.

use portcullis_core::auth::certificate::mapping::{self, CertificateConfig};
use portcullis_core::decode::{Faults, Node};
use serde_json::json;

/// One identity: the agent `CN=agent` is an analyst of acme.
pub(super) fn of_agents(mode: &str) -> CertificateConfig {
    let agent = json!({"match": {"cn": "agent"}, "org": "acme", "role": "analyst", "tier": "free"});
    let document = json!({"mode": mode, "identities": [agent]});
    let mut faults = Faults::default();
    let config = mapping::read(Node::root(&document), &mut faults);
    faults.unless(config).unwrap()
}
