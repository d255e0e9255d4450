//! Which response headers a policy may let pass besides [`crate::mcp::headers::OF_ANSWERS`].
//!
//! Owns the names that it may not: each of them is the gateway's, Envoy's or the protocol's word to the client.

use crate::http::header_names::Reserved;

const RESERVED: &[&str] = &[
    // Where to log in, and with what: the client has no credential for the server.
    "www-authenticate",
    "proxy-authenticate",
    "authentication-info",
    "proxy-authentication-info",
    // MCP has no redirects.
    "location",
    "refresh",
    // How a message is framed, and for one hop alone (RFC 9110, section 7.6.1).
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// What a policy may name: anything but those, and these families.
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
