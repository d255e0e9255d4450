//! How commands speak HTTP: bounded in time, TLS where the URL says so, never through a proxy or a redirect.
//!
//! Owns which certificates are trusted: those of the machine, or of the file that SSL_CERT_FILE names, as for Redis.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// An agent whose calls end within `bound`; a status other than 200 is an answer like any other.
pub(crate) fn agent(bound: Duration) -> Agent {
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
        .new_agent()
}
