//! The selection of Envoy's router for a request, as far as the filter knows it.
//!
//! Owns the facts. The connector's policy decides whether they are allowed.

/// The router's selection for a request, as Envoy reports it before the filter changes anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// The cluster; `None` for a route with a direct response, or without a route.
    pub cluster: Option<String>,
    /// `:authority`, as the client sent it.
    pub authority: String,
}

/// Whether `authority` is one of the hosts in `named`, which are in lower case: without a port there, any port is
/// allowed.
#[must_use]
pub fn names_host(named: &[String], authority: &str) -> bool {
    let authority = authority.to_ascii_lowercase();
    // The colons of an IPv6 address are in brackets.
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority.as_str(),
    };
    named.iter().any(|named| *named == authority || named == host)
}

/// The part of the selection that differs from the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misrouted {
    /// The selected cluster.
    Cluster,
    /// The selected route, which also accepts requests that were not judged.
    Unguarded,
    /// The host.
    Host,
}

impl Misrouted {
    /// The name in rules and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Unguarded => "unguarded",
            Self::Host => "host",
        }
    }
}
