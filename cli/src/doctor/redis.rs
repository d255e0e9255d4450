//! Redis, and what the gateway keeps in it.
//!
//! Owns what is asked of a server. That nothing may be evicted and that changes survive a crash are guarantees of
//! the gateway, hence not a matter of taste. Whether it takes writes is tried, by the script that admits calls.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;
use std::time::{Duration, Instant};

use portcullis_core::auth::record::KeyRecord;
use portcullis_core::connector_credential::ConnectorCredential;
use portcullis_core::id::{OrgId, PolicyName, PolicyVersion};
use portcullis_core::policy::{self, Connector, Policy, UpstreamBinding};

use super::{Finding, clock};
use crate::args::Session;
use crate::connection::Node;
use crate::key::lacks;
use crate::policy::unknown_keys;
use crate::report::{ActionOutcome, CliError};
use crate::store::Store;
use crate::time::Seconds;

/// What a call waits for Redis by default; half of it should not be needed by a server that does nothing.
const SLOW: Duration = Duration::from_millis(25);
/// One slow answer of several refuses the calls that wait for it.
const STALLED: Duration = Duration::from_millis(250);
/// A worker gives up a connection on which nothing comes for so long.
const HUNG: Duration = Duration::from_secs(1);
const PINGS: u32 = 5;
/// From so many parts in a hundred on something is nearly used up.
const NEARLY: u64 = 90;
const OLDEST: u64 = 7;

/// What Redis shows, and the connectors of active policies. A server that does not answer is asked once.
pub(super) fn look(session: &Session) -> (Vec<Finding>, Result<Vec<ActiveConnector>, CliError>) {
    let ended = |refusal: CliError| (vec![silent(&refusal)], Err(refusal));
    let mut store = match Store::open_within(session, HUNG) {
        Ok(store) => store,
        Err(refusal) => return ended(refusal),
    };
    let answer = match round_trip(&mut store) {
        Ok(answer) => answer,
        Err(refusal) if refusal.outcome() == ActionOutcome::Unknown => return ended(refusal),
        Err(refusal) => Finding::refused("redis", &refusal),
    };
    // A server that answers may take longer for all that is asked below.
    let mut store = match Store::open(session) {
        Ok(store) => store,
        Err(refusal) => return ended(refusal),
    };
    let findings = std::iter::once(answer).chain(checks(&mut store)).collect();
    (findings, connectors(&mut store))
}

/// A server that does not answer, or not this user.
fn silent(refusal: &CliError) -> Finding {
    let next = match refusal.outcome() {
        ActionOutcome::NotDone => refusal.next_step().to_owned(),
        ActionOutcome::Unknown => format!(
            "calls are refused while it does not answer. {}; where it runs: slow commands (SLOWLOG GET), swapping, \
             snapshots, other users of the machine",
            refusal.next_step()
        ),
    };
    Finding::bad("redis", refusal.found(), next)
}

fn checks(store: &mut Store) -> Vec<Finding> {
    let mut findings = vec![
        time(store).unwrap_or_else(|refusal| Finding::refused("redis.clock", &refusal)),
        admission(store),
    ];
    match store.nodes() {
        Ok(nodes) => findings.extend(nodes.iter().flat_map(server)),
        Err(refusal) => findings.push(Finding::unknown(
            "redis.server",
            refusal.found(),
            "let this user run INFO, to see what could be evicted or lost",
        )),
    }
    findings.extend(match policies(store) {
        Ok(policies) => policies,
        Err(refusal) => vec![Finding::refused("policy", &refusal)],
    });
    findings
}

