//! The plugin configuration: how to reach Redis and Vault, and what this deployment allows.
//!
//! Owns defaults and bounds. Holds no policy and no secret: those live in Redis and in Vault.

use std::time::Duration;

use serde_json::Value;

use crate::decode::{Faults, Fields, Node};

/// What the operator of this Envoy decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The Envoy cluster of the Redis stream.
    pub redis_cluster: String,
    /// How long one Redis command may take before the call counts as failed.
    pub redis_timeout: Duration,
    /// The Envoy cluster of the Vault API.
    pub vault_cluster: String,
    /// How long one Vault read may take.
    pub vault_timeout: Duration,
    /// How long a credential read from Vault is used before it is read again.
    pub vault_cache: Duration,
    /// The largest request body that is judged; anything above is refused with 413.
    pub max_body_bytes: usize,
    /// The most bytes of redacted input that one audit entry carries.
    pub audit_input_max_bytes: usize,
}

impl Config {
    /// Reads the plugin configuration.
    ///
    /// # Errors
    /// Every fault at once; unknown fields are faults.
    pub fn parse(document: &Value) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let config = read(document, &mut faults);
        faults.unless(config)
    }
}

const CLUSTER: &str = "the name of an Envoy cluster";

fn read(document: &Value, faults: &mut Faults) -> Option<Config> {
    let mut fields = Node::root(document).object(faults, "an object with `redis` and `vault`")?;
    let redis = dependency(&mut fields, "redis", 250, faults);
    let vault = dependency(&mut fields, "vault", 2_000, faults);
    let max_body_bytes =
        section(&mut fields, "request", "max_body_bytes", "bytes", 1_048_576, 1_024, faults);
    let audit_input_max_bytes =
        section(&mut fields, "audit", "input_max_bytes", "bytes", 4_096, 0, faults);
    fields.finish(faults);
    let (redis, vault) = (redis?, vault?);
    Some(Config {
        redis_cluster: redis.cluster,
        redis_timeout: redis.timeout,
        vault_cluster: vault.cluster,
        vault_timeout: vault.timeout,
        vault_cache: vault.cache,
        max_body_bytes,
        audit_input_max_bytes,
    })
}

struct Dependency {
    cluster: String,
    timeout: Duration,
    cache: Duration,
}

fn dependency(
    fields: &mut Fields<'_>,
    name: &'static str,
    timeout_ms: u64,
    faults: &mut Faults,
) -> Option<Dependency> {
    const DAY: u64 = 86_400;
    let node = fields.required(name, faults, "an object with `cluster`")?;
    let mut fields = node.object(faults, "an object with `cluster`")?;
    let cluster = fields.required("cluster", faults, CLUSTER).and_then(|node| {
        node.text(faults, CLUSTER, |text| (!text.is_empty()).then(|| text.to_owned()))
    });
    let timeout = match fields.optional("timeout_ms") {
        Some(node) => node.integer(faults, 1..=60_000, "milliseconds"),
        None => Some(timeout_ms),
    };
    let cache = match name {
        "vault" => match fields.optional("cache_seconds") {
            Some(node) => node.integer(faults, 0..=DAY, "seconds"),
            None => Some(60),
        },
        _ => Some(0),
    };
    fields.finish(faults);
    Some(Dependency {
        cluster: cluster?,
        timeout: Duration::from_millis(timeout?),
        cache: Duration::from_secs(cache?),
    })
}

/// A section of one numeric field: absent means the default, also when it is faulty, since a
/// faulty configuration is refused as a whole.
fn section(
    fields: &mut Fields<'_>,
    name: &'static str,
    field: &'static str,
    unit: &str,
    default: usize,
    least: u64,
    faults: &mut Faults,
) -> usize {
    const MOST: u64 = 16 * 1_048_576;
    let Some(mut fields) = fields.optional(name).and_then(|node| node.object(faults, "an object"))
    else {
        return default;
    };
    let number = fields.optional(field).and_then(|node| node.integer(faults, least..=MOST, unit));
    fields.finish(faults);
    number.and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_stated() {
        let config =
            Config::parse(&json!({"redis": {"cluster": "r"}, "vault": {"cluster": "v"}})).unwrap();
        assert_eq!(config.redis_timeout, Duration::from_millis(250));
        assert_eq!(config.vault_cache, Duration::from_secs(60));
        assert_eq!(config.max_body_bytes, 1_048_576);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let faults = Config::parse(&json!({
            "redis": {"cluster": "", "timeout": 5},
            "vault": 7,
            "request": {"max_body_bytes": 1.5},
            "failure": "open"
        }))
        .unwrap_err();
        assert_eq!(
            faults.to_string(),
            "redis.cluster: found \"\", expected the name of an Envoy cluster\n\
             redis.timeout: found an unknown field, expected one of cluster, timeout_ms\n\
             vault: found 7, expected an object with `cluster`\n\
             request.max_body_bytes: found 1.5, expected a whole number of bytes from 1024 to 16777216\n\
             failure: found an unknown field, expected one of redis, vault, request, audit"
        );
    }
}
