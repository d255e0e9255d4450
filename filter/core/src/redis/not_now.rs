//! Replies that only say that Redis cannot be asked now.
//!
//! Owns the words of Redis and of Envoy's proxy before it. What follows is the connection's business.

use portcullis_redis_lua::Value;

use crate::call::CallFailure;

/// Whether a reply only says that Redis cannot be asked now, and why.
pub(super) fn not_now(reply: &Value) -> Option<CallFailure> {
    /// Of a server that is starting, failing over or busy, and of a Cluster that lacks a part.
    const NOT_NOW: [&str; 6] =
        ["LOADING ", "MASTERDOWN ", "READONLY ", "BUSY ", "CLUSTERDOWN ", "TRYAGAIN "];
    let Value::Error(text) = reply else { return None };
    match text.as_str() {
        // Envoy's redis_proxy: the server behind it did not answer in time, or hung up.
        "upstream failure" => Some(CallFailure::Disconnected),
        "no upstream host" => Some(CallFailure::Refused),
        text if NOT_NOW.iter().any(|code| text.starts_with(code)) => Some(CallFailure::Refused),
        _ => None,
    }
}
