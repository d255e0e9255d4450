//! The environment of a worker under test: keys, records, policies, and an honest Redis and Vault.
//!
//! Owns facts that a property can look up without the core: which revision of a record proves its key, which policy
//! allows what. A revision's text encodes its document, so the core's state can be read from revisions alone, even when
//! Redis lies.

#[path = "../shared/config.rs"]
mod config;

use std::sync::LazyLock;
use std::time::Duration;

use portcullis_core::audit::Chain;
use portcullis_core::auth::api_key::{KeyDigest, SECRET_LENGTH, mint};
use portcullis_core::id::{KeyId, OrgId};
use portcullis_core::policy::version_of;
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;
use portcullis_redis_lua::Value;
use serde_json::json;

use config::config;

/// 2026-11-20T22:00:00Z.
pub(crate) const START: u64 = 1_795_212_000;
/// The time at which a record of state `e`, `n` or `o` changes.
const TURNING_POINT: u64 = START + 2;
/// The holders of keys; the first two have a role of the same name.
pub(crate) const HOLDERS: [&str; 3] = ["analyst", "support", "stranger"];
/// Policies; the last does not compile.
pub(crate) const POLICIES: [&str; 4] = ["v1", "v2", "v3", "broken"];
/// States of a record, the last letter of its revision: good, good and without limits, revoked,
/// expiring, not yet valid, with another secret, rotated out, unreadable.
pub(crate) const STATES: [char; 8] = ['g', 'm', 'r', 'e', 'n', 'f', 'o', 'u'];

/// Part of values in Vault, and of arguments that must not be logged.
pub(crate) const CANARY: &str = "s3cret-canary";

static KEYS: LazyLock<[String; 3]> = LazyLock::new(|| {
    HOLDERS.map(|holder| {
        let (org, id) = (OrgId::new("acme").unwrap(), KeyId::new(&format!("k{holder}")).unwrap());
        let secret = holder.repeat(SECRET_LENGTH)[..SECRET_LENGTH].to_owned();
        mint(&org, &id, &secret).unwrap().expose().to_owned()
    })
});

static VERSIONS: LazyLock<[String; 4]> =
    LazyLock::new(|| POLICIES.map(|name| version_of(&document(name)).unwrap().to_string()));

pub(crate) fn worker(cache: Duration) -> Worker {
    let mut config = config();
    if let Some(vault) = &mut config.vault {
        vault.cache = cache;
    }
    config.origins.clear();
    config.max_body_bytes = 4_096;
    Worker::new(config, Chain::new("c".into()))
}

/// The text of a holder's key.
pub(crate) fn key(holder: &str) -> &'static str {
    let at = HOLDERS.iter().position(|known| *known == holder).unwrap();
    &KEYS[at]
}

/// The document of a record at a revision.
pub(crate) fn record(holder: &str, rev: &str) -> serde_json::Value {
    let mut record = json!({
        "id": format!("k{holder}"), "org": "acme", "name": format!("{holder} bot"), "role": holder,
        "tier": "free", "created_at": 1, "created_by": "ops",
        "secrets": [{"sha256": KeyDigest::of(key(holder).as_bytes()).to_hex()}]
    });
    match rev.chars().next_back().unwrap() {
        'm' => record["tier"] = json!("open"),
        'r' => record["revoked"] = json!({"at": 1, "by": "ops", "reason": "leak"}),
        'e' => record["expires_at"] = json!(TURNING_POINT),
        'n' => record["not_before"] = json!(TURNING_POINT),
        'f' => record["secrets"][0]["sha256"] = json!(KeyDigest::of(b"other").to_hex()),
        'o' => record["secrets"][0]["not_after"] = json!(TURNING_POINT),
        'u' => record["cidrs"] = json!([]),
        _ => {}
    }
    record
}

/// Whether a record at this revision proves its holder's key.
pub(crate) fn proves(rev: &str, now: UnixTime) -> bool {
    match rev.chars().next_back() {
        Some('g' | 'm') => true,
        Some('e' | 'o') => now.seconds() < TURNING_POINT,
        Some('n') => now.seconds() >= TURNING_POINT,
        _ => false,
    }
}

