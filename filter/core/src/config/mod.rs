//! The plugin configuration: how to reach Redis and Vault, and what this deployment allows.
//!
//! Owns defaults and bounds. Holds no credential: those live in Vault.

mod auth;
mod failure;
mod health;
mod inline;
mod reach;
mod scope;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use crate::audit::CheckpointConfig;
use crate::decode::settings::{cluster, milliseconds};
use crate::decode::{Faults, Fields, Node};
use crate::guard::Guards;
use crate::id::{PolicyName, PolicyVersion};
use crate::policy::Policy;
use crate::resilience::failover::OnFailure;
use crate::token_exchange::{self, AuthorizationServer};
use crate::unproven::UnprovenConfig;
use crate::vault::{KvVersion, Mount, is_plain};
pub use auth::AuthConfig;
pub use health::HealthConfig;
pub use reach::{Bounds, Reach};
pub use scope::Scope;

/// What the operator of this Envoy decided.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where keys, policies and windows are. Without it there are none of them, and `policy` decides
    /// about tokens and certificates.
    pub redis: Option<Redis>,
    /// Where credentials of connectors are.
    pub vault: Option<Vault>,
    /// The policy of organisations for which Redis has none.
    pub policy: Option<InlinePolicy>,
    /// Who may prove who they are, beside the holders of API keys.
    pub auth: AuthConfig,
    /// Who gives tokens for connectors' servers, by the name in policies.
    pub authorization_servers: BTreeMap<PolicyName, AuthorizationServer>,
    /// What policies of organisations may name.
    pub reach: Reach,
    /// What routes to MCP servers match on.
    pub guards: Guards,
    /// When a request is held.
    pub mode: Mode,
    /// Which requests are the gateway's business.
    pub scope: Scope,
    /// Values of `Host` that are served, in lower case; all of them when there are none.
    pub hosts: Vec<String>,
    /// Origins whose pages may call (scheme, host, port; in lower case). Requests without an origin
    /// do not come from a page.
    pub origins: Vec<String>,
    /// Whose request ids count.
    pub request_ids: RequestIds,
    /// How proven callers of the legacy era learn that they are refused.
    pub refusals: Refusals,
    /// The largest request body that is judged; anything above is refused with 413.
    pub max_body_bytes: usize,
    /// How much of the bodies of unproven callers a worker holds.
    pub unproven: UnprovenConfig,
    /// The most bytes of redacted input that one audit entry carries.
    pub audit_input_max_bytes: usize,
    /// Whether Redis knows of each call before it is made.
    pub durable_audit: bool,
    /// After how long an open response has an entry of its own; never without.
    pub open_after: Option<Duration>,
    /// How often Redis notes how far the audit chain has come.
    pub checkpoints: CheckpointConfig,
    /// Who learns more than how the gateway is.
    pub health: HealthConfig,
    /// About how many bytes of compiled policies a worker keeps.
    pub policy_cache_bytes: usize,
}

/// How to reach Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// The Envoy cluster of the stream.
    pub cluster: String,
    /// Whether Redis Cluster is behind it, where no script can touch keys of several organisations.
    pub sharded: bool,
    /// How long one command may take before the call counts as failed.
    pub timeout: Duration,
    /// What becomes of calls then.
    pub on_failure: OnFailure,
}

/// How to reach Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vault {
    /// The Envoy cluster of the API.
    pub cluster: String,
    /// How long one read may take.
    pub timeout: Duration,
    /// How long a credential is used before it is read again.
    pub cache: Duration,
    /// For how long beyond that, when it cannot be read again.
    pub stale: Option<Duration>,
    /// KV mounts whose paths have a slash, such as `team/kvv2`, or whose version is 1.
    pub mounts: Vec<Mount>,
}

/// A policy that came with the configuration.
#[derive(Clone, Debug)]
pub struct InlinePolicy {
    /// Its content address, as if it had been pushed.
    pub version: PolicyVersion,
    /// What it says.
    pub policy: Rc<Policy>,
}

/// When a request is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// From its headers on, until its body is judged. Needs `allow_on_headers_stop_iteration`.
    #[default]
    Hold,
    /// Twice: the headers until the identity is proven, then the body until it is judged. For hosts
    /// that cannot set the flag; costs a second round trip to Redis.
    Split,
}

