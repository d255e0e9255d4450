//! Upgrades, such as to WebSocket, on the routes to MCP servers: no control plane offers one there.
//!
//! Owns how a config dump shows a route that offers one.

use super::gateway::within;
use crate::failure::{Failure, Result};
use portcullis_stack::http::Reply;
use serde_json::Value;
use std::time::Duration;

const PUSHED_WITHIN: Duration = Duration::from_secs(90);
const GUARD: &str = "x-portcullis-guard";

/// Waits until every guarded route of an Envoy refuses the upgrade to WebSocket and takes no other one.
pub(super) fn are_refused(admin: &dyn Fn(&str) -> Result<Reply>) -> Result<()> {
    let mut last = String::new();
    within(PUSHED_WITHIN, "routes to servers without upgrades", || {
        let dump = admin("config_dump").ok()?.json();
        let mut routes = Vec::new();
        guarded(&dump, &mut routes);
        last = format!("{routes:?}");
        // Without a route there is nothing to see.
        let refuses = |route: &&Value| refuses_upgrades(route);
        (!routes.is_empty() && routes.iter().all(refuses)).then_some(())
    })
    .map_err(|failure| Failure::new(format!("{failure}: {last}")))
}

/// The routes to a server that require the guard.
fn guarded<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            let headers = value.pointer("/match/headers").and_then(Value::as_array);
            let mut names = headers.into_iter().flatten().filter_map(|header| header.get("name"));
            if fields.contains_key("route") && names.any(|name| name == GUARD) {
                found.push(value);
            }
            fields.values().for_each(|field| guarded(field, found));
        }
        Value::Array(list) => list.iter().for_each(|entry| guarded(entry, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A route without `upgrade_configs` takes the upgrades of its connection manager.
fn refuses_upgrades(route: &Value) -> bool {
    let upgrades = route.pointer("/route/upgrade_configs").and_then(Value::as_array);
    let upgrades = upgrades.map(Vec::as_slice).unwrap_or_default();
    let is = |upgrade: &Value| upgrade.get("upgrade_type").is_some_and(|kind| kind == "websocket");
    let is_off = |upgrade: &Value| upgrade.get("enabled").is_some_and(|enabled| enabled == false);
    upgrades.iter().any(is) && upgrades.iter().all(is_off)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_route_that_does_not_say_refuses_nothing() {
        let route = |upgrades: Value| json!({"route": {"upgrade_configs": upgrades}});
        let off = json!({"upgrade_type": "websocket", "enabled": false});
        assert!(refuses_upgrades(&route(json!([off]))));
        for upgrades in [
            json!([]),
            json!([{"upgrade_type": "websocket"}]),
            json!([off, {"upgrade_type": "CONNECT"}]),
            json!([{"upgrade_type": "CONNECT", "enabled": false}]),
        ] {
            assert!(!refuses_upgrades(&route(upgrades.clone())), "{upgrades}");
        }
    }

    #[test]
    fn only_routes_to_servers_count() {
        let headers = json!([{"name": GUARD, "string_match": {"exact": "x"}}]);
        let dump = json!({"configs": [{"routes": [
            {"match": {"headers": headers}, "route": {"cluster": "demo"}},
            {"match": {"headers": headers}, "direct_response": {"status": 503}},
            {"match": {"prefix": "/"}, "route": {"cluster": "other"}},
        ]}]});
        let mut found = Vec::new();
        guarded(&dump, &mut found);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pointer("/route/cluster"), Some(&json!("demo")));
    }
}
