//! The state of a worker's dependencies, and the health document.
//!
//! Owns the last result of each dependency, and the state of the gateway as a whole. Makes no calls: it records the
//! results of calls and requests. Knows no addresses and no credentials, so the document cannot show any.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::audit::Entry;
use crate::auth::token::issuer::IssuerId;
use crate::denial::AuditStatus;
use crate::driver::call::{CallFailure, Dependency};
use crate::id::{OrgId, PolicyVersion};
use crate::time::UnixTime;

/// The most connectors in a worker's memory. Policies add them, and the document must stay readable.
const MOST_CONNECTORS: usize = 1_000;
/// A failure that did not occur again within this time no longer counts.
const COUNTS_FOR: Duration = Duration::from_secs(600);
/// A dependency that was not called for this time is probed.
const IDLE: Duration = Duration::from_secs(10);

/// The condition of the gateway or of a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// It works, or no failure is known.
    Healthy,
    /// Part of it does not work.
    Degraded,
    /// It does not work.
    Unhealthy,
}

impl Condition {
    /// The word in the document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// The HTTP status of the document.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Healthy | Self::Degraded => 200,
            Self::Unhealthy => 503,
        }
    }
}

/// The last result of a dependency.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: UnixTime,
    /// The latency of the answer in milliseconds; `None` without an answer.
    latency_ms: Option<u64>,
    /// Whether the dependency was there, and refused the call.
    refused: bool,
}

impl Seen {
    fn of(outcome: Result<Duration, CallFailure>, at: UnixTime) -> Self {
        Self {
            at,
            latency_ms: outcome.ok().map(milliseconds),
            refused: outcome.is_err_and(|why| !why.is_outage()),
        }
    }
}

fn milliseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// The observations of one worker.
#[derive(Debug)]
pub struct Health {
    since: UnixTime,
    build: &'static str,
    dependencies: BTreeMap<Dependency, Seen>,
    /// The last fetch of each issuer's keys.
    issuers: BTreeMap<IssuerId, Seen>,
    /// By organisation and name.
    connectors: BTreeMap<String, BTreeMap<String, Seen>>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new(UnixTime::from_micros(0), "unknown")
    }
}

/// The parts of the document that other modules own.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The gateway's condition when Redis is down.
    pub without_redis: Condition,
    /// The result of the last fetch of each issuer's keys.
    pub issuers: Vec<(&'a IssuerId, Option<CallFailure>)>,
    /// The policy of each organisation's last decision.
    pub policies: &'a BTreeMap<OrgId, PolicyVersion>,
    /// Organisations whose calls are refused because Redis holds an older state than before.
    pub gone_back: Vec<&'a OrgId>,
}

impl Health {
    /// A worker that started at `since` and runs the module `build`.
    #[must_use]
    pub fn new(since: UnixTime, build: &'static str) -> Self {
        let (dependencies, issuers, connectors) = Default::default();
        Self { since, build, dependencies, issuers, connectors }
    }

    /// Records that a dependency answered a call after this time, or the failure.
    pub fn answered(
        &mut self,
        dependency: Dependency,
        outcome: Result<Duration, CallFailure>,
        now: UnixTime,
    ) {
        self.dependencies.insert(dependency, Seen::of(outcome, now));
    }

    /// Whether a dependency was not called for so long that only a probe shows whether it is there.
    #[must_use]
    pub fn needs_probe(&self, dependency: Dependency, now: UnixTime) -> bool {
        self.dependencies.get(&dependency).is_none_or(|seen| now.since(seen.at) >= IDLE)
    }

    /// Records the outcome of a probe; whether it counts. A dependency that is there and refused the last call still
    /// refuses: a probe asks for nothing of value.
    pub fn probed(
        &mut self,
        dependency: Dependency,
        outcome: Result<Duration, CallFailure>,
        now: UnixTime,
    ) -> bool {
        let refuses = |seen: &Seen| seen.refused && now.since(seen.at) < COUNTS_FOR;
        let counts = outcome.is_err() || !self.dependencies.get(&dependency).is_some_and(refuses);
        if counts {
            self.answered(dependency, outcome, now);
        }
        counts
    }

    /// Records a fetch of an issuer's keys.
    pub fn fetched(
        &mut self,
        issuer: &IssuerId,
        outcome: Result<Duration, CallFailure>,
        now: UnixTime,
    ) {
        self.issuers.insert(issuer.clone(), Seen::of(outcome, now));
    }

