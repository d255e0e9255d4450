//! The bootstrap of each variant: `envoy/envoy.yaml` with some parts removed or replaced, so that nothing else differs.
//!
//! Owns which parts. `envoy/bench/native.yaml` has the filters of Envoy's own chain.

use super::variant::Chain;
use crate::yaml;
use portcullis_stack::Tools;
use portcullis_stack::failure::{Failure, Result};
use serde_json::Value;
use std::fs;
use std::path::Path;

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const ROUTER: &str = "envoy.filters.http.router";
const LIMITER: &str = "envoy.filters.http.local_ratelimit";
/// The header that guarded routes match on.
const GUARD: &str = "x-portcullis-guard";
/// The filter that refuses requests on a route without the guard's metadata.
const SEAL: &str = "portcullis_seal";
/// The prefix of clusters that only the filter uses.
const OWN_CLUSTERS: &str = "portcullis_";

/// Turns a filled `envoy/envoy.yaml` into the variant's. `parts`: for Envoy's own chain the filled `envoy/bench/native.yaml`; for the
/// filter, members of its configuration.
pub(crate) fn edit(tools: &Tools, config: &Path, chain: Chain, parts: &Value) -> Result<()> {
    let mut bootstrap = document(tools, config)?;
    match chain {
        Chain::Filter { .. } => configure(&mut bootstrap, parts, &[])?,
        Chain::Inline => configure(&mut bootstrap, parts, &["redis", "vault"])?,
        Chain::FilterUnguarded => {
            configure(&mut bootstrap, parts, &["guards"])?;
            unguard(&mut bootstrap)?;
        }
        Chain::InlineUnguarded => {
            configure(&mut bootstrap, parts, &["redis", "vault", "guards"])?;
            unguard(&mut bootstrap)?;
        }
        Chain::RouterOnly | Chain::Native | Chain::NativeUnlimited => {
            replace(&mut bootstrap, parts)?;
        }
        Chain::NativeHeaders => {
            replace(&mut bootstrap, parts)?;
            name_caller(&mut bootstrap, parts)?;
        }
    }
    same_for_tls(&mut bootstrap);
    // JSON is YAML.
    fs::write(config, bootstrap.to_string())
        .map_err(|error| Failure::new(format!("could not write {}: {error}", config.display())))
}

/// Gives the listener with TLS, where there is one, the filters of the plain listener.
fn same_for_tls(bootstrap: &mut Value) {
    const FILTERS: &str = "filter_chains/0/filters";
    let plain = bootstrap.pointer(&format!("/static_resources/listeners/0/{FILTERS}")).cloned();
    let tls = bootstrap.pointer_mut(&format!("/static_resources/listeners/1/{FILTERS}"));
    if let (Some(plain), Some(tls)) = (plain, tls) {
        *tls = plain;
    }
}

/// A YAML file with one document.
pub(crate) fn document(tools: &Tools, file: &Path) -> Result<Value> {
    let documents: Vec<Value> = serde_json::from_str(&yaml::to_json(tools, file)?)
        .map_err(|error| Failure::new(format!("{} is not JSON: {error}", file.display())))?;
    documents.into_iter().next().ok_or_else(|| Failure::new(format!("{} is empty", file.display())))
}

/// Removes members of the filter's configuration, which is JSON in a string, and adds others.
fn configure(bootstrap: &mut Value, parts: &Value, without: &[&str]) -> Result<()> {
    let filters = list(bootstrap, &format!("{MANAGER}/http_filters"))?;
    let text = filters
        .iter_mut()
        .find_map(|filter| filter.pointer_mut("/typed_config/config/configuration/value"))
        .ok_or_else(|| drifted("the filter's configuration"))?;
    let mut configuration: Value =
        serde_json::from_str(text.as_str().unwrap_or_default()).unwrap_or_default();
    let Some(members) = configuration.as_object_mut() else {
        return Err(drifted("the filter's configuration in JSON"));
    };
    without.iter().for_each(|member| _ = members.remove(*member));
    for (member, value) in parts.as_object().into_iter().flatten() {
        members.insert(member.clone(), value.clone());
    }
    *text = configuration.to_string().into();
    Ok(())
}