/// Whose request ids count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestIds {
    /// The gateway's own. Whether Envoy or a client wrote `x-request-id` does not show in the header.
    #[default]
    Own,
    /// The `x-request-id` that came, for the hop in front is trusted; an own one where it has no valid id.
    External,
}

/// How a proven caller of the legacy era learns of a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusals {
    /// In a message, when the request comes from an MCP client; such a one sends `MCP-Protocol-Version` once it has
    /// negotiated, or a session. By status to anybody else.
    #[default]
    Auto,
    /// In a message of status 200: a tool's result for a call, an error otherwise.
    Message,
    /// By status.
    Status,
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

/// An authorization server's secret is in Vault; and where organisations are bounded, it serves those that it lists:
/// a policy chooses audience and scopes freely.
fn servers_fit(
    servers: &BTreeMap<PolicyName, AuthorizationServer>,
    (has_vault, reach): (bool, &Reach),
    faults: &mut Faults,
) {
    if !servers.is_empty() && !has_vault {
        let expected = "`vault` beside it: the client secret comes from there";
        faults.push("authorization_servers", "no vault", expected);
    }
    for (name, server) in servers {
        if matches!(reach, Reach::Bounded(_)) && server.organisations.is_none() {
            let place = format!("authorization_servers.{name}.organisations");
            let expected = "the organisations whose policies may name it, beside `organisations`";
            faults.push(&place, "nothing", expected);
        }
    }
}

fn read(document: &Value, faults: &mut Faults) -> Option<Config> {
    let mut fields = Node::root(document).object(faults, "an object with `redis` or `policy`")?;
    let redis = fields.optional("redis").map(|node| redis(node, faults));
    let vault = fields.optional("vault").map(|node| vault(node, faults));
    let policy = inline::policy(&mut fields, document.get("policy"), faults);
    match &redis {
        None => inline::without_redis(policy.as_ref(), faults),
        Some(Some(Redis { sharded: true, .. })) => inline::sharded(policy.as_ref(), faults),
        Some(_) => {}
    }
    let auth = auth::read(&mut fields, faults);
    let authorization_servers = token_exchange::read(&mut fields, faults);
    let reach = reach::read(&mut fields, faults);
    servers_fit(&authorization_servers, (vault.is_some(), &reach), faults);
    let guards = Guards::read(&mut fields, faults);
    let request = request(&mut fields, faults);
    if matches!(request.scope, Scope::Paths(_)) && !guards.refuse_unguarded() {
        let expected = "refuse; or `guards`, and `unguarded_routes` not `allow`: only they keep what goes by from MCP servers";
        faults.push("request.unmatched", "pass", expected);
    }
    let (audit_input_max_bytes, checkpoints, durable_audit, open_after) =
        audit(&mut fields, faults);
    if durable_audit && redis.is_none() {
        faults.push("audit.durable", "true", "false, or `redis`: it takes the intents of calls");
    }
    let health = HealthConfig::read(&mut fields, faults);
    let policy_cache_bytes = policy_cache(&mut fields, faults);
    fields.finish(faults);
    Some(Config {
        redis: redis.map_or(Some(None), |redis| redis.map(Some))?,
        vault: vault.map_or(Some(None), |vault| vault.map(Some))?,
        policy,
        auth,
        authorization_servers,
        reach,
        guards,
        mode: request.mode,
        scope: request.scope,
        hosts: request.hosts,
        origins: request.origins,
        request_ids: request.request_ids,
        refusals: request.refusals,
        max_body_bytes: request.max_body_bytes,
        unproven: request.unproven,
        audit_input_max_bytes,
        durable_audit,
        open_after,
        checkpoints,
        health,
        policy_cache_bytes,
    })
}

fn redis(node: Node<'_>, faults: &mut Faults) -> Option<Redis> {
    let mut fields = node.object(faults, "an object with `cluster`")?;
    let cluster = cluster(&mut fields, faults);
    let sharded = match fields.optional("sharded") {
        Some(node) => node.boolean(faults),
        None => Some(false),
    };
    let timeout = milliseconds(&mut fields, "timeout_ms", 50, faults);
    let on_failure = failure::redis(&mut fields, faults);
    fields.finish(faults);
    Some(Redis { cluster: cluster?, sharded: sharded?, timeout: timeout?, on_failure })
}

