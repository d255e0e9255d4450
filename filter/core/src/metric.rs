//! Metrics and their labels.
//!
//! Owns the names of metrics and keeps their labels bounded: Envoy never forgets a defined metric, so a caller must not
//! be able to create one. Counts nothing itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use crate::audit::{AuditEvent, Entry};
use crate::denial::AuditStatus;
use crate::driver::call::Dependency;
use crate::hashing::Set;
use crate::id::OrgId;
use crate::vault::LeaseOutcome;

/// The most labels of one worker; further ones become `other`.
const MOST_LABELS: usize = 2_000;
/// The most organisations with labels of their own; further ones become `other`.
const MOST_ORGANISATIONS: usize = 1_000;
/// The most labels that one organisation may add.
const MOST_OF_ORG: usize = 400;
/// The most policy versions that one organisation may add; further ones become `other`.
const MOST_VERSIONS_OF_ORG: usize = 100;
/// Methods that are labels; every other one is `other`.
const METHODS: [&str; 26] = [
    "initialize",
    "ping",
    "server/discover",
    "logging/setLevel",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
    "subscriptions/listen",
    "tasks/get",
    "tasks/result",
    "tasks/update",
    "tasks/cancel",
    "tasks/list",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
    "notifications/tasks/status",
    "response",
];

/// One metric with its labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Requests, by outcome.
    Requests {
        /// The organisation; `none` for one that no policy names.
        org: Rc<str>,
        /// The connector, or `none`.
        connector: Rc<str>,
        /// The JSON-RPC method, `none` or `other`.
        method: Rc<str>,
        /// The tool, `none` or `other`.
        tool: Rc<str>,
        /// The audit entry's `status`.
        outcome: &'static str,
    },
    /// How long requests took, in milliseconds.
    RequestDuration {
        /// The organisation; `none` for one that no policy names.
        org: Rc<str>,
        /// The connector, or `none`.
        connector: Rc<str>,
        /// The tool, `none` or `other`.
        tool: Rc<str>,
    },
    /// Calls whose tool reported an error.
    ToolErrors {
        /// The organisation; `none` for one that no policy names.
        org: Rc<str>,
        /// The connector.
        connector: Rc<str>,
        /// The tool.
        tool: Rc<str>,
    },
    /// Credentials that were missing or invalid.
    AuthFailures {
        /// [`crate::auth::AuthFailure::code`].
        reason: &'static str,
    },
    /// Calls that found a window used up.
    RateLimited {
        /// The organisation; `none` for one that no policy names.
        org: Rc<str>,
        /// The window's name.
        limit: Rc<str>,
    },
    /// Windows that are nearly used up.
    BudgetAlerts {
        /// The organisation; `none` for one that no policy names.
        org: Rc<str>,
        /// The window's name.
        limit: Rc<str>,
    },
    /// Requests that a rule in shadow mode would have refused.
    ShadowDenied {
        /// The kind of check.
        check: &'static str,
    },
    /// Tools in lists that differed from their pins.
    SchemaDrift {
        /// The organisation; `none` for one that no policy names.
        org: Rc<str>,
        /// The connector.
        connector: Rc<str>,
        /// [`crate::pin::Drift::name`].
        kind: &'static str,
    },
    /// Unreadable items of lists, and unreadable messages, of servers.
    UpstreamUnreadable {
        /// The connector.
        connector: Rc<str>,
        /// Why.
        reason: &'static str,
    },
    /// Sessions and tasks from servers that could not be bound to their caller.
    NotBound {
        /// The connector.
        connector: Rc<str>,
        /// `session` or `task`.
        kind: &'static str,
    },
    /// Envoy's attempts after the first, for requests that the gateway forwarded once.
    UpstreamRetries {
        /// The organisation; `none` for one that no policy names.
        org: Rc<str>,
        /// The connector.
        connector: Rc<str>,
    },
    /// 1 while a dependency answers, else 0.
    DependencyUp(Dependency),
    /// How long a dependency took to answer, in milliseconds.
    DependencyDuration(Dependency),
    /// Calls to a dependency that were not made, because the previous ones failed.
    NotAsked(Dependency),
    /// Leases of Vault secrets, by outcome.
    Leases(LeaseOutcome),
    /// Requests that were decided without a dependency.
    Degraded {
        /// Its name.
        dependency: &'static str,
        /// The audit entry's `status`.
        outcome: &'static str,
    },
    /// Organisations whose state in Redis was older than one that a worker saw.
    StateWentBack {
        /// The organisation.
        org: Rc<str>,
    },
    /// The difference between the clocks of this gateway and of Redis, in milliseconds.
    ClockSkew,
    /// How long a policy took to compile, in milliseconds. The worker does nothing else during that time.
    PolicyLoad,
    /// When the module was loaded, in seconds since the Unix epoch: the latest module of an Envoy is the running one.
    Build(&'static str),
    /// Audit entries written.
    AuditEntries,
    /// 1 for the policy that an organisation's calls are decided on, else 0.
    PolicyVersion {
        /// The organisation.
        org: Rc<str>,
        /// The version.
        version: Rc<str>,
    },
}

