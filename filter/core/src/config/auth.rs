//! Credentials other than API keys, their issuers, and the settings that slow down guessing.
//!
//! Owns the section `auth`. [`crate::auth`] owns the meaning of each part.

use crate::auth::certificate::mapping::{self, CertificateConfig};
use crate::auth::throttle::ThrottleConfig;
use crate::auth::token::issuer::{self, Issuer, IssuerId};
use crate::auth::token::jws::MOST_TOKEN_BYTES;
use crate::decode::settings::scopes;
use crate::decode::{Faults, Fields};

/// The section `auth`.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The gateway's URL for clients, without a slash at the end: `https://mcp.example`. With an endpoint's path it is
    /// the endpoint's canonical URI (RFC 8707 §2).
    pub external_url: Option<String>,
    /// Client certificates.
    pub certificates: CertificateConfig,
    /// The settings that slow down guessing.
    pub throttle: ThrottleConfig,
    /// The issuers whose tokens are accepted.
    pub issuers: Vec<Issuer>,
    /// The scopes that a client should request at first (RFC 9728 §2, `scopes_supported`).
    pub scopes: Vec<String>,
    /// The most bytes of a token.
    pub token_max_bytes: usize,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            external_url: None,
            certificates: CertificateConfig::default(),
            throttle: ThrottleConfig::default(),
            issuers: Vec::new(),
            scopes: Vec::new(),
            token_max_bytes: DEFAULT_TOKEN_BYTES,
        }
    }
}

impl AuthConfig {
    /// The canonical URI of the endpoint at `path` (RFC 8707 §2), when `external_url` is configured.
    #[must_use]
    pub fn resource(&self, path: &str) -> Option<String> {
        self.external_url.as_ref().map(|url| [url.as_str(), path].concat())
    }

    /// The issuer whose `iss` is `id`.
    #[must_use]
    pub fn issuer(&self, id: &IssuerId) -> Option<&Issuer> {
        self.issuers.iter().find(|issuer| issuer.id == *id)
    }

    /// The issuers whose tokens are accepted at `path`.
    pub fn issuers_at(&self, path: &str) -> impl Iterator<Item = &Issuer> {
        self.issuers.iter().filter(move |issuer| issuer.serves(path))
    }
}

/// Tokens with the groups of their subject are often larger than 8 KiB.
const DEFAULT_TOKEN_BYTES: usize = 16_384;

const URL: &str = "an https URL without path, such as https://mcp.example; http only on loopback";

pub(super) fn read(fields: &mut Fields<'_>, faults: &mut Faults) -> AuthConfig {
    let mut config = AuthConfig::default();
    let node = fields.optional("auth").and_then(|node| node.object(faults, "an object"));
    let Some(mut fields) = node else { return config };
    if let Some(node) = fields.optional("external_url") {
        config.external_url =
            node.text(faults, URL, |text| is_origin(text).then(|| text.to_owned()));
    }
    if let Some(node) = fields.optional("certificates") {
        config.certificates = mapping::read(node, faults).unwrap_or_default();
    }
    if let Some(node) = fields.optional("slowdown") {
        config.throttle = ThrottleConfig::read(node, faults);
    }
    if let Some(node) = fields.optional("issuers") {
        config.issuers = issuer::read(node, faults).unwrap_or_default();
    }
    if let Some(node) = fields.optional("scopes_supported") {
        config.scopes = scopes(node, faults).unwrap_or_default();
    }
    if let Some(node) = fields.optional("token_max_bytes") {
        let most = u64::try_from(MOST_TOKEN_BYTES).unwrap_or(u64::MAX);
        let bytes = node.integer(faults, 1_024..=most, "bytes");
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        config.token_max_bytes = bytes.unwrap_or(DEFAULT_TOKEN_BYTES);
    }
    fields.finish(faults);
    config
}

/// Whether `text` is a scheme and a host, with a port or without one, and nothing else.
fn is_origin(text: &str) -> bool {
    let (scheme, host) = text.split_once("://").unwrap_or_default();
    let plain = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let loopback = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
    plain && (scheme == "https" || (scheme == "http" && loopback))
}

#[cfg(test)]
mod tests {
    use super::is_origin;
    use crate::config::Config;

    // Finding 7.4: tokens with many groups.
    // Proves: B18
    #[test]
    fn tokens_have_16_kib_unless_the_operator_says_otherwise() {
        let read = |auth: serde_json::Value| {
            let document = serde_json::json!({"redis": {"cluster": "r"}, "auth": auth});
            Config::parse(&document).map(|config| config.auth.token_max_bytes)
        };
        assert_eq!(read(serde_json::json!({})).unwrap(), 16_384);
        assert_eq!(read(serde_json::json!({"token_max_bytes": 40_000})).unwrap(), 40_000);
        assert_eq!(
            read(serde_json::json!({"token_max_bytes": 70_000})).unwrap_err().to_string(),
            "auth.token_max_bytes: found 70000, expected a whole number of bytes from 1024 to 61440"
        );
    }

    #[test]
    fn only_what_clients_can_trust_is_an_external_url() {
        for good in ["https://mcp.example", "https://mcp.example:8443", "http://127.0.0.1:10000"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["mcp.example", "https://", "https://a/", "http://mcp.example", "https://u@a"] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
