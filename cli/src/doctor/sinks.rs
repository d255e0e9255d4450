//! Whether the sinks of the audit log take what the filter writes.
//!
//! Owns which of Envoy's access loggers send records instead of lines.

use std::collections::BTreeSet;

use portcullis_core::config::Config;
use serde_json::Value;

use super::Finding;
use super::dump::each_object;

/// The filter state that holds the entry.
const ENTRY: &str = "wasm.portcullis.audit";

/// Loggers whose records have no lines: two entries of one value become one record.
const RECORDS: [&str; 3] =
    [".OpenTelemetryAccessLogConfig", ".TcpGrpcAccessLogConfig", ".HttpGrpcAccessLogConfig"];

/// Bad if entries of open streams go to a logger that sends records.
pub(super) fn finding(dump: &Value, config: &Config) -> Option<Finding> {
    config.open_after?;
    let mut loggers = BTreeSet::new();
    each_object(dump, &mut |node| {
        let own = node["@type"].as_str().unwrap_or_default();
        let sends = RECORDS.iter().find(|logger| own.ends_with(*logger));
        if let Some(logger) = sends.filter(|_| node.to_string().contains(ENTRY)) {
            loggers.insert(logger.trim_start_matches('.'));
        }
    });
    if loggers.is_empty() {
        return None;
    }
    let loggers = loggers.into_iter().collect::<Vec<_>>().join(", ");
    let found = format!(
        "audit.open_after_seconds is set, and {loggers} sends records: two entries in one, of which a reader sees the first or none"
    );
    let next = "audit: {open_after_seconds: 0}, or a file with a shipper: docs/guides/ship-the-audit-log.md";
    Some(Finding::bad("envoy.audit_sink", found, next))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::State;
    use super::*;

    #[test]
    fn entries_of_open_streams_are_for_lines() {
        const PLAIN: &str = "%FILTER_STATE(wasm.portcullis.audit:PLAIN)%";
        let logger = |kind: &str, member: &str, value: Value| {
            let kind = format!("type.googleapis.com/envoy.extensions.access_loggers.{kind}");
            json!({"configs": [{"access_log": [{"typed_config": {"@type": kind, member: value}}]}]})
        };
        let file = logger("file.v3.FileAccessLog", "log_format", json!({"text_format": PLAIN}));
        let records = [
            logger(
                "open_telemetry.v3.OpenTelemetryAccessLogConfig",
                "body",
                json!({"string_value": PLAIN}),
            ),
            logger(
                "grpc.v3.TcpGrpcAccessLogConfig",
                "common_config",
                json!({"filter_state_objects_to_log": [ENTRY]}),
            ),
        ];
        // A logger of other lines.
        let other = logger(
            "open_telemetry.v3.OpenTelemetryAccessLogConfig",
            "body",
            json!({"string_value": "%REQ(:METHOD)%"}),
        );
        let state = |dump: &Value, seconds: u64| {
            let config =
                json!({"redis": {"cluster": "redis"}, "audit": {"open_after_seconds": seconds}});
            let config = Config::parse(&config).expect("a configuration");
            finding(dump, &config).map(|finding| finding.state)
        };
        for dump in &records {
            assert_eq!(state(dump, 5), Some(State::Bad), "{dump}");
            assert_eq!(state(dump, 0), None, "{dump}");
        }
        for dump in [&file, &other] {
            assert_eq!(state(dump, 5), None, "{dump}");
        }
    }
}
