//! The HTTP client of commands: with timeouts, TLS if the URL says so, never through a proxy or a redirect.
//!
//! Owns the trusted certificates: those of the machine, or of the file in SSL_CERT_FILE, as for Redis.

use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::http::uri::{Authority, Scheme};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

/// An agent whose calls end within `bound`; it returns a response with any status.
pub(crate) fn agent(bound: Duration) -> Agent {
    config(bound).new_agent()
}

/// The same, connected to `address` for any host in a URL; without a port in it, to the URL's port. `Host` and TLS use the
/// URL.
pub(crate) fn agent_at(bound: Duration, address: Authority) -> Agent {
    Agent::with_parts(config(bound), DefaultConnector::new(), At { address })
}

fn config(bound: Duration) -> Config {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build();
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(bound))
        .tls_config(tls)
        .build()
}

/// Resolves every name to one host.
#[derive(Debug)]
struct At {
    address: Authority,
}

impl At {
    /// Where a call of `uri` connects.
    fn place(&self, uri: &Uri) -> String {
        let usual = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = self.address.port_u16().or(uri.port_u16()).unwrap_or(usual);
        format!("{}:{port}", self.address.host())
    }
}

impl Resolver for At {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut found = self.empty();
        // One address is enough: a Service has one, and so does a name in a test or an /etc/hosts.
        found.push(self.place(uri).to_socket_addrs()?.next().ok_or(Error::HostNotFound)?);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_port_a_probe_connects_to_that_of_its_url() {
        let place = |address: &str, url: &str| {
            let address = address.parse().expect("an address");
            At { address }.place(&url.parse().expect("a URL"))
        };
        assert_eq!(place("gateway.svc", "https://mcp.example:8443/crm/mcp"), "gateway.svc:8443");
        assert_eq!(place("gateway.svc", "http://mcp.example/crm/mcp"), "gateway.svc:80");
        assert_eq!(place("gateway.svc", "https://mcp.example/crm/mcp"), "gateway.svc:443");
        assert_eq!(place("gateway.svc:80", "http://mcp.example:8080/"), "gateway.svc:80");
        assert_eq!(place("[::1]", "http://mcp.example:8080/"), "[::1]:8080");
    }
}
