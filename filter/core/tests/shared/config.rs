//! The plugin configuration that scenarios and properties start from. Each states what it has otherwise.

use std::time::Duration;

use portcullis_core::audit::CheckpointConfig;
use portcullis_core::config::{
    AuthConfig, Config, HealthConfig, Mode, Reach, Redis, Refusals, RequestIds, Scope, Vault,
};
use portcullis_core::guard::Guards;
use portcullis_core::resilience::failover::OnFailure;
use portcullis_core::unproven::UnprovenConfig;

/// Redis and Vault on one cluster each, hold mode, small bounds.
pub(crate) fn config() -> Config {
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
        reach: Reach::Unbounded,
        policy: None,
        auth: AuthConfig::default(),
        authorization_servers: std::collections::BTreeMap::new(),
        guards: Guards::default(),
        scope: Scope::default(),
        mode: Mode::Hold,
        hosts: Vec::new(),
        origins: vec!["https://app.example".into()],
        request_ids: RequestIds::Own,
        refusals: Refusals::Auto,
        max_body_bytes: 1_024,
        unproven: UnprovenConfig::default(),
        audit_input_max_bytes: 256,
        durable_audit: false,
        open_after: None,
        checkpoints: CheckpointConfig::default(),
        health: HealthConfig::default(),
        policy_cache_bytes: 67_108_864,
    }
}
