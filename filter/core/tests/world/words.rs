//! Words of a scenario that stand for more than they say.

use portcullis_core::event::{Closing, End};
use portcullis_core::id::PolicyVersion;
use portcullis_core::policy::{Activation, Canary};
use serde_json::json;

use super::version;

/// The key of a binding or an owner without the digest of what is bound.
pub(super) fn undigested(key: &str) -> String {
    if let Some((org, _)) = key.split_once(":approval:") {
        return format!("{org}:approval:<digest>");
    }
    for infix in [":bound:", ":owner:"] {
        if let Some((before, rest)) = key.split_once(infix) {
            let (kind, _) = rest.split_once(':').unwrap();
            return format!("{before}{infix}{kind}:<digest>");
        }
    }
    key.to_owned()
}

/// `STATUS [client-gone|upstream-gone|thrice]`
pub(super) fn closing(line: &str) -> Closing {
    let (status, gone) = line.split_once(' ').unwrap_or((line, ""));
    let end = match gone {
        "client-gone" => End::ClientGone,
        "upstream-gone" => End::UpstreamGone,
        _ => End::Complete,
    };
    let upstream_ms = (end == End::Complete).then_some(3);
    let attempts = if gone == "thrice" { Some(3) } else { upstream_ms.map(|_| 1) };
    Closing { http_status: status.parse().ok(), latency_ms: 5, upstream_ms, attempts, end }
}

/// `v1~v2`: `v1` is active, `v2` is tried on the analyst's key.
pub(super) fn canary(names: &str) -> [Vec<u8>; 2] {
    let (active, tried) = names.split_once('~').unwrap();
    let (active, version) =
        [active, tried].map(version).map(|v| PolicyVersion::new(&v).unwrap()).into();
    let canary = Canary { version, percent: 0, callers: ["kanalyst".to_owned()].into() };
    let doc = json!({"canary": canary});
    [Activation::revision(&active, Some(&canary)).into_bytes(), doc.to_string().into_bytes()]
}