/// How the values of a metric are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Values are added.
    Counter,
    /// The last value counts.
    Gauge,
    /// The distribution of values counts.
    Histogram,
}

impl Metric {
    /// How its values are combined.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Requests { .. }
            | Self::ToolErrors { .. }
            | Self::AuthFailures { .. }
            | Self::RateLimited { .. }
            | Self::BudgetAlerts { .. }
            | Self::Degraded { .. }
            | Self::NotAsked(_)
            | Self::Leases(_)
            | Self::ShadowDenied { .. }
            | Self::SchemaDrift { .. }
            | Self::UpstreamUnreadable { .. }
            | Self::NotBound { .. }
            | Self::UpstreamRetries { .. }
            | Self::StateWentBack { .. }
            | Self::AuditEntries => Kind::Counter,
            Self::DependencyUp(_)
            | Self::PolicyVersion { .. }
            | Self::ClockSkew
            | Self::Build(_) => Kind::Gauge,
            Self::RequestDuration { .. } | Self::DependencyDuration(_) | Self::PolicyLoad => {
                Kind::Histogram
            }
        }
    }

    /// The name in Envoy's stats, with each label as `.label.=.value;`, which `stats_tags` extract again.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Requests { org, connector, method, tool, outcome } => named(
                "requests_total",
                &[
                    ("org", org),
                    ("connector", connector),
                    ("method", method),
                    ("tool", tool),
                    ("outcome", outcome),
                ],
            ),
            Self::RequestDuration { org, connector, tool } => named(
                "request_duration_ms",
                &[("org", org), ("connector", connector), ("tool", tool)],
            ),
            Self::ToolErrors { org, connector, tool } => named(
                "tool_errors_total",
                &[("org", org), ("connector", connector), ("tool", tool)],
            ),
            Self::AuthFailures { reason } => named("auth_failures_total", &[("reason", reason)]),
            Self::RateLimited { org, limit } => {
                named("rate_limited_total", &[("org", org), ("limit", limit)])
            }
            Self::BudgetAlerts { org, limit } => {
                named("budget_alerts_total", &[("org", org), ("limit", limit)])
            }
            Self::Degraded { dependency, outcome } => {
                named("degraded_total", &[("dependency", dependency), ("outcome", outcome)])
            }
            Self::ShadowDenied { check } => named("shadow_denied_total", &[("check", check)]),
            Self::SchemaDrift { org, connector, kind } => named(
                "schema_drift_total",
                &[("org", org), ("connector", connector), ("kind", kind)],
            ),
            Self::UpstreamUnreadable { connector, reason } => {
                named("upstream_unreadable_total", &[("connector", connector), ("reason", reason)])
            }
            Self::NotBound { connector, kind } => {
                named("not_bound_total", &[("connector", connector), ("kind", kind)])
            }
            Self::UpstreamRetries { org, connector } => {
                named("upstream_retries_total", &[("org", org), ("connector", connector)])
            }
            Self::DependencyUp(dependency) => {
                named("dependency_up", &[("dependency", dependency.name())])
            }
            Self::DependencyDuration(dependency) => {
                named("dependency_duration_ms", &[("dependency", dependency.name())])
            }
            Self::NotAsked(dependency) => {
                named("not_asked_total", &[("dependency", dependency.name())])
            }
            Self::Leases(outcome) => named("leases_total", &[("outcome", outcome.name())]),
            Self::StateWentBack { org } => named("state_went_back_total", &[("org", org)]),
            Self::ClockSkew => named("clock_skew_ms", &[]),
            Self::PolicyLoad => named("policy_load_ms", &[]),
            Self::Build(build) => named("build_loaded_timestamp_seconds", &[("build", build)]),
            Self::AuditEntries => named("audit_entries_total", &[]),
            Self::PolicyVersion { org, version } => {
                named("policy_version", &[("org", org), ("version", version)])
            }
        }
    }
}

