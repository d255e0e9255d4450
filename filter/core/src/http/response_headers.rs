//! The response headers that a policy may let pass in addition to [`crate::mcp::headers::OF_ANSWERS`].
//!
//! Owns the reserved names: each belongs to the gateway, Envoy or the protocol.

use crate::http::header_names::Reserved;

const RESERVED: &[&str] = &[
    // A login challenge: the client has no credential for the server.
    "www-authenticate",
    "proxy-authenticate",
    "authentication-info",
    "proxy-authentication-info",
    // MCP has no redirects.
    "location",
    "refresh",
    // The framing of a message, and headers for one hop only (RFC 9110, section 7.6.1).
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// The names that a policy may use: all except these, and these families.
pub(crate) const NAMED: Reserved = Reserved {
    names: RESERVED,
    prefixes: &["access-control-", "content-", "mcp-", "x-envoy-", "x-portcullis-"],
    list: "a list of header names, such as [set-cookie, server]",
    name: "the name of a header, such as set-cookie or server; not one that the gateway, Envoy or the \
     protocol decides: www-authenticate, location, access-control-*, content-*, mcp-*, x-envoy-*, \
     x-portcullis-* and others (docs/reference/headers.md)",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_gateway_or_the_protocol_says_a_policy_cannot_let_pass() {
        for name in ["Set-Cookie", "server", "x-powered-by", "strict-transport-security"] {
            assert_eq!(NAMED.other(name), Some(name.to_ascii_lowercase()));
        }
        for name in [
            "WWW-Authenticate",
            "Location",
            "Access-Control-Allow-Origin",
            "Content-Encoding",
            "Mcp-Session-Id",
            "x-portcullis-request-id",
            "x-envoy-upstream-service-time",
            "Transfer-Encoding",
            ":status",
            "a b",
            "",
        ] {
            assert_eq!(NAMED.other(name), None, "{name}");
        }
    }
}
