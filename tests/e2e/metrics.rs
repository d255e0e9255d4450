//! Metrics: what an operator's Prometheus sees of calls, refusals and dependencies.

use std::time::Duration;

use portcullis_stack::ready;
use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::wire::Request;
use portcullis_tests::{Case, World, cases};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    cases!["metrics":
        calls_and_refusals_are_counted_by_their_labels,
        latency_tool_errors_and_limits_are_counted,
        callers_cannot_make_up_labels,
    ]
}

/// The samples of `name` whose labels contain all of `labels`, added up.
pub(crate) fn sample(world: &World<'_>, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let page = world.stack().envoy.admin("stats/prometheus").expect("Envoy's metrics").body;
    let page = String::from_utf8_lossy(&page).into_owned();
    let labelled = |line: &&str| {
        labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
    };
    let lines = page.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let values = lines.filter(labelled).filter_map(|line| line.rsplit(' ').next()?.parse().ok());
    values.fold(None, |sum, value: f64| Some(sum.unwrap_or(0.0) + value))
}

/// Workers hand their counts to the main thread every few seconds.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let held = ready::eventually(what, Duration::from_secs(15), || holds().then_some(()));
    held.unwrap_or_else(|fault| panic!("{fault}"));
}

// Proves: A31, B6
fn calls_and_refusals_are_counted_by_their_labels(world: &World<'_>) {
    let org = Organisation::new(world.stack());
    let key = org.key("analyst");
    let counted = |outcome: &str| {
        let labels = [
            ("connector", "demo"),
            ("method", "tools/call"),
            ("tool", "get_dashboard_metrics"),
            ("outcome", outcome),
        ];
        sample(world, "portcullis_requests_total", &labels).unwrap_or(0.0)
    };
    let refused = || {
        let labels = [("reason", "no_credential")];
        sample(world, "portcullis_auth_failures_total", &labels).unwrap_or(0.0)
    };
    let (before, refused_before) = (counted("success"), refused());
    for _ in 0..3 {
        org.call(&key.key, "get_dashboard_metrics", json!({})).result();
    }
    let message = portcullis_tests::mcp::call("get_dashboard_metrics", json!({})).to_string();
    let stranger = org.gateway.send(&Request::post(DEMO, message));
    stranger.assert_refused(401, -31_401);
    let events = &stranger.audit()["events"];
    assert_eq!(events[0]["event"], "auth_failed", "{events}");
    assert_eq!(events[0]["reason"], "no_credential", "{events}");
    assert!(events[0]["address"].is_string() && events[0]["path"] == "/demo/mcp", "{events}");
    // Others use the stack meanwhile: at least these.
    eventually("three calls are counted", || counted("success") >= before + 3.0);
    eventually("one failure is counted", || refused() >= refused_before + 1.0);
    let up = |dependency| {
        sample(world, "portcullis_dependency_up", &[("dependency", dependency)]) == Some(1.0)
    };
    eventually("Redis and Vault are up", || up("redis") && up("vault"));
    let at_least = |least: f64, name: &str, labels: &[(&str, &str)]| {
        sample(world, name, labels).is_some_and(|count| count >= least)
    };
    let timed = [("dependency", "redis")];
    eventually("Redis is timed", || {
        at_least(1.0, "portcullis_dependency_duration_ms_count", &timed)
    });
}

// Proves: A28, A29, A30
fn latency_tool_errors_and_limits_are_counted(world: &World<'_>) {
    // A tool has a label of its own when a policy names it; otherwise when this worker has seen it in a list.
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["roles"]["admin"]["demo"]["allow"] = json!(["*", "delete_user"]);
    });
    let key = org.key_in("admin", "narrow");
    let tool = [("connector", "demo"), ("tool", "delete_user")];
    let value = |name: &str, labels: &[(&str, &str)]| sample(world, name, labels).unwrap_or(0.0);
    let errors = || value("portcullis_tool_errors_total", &tool);
    let timed = || value("portcullis_request_duration_ms_count", &tool);
    let limited = || value("portcullis_rate_limited_total", &[("limit", "tiers.narrow.calls")]);
    let (errors_before, timed_before, limited_before) = (errors(), timed(), limited());
    let call = || org.call(&key.key, "delete_user", json!({"id": 999_999}));
    (0..3).for_each(|_| assert_eq!(call().audit()["status"], "tool_error"));
    call().assert_refused(429, -31_429);
    eventually("the tool's errors are counted", || errors() >= errors_before + 3.0);
    eventually("calls are timed by tool", || timed() >= timed_before + 3.0);
    eventually("the full window is counted", || limited() > limited_before);
    // Percentiles come from the buckets.
    let bucket = [tool[0], tool[1], ("le", "+Inf")];
    assert!(value("portcullis_request_duration_ms_bucket", &bucket) >= 3.0);
}

fn callers_cannot_make_up_labels(world: &World<'_>) {
    let org = Organisation::new(world.stack());
    let key = org.key("analyst");
    let other = || {
        let labels = [("connector", "demo"), ("tool", "other"), ("outcome", "denied")];
        sample(world, "portcullis_requests_total", &labels).unwrap_or(0.0)
    };
    let before = other();
    let made_up = format!("made_up_by_{}", key.id);
    org.call(&key.key, &made_up, json!({})).assert_refused(200, -32_602);
    eventually("it is counted as `other`", || other() > before);
    assert_eq!(sample(world, "portcullis_requests_total", &[("tool", &made_up)]), None);
}
