//! The limits in responses: draft-ietf-httpapi-ratelimit-headers-11, as structured fields (RFC 9651), and problem
//! details (RFC 9457).
//!
//! Owns the syntax. Decides nothing.

use std::time::Duration;

use portcullis_redis_lua::WindowState;
use serde_json::json;

use super::Quota;
use crate::denial::ceil_ms;
use crate::http::local_reply::LocalReply;
use crate::policy::Cost;

const PROBLEM_JSON: &str = "application/problem+json";

/// The client's information about one admission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimitHeaders {
    /// Response headers.
    pub headers: Vec<(&'static str, String)>,
    /// The names of the windows that a refused call did not fit.
    pub violated: Vec<String>,
}

impl RateLimitHeaders {
    /// The states of `quotas` from Redis; empty without quotas.
    #[must_use]
    pub fn of(quotas: &[Quota], states: &[WindowState]) -> Self {
        let both = || quotas.iter().zip(states);
        let full = both().filter(|(quota, state)| quota.window.cost > state.remaining);
        let violated = full.map(|(quota, _)| quota.name.clone()).collect();
        if quotas.is_empty() {
            return Self { headers: Vec::new(), violated };
        }
        let credits = both().filter(|(quota, _)| quota.cost == Cost::Credits);
        let credits = credits.map(|(_, state)| state.remaining).min();
        let policies = list(quotas.iter(), policy);
        let limits = list(both(), limit);
        let mut headers = vec![("ratelimit-policy", policies), ("ratelimit", limits)];
        headers.extend(credits.map(|left| ("x-portcullis-credits-remaining", left.to_string())));
        Self { headers, violated }
    }

    /// Turns `reply` into problem details: the call did not fit `limit`, which may be the rule about callers that do
    /// not back off.
    pub fn problem(&self, limit: &str, retry_after: Duration, reply: &mut LocalReply) {
        let only = [limit.to_owned()];
        let (kind, title, violated) = match self.violated.iter().any(|name| name == limit) {
            true => (
                "quota-exceeded",
                "Request cannot be satisfied as assigned quota has been exceeded",
                self.violated.as_slice(),
            ),
            false => (
                "abnormal-usage-detected",
                "Request not satisfied due to detection of abnormal request pattern",
                &only[..],
            ),
        };
        let problem = json!({
            "type": format!("https://iana.org/assignments/http-problem-types#{kind}"),
            "title": title,
            "status": reply.status,
            "violated-policies": violated,
            "retryAfterMs": ceil_ms(retry_after),
        });
        reply.body = problem.to_string().into_bytes();
        for (name, value) in &mut reply.headers {
            if *name == "content-type" {
                PROBLEM_JSON.clone_into(value);
            }
        }
    }
}

/// The capacity that is enough for most lists.
const ROOM: usize = 192;

/// A list (RFC 9651 §3.1) with the text that `write` writes for each item.
fn list<T>(items: impl Iterator<Item = T>, write: impl Fn(&mut String, T)) -> String {
    let mut list = String::with_capacity(ROOM);
    for item in items {
        if !list.is_empty() {
            list.push_str(", ");
        }
        write(&mut list, item);
    }
    list
}

/// One item of `RateLimit-Policy`: quota, its unit unless it is requests, and the window.
fn policy(list: &mut String, quota: &Quota) {
    named(list, &quota.name);
    parameter(list, ";q=", quota.window.limit);
    match quota.cost {
        Cost::Calls => {}
        Cost::Credits => list.push_str(";qu=\"credits\""),
        Cost::Bytes => list.push_str(";qu=\"content-bytes\""),
    }
    // `w` is in whole seconds; for another window it would be wrong.
    if quota.length.subsec_nanos() == 0 {
        parameter(list, ";w=", quota.length.as_secs());
    }
}

/// One item of `RateLimit`: the rest, and the time until more is available.
fn limit(list: &mut String, (quota, state): (&Quota, &WindowState)) {
    named(list, &quota.name);
    parameter(list, ";r=", state.remaining);
    let part = u64::from(state.reset.subsec_micros() > 0);
    parameter(list, ";t=", state.reset.as_secs().saturating_add(part));
}

/// A window's name, as a string (RFC 9651 §3.3.3): names of limits need no escapes.
fn named(list: &mut String, name: &str) {
    list.push('"');
    list.push_str(name);
    list.push('"');
}

fn parameter(list: &mut String, name: &str, value: u64) {
    list.push_str(name);
    list.push_str(itoa::Buffer::new().format(value));
}

/// Whether a client with these `Accept` values accepts problem details explicitly. `*/*` does not count: every MCP
/// client sends it or may send it, and expects JSON-RPC.
#[must_use]
pub fn accepts_problem(accept: &[&[u8]]) -> bool {
    let ranges = accept.iter().flat_map(|value| value.split(|byte| *byte == b','));
    ranges.into_iter().any(|range| {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let named =
            parts.next().is_some_and(|media| media.eq_ignore_ascii_case(PROBLEM_JSON.as_bytes()));
        named && !parts.any(refuses)
    })
}

/// `q=0`: not acceptable (RFC 9110 §12.4.2).
fn refuses(parameter: &[u8]) -> bool {
    let Some((name, value)) = parameter.split_at_checked(2) else { return false };
    name.eq_ignore_ascii_case(b"q=")
        && value.first() == Some(&b'0')
        && value.iter().all(|byte| matches!(byte, b'0' | b'.'))
}
