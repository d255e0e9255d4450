//! Origins and host names: the pages that may call from a browser (MCP: servers MUST validate `Origin`).
//!
//! Owns the comparison with the configured origins and hosts, and the responses of CORS. Runs before authentication: a
//! page that may not call does not learn whether its user could.

use crate::config::Config;
use crate::denial::Denial;
use crate::driver::event::Head;
use crate::http::local_reply::LocalReply;
use crate::http::request_headers::NAMED;

/// Request headers that MCP clients send.
const ALLOWED_HEADERS: [&str; 13] = [
    "accept",
    "authorization",
    "baggage",
    "content-type",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-api-key",
];
/// Response headers that MCP clients read.
const EXPOSED_HEADERS: &str = "mcp-session-id, mcp-protocol-version, www-authenticate, retry-after, ratelimit, \
     ratelimit-policy, x-portcullis-credits-remaining, x-portcullis-request-id";

/// The origin of the page that sent a request, if that page may call.
///
/// # Errors
/// [`Denial::ForeignOrigin`], also for more than one origin or host.
pub(crate) fn check(head: &Head, config: &Config) -> Result<Option<String>, Denial> {
    let listed = |value: &[u8], allowed: &[String]| {
        let value = String::from_utf8_lossy(value).to_ascii_lowercase();
        allowed.contains(&value)
    };
    if !config.hosts.is_empty()
        && !listed(head.single(":authority").unwrap_or_default(), &config.hosts)
    {
        return Err(Denial::ForeignOrigin);
    }
    match head.values("origin").as_slice() {
        [] => Ok(None),
        [origin] if listed(origin, &config.origins) => {
            Ok(Some(String::from_utf8_lossy(origin).into_owned()))
        }
        _ => Err(Denial::ForeignOrigin),
    }
}

/// The headers that allow a browser's page to read a response.
pub(crate) fn headers(origin: &str) -> [(&'static str, String); 3] {
    [
        ("access-control-allow-origin", origin.to_owned()),
        ("access-control-expose-headers", EXPOSED_HEADERS.to_owned()),
        ("vary", "origin".to_owned()),
    ]
}

/// The response headers that a page may read, with those that the policy lets pass.
pub(crate) fn exposed(named: &[String]) -> String {
    let mut exposed = EXPOSED_HEADERS.to_owned();
    for name in named {
        exposed.push_str(", ");
        exposed.push_str(name);
    }
    exposed
}

/// Whether a request is a CORS preflight (Fetch, CORS-preflight request).
pub(crate) fn is_preflight(head: &Head) -> bool {
    head.method() == b"OPTIONS" && head.single("access-control-request-method").is_some()
}

/// The response to a preflight. `Mcp-Param-*` has no wildcard, and no policy is known before authentication: the requested
/// names are listed that a policy can name. What it does not name is taken off.
pub(crate) fn preflight(head: &Head, origin: &str) -> LocalReply {
    let asked = head.single("access-control-request-headers").unwrap_or_default();
    let asked = String::from_utf8_lossy(asked).to_ascii_lowercase();
    let token = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let others = asked.split(',').map(str::trim).filter(|name| !ALLOWED_HEADERS.contains(name));
    let others = others.filter(|name| {
        (name.starts_with("mcp-param-") && token(name)) || NAMED.other(name).is_some()
    });
    let allowed: Vec<&str> = ALLOWED_HEADERS.into_iter().chain(others).collect();
    let mut reply = LocalReply { status: 204, headers: headers(origin).to_vec(), body: Vec::new() };
    reply.headers.extend([
        ("access-control-allow-methods", "GET, POST, DELETE".to_owned()),
        ("access-control-allow-headers", allowed.join(", ")),
        ("access-control-max-age", "600".to_owned()),
    ]);
    reply
}