fn named(name: &str, labels: &[(&str, &str)]) -> String {
    let mut text = format!("portcullis_{name}");
    for (label, value) in labels {
        // The semicolon ends a value.
        let _ = write!(text, ".{label}.=.{};", value.replace(';', "_"));
    }
    text
}

/// The labels of this worker, each in memory once. A caller adds none: policies and the lists of upstreams name the
/// tools.
#[derive(Debug)]
pub struct Labels {
    known: Set<Rc<str>>,
    /// Organisations that have a policy.
    organisations: Set<Rc<str>>,
    /// How many of them each organisation added.
    brought: BTreeMap<OrgId, usize>,
    /// Connectors of the policies; there are no others.
    connectors: Set<Rc<str>>,
    /// Limits of the policies; there are no others.
    limits: Set<Rc<str>>,
    none: Rc<str>,
    other: Rc<str>,
    /// The policies of each organisation with a label of its own.
    policies: BTreeMap<Rc<str>, Versions>,
}

/// The policies of one organisation.
#[derive(Debug)]
struct Versions {
    /// The policy of its last decision.
    active: Rc<str>,
    /// The versions with labels of their own.
    known: Set<Rc<str>>,
}

impl Default for Labels {
    fn default() -> Self {
        Self {
            known: METHODS.into_iter().map(Rc::from).collect(),
            organisations: Set::default(),
            brought: BTreeMap::new(),
            connectors: Set::default(),
            limits: Set::default(),
            none: "none".into(),
            other: "other".into(),
            policies: BTreeMap::new(),
        }
    }
}

impl Labels {
    /// A tool that the policy of `org` names, or that one of its upstreams lists, becomes a label.
    pub fn learn(&mut self, org: &OrgId, tool: &str) {
        if self.known.contains(tool) || self.known.len() >= MOST_LABELS {
            return;
        }
        let brought = self.brought.entry(org.clone()).or_default();
        if *brought < MOST_OF_ORG {
            *brought = brought.saturating_add(1);
            self.known.insert(tool.into());
        }
    }

    /// The organisation of a request. Only one with a policy becomes a label: any other is text from a token's issuer.
    fn organisation(&mut self, entry: &Entry) -> Rc<str> {
        let (Some(org), Some(_)) = (entry.org_id.as_deref(), &entry.policy_version) else {
            return self.none.clone();
        };
        told_apart(&mut self.organisations, org, MOST_ORGANISATIONS, &self.other)
    }

    /// `value`, if it is a label.
    fn known(&self, value: Option<&str>) -> Rc<str> {
        match value {
            Some(value) => self.known.get(value).unwrap_or(&self.other).clone(),
            None => self.none.clone(),
        }
    }

    /// The connector of a request.
    fn connector(&mut self, name: Option<&str>) -> Rc<str> {
        match name {
            Some(name) => told_apart(&mut self.connectors, name, MOST_LABELS, &self.other),
            None => self.none.clone(),
        }
    }