/// A policy document.
pub(crate) fn document(name: &str) -> serde_json::Value {
    let mut document = json!({
        "version": 1, "organisations": ["acme"],
        "connectors": {
            "demo": {"path": "/demo/mcp", "credential": {
                "secret": "vault://secret/connectors/demo#api_key",
                "header": "authorization", "template": "Bearer {secret}"}},
            "open": {"path": "/open/mcp"}
        },
        "roles": {
            "analyst": {
                "demo": {"allow": ["query_users"], "show": ["create_*"]},
                "open": {"allow": ["query_*"], "show": ["create_*"]}},
            "support": {"demo": {"allow": ["query_users", "create_note"]}}},
        "tiers": {
            "free": {"limits": {"calls": {"limit": 5, "window": "1s"}}}, "open": {"limits": {}}},
        "redact": ["ssn"]
    });
    match name {
        "v2" => {
            document["roles"]["analyst"]["demo"]["allow"] = json!(["query_users", "create_note"]);
            document["limits"] = json!({"storm": {
                "limit": 10, "window": "1m", "per": ["key", "tool"],
                "match": {"tools": ["create_note"]}}});
        }
        "v3" => {
            document["roles"]["analyst"] = json!({"open": {"allow": ["*"]}});
            document["connectors"]["demo"]["credential"]["secret"] =
                json!("vault://secret/connectors/demo2#api_key");
        }
        "broken" => document["version"] = json!(2),
        _ => {}
    }
    document
}

pub(crate) fn version(name: &str) -> &'static str {
    let at = POLICIES.iter().position(|known| *known == name).unwrap();
    &VERSIONS[at]
}

pub(crate) fn policy_of(version: &str) -> Option<&'static str> {
    let at = VERSIONS.iter().position(|known| known == version)?;
    Some(POLICIES[at])
}

/// Whether `bytes` are the document of the policy `version`, and that policy is usable.
pub(crate) fn is_policy(bytes: &[u8], version: &str) -> bool {
    let document = portcullis_core::json::parse_strict(bytes).ok();
    let document = document.filter(|document| portcullis_core::policy::compile(document).is_ok());
    let found = document.as_ref().and_then(portcullis_core::policy::version_of);
    found.is_some_and(|found| found.as_str() == version)
}

/// Whether a policy lets a role reach a connector, and call `tool` there when one is named.
pub(crate) fn allows(policy: &str, role: &str, path: &str, tool: Option<&str>) -> bool {
    let tools: &[&str] = match (policy, role, path) {
        ("v1", "analyst", "/demo/mcp") => &["query_users"],
        ("v2", "analyst", "/demo/mcp") => &["query_users", "create_note"],
        ("v1" | "v2", "analyst", "/open/mcp") => &["query_users", "query_userſ"],
        ("v3", "analyst", "/open/mcp") => return true,
        ("v1" | "v2" | "v3", "support", "/demo/mcp") => &["query_users", "create_note"],
        _ => return false,
    };
    tool.is_none_or(|tool| tools.contains(&tool))
}

/// How many windows a call of `tool` draws from.
pub(crate) fn windows(policy: &str, rev: &str, tool: Option<&str>) -> usize {
    let Some(tool) = tool else {
        return 0;
    };
    usize::from(!rev.ends_with('m')) + usize::from(policy == "v2" && tool == "create_note")
}

pub(crate) fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

/// The contents of Redis.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    /// The revision of each holder's record.
    pub(crate) records: [Option<String>; 3],
    /// The active policy.
    pub(crate) policy: Option<&'static str>,
}

impl Truth {
    /// The honest answer to an admission call: that of `admit.lua` for an empty window.
    pub(crate) fn admit(&self, holder: &str, expected: [&str; 2], windows: usize) -> Value {
        let at = HOLDERS.iter().position(|known| *known == holder).unwrap();
        let rev = self.records[at].as_deref();
        let version = self.policy.map(version);
        if [rev.unwrap_or("-"), version.unwrap_or("-")] == expected {
            return Value::Array([vec![Value::Int(1)], states(windows)].concat());
        }
        moved(holder, expected, rev, version)
    }
}

/// The remaining units and the reset times of this many windows.
pub(crate) fn states(windows: usize) -> Vec<Value> {
    (0..windows).flat_map(|_| [4, 1_000, 0].map(Value::Int)).collect()
}

/// A reply with the record at `rev` and the policy at `version`.
pub(crate) fn moved(
    holder: &str,
    expected: [&str; 2],
    rev: Option<&str>,
    version: Option<&str>,
) -> Value {
    let guard = |now: Option<&str>, expected: &str, document: Value| match now {
        Some(now) if now != expected => [bulk(now), document],
        now => [bulk(now.unwrap_or("-")), Value::Nil],
    };
    let document = rev.map_or(Value::Nil, |rev| bulk(&record(holder, rev).to_string()));
    let mut items = vec![Value::Int(0)];
    items.extend(guard(rev, expected[0], document));
    items.extend(guard(version, expected[1], bulk("{}")));
    Value::Array(items)
}
