//! Credentials other than API keys, who may vouch for whom, and how guessing is slowed down.
//!
//! Owns the section `auth`. What each part of it means is [`crate::auth`]'s business.

use crate::auth::certificate::mapping::{self, CertificateConfig};
use crate::auth::slowdown::SlowdownConfig;
use crate::auth::token::issuer::{self, Issuer};
use crate::decode::{Faults, Fields, Node};

/// The section `auth`.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// The gateway as clients reach it, without a slash at the end: `https://mcp.example`. With an
    /// endpoint's path it makes the endpoint's canonical URI (RFC 8707 §2).
    pub external_url: Option<String>,
    /// Client certificates.
    pub certificates: CertificateConfig,
    /// How guessing is slowed down.
    pub slowdown: SlowdownConfig,
    /// Whose tokens are accepted.
    pub issuers: Vec<Issuer>,
    /// The scopes that a client is told to ask for at first (RFC 9728 §2, `scopes_supported`).
    pub scopes: Vec<String>,
}

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
        config.slowdown = SlowdownConfig::read(node, faults);
    }
    if let Some(node) = fields.optional("issuers") {
        config.issuers = issuer::read(node, faults).unwrap_or_default();
    }
    if let Some(node) = fields.optional("scopes_supported") {
        config.scopes = scopes(node, faults).unwrap_or_default();
    }
    fields.finish(faults);
    config
}

/// A list of scopes.
pub(crate) fn scopes(node: Node<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let items = node.items(faults, "a list of scopes, such as [tools:read]")?.into_iter();
    items
        .map(|item| item.text(faults, SCOPE, |text| is_scope(text).then(|| text.to_owned())))
        .collect()
}

const SCOPE: &str =
    "a scope of 1 to 128 visible characters, no quote and no backslash, such as tools:read";

/// A `scope-token` (RFC 6749 §3.3).
fn is_scope(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    (1..=128).contains(&text.len()) && text.bytes().all(plain)
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