    /// The name of a limit.
    fn limit(&mut self, name: &str) -> Rc<str> {
        told_apart(&mut self.limits, name, MOST_LABELS, &self.other)
    }

    /// The metrics of a finished request, each with its value.
    pub fn measures(&mut self, entry: &Entry) -> Vec<(Metric, u64)> {
        let status = entry.status;
        let org = self.organisation(entry);
        let connector = self.connector(entry.connector.as_deref());
        let method = self.known(entry.mcp_method.as_deref());
        let tool = self.known(entry.tool_name.as_deref());
        let mut measures = vec![(Metric::AuditEntries, 1)];
        let of_tool = || (org.clone(), connector.clone(), tool.clone());
        let (of, by, with) = of_tool();
        let duration = Metric::RequestDuration { org: of, connector: by, tool: with };
        measures.push((duration, entry.latency_ms));
        if status == AuditStatus::ToolError.name() {
            let (org, connector, tool) = of_tool();
            measures.push((Metric::ToolErrors { org, connector, tool }, 1));
        }
        let (of, by, with) = of_tool();
        let requests =
            Metric::Requests { org: of, connector: by, method, tool: with, outcome: status };
        measures.push((requests, 1));
        measures.extend(self.policy(&org, entry.policy_version.as_deref()));
        let degraded = entry.degraded.iter();
        measures.extend(
            degraded.map(|name| (Metric::Degraded { dependency: name, outcome: status }, 1)),
        );
        measures.extend(
            entry
                .events
                .iter()
                .filter_map(|event| Some((self.counted(event, &org)?, times(event)))),
        );
        measures
    }

    /// The switch to another policy, when there was one.
    fn policy(&mut self, org: &Rc<str>, version: Option<&str>) -> Vec<(Metric, u64)> {
        let Some(version) = version else { return Vec::new() };
        // Organisations without labels of their own share no version.
        if !self.organisations.contains(org) {
            return Vec::new();
        }
        let metric = |version| Metric::PolicyVersion { org: org.clone(), version };
        let Some(versions) = self.policies.get_mut(org) else {
            let active: Rc<str> = version.into();
            let known = Set::from_iter([active.clone()]);
            self.policies.insert(org.clone(), Versions { active: active.clone(), known });
            return vec![(metric(active), 1)];
        };
        if *versions.active == *version {
            return Vec::new();
        }
        let active = told_apart(&mut versions.known, version, MOST_VERSIONS_OF_ORG, &self.other);
        let before = std::mem::replace(&mut versions.active, active.clone());
        if before == active {
            return Vec::new();
        }
        vec![(metric(before), 0), (metric(active), 1)]
    }

