//! The HTTP client of commands: with timeouts, TLS if the URL says so, never through a proxy or a redirect.
//!
//! Owns the trusted certificates: those of the machine, or of the file in SSL_CERT_FILE, as for Redis.

use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

/// An agent whose calls end within `bound`; it returns a response with any status.
pub(crate) fn agent(bound: Duration) -> Agent {
    config(bound).new_agent()
}

/// The same, connected to `address`, HOST:PORT, for any host in a URL. `Host` and TLS use the URL.
pub(crate) fn agent_at(bound: Duration, address: &str) -> Agent {
    let address = address.to_owned();
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

/// Resolves every name to one address.
#[derive(Debug)]
struct At {
    address: String,
}

impl Resolver for At {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut found = self.empty();
        // One address is enough: a Service has one, and so does a name in a test or an /etc/hosts.
        found.push(self.address.to_socket_addrs()?.next().ok_or(Error::HostNotFound)?);
        Ok(found)
    }
}
