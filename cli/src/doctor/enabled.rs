//! Where the filter is on: a connection manager may leave it to hosts and routes, and these may switch it off.
//!
//! Owns how Envoy reads `disabled` and `typed_per_filter_config`. What follows for a route is its reader's business.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The filter under the names that connection managers have for it.
#[derive(Debug, Default)]
pub(super) struct Enabled {
    /// Each name, and whether the filter is on where nothing else is said.
    names: BTreeMap<String, bool>,
    /// Names for which some host or route says that the filter is on.
    by_routes: BTreeSet<String>,
    /// Tables of routes that connection managers with the filter use.
    tables: BTreeSet<String>,
    /// One of them chooses its table by the request.
    any_table: bool,
}

impl Enabled {
    /// The filter as it stands in a connection manager.
    pub(super) fn stands(&mut self, filter: &Value, manager: &Value) {
        self.any_table |= manager.get("scoped_routes").is_some();
        let table = manager.pointer("/rds/route_config_name");
        let table = table.or_else(|| manager.pointer("/route_config/name"));
        self.tables.insert(table.and_then(Value::as_str).unwrap_or_default().to_owned());
        let Some(name) = filter["name"].as_str() else { return };
        let is_on = filter["disabled"] != true;
        // Two listeners may differ: on in one of them is on.
        let entry = self.names.entry(name.to_owned()).or_insert(is_on);
        *entry |= is_on;
    }

    /// What any part of a table of routes says of it.
    pub(super) fn said(&mut self, node: &Value) {
        let on = self.names.keys().filter(|name| own(node, name) == Some(true));
        let on: Vec<String> = on.cloned().collect();
        self.by_routes.extend(on);
    }

    /// Whether some route enables it.
    pub(super) fn by_routes(&self, filter: &Value) -> bool {
        filter["name"].as_str().is_some_and(|name| self.by_routes.contains(name))
    }

    /// Whether it is on for a route of this host and table.
    pub(super) fn on(&self, route: &Value, host: &Value, table: &Value) -> bool {
        // A sidecar has tables for what its own server calls, too.
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

/// What one scope says: any configuration enables a filter, but for one that disables it.
fn own(scope: &Value, name: &str) -> Option<bool> {
    let config = scope.get("typed_per_filter_config")?.get(name)?;
    Some(config["disabled"] != true)
}
