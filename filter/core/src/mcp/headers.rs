//! The headers that mirror the body (MCP 2026-07-28, "HTTP headers"), and the era they imply.
//!
//! Owns the comparison. The body is judged; a header that differs is refused, because a proxy that routes on it would
//! be misled.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::operation::is_removed;
use super::{Era, MODERN_VERSION, Message, Operation, SUPPORTED_VERSIONS, Sender, ToolCall};
use crate::denial::Denial;
use crate::driver::event::Head;
use crate::order;

/// Headers of an upstream's response that a client gets; a policy may add others. Any other header could look like the
/// gateway's own (`www-authenticate`, `access-control-*`, `x-portcullis-*`), could set state for the gateway's host
/// (`set-cookie`), or could reveal internals of the upstream.
pub const OF_ANSWERS: [&str; 22] = [
    ":status",
    "content-type",
    "content-length",
    "content-encoding",
    "content-language",
    "transfer-encoding",
    "connection",
    "date",
    "cache-control",
    "expires",
    "vary",
    "allow",
    "retry-after",
    "ratelimit",
    "ratelimit-policy",
    "mcp-session-id",
    "mcp-protocol-version",
    "traceparent",
    "tracestate",
    "traceresponse",
    "x-accel-buffering",
    // Envoy's own, for the access log.
    "x-envoy-upstream-service-time",
];

/// Methods whose `Mcp-Name` must be present.
const NAMED: [&str; 6] =
    ["tools/call", "prompts/get", "resources/read", "tasks/get", "tasks/update", "tasks/cancel"];

/// The message that the headers of a modern request announce, before its body arrives. It is preliminary: the body is
/// judged as well, and must agree.
#[must_use]
pub fn announced(head: &Head) -> Message {
    let modern = is_modern(head);
    let text = |name: &str| {
        let value = decoded(head.single(name).filter(|_| modern)?)?;
        String::from_utf8(value).ok()
    };
    let method = text("mcp-method").unwrap_or_default();
    let operation = match (method.as_str(), text("mcp-name")) {
        ("tools/call", Some(name)) => Operation::CallTool(ToolCall {
            name,
            arguments: serde_json::Map::new(),
            as_task: false,
        }),
        ("prompts/get", Some(name)) => Operation::Prompt(name),
        ("resources/read", Some(uri)) => Operation::Resource(uri),
        _ => Operation::Housekeeping,
    };
    Message { method, ..Message::bodiless(operation) }
}

/// Whether the headers are those of the modern era; [`check`] refuses a body that differs.
#[must_use]
pub fn is_modern(head: &Head) -> bool {
    let version = head.single("mcp-protocol-version").map(<[u8]>::trim_ascii);
    version == Some(MODERN_VERSION.as_bytes())
}

/// The values of the `Mcp-Param-*` headers of a modern request, by lower-case name; `None` for a header that occurs
/// twice or cannot be decoded. Nothing for other eras, which have no such headers.
#[must_use]
pub fn parameters(head: &Head) -> Option<BTreeMap<String, Option<Vec<u8>>>> {
    let names = is_modern(head).then(|| head.names_with("mcp-param-"))?;
    let said = names.into_iter().map(|name| {
        let value = head.single(&name).and_then(decoded);
        (name, value)
    });
    Some(order::map(said))
}

/// Determines the era and, in the modern one, checks that headers and body agree.
///
/// # Errors
/// [`Denial::HeaderMismatch`], [`Denial::BadMeta`], [`Denial::UnsupportedVersion`], and
/// [`Denial::UnknownMethod`] for what the modern era no longer has, whatever a policy opens.
pub fn check(head: &Head, message: &Message) -> Result<Era, Denial> {
    let Agreement { era, missing } = agreement(head, message)?;
    missing.map_or(Ok(era), Err)
}

/// The common content of headers and body.
#[derive(Debug)]
pub struct Agreement {
    /// The era.
    pub era: Era,
    /// A missing header that the modern era requires. HTTP+SSE has no such headers: on its endpoint for messages only
    /// the body counts, as far as headers do not contradict it.
    pub missing: Option<Denial>,
}

/// As [`check`], but the caller decides whether such a header may be missing.
///
/// # Errors
/// As [`check`].
pub fn agreement(head: &Head, message: &Message) -> Result<Agreement, Denial> {
    let mut missing = None;
    let era = era(head, message, &mut missing)?;
    if era == Era::Legacy {
        return Ok(Agreement { era, missing });
    }
    mirrors(head, message, &mut missing)?;
    if is_removed(&message.method) {
        return Err(missing.unwrap_or_else(|| Denial::UnknownMethod(message.method.clone())));
    }
    Ok(Agreement { era, missing })
}

fn era(head: &Head, message: &Message, missing: &mut Option<Denial>) -> Result<Era, Denial> {
    let claimed = message.claimed_version.as_deref();
    let header = match (head.values("mcp-protocol-version").as_slice(), claimed) {
        ([], None) => return Ok(Era::Legacy),
        ([], Some(claimed)) => {
            missing.get_or_insert(Denial::HeaderMismatch("MCP-Protocol-Version is missing"));
            claimed.to_owned()
        }
        ([value], _) => String::from_utf8_lossy(value.trim_ascii()).into_owned(),
        _ => {
            return Err(Denial::HeaderMismatch("MCP-Protocol-Version occurs more than once"));
        }
    };
    match claimed {
        Some(claimed) if claimed != header => {
            Err(Denial::HeaderMismatch("MCP-Protocol-Version does not match params._meta"))
        }
        _ if !SUPPORTED_VERSIONS.contains(&header.as_str()) => {
            Err(Denial::UnsupportedVersion(header))
        }
        None if header == MODERN_VERSION && matches!(message.sender, Sender::Request(_)) => {
            Err(Denial::BadMeta("params._meta does not carry the protocol version"))
        }
        _ if header == MODERN_VERSION => Ok(Era::Modern),
        Some(_) => Err(Denial::HeaderMismatch("params._meta does not fit the protocol version")),
        None => Ok(Era::Legacy),
    }
}

