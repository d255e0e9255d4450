//! Redis, and what the gateway keeps in it.
//!
//! Owns what is asked of a server. That nothing may be evicted and that changes survive a crash are guarantees of
//! the gateway, hence not a matter of taste.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use portcullis_core::id::OrgId;
use portcullis_core::policy;

use super::{Finding, clock};
use crate::args::Session;
use crate::link::Node;
use crate::report::Refusal;
use crate::store::Store;

/// What a call waits for Redis by default; half of it should not be needed by a server that does nothing.
const SLOW: Duration = Duration::from_millis(25);
const PINGS: u32 = 5;
const OLDEST: u64 = 7;

pub(super) fn look(session: &Session) -> Vec<Finding> {
    let mut store = match Store::open(session) {
        Ok(store) => store,
        Err(refusal) => return vec![Finding::refused("redis", &refusal)],
    };
    let mut findings = vec![
        round_trip(&mut store).unwrap_or_else(|refusal| Finding::refused("redis", &refusal)),
        time(&mut store).unwrap_or_else(|refusal| Finding::refused("redis.clock", &refusal)),
    ];
    match store.nodes() {
        Ok(nodes) => findings.extend(nodes.iter().flat_map(server)),
        Err(refusal) => findings.push(Finding::unknown(
            "redis.server",
            refusal.found(),
            "let this user run INFO, to see what could be evicted or lost",
        )),
    }
    findings.extend(match policies(&mut store) {
        Ok(policies) => policies,
        Err(refusal) => vec![Finding::refused("policy", &refusal)],
    });
    findings
}

fn round_trip(store: &mut Store) -> Result<Finding, Refusal> {
    let mut best = Duration::MAX;
    for _ in 0..PINGS {
        let start = Instant::now();
        store.ping()?;
        best = best.min(start.elapsed());
    }
    let found = format!("{} answers in {:.1} ms", store.place(), best.as_secs_f64() * 1e3);
    Ok(if best > SLOW {
        let next = "put Redis nearer, or raise timeout_ms: every call waits for one round trip";
        Finding::warning("redis", found, next)
    } else {
        Finding::good("redis", found)
    })
}

fn time(store: &mut Store) -> Result<Finding, Refusal> {
    let before = clock::now();
    Ok(clock::finding("redis.clock", store.time()?, before, Duration::ZERO))
}

/// What one server says of itself.
fn server(node: &Node) -> Vec<Finding> {
    let said: BTreeMap<&str, &str> =
        node.info.lines().filter_map(|line| line.trim().split_once(':')).collect();
    let of = |name: &str| said.get(name).copied().unwrap_or_default();
    let check = |name: &str| match &node.address {
        Some(address) => format!("redis.{name} {address}"),
        None => format!("redis.{name}"),
    };
    vec![
        version(&check("version"), of("redis_version"), of("valkey_version")),
        eviction(&check("eviction"), of("maxmemory"), of("maxmemory_policy")),
        persistence(&check("persistence"), of("aof_enabled"), of("rdb_last_bgsave_status")),
    ]
}

fn version(check: &str, redis: &str, valkey: &str) -> Finding {
    let major = redis.split('.').next().and_then(|major| major.parse::<u64>().ok());
    match (valkey, major) {
        ("", Some(major)) if major < OLDEST => Finding::bad(
            check,
            format!("Redis {redis}"),
            "use Redis 7 or Valkey: the scripts need it",
        ),
        ("", _) => Finding::good(check, format!("Redis {redis}")),
        (valkey, _) => Finding::good(check, format!("Valkey {valkey}")),
    }
}

fn eviction(check: &str, bound: &str, policy: &str) -> Finding {
    match (bound, policy) {
        (_, "noeviction") => Finding::good(check, "noeviction"),
        ("0", _) => Finding::good(check, format!("{policy}, without a bound on memory")),
        _ => Finding::bad(
            check,
            format!("{policy} beyond {bound} bytes: keys, denials and windows could vanish"),
            "maxmemory-policy noeviction",
        ),
    }
}

fn persistence(check: &str, append_only: &str, snapshot: &str) -> Finding {
    match (append_only, snapshot) {
        ("1", _) => Finding::good(check, "append-only file"),
        (_, "ok") => Finding::warning(
            check,
            "no append-only file: after a crash the latest changes are gone, a revoked key is back",
            "appendonly yes",
        ),
        (_, snapshot) => Finding::bad(
            check,
            format!("no append-only file, and the last snapshot is {snapshot:?}"),
            "appendonly yes, and look into the server's log",
        ),
    }
}

/// Whether every organisation has a policy that the filter reads.
fn policies(store: &mut Store) -> Result<Vec<Finding>, Refusal> {
    let organisations = store.organisations()?;
    if organisations.is_empty() {
        let next = "portcullis policy push FILE --reason …";
        return Ok(vec![Finding::warning("policy", "no organisation yet", next)]);
    }
    organisations.iter().map(|org| policy_of(store, org)).collect()
}

fn policy_of(store: &mut Store, org: &OrgId) -> Result<Finding, Refusal> {
    let check = format!("policy {org}");
    let Some(version) = store.active(org)? else {
        let next = "portcullis policy push FILE --reason …";
        return Ok(Finding::bad(&check, "none is active: every call is refused", next));
    };
    let Some(document) = store.policy(&version)? else {
        let found = format!("{version} is active, and its document is gone");
        return Ok(Finding::bad(&check, found, "portcullis policy rollback, or push it again"));
    };
    Ok(match policy::compile(&document) {
        Ok(_) => Finding::good(check, format!("{version} is active, and can be read")),
        Err(faults) => {
            let faults = faults.iter().count();
            let found = format!("{version} is active, and has {faults} faults");
            Finding::bad(
                &check,
                found,
                "portcullis policy rollback; the filter keeps the last good one",
            )
        }
    })
}
