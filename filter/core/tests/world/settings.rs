//! The plugin configuration that scenarios start from, and what a scenario sets in it.

use std::time::Duration;

use portcullis_core::auth::certificate::mapping::{self, CertificateConfig};
use portcullis_core::config::{AuthConfig, Config, Mode, Redis, Refusals, RequestIds, Vault};
use portcullis_core::decode::{Faults, Node};
use portcullis_core::failure::OnFailure;
use portcullis_core::guard::Guards;
use portcullis_core::unproven::UnprovenConfig;
use serde_json::json;

pub(super) fn config() -> Config {
    Config {
        redis: Some(Redis {
            cluster: "redis".into(),
            sharded: false,
            timeout: Duration::from_millis(250),
            on_failure: OnFailure::Deny,
        }),
        vault: Some(Vault {
            cluster: "vault".into(),
            timeout: Duration::from_secs(2),
            cache: Duration::from_secs(60),
            stale: None,
            mounts: Vec::new(),
        }),
        reach: portcullis_core::config::Reach::Unbounded,
        policy: None,
        auth: AuthConfig::default(),
        guards: Guards::default(),
        scope: portcullis_core::config::Scope::default(),
        mode: Mode::Hold,
        hosts: Vec::new(),
        origins: vec!["https://app.example".into()],
        request_ids: RequestIds::Own,
        refusals: Refusals::Auto,
        max_body_bytes: 1_024,
        unproven: UnprovenConfig::default(),
        audit_input_max_bytes: 256,
        health: portcullis_core::config::HealthConfig::default(),
        policy_cache_bytes: 67_108_864,
    }
}

/// One identity: the agent `CN=agent` is an analyst of acme.
pub(super) fn certificates(mode: &str) -> CertificateConfig {
    let agent = json!({"match": {"cn": "agent"}, "org": "acme", "role": "analyst", "tier": "free"});
    let document = json!({"mode": mode, "identities": [agent]});
    let mut faults = Faults::default();
    let config = mapping::read(Node::root(&document), &mut faults);
    faults.unless(config).unwrap()
}