    /// The metric that counts an event.
    fn counted(&mut self, event: &AuditEvent, org: &Rc<str>) -> Option<Metric> {
        let org = org.clone();
        match event {
            AuditEvent::AuthFailed { reason, .. } => Some(Metric::AuthFailures { reason }),
            AuditEvent::SchemaDrift { connector, kind, .. } => {
                Some(Metric::SchemaDrift { org, connector: self.connector(Some(connector)), kind })
            }
            AuditEvent::UnreadableItems { connector, reason, .. } => {
                Some(Metric::UpstreamUnreadable {
                    connector: self.connector(Some(connector)),
                    reason,
                })
            }
            AuditEvent::UnreadableMessage { connector } => Some(Metric::UpstreamUnreadable {
                connector: self.connector(Some(connector)),
                reason: "message",
            }),
            AuditEvent::NotBound { connector, kind, .. } => {
                Some(Metric::NotBound { connector: self.connector(Some(connector)), kind })
            }
            AuditEvent::Retried { connector, .. } => {
                Some(Metric::UpstreamRetries { org, connector: self.connector(Some(connector)) })
            }
            AuditEvent::RateLimitExceeded { limit, .. } => {
                Some(Metric::RateLimited { org, limit: self.limit(limit) })
            }
            AuditEvent::BudgetAlert { limit, .. } => {
                Some(Metric::BudgetAlerts { org, limit: self.limit(limit) })
            }
            AuditEvent::StateWentBack { org, .. } => {
                let org = told_apart(&mut self.organisations, org, MOST_ORGANISATIONS, &self.other);
                Some(Metric::StateWentBack { org })
            }
            AuditEvent::ShadowDenied { check, .. } => Some(Metric::ShadowDenied { check }),
            // Metrics of single requests count refusals and degraded decisions.
            AuditEvent::AuthSuccess { .. }
            | AuditEvent::TokenNotMapped { .. }
            | AuditEvent::InsufficientScope { .. }
            | AuditEvent::ToolAccessDenied { .. }
            | AuditEvent::RecordsCapped { .. }
            | AuditEvent::ApprovalRequested { .. }
            | AuditEvent::ApprovalUsed { .. }
            | AuditEvent::CoolOffStarted { .. }
            | AuditEvent::CoolOffEnded { .. }
            | AuditEvent::PolicyUnusable { .. }
            | AuditEvent::RedisClockWentBack { .. }
            | AuditEvent::StreamEnded { .. }
            | AuditEvent::Misrouted { .. }
            | AuditEvent::SecretUnusable { .. }
            | AuditEvent::TokenRefused { .. }
            | AuditEvent::CredentialReadAgain { .. }
            | AuditEvent::CredentialEchoed { .. }
            // The worker counts leases: an organisation that drops some need not call again.
            | AuditEvent::LeasesNotRevoked { .. }
            | AuditEvent::DegradedEntered { .. }
            | AuditEvent::DegradedLeft { .. } => None,
        }
    }
}

/// `name` as a label: itself while there are fewer than `most`, otherwise `other`. Envoy never forgets a label.
fn told_apart(known: &mut Set<Rc<str>>, name: &str, most: usize, other: &Rc<str>) -> Rc<str> {
    if let Some(known) = known.get(name) {
        return known.clone();
    }
    if known.len() >= most {
        return other.clone();
    }
    let name: Rc<str> = name.into();
    known.insert(name.clone());
    name
}