fn vault(node: Node<'_>, faults: &mut Faults) -> Option<Vault> {
    const DAY: u64 = 86_400;
    let mut fields = node.object(faults, "an object with `cluster`")?;
    let cluster = cluster(&mut fields, faults);
    let timeout = milliseconds(&mut fields, "timeout_ms", 2_000, faults);
    let cache = match fields.optional("cache_seconds") {
        Some(node) => node.integer(faults, 0..=DAY, "seconds"),
        None => Some(60),
    };
    let stale = failure::vault(&mut fields, faults);
    let mounts = mounts(&mut fields, faults);
    fields.finish(faults);
    let cache = Duration::from_secs(cache?);
    Some(Vault { cluster: cluster?, timeout: timeout?, cache, stale, mounts })
}

fn mounts(fields: &mut Fields<'_>, faults: &mut Faults) -> Vec<Mount> {
    const MOUNT: &str =
        "the path of a KV mount, such as team/kvv2, or an object such as {path: legacy, kv: 1}";
    let items = fields.optional("mounts").and_then(|node| node.items(faults, "a list"));
    let read = |text: &str| is_plain(text).then(|| text.to_owned());
    let items = items.unwrap_or_default().into_iter();
    let items = items.filter_map(|item| {
        if !item.value().is_object() {
            let path = item.text(faults, MOUNT, read)?;
            return Some(Mount { path, kv: KvVersion::Two });
        }
        let mut fields = item.object(faults, MOUNT)?;
        let path = fields.required("path", faults, MOUNT);
        let path = path.and_then(|node| node.text(faults, MOUNT, read));
        let kv = match fields.optional("kv") {
            Some(node) => node.integer(faults, 1..=2, "the KV engine's version"),
            None => Some(2),
        };
        fields.finish(faults);
        let kv = if kv? == 1 { KvVersion::One } else { KvVersion::Two };
        Some(Mount { path: path?, kv })
    });
    items.collect()
}

/// The most bytes that anything may be allowed to have.
const MOST_BYTES: u64 = 16 * 1_048_576;

/// What a host buffers of a request where no more is configured: what Envoy Gateway sets for its connections.
const HOST_BUFFER: usize = 32_768;

/// What requests are served. A faulty field has its default here, and the whole is refused.
struct Request {
    mode: Mode,
    scope: Scope,
    hosts: Vec<String>,
    origins: Vec<String>,
    request_ids: RequestIds,
    refusals: Refusals,
    max_body_bytes: usize,
    unproven: UnprovenConfig,
}

