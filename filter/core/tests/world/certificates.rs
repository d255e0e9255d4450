//! Client certificates of a scenario: `CN=<name>`, of whoever is named.

use portcullis_core::auth::certificate::PeerCertificate;
use portcullis_core::auth::certificate::mapping::{self, CertificateConfig};
use portcullis_core::decode::{Faults, Node};
use portcullis_core::event::Head;
use serde_json::json;

/// One identity: the agent `CN=agent` is an analyst of acme.
pub(super) fn config(mode: &str) -> CertificateConfig {
    let agent = json!({"match": {"cn": "agent"}, "org": "acme", "role": "analyst", "tier": "free"});
    let document = json!({"mode": mode, "identities": [agent]});
    let mut faults = Faults::default();
    let config = mapping::read(Node::root(&document), &mut faults);
    faults.unless(config).unwrap()
}

/// The same request on a connection with the certificate of `name`.
pub(super) fn presented(head: Head, name: &str) -> Head {
    let (subject, sha256) = (format!("CN={name}"), "5a".repeat(32));
    head.with_certificate(PeerCertificate::told(&[], &[], subject.as_bytes(), sha256.as_bytes()))
}