    /// Forgets the results of a dependency, because the configuration names another one.
    pub fn forget(&mut self, dependency: Dependency) {
        self.dependencies.remove(&dependency);
    }

    /// Records what a finished request shows about its connector's server.
    pub fn request_ended(&mut self, entry: &Entry, now: UnixTime) {
        let (Some(org), Some(connector)) = (&entry.org_id, &entry.connector) else { return };
        let worked = [AuditStatus::Success.name(), AuditStatus::ToolError.name()];
        let latency_ms = match entry.status {
            status if worked.contains(&status) && entry.upstream_ms.is_some() => entry.upstream_ms,
            status if status == AuditStatus::Error.name() => answered(entry),
            // The request was refused, its client disconnected, or the gateway itself answered.
            _ => return,
        };
        let seen = Seen { at: now, latency_ms, refused: false };
        let known = self.connectors.get_mut(org).and_then(|of_org| of_org.get_mut(connector));
        if let Some(known) = known {
            *known = seen;
            return;
        }
        let count: usize = self.connectors.values().map(BTreeMap::len).sum();
        if count < MOST_CONNECTORS {
            let of_org = self.connectors.entry(org.clone()).or_default();
            of_org.insert(connector.clone(), seen);
        }
    }

    /// The condition of the gateway.
    #[must_use]
    pub fn condition(&self, around: &Surroundings<'_>, now: UnixTime) -> Condition {
        let dependencies = self.dependencies.iter().map(|(dependency, seen)| match dependency {
            Dependency::Redis => failing(seen, around.without_redis, now),
            // The document lists each issuer separately. An authorization server serves only some callers.
            Dependency::Issuer | Dependency::AuthorizationServer => Condition::Healthy,
            Dependency::Vault => failing(seen, Condition::Degraded, now),
        });
        let issuers = around.issuers.iter().map(|(_, failure)| match failure {
            Some(_) => Condition::Degraded,
            None => Condition::Healthy,
        });
        let connectors = self.connectors.values().flat_map(BTreeMap::values);
        let connectors = connectors.map(|seen| failing(seen, Condition::Degraded, now));
        let gone_back = around.gone_back.iter().map(|_| Condition::Degraded);
        let all = dependencies.chain(issuers).chain(connectors).chain(gone_back);
        all.max().unwrap_or(Condition::Healthy)
    }

    /// The document with every check.
    #[must_use]
    pub fn details(&self, around: &Surroundings<'_>, now: UnixTime) -> Value {
        let dependencies = self.dependencies.iter().filter_map(|(dependency, seen)| {
            let worst = match dependency {
                Dependency::Redis => around.without_redis,
                Dependency::Vault => Condition::Degraded,
                Dependency::AuthorizationServer => Condition::Degraded,
                Dependency::Issuer => return None,
            };
            Some(check(json!({ "check": dependency.name() }), seen, worst, now))
        });
        let issuers = around.issuers.iter().map(|(issuer, failure)| {
            let condition = failure.map_or(Condition::Healthy, |_| Condition::Degraded);
            let mut check = json!({ "check": "issuer", "name": issuer.to_string(), "status": condition.name() });
            if let Some(seen) = self.issuers.get(*issuer) {
                age_and_latency(&mut check, seen, now);
            }
            if let (Some(failure), Some(fields)) = (failure, check.as_object_mut()) {
                fields.insert("failure".to_owned(), failure.to_string().into());
            }
            check
        });
        let connectors = self.connectors.iter().flat_map(|(org, connectors)| {
            connectors.iter().map(move |(name, seen)| {
                let named = json!({ "check": "connector", "org_id": org, "name": name });
                check(named, seen, Condition::Degraded, now)
            })
        });
        let gone_back = around.gone_back.iter().take(MOST_CONNECTORS).map(|org| {
            let status = Condition::Degraded.name();
            json!({ "check": "state", "org_id": org, "status": status, "failure": "went_back" })
        });
        let checks = dependencies.chain(issuers).chain(connectors).chain(gone_back);
        let policies = around.policies.iter().take(MOST_CONNECTORS);
        let policies: Map<String, Value> =
            policies.map(|(org, version)| (org.to_string(), version.to_string().into())).collect();
        json!({
            "status": self.condition(around, now).name(),
            "uptime_seconds": now.since(self.since).as_secs(),
            "build": self.build,
            "checks": checks.collect::<Vec<_>>(),
            "policies": policies,
        })
    }
}

