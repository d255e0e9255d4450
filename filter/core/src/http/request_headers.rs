//! The request headers that are sent upstream: an allow list.
//!
//! Owns the names. A header that is on neither this list nor the connector's (`request_headers` in the policy) is
//! removed. `x-envoy-*` makes Envoy's router repeat a request. `x-original-url` makes a server see another path than
//! the judged one. `cf-access-jwt-assertion` is a credential that only the previous hop has checked. No deny list could
//! be complete.

use crate::http::header_names::Reserved;
use crate::mcp::Era;

/// Whether a header of that name (in lower case) is sent upstream for every connector.
///
/// `x-forwarded-proto` and the last entry of `x-forwarded-for` are Envoy's own. Only the era of 2026-07-28 has
/// `Mcp-Method`, `Mcp-Name` and `Mcp-Param-*`; in other eras they are not compared with the body. That era has no
/// sessions, so the owner of its `Mcp-Session-Id` is not checked.
#[must_use]
pub fn goes_upstream(name: &[u8], era: Era) -> bool {
    match name {
        // The request line, and the framing of its body: Envoy's codecs wrote them.
        b":method" | b":path" | b":scheme" | b":authority" | b"content-length" => true,
        b"accept" | b"accept-language" | b"content-type" | b"user-agent" => true,
        // W3C Trace Context and Baggage. Envoy's tracers add their own headers after the filter.
        b"traceparent" | b"tracestate" | b"baggage" => true,
        b"x-forwarded-for" | b"x-forwarded-proto" => true,
        b"mcp-protocol-version" | b"last-event-id" => true,
        b"mcp-session-id" => era == Era::Legacy,
        b"mcp-method" | b"mcp-name" => era == Era::Modern,
        name if name.starts_with(b"mcp-param-") => era == Era::Modern,
        _ => false,
    }
}

/// Names that no policy can let through, because each belongs to the gateway, Envoy or the protocol.
const RESERVED: &[&str] = &[
    // Credentials for the gateway.
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "x-forwarded-client-cert",
    // Set by the gateway.
    "accept-encoding",
    "x-request-id",
    // Some servers see another request than the judged one.
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-prefix",
    // The framing of a message, and headers for one hop only (RFC 9110, section 7.6.1).
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "http2-settings",
    "content-length",
    "content-encoding",
];

/// The names that a policy may use: all except these, and these families.
pub(crate) const NAMED: Reserved = Reserved {
    names: RESERVED,
    prefixes: &["x-portcullis-", "x-envoy-", "mcp-"],
    list: "a list of header names, such as [x-tenant, cookie]",
    name: "the name of a header, such as x-tenant or cookie; not one that the gateway, Envoy or the \
     protocol decides: authorization, x-api-key, accept-encoding, x-portcullis-*, x-envoy-*, mcp-* and \
     others (docs/reference/headers.md)",
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Request headers that Envoy's router or connection manager obeys (source/common/router,
    /// source/common/http/headers.h, 1.40).
    const OBEYED: [&str; 20] = [
        "x-envoy-retry-on",
        "x-envoy-retry-grpc-on",
        "x-envoy-max-retries",
        "x-envoy-retriable-status-codes",
        "x-envoy-retriable-header-names",
        "x-envoy-hedge-on-per-try-timeout",
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-upstream-rq-per-try-timeout-ms",
        "x-envoy-upstream-rq-timeout-alt-response",
        "x-envoy-upstream-alt-stat-name",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-decorator-operation",
        "x-envoy-ip-tags",
        "x-envoy-force-trace",
        "x-envoy-original-path",
        "x-envoy-external-address",
        "x-envoy-internal",
        "x-envoy-attempt-count",
        "x-envoy-downstream-service-cluster",
        "grpc-timeout",
    ];

    // Finding 1.1: one admitted call with `x-envoy-retry-on` ran 101 times.
    // Proves: B2
    #[test]
    fn nothing_that_the_router_obeys_goes_upstream_or_can_be_named() {
        for name in OBEYED {
            for era in [Era::Legacy, Era::Modern] {
                assert!(!goes_upstream(name.as_bytes(), era), "{name}");
            }
            assert!(name == "grpc-timeout" || NAMED.other(name).is_none(), "{name}");
        }
    }

    // Finding 1.3.
    // Proves: B2
    #[test]
    fn headers_of_other_hops_stay_behind() {
        for name in [
            "cookie",
            "cf-access-jwt-assertion",
            "x-forwarded-access-token",
            "api-key",
            "x-original-url",
            "x-rewrite-url",
            "forwarded",
            "x-real-ip",
            "x-forwarded-host",
            "x-forwarded-client-cert",
            "origin",
            "upgrade",
            "te",
            "",
        ] {
            assert!(!goes_upstream(name.as_bytes(), Era::Legacy), "{name}");
        }
    }

    #[test]
    fn what_mirrors_the_body_goes_where_it_was_compared_with_it() {
        for name in ["mcp-method", "mcp-name", "mcp-param-limit"] {
            assert!(goes_upstream(name.as_bytes(), Era::Modern), "{name}");
            assert!(!goes_upstream(name.as_bytes(), Era::Legacy), "{name}");
        }
        assert!(goes_upstream(b"mcp-session-id", Era::Legacy));
        assert!(!goes_upstream(b"mcp-session-id", Era::Modern));
    }

    #[test]
    fn a_policy_names_headers_and_not_what_the_gateway_decides() {
        for good in ["cookie", "X-Tenant", "forwarded", "b3"] {
            assert_eq!(NAMED.other(good), Some(good.to_ascii_lowercase()));
        }
        for bad in ["", ":path", "x y", "x_tenant", "X-Portcullis-Org", "mcp-name", "é", "*"] {
            assert_eq!(NAMED.other(bad), None, "{bad}");
        }
        for bad in RESERVED {
            assert_eq!(NAMED.other(bad), None, "{bad}");
        }
    }
}