/// The connectors of active policies, canaries included. A policy of many organisations is read once, and of each no more is
/// kept than the checks need.
fn connectors(store: &mut Store) -> Result<Vec<ActiveConnector>, CliError> {
    let mut by_version: BTreeMap<PolicyVersion, ActiveVersion> = BTreeMap::new();
    for org in store.organisations()? {
        let Some(target) = store.active_policy(&org)?.target else { continue };
        let canary = target.canary.map(|canary| canary.record.version);
        for version in [Some(target.version), canary].into_iter().flatten() {
            if let Some(known) = by_version.get_mut(&version) {
                known.orgs.push(org.clone());
                continue;
            }
            // What cannot be read has a check of its own.
            let document = store.policy(&version)?;
            let policy = document.and_then(|document| policy::compile(&document).ok());
            let connectors = policy.map(|policy| policy.connectors).unwrap_or_default();
            let connectors = connectors.into_iter().map(|(name, connector)| {
                let Connector { path, messages, upstream, credential, .. } = *connector;
                KeptConnector { name, path, messages, upstream, credential }
            });
            let connectors = connectors.collect();
            by_version.insert(version, ActiveVersion { orgs: vec![org.clone()], connectors });
        }
    }
    let connectors = by_version.into_values().flat_map(|ActiveVersion { orgs, connectors }| {
        let orgs: Rc<[OrgId]> = orgs.into();
        let active = move |kept| ActiveConnector { orgs: orgs.clone(), kept };
        connectors.into_iter().map(active)
    });
    Ok(connectors.collect())
}

/// One version, and the organisations that have it.
struct ActiveVersion {
    orgs: Vec<OrgId>,
    connectors: Vec<KeptConnector>,
}

/// What of a connector is looked at.
pub(super) struct KeptConnector {
    pub(super) name: PolicyName,
    pub(super) path: String,
    pub(super) messages: Option<String>,
    pub(super) upstream: UpstreamBinding,
    pub(super) credential: Option<Rc<ConnectorCredential>>,
}

/// A connector of a policy that is active for organisations, or tried on some of their callers.
pub(super) struct ActiveConnector {
    /// At least one, in order.
    pub(super) orgs: Rc<[OrgId]>,
    pub(super) kept: KeptConnector,
}

fn round_trip(store: &mut Store) -> Result<Finding, CliError> {
    let (mut best, mut worst) = (Duration::MAX, Duration::ZERO);
    for _ in 0..PINGS {
        let start = Instant::now();
        store.ping()?;
        best = best.min(start.elapsed());
        worst = worst.max(start.elapsed());
    }
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let found =
        format!("{} answers in {:.1} to {:.1} ms", store.address(), millis(best), millis(worst));
    Ok(if worst > STALLED {
        let next =
            "calls that wait longer than redis.timeout_ms are refused: SLOWLOG GET, LATENCY DOCTOR";
        Finding::warning("redis", found, next)
    } else if best > SLOW {
        let next = "put Redis nearer, or raise timeout_ms: every call waits for one round trip";
        Finding::warning("redis", found, next)
    } else {
        Finding::good("redis", found)
    })
}

/// The script that admits every call, on a window of doctor's own that is gone after a second.
fn admission(store: &mut Store) -> Finding {
    const CHECK: &str = "redis.admission";
    match store.probe() {
        Ok(()) => Finding::good(CHECK, "the admission script runs, and writes"),
        Err(refusal) if refusal.is_for_want_of_rights() => Finding::unknown(
            CHECK,
            format!("{}: it could not be tried", refusal.found()),
            "a user who may write portcullis:*, as docs/reference/redis-keys.md lists; gateways have users of their own",
        ),
        Err(refusal) => Finding::bad(
            CHECK,
            format!("calls are refused: {}", refusal.found()),
            refusal.next_step(),
        ),
    }
}

fn time(store: &mut Store) -> Result<Finding, CliError> {
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
    let number = |name: &str| of(name).parse::<u64>().unwrap_or_default();
    let mut findings = vec![
        version(&check("version"), of("redis_version"), of("valkey_version")),
        role(&check("role"), of("role"), of("master_link_status"), number("connected_slaves")),
        memory(&check("memory"), number("used_memory"), number("maxmemory")),
        eviction(&check("eviction"), of("maxmemory"), of("maxmemory_policy")),
        persistence(&check("persistence"), of("aof_enabled"), of("rdb_last_bgsave_status")),
    ];
    findings.extend(last_write(&check("last_write"), of("aof_last_write_status")));
    findings.extend(clients(
        &check("connections"),
        (number("connected_clients"), number("maxclients")),
        number("rejected_connections"),
    ));
    findings
}

