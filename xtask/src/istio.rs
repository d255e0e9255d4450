//! Adds the Istio manifests up to the bootstrap that a gateway's Envoy would get, so that Envoy can judge them.
//!
//! Owns the few patch operations that the manifests use, and a skeleton of what Istio itself generates. Knows nothing
//! about what the patches contain.

use crate::failure::{Failure, Result};
use crate::validate::Bench;
use crate::yaml;
use portcullis_stack::{Tools, Workspace};
use serde_json::{Value, json};
use std::path::Path;

/// Where the manifests expect the module and the token in the proxy's container.
const MODULE: &str = "/var/local/portcullis/portcullis.wasm";
const TOKEN: &str = "/var/local/portcullis-token/token.yaml";

/// A name and a bootstrap for each way to use the manifests.
pub(crate) fn bootstraps(
    tools: &Tools,
    workspace: &Workspace,
    bench: &Bench,
) -> Result<Vec<(&'static str, Value)>> {
    let manifests = workspace.root.join("envoy/istio");
    let filter = documents(tools, &manifests.join("envoyfilter.yaml"), bench)?;
    let plugin = documents(tools, &manifests.join("wasmplugin.yaml"), bench)?;
    // EnvoyFilter alone: clusters, access log, and the filter with its flag.
    let mut with_filter = skeleton();
    apply_all(&mut with_filter, &filter, |_| true)?;
    // WasmPlugin: the same clusters, but Istio makes the filter.
    let mut with_plugin = skeleton();
    apply_all(&mut with_plugin, &filter, |patch| text(patch, "/applyTo") != "HTTP_FILTER")?;
    for plugin in &plugin {
        http_filters(&mut with_plugin)?.insert(0, filter_of_plugin(plugin, bench)?);
    }
    Ok(vec![("istio-envoyfilter", with_filter), ("istio-wasmplugin", with_plugin)])
}

/// Reads a YAML file with several documents, with the paths of this machine in it.
fn documents(tools: &Tools, file: &Path, bench: &Bench) -> Result<Vec<Value>> {
    let text = yaml::to_json(tools, file)?;
    let here = text
        .replace(MODULE, &bench.module.to_string_lossy())
        .replace(TOKEN, &bench.token.to_string_lossy());
    serde_json::from_str(&here)
        .map_err(|error| Failure::new(format!("{} is not JSON: {error}", file.display())))
}

/// What the patches find: one inbound listener with an HTTP connection manager and a router.
fn skeleton() -> Value {
    json!({
        "node": {"id": "istio", "cluster": "istio"},
        "static_resources": {
            "listeners": [{
                "name": "virtualInbound",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 15006}},
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "stat_prefix": "inbound",
                        "route_config": {"virtual_hosts": [{
                            "name": "inbound", "domains": ["*"],
                            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "inbound"}}],
                        }]},
                        "http_filters": [{
                            "name": "envoy.filters.http.router",
                            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                        }],
                    },
                }]}],
            }],
            "clusters": [{"name": "inbound", "type": "STATIC"}],
        },
    })
}

fn apply_all(
    bootstrap: &mut Value,
    manifests: &[Value],
    wanted: impl Fn(&Value) -> bool,
) -> Result<()> {
    let patches =
        manifests.iter().filter_map(|manifest| manifest.pointer("/spec/configPatches")?.as_array());
    for patch in patches.flatten().filter(|patch| wanted(patch)) {
        apply(bootstrap, patch)?;
    }
    Ok(())
}

fn apply(bootstrap: &mut Value, patch: &Value) -> Result<()> {
    let value = patch.pointer("/patch/value").cloned().unwrap_or_default();
    match (text(patch, "/applyTo"), text(patch, "/patch/operation")) {
        ("CLUSTER", "ADD") => list(bootstrap, "/static_resources/clusters")?.push(value),
        ("LISTENER", "MERGE") => merge(at(bootstrap, "/static_resources/listeners/0")?, value),
        ("NETWORK_FILTER", "MERGE") => {
            merge(at(bootstrap, "/static_resources/listeners/0/filter_chains/0/filters/0")?, value);
        }
        ("HTTP_FILTER", "INSERT_FIRST" | "INSERT_BEFORE") => {
            http_filters(bootstrap)?.insert(0, value)
        }
        (place, operation) => {
            return Err(Failure::new(format!(
                "the check of Istio patches does not know {operation} of {place}"
            )));
        }
    }
    Ok(())
}

/// What Istio makes of a WasmPlugin, as far as it matters to Envoy.
fn filter_of_plugin(plugin: &Value, bench: &Bench) -> Result<Value> {
    let configuration = plugin.pointer("/spec/pluginConfig").cloned().unwrap_or_default();
    let failure_policy = match text(plugin, "/spec/failStrategy") {
        "" | "FAIL_CLOSE" => "FAIL_CLOSED",
        "FAIL_RELOAD" => "FAIL_RELOAD",
        other => {
            return Err(Failure::new(format!(
                "failStrategy {other} lets requests past the filter"
            )));
        }
    };
    Ok(json!({
        "name": "portcullis",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "portcullis",
                "root_id": text(plugin, "/spec/pluginName"),
                "failure_policy": failure_policy,
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": configuration.to_string(),
                },
                "vm_config": {
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": bench.module}},
                },
            },
        },
    }))
}

/// As protobuf merges: objects by field, lists appended, all else replaced.
fn merge(target: &mut Value, source: Value) {
    match (target, source) {
        (Value::Object(target), Value::Object(source)) => {
            for (name, value) in source {
                merge(target.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(target), Value::Array(source)) => target.extend(source),
        (target, source) => *target = source,
    }
}

fn http_filters(bootstrap: &mut Value) -> Result<&mut Vec<Value>> {
    list(
        bootstrap,
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters",
    )
}

fn list<'a>(value: &'a mut Value, pointer: &str) -> Result<&'a mut Vec<Value>> {
    at(value, pointer)?.as_array_mut().ok_or_else(|| Failure::new(format!("{pointer} is no list")))
}

fn at<'a>(value: &'a mut Value, pointer: &str) -> Result<&'a mut Value> {
    value.pointer_mut(pointer).ok_or_else(|| Failure::new(format!("there is no {pointer}")))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