/// The latency of a failed call to which the server answered with a JSON-RPC error: that may be its caller's mistake. An
/// HTTP error is the server's.
fn answered(entry: &Entry) -> Option<u64> {
    let faulty = entry.http_status.is_none_or(|status| status >= 500)
        || entry.error_code.is_none()
        || entry.decision.rule.starts_with("upstream.");
    entry.upstream_ms.filter(|_| !faulty)
}

/// The condition that follows from a failed call.
fn failing(seen: &Seen, worst: Condition, now: UnixTime) -> Condition {
    match seen.latency_ms {
        None if now.since(seen.at) < COUNTS_FOR => worst,
        None | Some(_) => Condition::Healthy,
    }
}

fn check(mut named: Value, seen: &Seen, worst: Condition, now: UnixTime) -> Value {
    if let Some(fields) = named.as_object_mut() {
        fields.insert("status".to_owned(), failing(seen, worst, now).name().into());
    }
    age_and_latency(&mut named, seen, now);
    named
}

fn age_and_latency(check: &mut Value, seen: &Seen, now: UnixTime) {
    if let Some(fields) = check.as_object_mut() {
        fields.insert("age_seconds".to_owned(), now.since(seen.at).as_secs().into());
        if let Some(latency) = seen.latency_ms {
            fields.insert("latency_ms".to_owned(), latency.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_micros(seconds * 1_000_000)
    }

    fn around(policies: &BTreeMap<OrgId, PolicyVersion>) -> Surroundings<'_> {
        let without_redis = Condition::Unhealthy;
        Surroundings { without_redis, issuers: vec![], policies, gone_back: vec![] }
    }

    fn ended(status: &'static str, upstream_ms: Option<u64>) -> Entry {
        Entry {
            org_id: Some("acme".to_owned()),
            connector: Some("demo".to_owned()),
            status,
            upstream_ms,
            ..Entry::default()
        }
    }

    #[test]
    fn a_gateway_is_as_its_worst_part() {
        let policies = BTreeMap::new();
        let mut health = Health::new(at(100), "abc");
        assert_eq!(health.condition(&around(&policies), at(120)), Condition::Healthy);
        health.answered(Dependency::Vault, Err(CallFailure::TimedOut), at(101));
        assert_eq!(health.condition(&around(&policies), at(120)), Condition::Degraded);
        health.answered(Dependency::Redis, Err(CallFailure::TimedOut), at(101));
        assert_eq!(health.condition(&around(&policies), at(120)), Condition::Unhealthy);
        let spared = Surroundings { without_redis: Condition::Degraded, ..around(&policies) };
        assert_eq!(
            health.condition(&spared, at(120)),
            Condition::Degraded,
            "on_failure lets calls pass"
        );
        health.answered(Dependency::Redis, Ok(Duration::from_millis(2)), at(102));
        health.answered(Dependency::Vault, Ok(Duration::from_millis(3)), at(102));
        assert_eq!(health.condition(&around(&policies), at(120)), Condition::Healthy);
        assert_eq!(Condition::Unhealthy.http_status(), 503);
        // An old failure, and a failure of a replaced dependency, do not count.
        health.answered(Dependency::Vault, Err(CallFailure::TimedOut), at(103));
        assert_eq!(health.condition(&around(&policies), at(702)), Condition::Degraded);
        assert_eq!(health.condition(&around(&policies), at(703)), Condition::Healthy);
        health.answered(Dependency::Redis, Err(CallFailure::TimedOut), at(703));
        health.forget(Dependency::Redis);
        assert_eq!(health.condition(&around(&policies), at(703)), Condition::Healthy);
    }

    #[test]
    fn a_connector_is_as_its_last_answer() {
        let policies = BTreeMap::new();
        let mut health = Health::new(at(100), "abc");
        health.request_ended(&ended("error", None), at(110));
        assert_eq!(health.condition(&around(&policies), at(120)), Condition::Degraded);
        // A request that did not reach the server changes nothing.
        health.request_ended(&ended("denied", None), at(111));
        health.request_ended(&ended("aborted", None), at(111));
        health.request_ended(&ended("success", None), at(111));
        assert_eq!(health.condition(&around(&policies), at(120)), Condition::Degraded);
        health.request_ended(&ended("tool_error", Some(7)), at(112));
        assert_eq!(
            health.details(&around(&policies), at(115)),
            json!({
                "status": "healthy", "uptime_seconds": 15, "build": "abc", "policies": {},
                "checks": [{
                    "check": "connector", "org_id": "acme", "name": "demo",
                    "status": "healthy", "age_seconds": 3, "latency_ms": 7,
                }],
            })
        );
    }

    // Proves: B16
    #[test]
    fn a_probe_shows_an_outage_and_its_end_and_undoes_no_refusal() {
        use CallFailure::{Status, TimedOut};
        let (vault, policies) = (Dependency::Vault, BTreeMap::new());
        let mut health = Health::new(at(100), "abc");
        let is = |health: &Health, now| health.condition(&around(&policies), at(now));
        assert!(health.needs_probe(vault, at(100)));
        assert!(health.probed(vault, Ok(Duration::from_millis(2)), at(100)));
        assert!(!health.needs_probe(vault, at(109)) && health.needs_probe(vault, at(110)));
        health.answered(vault, Err(TimedOut), at(120));
        assert_eq!(is(&health, 121), Condition::Degraded);
        assert!(health.probed(vault, Ok(Duration::from_millis(2)), at(130)));
        assert_eq!(is(&health, 131), Condition::Healthy);
        assert!(health.probed(vault, Err(Status(503)), at(140)));
        assert_eq!(is(&health, 141), Condition::Degraded);
        health.answered(vault, Err(Status(403)), at(150));
        assert!(!health.probed(vault, Ok(Duration::from_millis(2)), at(160)));
        assert_eq!(is(&health, 161), Condition::Degraded);
        assert!(health.probed(vault, Ok(Duration::from_millis(2)), at(750)));
        assert_eq!(is(&health, 751), Condition::Healthy);
    }

    // Proves: B16
    #[test]
    fn an_issuer_has_the_age_and_latency_of_its_last_fetch() {
        let (policies, id) = (BTreeMap::new(), IssuerId::new("https://idp.test"));
        let mut health = Health::new(at(100), "abc");
        health.fetched(&id, Ok(Duration::from_millis(7)), at(110));
        let around = Surroundings { issuers: vec![(&id, None)], ..around(&policies) };
        assert_eq!(
            health.details(&around, at(120))["checks"],
            json!([{
                "check": "issuer", "name": "https://idp.test", "status": "healthy",
                "age_seconds": 10, "latency_ms": 7,
            }])
        );
    }

    // Finding F16: a caller's mistakes say nothing about the server.
    #[test]
    fn a_json_rpc_error_is_an_answer() {
        let policies = BTreeMap::new();
        let refused = |http_status, error_code, rule: &str| {
            let mut entry = ended("error", Some(7));
            (entry.http_status, entry.error_code) = (Some(http_status), error_code);
            rule.clone_into(&mut entry.decision.rule);
            let mut health = Health::new(at(100), "abc");
            health.request_ended(&entry, at(110));
            health.condition(&around(&policies), at(120))
        };
        assert_eq!(refused(200, Some(-32_602), ""), Condition::Healthy);
        assert_eq!(refused(404, Some(-32_601), ""), Condition::Healthy);
        assert_eq!(refused(200, Some(-31_502), "upstream.unreadable"), Condition::Degraded);
        assert_eq!(refused(500, Some(-32_603), ""), Condition::Degraded);
        assert_eq!(refused(200, None, ""), Condition::Degraded);
    }

    #[test]
    fn an_organisation_whose_state_went_back_is_told() {
        let (policies, health) = (BTreeMap::new(), Health::new(at(100), "abc"));
        let acme = OrgId::new("acme").unwrap();
        let around = Surroundings { gone_back: vec![&acme], ..around(&policies) };
        assert_eq!(health.condition(&around, at(120)), Condition::Degraded);
        assert_eq!(
            health.details(&around, at(120))["checks"],
            json!([{
                "check": "state", "org_id": "acme", "status": "degraded", "failure": "went_back",
            }])
        );
    }

    #[test]
    fn connectors_are_bounded() {
        let mut health = Health::default();
        for number in 0..3_000 {
            let entry = Entry { connector: Some(format!("c{number}")), ..ended("error", None) };
            health.request_ended(&entry, at(1));
        }
        assert_eq!(health.connectors["acme"].len(), MOST_CONNECTORS);
    }
}