/// A replica takes no writes, so that no call can be admitted.
fn role(check: &str, role: &str, link: &str, replicas: u64) -> Finding {
    match (role, link) {
        ("slave", link) => Finding::bad(
            check,
            format!(
                "a read-only replica (its link to the primary is {link}): every call is refused"
            ),
            "point the cluster of the gateways, and PORTCULLIS_REDIS, to the primary",
        ),
        (_, _) => Finding::good(check, format!("primary, {replicas} replicas connected")),
    }
}

/// With `noeviction`, a full server takes no writes: every call is refused.
fn memory(check: &str, used: u64, bound: u64) -> Finding {
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    if bound == 0 {
        return Finding::good(check, format!("{} MiB in use, no maxmemory", mebibytes(used)));
    }
    let percent = used.saturating_mul(100).checked_div(bound).unwrap_or_default();
    let found = format!("{} of {} MiB in use ({percent} %)", mebibytes(used), mebibytes(bound));
    let next = "raise maxmemory: at its end every call is refused. MEMORY DOCTOR shows what grows";
    match percent {
        100.. => Finding::bad(check, found, next),
        NEARLY.. => Finding::warning(check, found, next),
        _ => Finding::good(check, found),
    }
}

/// Of an append-only file; a server without one says nothing.
fn last_write(check: &str, status: &str) -> Option<Finding> {
    let next =
        "free space on its disk, and look into the server's log; writes are refused until then";
    (!matches!(status, "" | "ok"))
        .then(|| Finding::bad(check, format!("the append-only file: {status}"), next))
}

