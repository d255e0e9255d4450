//! How commands speak HTTP: bounded in time, TLS where the URL says so, never through a proxy or a redirect.
//!
//! Owns which certificates are trusted: those of the machine, or of the file that SSL_CERT_FILE names, as for Redis.

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

/// An agent whose calls end within `bound`; a status other than 200 is an answer like any other.
pub(crate) fn agent(bound: Duration) -> Agent {
    config(bound).new_agent()
}

/// The same; it connects to `address`, HOST:PORT, whatever host a URL names. `Host` and TLS are those of the URL.
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

/// One place for every name.
#[derive(Debug)]
struct At {
    address: String,
}

impl Resolver for At {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut found = self.empty();
        // One is enough: a Service has one address, and a name in a test or an /etc/hosts, too.
        found.push(self.address.to_socket_addrs()?.next().ok_or(Error::HostNotFound)?);
        Ok(found)
    }
}
