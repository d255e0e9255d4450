//! Compares the paths of active policies with the routes of the Envoys: whether allowed calls have a destination.
//!
//! In a mesh, each Envoy has only the routes of its own server. So a path without a route in any named Envoy needs a
//! check, and a probed path must have a route.
//!
//! Owns the comparison. `routes` knows the routes, `redis` the active policies.

use std::collections::BTreeMap;

use super::Finding;
use super::redis::ActiveConnector;
use super::routes::Served;

const PAGE: &str = "see docs/guides/guarded-routes.md";
/// The most organisations that are named.
const NAMED: usize = 3;

/// The active connectors, and the routes of all named Envoys.
pub(super) struct Paths<'a> {
    pub(super) connectors: &'a [ActiveConnector],
    pub(super) served: &'a [Served],
}

/// The result of the routes for a path.
enum Routed {
    /// A route leads to the policy's destination, or to an unknown one.
    There,
    /// No route matches.
    Nowhere,
    /// The matching routes lead to these clusters, none of which the policy names.
    Elsewhere(Vec<String>),
}

impl Paths<'_> {
    /// Checks every path of a connector.
    pub(super) fn look(&self) -> Vec<Finding> {
        let mut by_path: BTreeMap<&str, Vec<&ActiveConnector>> = BTreeMap::new();
        for active in self.connectors {
            let messages = active.kept.messages.as_deref();
            for path in [Some(active.kept.path.as_str()), messages].into_iter().flatten() {
                by_path.entry(path).or_default().push(active);
            }
        }
        let count = by_path.len();
        let findings = by_path.into_iter().filter_map(|(path, connectors)| {
            let check = format!("path {path}");
            let mut lost = Vec::new();
            let mut elsewhere: BTreeMap<Vec<String>, Vec<&ActiveConnector>> = BTreeMap::new();
            for active in connectors {
                match self.routed(path, Some(active)) {
                    Routed::There => {}
                    Routed::Nowhere => lost.push(active),
                    Routed::Elsewhere(clusters) => {
                        elsewhere.entry(clusters).or_default().push(active);
                    }
                }
            }
            if !lost.is_empty() {
                let found = format!(
                    "no route of the named Envoys leads there: calls of {} fail, but where another Envoy has one",
                    named(&lost)
                );
                let next = format!("add a guarded route, or mend the connector's path; {PAGE}");
                return Some(Finding::warning(&check, found, next));
            }
            let (clusters, connectors) = elsewhere.into_iter().next()?;
            let found = format!(
                "its routes lead to {}, which upstream.clusters of {} does not name",
                clusters.join(", "),
                named(&connectors)
            );
            Some(Finding::warning(&check, found, "name the cluster of the route in upstream.clusters"))
        });
        let mut findings: Vec<Finding> = findings.collect();
        if findings.is_empty() && count > 0 {
            let found = format!("{count} paths of active policies have a route");
            findings.push(Finding::good("paths", found));
        }
        findings
    }

    /// Checks the path of a probed URL. A call without a credential gets its 401 before the route matters. A proxy
    /// before Envoy may have rewritten the path.
    pub(super) fn of_probe(&self, url: &str) -> Option<Finding> {
        let (check, path) = (format!("probe {url}"), path_of(url)?);
        if matches!(self.routed(path, None), Routed::Nowhere) {
            let found = format!(
                "no route of the named Envoys leads to {path}: calls with a credential fail, if that is the path that Envoy sees"
            );
            let next = format!("check the path, or add a route; {PAGE}");
            return Some(Finding::warning(&check, found, next));
        }
        let is_of = |active: &ActiveConnector| {
            active.kept.path == path || active.kept.messages.as_deref() == Some(path)
        };
        (!self.connectors.iter().any(is_of)).then(|| {
            let found =
                format!("no connector of an active policy has the path {path}: calls get 404");
            Finding::warning(&check, found, "check the path, or push a policy with it")
        })
    }

    fn routed(&self, path: &str, active: Option<&ActiveConnector>) -> Routed {
        let mut elsewhere = Vec::new();
        for served in self.served {
            let Some(routes) = served.clusters_of(path) else { return Routed::There };
            for clusters in routes {
                let wanted = active.map(|active| &active.kept.upstream.clusters);
                let wanted = wanted.filter(|wanted| !wanted.is_empty());
                let named = |cluster: &String| wanted.is_none_or(|wanted| wanted.matches(cluster));
                // The name of a cluster that comes from a header is unknown here.
                if clusters.is_empty() || clusters.iter().any(named) {
                    return Routed::There;
                }
                elsewhere.extend(clusters.iter().cloned());
            }
        }
        match elsewhere.is_empty() {
            true => Routed::Nowhere,
            false => Routed::Elsewhere(elsewhere),
        }
    }
}