/// Connections that were turned away, or will be.
fn clients(check: &str, (connected, most): (u64, u64), rejected: u64) -> Option<Finding> {
    if most == 0 {
        return None;
    }
    let found =
        format!("{connected} of {most} connections, {rejected} turned away since the start");
    let next =
        "raise maxclients (and the server's limit of open files); each Envoy worker needs one";
    let full = connected.saturating_mul(100) >= most.saturating_mul(NEARLY);
    Some(if full || rejected > 0 {
        Finding::warning(check, found, next)
    } else {
        Finding::good(check, found)
    })
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
fn policies(store: &mut Store) -> Result<Vec<Finding>, CliError> {
    let organisations = store.organisations()?;
    if organisations.is_empty() {
        let next = "portcullis policy push FILE --reason …";
        return Ok(vec![Finding::warning("policy", "no organisation yet", next)]);
    }
    let (mut findings, mut known) = (Vec::new(), BTreeMap::new());
    for org in &organisations {
        let check = format!("policy {org}");
        let Some(version) = store.active(org)? else {
            let next = "portcullis policy push FILE --reason …";
            findings.push(Finding::bad(&check, "none is active: every call is refused", next));
            continue;
        };
        let first = !known.contains_key(&version);
        let stored = match known.entry(version.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(StoredVersion::read(store, &version)?),
        };
        findings.push(stored.finding(check, &version));
        let StoredVersion::Read(policy) = stored else { continue };
        findings.extend(orphans_of(store, org, policy)?);
        if first {
            findings.extend(unknown_keys(store, org, policy)?);
        }
    }
    Ok(findings)
}

/// What is stored under a version. Many organisations may have one: it is read and compiled once.
enum StoredVersion {
    Absent,
    /// So many faults.
    Faulty(usize),
    /// Without what is large and is not looked at here.
    Read(Box<Policy>),
}

impl StoredVersion {
    fn read(store: &mut Store, version: &PolicyVersion) -> Result<Self, CliError> {
        let Some(document) = store.policy(version)? else { return Ok(Self::Absent) };
        Ok(match policy::compile(&document) {
            Ok(policy) => Self::Read(Box::new(Policy { connectors: BTreeMap::new(), ..policy })),
            Err(faults) => Self::Faulty(faults.len()),
        })
    }

    fn finding(&self, check: String, version: &PolicyVersion) -> Finding {
        match self {
            Self::Read(_) => Finding::good(check, format!("{version} is active, and can be read")),
            Self::Absent => {
                let found = format!("{version} is active, and its document is gone");
                Finding::bad(&check, found, "portcullis policy rollback, or push it again")
            }
            Self::Faulty(faults) => {
                let found = format!("{version} is active, and has {faults} faults");
                let next = "portcullis policy rollback; the filter keeps the last good one";
                Finding::bad(&check, found, next)
            }
        }
    }
}

/// Active keys of an organisation whose role or tier its policy does not have.
fn orphans_of(
    store: &mut Store,
    org: &OrgId,
    policy: &Policy,
) -> Result<Option<Finding>, CliError> {
    const NAMED: usize = 10;
    let now = Seconds::now();
    let records = store.records(org)?.into_iter().filter_map(|listed| listed.stored.ok());
    let alive = records.map(|stored| stored.record).filter(|it| it.is_alive(now.0).is_ok());
    let lacking = |record: KeyRecord| {
        lacks(&record, policy).map(|lacks| format!("{} ({}: {lacks})", record.id, record.name))
    };
    let orphans: Vec<String> = alive.filter_map(lacking).collect();
    if orphans.is_empty() {
        return Ok(None);
    }
    let named: Vec<&str> = orphans.iter().take(NAMED).map(String::as_str).collect();
    let more = if orphans.len() > NAMED { ", …" } else { "" };
    let found = format!(
        "the active policy lacks the role or tier of {} active keys, whose calls get 403: {}{more}",
        orphans.len(),
        named.join(", ")
    );
    let next = "portcullis key set ID --role ROLE --tier TIER, or portcullis key revoke ID";
    Ok(Some(Finding::warning(&format!("keys {org}"), found, next)))
}

/// Keys to which a policy gives limits and that none of its organisations has.
fn unknown_keys(
    store: &mut Store,
    org: &OrgId,
    policy: &Policy,
) -> Result<Option<Finding>, CliError> {
    let unknown = unknown_keys::unknown(store, policy)?;
    let next = "correct the ids in the policy, and push it";
    let finding =
        || Finding::warning(&format!("policy {org}"), unknown_keys::told(&unknown, policy), next);
    Ok((!unknown.is_empty()).then(finding))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn states(info: &str) -> Vec<(String, State)> {
        let node = Node { address: None, info: info.to_owned() };
        let findings = server(&node).into_iter();
        findings.filter(|it| it.state != State::Good).map(|it| (it.check, it.state)).collect()
    }

    // Finding 9.4: doctor said all good while every call was refused.
    #[test]
    fn a_server_that_takes_no_writes_or_soon_will_not_is_named() {
        let sound = "role:master\r\nvalkey_version:9.1.2\r\nredis_version:7.2.4\r\nmaxmemory:0\r\n\
                     maxmemory_policy:noeviction\r\naof_enabled:1\r\naof_last_write_status:ok\r\n\
                     connected_clients:3\r\nmaxclients:100\r\nrejected_connections:0\r\n";
        assert_eq!(states(sound), []);
        for (from, to, check, state) in [
            ("role:master", "role:slave", "redis.role", State::Bad),
            ("maxmemory:0", "maxmemory:100\r\nused_memory:101", "redis.memory", State::Bad),
            ("maxmemory:0", "maxmemory:100\r\nused_memory:95", "redis.memory", State::Warning),
            ("write_status:ok", "write_status:err", "redis.last_write", State::Bad),
            ("connected_clients:3", "connected_clients:95", "redis.connections", State::Warning),
            (
                "rejected_connections:0",
                "rejected_connections:7",
                "redis.connections",
                State::Warning,
            ),
        ] {
            let found = states(&sound.replace(from, to));
            assert!(found.contains(&(check.to_owned(), state)), "{to}: {found:?}");
        }
    }
}