fn mirrors(head: &Head, message: &Message, missing: &mut Option<Denial>) -> Result<(), Denial> {
    let is_request = matches!(message.sender, Sender::Request(_));
    match head.values("mcp-method").as_slice() {
        [value] if value.trim_ascii() == message.method.as_bytes() => {}
        [] if !is_request => {}
        [] => {
            missing.get_or_insert(Denial::HeaderMismatch("Mcp-Method is missing"));
        }
        _ => return Err(Denial::HeaderMismatch("Mcp-Method does not match method")),
    }
    let mismatch = Denial::HeaderMismatch("Mcp-Name does not match params.name");
    match (head.values("mcp-name").as_slice(), message.object_name()) {
        ([], None) => Ok(()),
        ([], Some(_)) if is_request => {
            missing.get_or_insert(Denial::HeaderMismatch("Mcp-Name is missing"));
            Ok(())
        }
        ([value], Some(name)) if decoded(value).as_deref() == Some(name.as_bytes()) => Ok(()),
        // A method that is not open here is refused as such, with any name.
        ([_], None) if NAMED.contains(&message.method.as_str()) => Ok(()),
        _ => Err(mismatch),
    }
}

/// A header value, with its base64 form decoded; `None` when that form is broken.
fn decoded(value: &[u8]) -> Option<Vec<u8>> {
    let value = value.trim_ascii();
    match value.strip_prefix(b"=?base64?").and_then(|rest| rest.strip_suffix(b"?=")) {
        Some(body) => STANDARD.decode(body).ok(),
        None => Some(value.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, version: Option<&str>) -> Message {
        let meta = version.map_or(String::new(), |version| {
            format!(r#","_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}"}}"#)
        });
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}"{meta}}}}}"#
        );
        Message::parse(body.as_bytes()).unwrap()
    }

    fn verdict(headers: &[(&str, &str)], message: &Message) -> Result<Era, i64> {
        check(&Head::for_tests("POST", "/x", headers), message)
            .map_err(|denial| denial.code(Era::Modern))
    }

    // Proves: X17
    #[test]
    fn the_era_follows_header_and_body_together() {
        let modern = call("echo", Some("2026-07-28"));
        let legacy = call("echo", None);
        let version = |value| ("mcp-protocol-version", value);
        assert_eq!(verdict(&[], &legacy), Ok(Era::Legacy));
        assert_eq!(verdict(&[version("2025-11-25")], &legacy), Ok(Era::Legacy));
        assert_eq!(verdict(&[version("2099-01-01")], &legacy), Err(-32_022));
        assert_eq!(verdict(&[], &modern), Err(-32_020));
        assert_eq!(verdict(&[version("2025-11-25")], &modern), Err(-32_020));
        assert_eq!(verdict(&[version("2026-07-28")], &legacy), Err(-32_602));
        let old = call("echo", Some("2025-11-25"));
        assert_eq!(verdict(&[version("2025-11-25")], &old), Err(-32_020));
    }

    // Finding 8.2: clients that try both eras post to HTTP+SSE without any mirror.
    // Proves: X17
    #[test]
    fn a_mirror_that_is_missing_is_told_apart_from_one_that_contradicts() {
        let modern = call("echo", Some("2026-07-28"));
        let told = |headers: &[(&str, &str)], message| {
            agreement(&Head::for_tests("POST", "/x", headers), message)
                .map(|agreed| (agreed.era, agreed.missing.map(|denial| denial.code(agreed.era))))
                .map_err(|denial| denial.code(Era::Modern))
        };
        assert_eq!(told(&[], &modern), Ok((Era::Modern, Some(-32_020))));
        let version = ("mcp-protocol-version", "2026-07-28");
        assert_eq!(told(&[version], &modern), Ok((Era::Modern, Some(-32_020))));
        assert_eq!(told(&[("mcp-method", "tools/list")], &modern), Err(-32_020));
        assert_eq!(told(&[("mcp-name", "other")], &modern), Err(-32_020));
        assert_eq!(told(&[("mcp-protocol-version", "2025-11-25")], &modern), Err(-32_020));
        assert_eq!(told(&[], &call("echo", Some("2099-01-01"))), Err(-32_022));
    }

    // Proves: X17, B2
    #[test]
    fn a_modern_header_that_differs_from_the_body_is_refused() {
        let name = |value| {
            [
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", "tools/call"),
                ("mcp-name", value),
            ]
        };
        let echo = call("echo", Some("2026-07-28"));
        assert_eq!(verdict(&name(" echo "), &echo), Ok(Era::Modern));
        assert_eq!(verdict(&name("=?base64?ZWNobw==?="), &echo), Ok(Era::Modern));
        for bad in ["Echo", "other", "=?base64?ZWNobw?=", "=?base64?b3RoZXI=?=", ""] {
            assert_eq!(verdict(&name(bad), &echo), Err(-32_020), "{bad}");
        }
        let e = call("h\\u00e9", Some("2026-07-28"));
        assert_eq!(verdict(&name("=?base64?aMOp?="), &e), Ok(Era::Modern));
        let [version, method, name] = name("echo");
        assert_eq!(verdict(&[version, name], &echo), Err(-32_020));
        assert_eq!(verdict(&[version, method], &echo), Err(-32_020));
        assert_eq!(verdict(&[version, ("mcp-method", "tools/list"), name], &echo), Err(-32_020));
        assert_eq!(verdict(&[version, method, name, name], &echo), Err(-32_020));
    }
}