/// Envoy's own chain without the rate-limit filter.
pub(crate) fn unlimited(mut parts: Value) -> Result<Value> {
    let filters = list(&mut parts, "/http_filters")?;
    let all = filters.len();
    filters.retain(|filter| filter["name"] != LIMITER);
    if filters.len() + 1 == all {
        return Ok(parts);
    }
    Err(Failure::new(format!("envoy/bench/native.yaml has not exactly one {LIMITER}")))
}

/// Replaces the gateway's filters and logs with those of `parts`; the router stays.
fn replace(bootstrap: &mut Value, parts: &Value) -> Result<()> {
    let part = |name: &str| parts[name].as_array().cloned().unwrap_or_default();
    *list(bootstrap, &format!("{MANAGER}/access_log"))? = part("access_log");
    let filters = list(bootstrap, &format!("{MANAGER}/http_filters"))?;
    filters.retain(|filter| filter["name"] == ROUTER);
    if filters.len() != 1 {
        return Err(drifted(ROUTER));
    }
    filters.splice(0..0, part("http_filters"));
    open_routes(bootstrap)?;
    let clusters = list(bootstrap, "/static_resources/clusters")?;
    clusters.retain(|cluster| !cluster["name"].as_str().unwrap_or("").starts_with(OWN_CLUSTERS));
    Ok(())
}

/// Gives all routes the headers of `parts`.
fn name_caller(bootstrap: &mut Value, parts: &Value) -> Result<()> {
    let host = format!("{MANAGER}/route_config/virtual_hosts/0");
    let host = bootstrap.pointer_mut(&host).and_then(Value::as_object_mut);
    let (Some(host), Some(headers)) = (host, parts["virtual_host"].as_object()) else {
        return Err(drifted("a virtual host, or envoy/bench/native.yaml its headers,"));
    };
    host.extend(headers.clone());
    Ok(())
}

/// The configuration without guards: open routes, no seal, and no early removal of a header.
fn unguard(bootstrap: &mut Value) -> Result<()> {
    let filters = list(bootstrap, &format!("{MANAGER}/http_filters"))?;
    let all = filters.len();
    filters.retain(|filter| filter["name"] != SEAL);
    if filters.len() + 1 != all {
        return Err(drifted(SEAL));
    }
    let manager = bootstrap.pointer_mut(MANAGER).and_then(Value::as_object_mut);
    let early = manager.and_then(|manager| manager.remove("early_header_mutation_extensions"));
    early.ok_or_else(|| drifted("early_header_mutation_extensions"))?;
    for route in list(bootstrap, &format!("{MANAGER}/route_config/virtual_hosts/0/routes"))? {
        if let Some(fields) = route.as_object_mut() {
            fields.remove("metadata");
        }
    }
    open_routes(bootstrap)
}

/// Removes the guards from the routes, for a chain without the filter.
fn open_routes(bootstrap: &mut Value) -> Result<()> {
    for route in list(bootstrap, &format!("{MANAGER}/route_config/virtual_hosts/0/routes"))? {
        if let Some(matchers) = route.pointer_mut("/match/headers").and_then(Value::as_array_mut) {
            matchers.retain(|matcher| matcher["name"] != GUARD);
        }
    }
    Ok(())
}

fn list<'a>(value: &'a mut Value, pointer: &str) -> Result<&'a mut Vec<Value>> {
    value.pointer_mut(pointer).and_then(Value::as_array_mut).ok_or_else(|| drifted(pointer))
}

