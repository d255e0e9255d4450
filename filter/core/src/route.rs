//! What Envoy's router selected for a request, as far as the filter is told.
//!
//! Owns the facts. Whether they are right is in the policy of the connector.

/// What the router selected for a request, as the proxy tells it before the filter changes anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// The cluster; `None` where the route answers by itself, or there is none.
    pub cluster: Option<String>,
    /// `:authority`, as the client sent it.
    pub authority: String,
}

/// Whether `authority` is one of the hosts that are `named`, in lower case: without a port there, any port will do.
#[must_use]
pub fn names_host(named: &[String], authority: &str) -> bool {
    let authority = authority.to_ascii_lowercase();
    // The colons of an IPv6 address stand in brackets.
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority.as_str(),
    };
    named.iter().any(|named| *named == authority || named == host)
}

/// What of a request is not as the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misrouted {
    /// The selected cluster.
    Cluster,
    /// The selected route, which is open to requests that nobody judged.
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
