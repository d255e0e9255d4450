//! Where the filter is enabled: a connection manager may leave that to hosts and routes, and these may disable it.
//!
//! Owns how Envoy reads `disabled` and `typed_per_filter_config`. Its users know the consequences for a route.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The filter, by its names in connection managers.
#[derive(Debug, Default)]
pub(super) struct Enabled {
    /// Each name, with whether the filter is enabled by default.
    names: BTreeMap<String, bool>,
    /// Names that a host or route enables.
    by_routes: BTreeSet<String>,
    /// The route tables of connection managers with the filter.
    tables: BTreeSet<String>,
    /// One of them selects its table by the request.
    any_table: bool,
}

impl Enabled {
    /// Records the filter in a connection manager.
    pub(super) fn stands(&mut self, filter: &Value, manager: &Value) {
        self.any_table |= manager.get("scoped_routes").is_some();
        let table = manager.pointer("/rds/route_config_name");
        let table = table.or_else(|| manager.pointer("/route_config/name"));
        self.tables.insert(table.and_then(Value::as_str).unwrap_or_default().to_owned());
        let Some(name) = filter["name"].as_str() else { return };
        let is_on = filter["disabled"] != true;
        // Two listeners may differ: enabled in one of them counts as enabled.
        let entry = self.names.entry(name.to_owned()).or_insert(is_on);
        *entry |= is_on;
    }

    /// Records the filter's settings in any part of a route table.
    pub(super) fn said(&mut self, node: &Value) {
        let on = self.names.keys().filter(|name| own(node, name) == Some(true));
        let on: Vec<String> = on.cloned().collect();
        self.by_routes.extend(on);
    }

    /// Whether a route enables it.
    pub(super) fn by_routes(&self, filter: &Value) -> bool {
        filter["name"].as_str().is_some_and(|name| self.by_routes.contains(name))
    }

    /// Whether it is enabled for a route of this host and table.
    pub(super) fn on(&self, route: &Value, host: &Value, table: &Value) -> bool {
        // A sidecar has tables for its own server's outgoing calls, too.
        let name = table["name"].as_str().unwrap_or_default();
        let is_used = self.any_table || self.tables.is_empty() || self.tables.contains(name);
        is_used && self.on_in(&[route, host, table])
    }

    fn on_in(&self, scopes: &[&Value]) -> bool {
        let by_name = |(name, default): (&String, &bool)| {
            scopes.iter().find_map(|scope| own(scope, name)).unwrap_or(*default)
        };
        self.names.is_empty() || self.names.iter().any(by_name)
    }
}

/// The setting of one scope: any configuration enables a filter, except one that disables it.
fn own(scope: &Value, name: &str) -> Option<bool> {
    let config = scope.get("typed_per_filter_config")?.get(name)?;
    Some(config["disabled"] != true)
}