fn request(fields: &mut Fields<'_>, faults: &mut Faults) -> Request {
    const MODE: &str = "hold or split";
    const ORIGIN: &str =
        "an origin without path, such as https://app.example or http://localhost:6274";
    const HOST: &str =
        "a host, with its port if it has one, such as mcp.example or localhost:10000";
    let mut request = Request {
        mode: Mode::Hold,
        scope: Scope::default(),
        hosts: vec![],
        origins: vec![],
        request_ids: RequestIds::Own,
        refusals: Refusals::Auto,
        max_body_bytes: 1_048_576,
        unproven: UnprovenConfig::default(),
    };
    let node = fields.optional("request").and_then(|node| node.object(faults, "an object"));
    let Some(mut fields) = node else { return request };
    let mode = fields.optional("mode").and_then(|node| {
        node.text(faults, MODE, |text| match text {
            "hold" => Some(Mode::Hold),
            "split" => Some(Mode::Split),
            _ => None,
        })
    });
    request.mode = mode.unwrap_or_default();
    request.scope = Scope::read(&mut fields, faults);
    if let Some(node) = fields.optional("hosts") {
        request.hosts = texts(node, faults, HOST, |text| !text.contains(['/', ' ', '@']));
    }
    if let Some(node) = fields.optional("origins") {
        request.origins = texts(node, faults, ORIGIN, |text| {
            text.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'))
        });
    }
    let external = fields.optional("preserve_external_request_id");
    if external.and_then(|node| node.boolean(faults)).unwrap_or_default() {
        request.request_ids = RequestIds::External;
    }
    if let Some(node) = fields.optional("refusals") {
        let refusals = node.text(faults, "auto, message or status", |text| match text {
            "auto" => Some(Refusals::Auto),
            "message" => Some(Refusals::Message),
            "status" => Some(Refusals::Status),
            _ => None,
        });
        request.refusals = refusals.unwrap_or_default();
    }
    let most = fields.optional("max_body_bytes");
    let most = most.and_then(|node| node.integer(faults, 1_024..=MOST_BYTES, "bytes"));
    let most = most.and_then(|most| usize::try_from(most).ok());
    request.max_body_bytes = most.unwrap_or(request.max_body_bytes);
    let buffer = fields.optional("host_buffer_bytes");
    let buffer = buffer.and_then(|node| node.integer(faults, 1_024..=MOST_BYTES, "bytes"));
    let buffer = buffer.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(HOST_BUFFER);
    // In split mode the filter puts the body back once it is judged. Envoy 1.40 ends with a segmentation fault when that is
    // more than its buffer takes: it refuses the request inside the call that puts the body there.
    if request.mode == Mode::Split {
        request.max_body_bytes = request.max_body_bytes.min(buffer);
    }
    request.unproven = UnprovenConfig::read(&mut fields, request.max_body_bytes, faults);
    fields.finish(faults);
    request
}

/// A list of texts, in lower case.
fn texts(
    node: Node<'_>,
    faults: &mut Faults,
    expected: &str,
    valid: fn(&str) -> bool,
) -> Vec<String> {
    let items = node.items(faults, "a list").unwrap_or_default().into_iter();
    let read = |text: &str| (!text.is_empty() && valid(text)).then(|| text.to_ascii_lowercase());
    items.filter_map(|item| item.text(faults, expected, read)).collect()
}

fn audit(
    fields: &mut Fields<'_>,
    faults: &mut Faults,
) -> (usize, CheckpointConfig, bool, Option<Duration>) {
    const INPUT: usize = 4_096;
    const LONGEST: u64 = 3_600;
    const MOST: u64 = 1_000_000;
    let mut checkpoints = CheckpointConfig::default();
    let node = fields.optional("audit").and_then(|node| node.object(faults, "an object"));
    let Some(mut fields) = node else { return (INPUT, checkpoints, false, None) };
    let most = fields.optional("input_max_bytes");
    let most = most.and_then(|node| node.integer(faults, 0..=MOST_BYTES, "bytes"));
    let durable = fields.optional("durable");
    let durable = durable.and_then(|node| node.boolean(faults)).unwrap_or_default();
    let open = fields.optional("open_after_seconds");
    let open = open.and_then(|node| node.integer(faults, 0..=LONGEST, "seconds"));
    let open = open.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let every = fields.optional("checkpoint_seconds");
    if let Some(every) = every.and_then(|it| it.integer(faults, 0..=LONGEST, "seconds")) {
        checkpoints.every = (every > 0).then(|| Duration::from_secs(every));
    }
    let entries = fields.optional("checkpoint_entries");
    let entries = entries.and_then(|node| node.integer(faults, 1..=MOST, "entries"));
    checkpoints.entries = entries.unwrap_or(checkpoints.entries);
    fields.finish(faults);
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(INPUT);
    (most, checkpoints, durable, open)
}

