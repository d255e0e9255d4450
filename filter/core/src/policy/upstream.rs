//! The destinations of a connector's requests: the clusters and hosts that its policy names.
//!
//! Owns the comparison. A policy knows paths, and a router uses more: host, headers, query, weights. The router's
//! selection is compared with the policy before the connector's credential is added.

use super::Globs;
use crate::route::{Misrouted, Selected, names_host};

/// The allowed destinations of a connector. An empty list refuses nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpstreamBinding {
    /// Envoy clusters.
    pub clusters: Globs,
    /// Hosts in lower case, with or without a port; without one, any port is allowed.
    pub hosts: Vec<String>,
}

impl UpstreamBinding {
    /// Whether the router's selection is an allowed destination.
    ///
    /// # Errors
    /// The part of the selection that differs from the policy.
    pub fn check(&self, selected: &Selected, guard: Guard) -> Result<(), Misrouted> {
        if !self.hosts.is_empty() && !names_host(&self.hosts, &selected.authority) {
            return Err(Misrouted::Host);
        }
        match (&selected.cluster, guard) {
            (None, Guard::Required | Guard::Introduced) => Ok(()),
            (Some(_), Guard::Required) => Err(Misrouted::Unguarded),
            _ if self.clusters.is_empty() => Ok(()),
            (Some(cluster), Guard::Introduced | Guard::Unset) if self.clusters.matches(cluster) => {
                Ok(())
            }
            (Some(_) | None, Guard::Introduced | Guard::Unset) => Err(Misrouted::Cluster),
        }
    }
}

/// The guard that the routes of a path require.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The guard. Before a request is judged, the router selects no cluster for it; a route that has one is not one of
    /// the operator's.
    Required,
    /// The guard, or none yet.
    Introduced,
    /// No guard.
    Unset,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(clusters: &[&str], hosts: &[&str]) -> UpstreamBinding {
        let mut globs = Globs::default();
        clusters.iter().for_each(|cluster| globs.insert(cluster));
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        UpstreamBinding { clusters: globs, hosts }
    }

    fn selected(cluster: Option<&str>, authority: &str) -> Selected {
        Selected { cluster: cluster.map(str::to_owned), authority: authority.to_owned() }
    }

    // Finding 11.1.
    // Proves: X30
    #[test]
    fn what_the_policy_does_not_name_is_refused() {
        let bound = binding(&["demo", "outbound|8080||mcp.*"], &["mcp.example", "[::1]:8443"]);
        let check = |cluster, host| bound.check(&selected(cluster, host), Guard::Unset);
        assert_eq!(check(Some("demo"), "mcp.example"), Ok(()));
        assert_eq!(check(Some("outbound|8080||mcp.team.svc"), "MCP.example:10000"), Ok(()));
        assert_eq!(check(Some("demo"), "[::1]:8443"), Ok(()));
        assert_eq!(check(Some("evil"), "mcp.example"), Err(Misrouted::Cluster));
        assert_eq!(check(None, "mcp.example"), Err(Misrouted::Cluster));
        for host in
            ["other.example", "mcp.example.", "mcp.example.evil", "[::1]", "[::1]:80", "", ":80"]
        {
            assert_eq!(check(Some("demo"), host), Err(Misrouted::Host), "{host}");
        }
        let check = |cluster, guard| bound.check(&selected(cluster, "mcp.example"), guard);
        assert_eq!(check(None, Guard::Required), Ok(()));
        assert_eq!(check(Some("demo"), Guard::Required), Err(Misrouted::Unguarded));
        assert_eq!(check(None, Guard::Introduced), Ok(()));
        assert_eq!(check(Some("demo"), Guard::Introduced), Ok(()));
        assert_eq!(check(Some("evil"), Guard::Introduced), Err(Misrouted::Cluster));
        assert_eq!(binding(&[], &[]).check(&selected(None, ""), Guard::Unset), Ok(()));
    }
}