/// `north/demo, south/demo and 7 more`.
fn named(connectors: &[&ActiveConnector]) -> String {
    let count: usize = connectors.iter().map(|it| it.orgs.len()).sum();
    let each = connectors.iter().flat_map(|it| it.orgs.iter().map(|org| (org, &it.kept.name)));
    let named = each.take(NAMED);
    let names: Vec<String> = named.map(|(org, name)| format!("{org}/{name}")).collect();
    let names_shown = names.len();
    match count.saturating_sub(names_shown) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// The path of a URL in the gateway's form.
fn path_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/");
    path.split(['?', '#']).next()
}

#[cfg(test)]
mod tests {
    use portcullis_core::config::Config;
    use portcullis_core::id::OrgId;
    use portcullis_core::policy;
    use serde_json::{Value, json};

    use super::super::State;
    use super::super::redis::KeptConnector;
    use super::super::routes;
    use super::*;

    fn connectors(connector: &Value) -> Vec<ActiveConnector> {
        let document = json!({
            "version": 1, "organisations": ["north"], "connectors": {"demo": connector},
            "roles": {"a": {"demo": {"allow": ["*"]}}}, "tiers": {"t": {"limits": {}}},
        });
        let policy = policy::compile(&document).unwrap();
        let org = OrgId::new("north").unwrap();
        let active = |(name, connector): (_, Box<policy::Connector>)| {
            let policy::Connector { path, messages, upstream, credential, .. } = *connector;
            let kept = KeptConnector { name, path, messages, upstream, credential };
            ActiveConnector { orgs: [org.clone()].into(), kept }
        };
        policy.connectors.into_iter().map(active).collect()
    }

    fn served(guards: &Value) -> Served {
        let config = Config::parse(&json!({"redis": {"cluster": "r"}, "guards": guards})).unwrap();
        let guard =
            json!({"name": "x-portcullis-guard", "string_match": {"exact": "0123456789abcdef"}});
        let dump = json!({"virtual_hosts": [{"name": "mcp", "routes": [
            {"name": "demo", "match": {"path": "/demo/mcp", "headers": [guard]}, "route": {"cluster": "demo"}},
            {"name": "unjudged", "match": {"prefix": "/"}, "direct_response": {"status": 503}},
        ]}]});
        routes::look(&dump, &config).1
    }

    fn lost(connector: &Value, guards: &Value) -> Vec<String> {
        let (connectors, served) = (connectors(connector), [served(guards)]);
        let findings = Paths { connectors: &connectors, served: &served }.look().into_iter();
        findings.filter(|it| it.state == State::Warning).map(|it| it.found).collect()
    }

    // Finding 2 of a fresh reader: doctor said all good while every call of an organisation failed.
    // Proves: X16
    #[test]
    fn a_path_of_a_policy_that_no_route_has_is_named() {
        let guards = json!({"/demo/mcp": "0123456789abcdef"});
        assert_eq!(lost(&json!({"path": "/demo/mcp"}), &guards), Vec::<String>::new());
        let nowhere = [
            "no route of the named Envoys leads there: calls of north/demo fail, but where another Envoy has one",
        ];
        assert_eq!(lost(&json!({"path": "/dmo/mcp"}), &guards), nowhere);
        // Without a guard for its path, a request does not match the route that requires one.
        let other = json!({"/other/mcp": "0123456789abcdef"});
        assert_eq!(lost(&json!({"path": "/demo/mcp"}), &other), nowhere);
        let to = |cluster: &str| json!({"path": "/demo/mcp", "upstream": {"clusters": [cluster]}});
        assert_eq!(lost(&to("de*"), &guards), Vec::<String>::new());
        let found = lost(&to("crm"), &guards);
        assert!(
            found[0].starts_with("its routes lead to demo, which upstream.clusters"),
            "{found:?}"
        );
    }

    // Proves: X16
    #[test]
    fn a_probe_of_a_path_without_a_route_is_to_be_looked_at() {
        let connectors = connectors(&json!({"path": "/demo/mcp"}));
        let served = [served(&json!({"/demo/mcp": "0123456789abcdef"}))];
        let paths = Paths { connectors: &connectors, served: &served };
        assert!(paths.of_probe("https://gateway.example/demo/mcp?x=1").is_none());
        for url in ["https://gateway.example/dmo/mcp", "https://gateway.example"] {
            assert_eq!(paths.of_probe(url).map(|it| it.state), Some(State::Warning), "{url}");
        }
    }
}