/// The value of an event.
fn times(event: &AuditEvent) -> u64 {
    match event {
        AuditEvent::Retried { attempts, .. } => attempts.saturating_sub(1),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(effect: &'static str, tool: &str) -> Entry {
        let mut entry = Entry { status: "success", ..Entry::default() };
        entry.decision.effect = effect;
        entry.tool_name = Some(tool.to_owned());
        entry
    }

    #[test]
    fn names_carry_their_labels_where_the_proxy_finds_them() {
        let requests = Metric::Requests {
            org: "acme".into(),
            connector: "demo".into(),
            method: "tools/call".into(),
            tool: "a;b".into(),
            outcome: "success",
        };
        assert_eq!(
            requests.name(),
            "portcullis_requests_total.org.=.acme;.connector.=.demo;.method.=.tools/call;.tool.=.a_b;.outcome.=.success;"
        );
        assert_eq!(Metric::AuditEntries.name(), "portcullis_audit_entries_total");
        assert_eq!(
            Metric::DependencyUp(Dependency::Redis).name(),
            "portcullis_dependency_up.dependency.=.redis;"
        );
    }

    #[test]
    fn what_is_decided_without_a_dependency_counts_as_that() {
        let entry = Entry { degraded: vec!["redis"], ..entry("allow", "real") };
        let degraded = Metric::Degraded { dependency: "redis", outcome: "success" };
        assert!(Labels::default().measures(&entry).contains(&(degraded, 1)));
    }

    // Finding 2.7: a caller that may call any tool filled all labels, and real tools counted as `other`.
    #[test]
    fn a_caller_cannot_make_up_labels() {
        let mut labels = Labels::default();
        let org = |number: usize| OrgId::new(&format!("org{number}")).unwrap();
        let tool_of = |labels: &mut Labels, tool: &str| {
            let measures = labels.measures(&entry("allow", tool));
            measures.into_iter().find_map(|(metric, _)| match metric {
                Metric::Requests { tool, .. } => Some(tool.to_string()),
                _ => None,
            })
        };
        for number in 0..3_000 {
            assert_eq!(tool_of(&mut labels, &number.to_string()).unwrap(), "other");
        }
        labels.learn(&org(0), "real");
        assert_eq!(tool_of(&mut labels, "real").unwrap(), "real");
        // An organisation whose upstream lists very many tools leaves labels for the others.
        for number in 0..3_000 {
            labels.learn(&org(1), &format!("many{number}"));
        }
        labels.learn(&org(2), "late");
        assert_eq!(tool_of(&mut labels, "late").unwrap(), "late");
        for number in 3..20 {
            (0..400).for_each(|tool| labels.learn(&org(number), &format!("{number}-{tool}")));
        }
        assert_eq!(labels.known.len(), MOST_LABELS);
    }

    /// Finding 12.14: equal names of connectors and limits were one series for all organisations.
    #[test]
    fn organisations_are_told_apart_when_a_policy_names_them() {
        let mut labels = Labels::default();
        let of = |org: &str, version: Option<&str>| Entry {
            org_id: Some(org.to_owned()),
            policy_version: version.map(str::to_owned),
            ..entry("allow", "pay")
        };
        let told = |labels: &mut Labels, entry: &Entry| {
            let measures = labels.measures(entry);
            measures.into_iter().find_map(|(metric, _)| match metric {
                Metric::Requests { org, .. } => Some(org.to_string()),
                _ => None,
            })
        };
        assert_eq!(told(&mut labels, &of("acme", Some("v"))).unwrap(), "acme");
        assert_eq!(told(&mut labels, &of("made-up", None)).unwrap(), "none");
        for number in 0..MOST_ORGANISATIONS {
            told(&mut labels, &of(&format!("org{number}"), Some("v")));
        }
        assert_eq!(told(&mut labels, &of("late", Some("v"))).unwrap(), "other");
        assert_eq!(told(&mut labels, &of("acme", Some("v"))).unwrap(), "acme");
    }

    /// Envoy never forgets a series: frequent pushes of policies must not fill its memory, and neither must the names
    /// of an organisation's limits and connectors.
    #[test]
    fn whatever_policies_name_the_series_are_bounded() {
        let mut labels = Labels::default();
        let mut series: Set<Metric> = Set::default();
        for number in 0..5_000 {
            let limit = format!("limit{number}");
            let entry = Entry {
                org_id: Some("acme".to_owned()),
                policy_version: Some(format!("sha256:{number}")),
                connector: Some(format!("connector{number}")),
                events: vec![
                    AuditEvent::BudgetAlert { limit: limit.clone(), used: 8, of: 10 },
                    AuditEvent::UnreadableMessage { connector: format!("c{number}") },
                ],
                ..entry("allow", "pay")
            };
            let measures = labels.measures(&entry);
            let versions = measures.iter().filter_map(|(metric, value)| match metric {
                Metric::PolicyVersion { version, .. } => Some((version.to_string(), *value)),
                _ => None,
            });
            let active = versions.filter(|(_, value)| *value == 1).map(|(version, _)| version);
            let active: Vec<String> = active.collect();
            let expected = match number {
                0..100 => vec![format!("sha256:{number}")],
                100 => vec!["other".to_owned()],
                _ => vec![],
            };
            assert_eq!(active, expected, "version {number}");
            series.extend(measures.into_iter().map(|(metric, _)| metric));
        }
        let of = |wanted: fn(&Metric) -> bool| series.iter().filter(|&one| wanted(one)).count();
        assert_eq!(of(|one| matches!(one, Metric::PolicyVersion { .. })), MOST_VERSIONS_OF_ORG + 1);
        assert_eq!(of(|one| matches!(one, Metric::BudgetAlerts { .. })), MOST_LABELS + 1);
        assert_eq!(of(|one| matches!(one, Metric::UpstreamUnreadable { .. })), MOST_LABELS / 2 + 1);
    }
}