fn policy_cache(fields: &mut Fields<'_>, faults: &mut Faults) -> usize {
    const DEFAULT: usize = 64 * 1_048_576;
    const MOST: u64 = 1_024 * 1_048_576;
    let node = fields.optional("policy_cache").and_then(|node| node.object(faults, "an object"));
    let Some(mut fields) = node else { return DEFAULT };
    let most = fields.optional("max_bytes");
    let most = most.and_then(|node| node.integer(faults, 1_048_576..=MOST, "bytes"));
    fields.finish(faults);
    most.and_then(|most| usize::try_from(most).ok()).unwrap_or(DEFAULT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_stated() {
        let config =
            Config::parse(&json!({"redis": {"cluster": "r"}, "vault": {"cluster": "v"}})).unwrap();
        assert_eq!(config.redis.unwrap().timeout, Duration::from_millis(50));
        assert_eq!(config.vault.unwrap().cache, Duration::from_secs(60));
        assert_eq!(config.max_body_bytes, 1_048_576);
        assert_eq!(config.policy_cache_bytes, 67_108_864);
    }

    #[test]
    fn in_split_mode_a_body_fits_into_the_hosts_buffer() {
        let most = |request: Value| {
            let document = json!({"redis": {"cluster": "r"}, "request": request});
            Config::parse(&document).unwrap().max_body_bytes
        };
        assert_eq!(most(json!({"mode": "split"})), 32_768);
        assert_eq!(most(json!({"mode": "split", "host_buffer_bytes": 4_194_304})), 1_048_576);
        assert_eq!(most(json!({"mode": "split", "host_buffer_bytes": 65_536})), 65_536);
        assert_eq!(most(json!({"host_buffer_bytes": 65_536})), 1_048_576);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let faults = Config::parse(&json!({
            "redis": {"cluster": "", "timeout": 5},
            "vault": 7,
            "request": {"max_body_bytes": 1.5, "mode": "fast", "origins": ["https://a/b"]},
            "failure": "open"
        }))
        .unwrap_err();
        assert_eq!(
            faults.to_string(),
            "redis.cluster: found \"\", expected the name of an Envoy cluster\n\
             redis.timeout: found an unknown field, expected one of cluster, sharded, timeout_ms, on_failure, stale_seconds, local_share; did you mean timeout_ms?\n\
             vault: found 7, expected an object with `cluster`\n\
             request.mode: found \"fast\", expected hold or split\n\
             request.origins[0]: found \"https://a/b\", expected an origin without path, such as https://app.example or http://localhost:6274\n\
             request.max_body_bytes: found 1.5, expected a whole number of bytes from 1024 to 16777216\n\
             failure: found an unknown field, expected one of redis, vault, policy, auth, authorization_servers, organisations, guards, unguarded_routes, request, audit, health, policy_cache"
        );
    }

    #[test]
    fn an_authorization_server_needs_a_vault_and_names_whom_it_serves() {
        let server = |organisations: Option<Value>| {
            let mut server = json!({"cluster": "idp", "path": "/token", "client_id": "gate",
                "client_secret": "vault://gateway/idp#secret"});
            if let Some(organisations) = organisations {
                server["organisations"] = organisations;
            }
            json!({"redis": {"cluster": "redis"}, "authorization_servers": {"corp": server}})
        };
        let faults = Config::parse(&server(None)).unwrap_err().to_string();
        assert!(faults.starts_with("authorization_servers: found no vault"), "{faults}");
        let mut bounded = server(None);
        bounded["vault"] = json!({"cluster": "vault"});
        bounded["organisations"] = json!({"acme": {"paths": ["/acme/*"]}});
        let faults = Config::parse(&bounded).unwrap_err().to_string();
        assert!(faults.starts_with("authorization_servers.corp.organisations: "), "{faults}");
        let mut none = server(Some(json!([])));
        none["vault"] = json!({"cluster": "vault"});
        let config = Config::parse(&none).unwrap();
        let acme = crate::id::OrgId::new("acme").unwrap();
        assert!(config.authorization_servers.values().all(|server| !server.serves(&acme)));
    }

    #[test]
    fn a_global_limit_and_redis_cluster_do_not_go_together() {
        let config = |sharded| {
            Config::parse(&json!({
                "redis": {"cluster": "r", "sharded": sharded},
                "policy": {
                    "version": 1, "organisations": ["acme"], "connectors": {}, "roles": {}, "tiers": {},
                    "limits": {"all": {"limit": 9, "window": "1s", "per": ["global"]}},
                },
            }))
        };
        assert!(config(false).is_ok());
        assert_eq!(
            config(true).unwrap_err().to_string(),
            "policy: found the limit limits.all, expected no global limits with Redis Cluster: one script \
             cannot count them beside others"
        );
    }
}