fn drifted(what: &str) -> Failure {
    Failure::new(format!(
        "envoy/envoy.yaml no longer has {what} where the benchmark looks for it; adapt xtask/src/bench/configuration.rs"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shipped() -> Value {
        json!({"static_resources": {
            "listeners": [{"filter_chains": [{"filters": [{"typed_config": {
                "access_log": [{"name": "audit_file"}, {"name": "rejected_file"}],
                "http_filters": [
                    {"name": "portcullis", "typed_config": {"config": {"configuration": {
                        "value": r#"{"redis": {}, "vault": {}, "audit": {"input_max_bytes": 1}}"#
                    }}}},
                    {"name": ROUTER},
                ],
                "route_config": {"virtual_hosts": [{"routes": [{
                    "match": {"path": "/demo/mcp", "headers": [{"name": GUARD}, {"name": ":method"}]},
                }]}]},
            }}]}]}],
            "clusters": [{"name": "demo"}, {"name": "portcullis_redis"}],
        }})
    }

    fn names(bootstrap: &Value, pointer: &str) -> Vec<String> {
        let list = bootstrap.pointer(pointer).and_then(Value::as_array).unwrap();
        list.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn without_parts_only_the_router_is_left() {
        let mut bootstrap = shipped();
        replace(&mut bootstrap, &Value::Null).unwrap();
        assert_eq!(names(&bootstrap, &format!("{MANAGER}/http_filters")), [ROUTER]);
        assert!(names(&bootstrap, &format!("{MANAGER}/access_log")).is_empty());
        assert_eq!(names(&bootstrap, "/static_resources/clusters"), ["demo"]);
        let matchers = format!("{MANAGER}/route_config/virtual_hosts/0/routes/0/match/headers");
        assert_eq!(names(&bootstrap, &matchers), [":method"]);
    }

    #[test]
    fn parts_come_before_the_router() {
        let mut bootstrap = shipped();
        let parts =
            json!({"http_filters": [{"name": "x"}, {"name": "y"}], "access_log": [{"name": "z"}]});
        replace(&mut bootstrap, &parts).unwrap();
        assert_eq!(names(&bootstrap, &format!("{MANAGER}/http_filters")), ["x", "y", ROUTER]);
        assert_eq!(names(&bootstrap, &format!("{MANAGER}/access_log")), ["z"]);
    }

    #[test]
    fn only_the_filter_that_limits_is_left_out() {
        let parts = json!({"http_filters": [{"name": "x"}, {"name": LIMITER}], "access_log": []});
        let left = unlimited(parts).unwrap();
        assert_eq!(left, json!({"http_filters": [{"name": "x"}], "access_log": []}));
        assert!(unlimited(left).is_err());
    }

    #[test]
    fn the_headers_become_members_of_the_virtual_host() {
        let mut bootstrap = shipped();
        let parts = json!({"virtual_host": {"request_headers_to_add": [{"header": {"key": "x"}}]}});
        name_caller(&mut bootstrap, &parts).unwrap();
        let host = &bootstrap.pointer(MANAGER).unwrap()["route_config"]["virtual_hosts"][0];
        assert_eq!(host["request_headers_to_add"][0]["header"]["key"], "x");
        assert_eq!(host["routes"][0]["match"]["path"], "/demo/mcp");
        assert!(name_caller(&mut bootstrap, &json!({})).is_err());
    }

    #[test]
    fn an_inline_policy_takes_the_place_of_redis() {
        let mut bootstrap = shipped();
        let parts = json!({"policy": {"version": 1}, "auth": {}});
        configure(&mut bootstrap, &parts, &["redis", "vault"]).unwrap();
        let place = format!("{MANAGER}/http_filters/0/typed_config/config/configuration/value");
        let text = bootstrap.pointer(&place).and_then(Value::as_str).unwrap();
        let expected =
            json!({"audit": {"input_max_bytes": 1}, "policy": {"version": 1}, "auth": {}});
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), expected);
    }

    #[test]
    fn a_configuration_that_has_changed_is_refused() {
        assert!(replace(&mut json!({}), &Value::Null).is_err());
    }
}
