//! Routes for the Gateway API: an HTTPRoute for each connector, and the Envoy Gateway resources that go with it.
//!
//! Owns the form of both. The rules of an HTTPRoute have no order: of two similar ones, the one with more matches comes
//! first.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_core::decode::Faults;
use portcullis_core::guard::{HEADER, METADATA};
use serde_json::{Value, json};

use super::description::{
    self, Description, GatewayFields, KUBERNETES_NAME, ParentRef, ServerFields, Service,
    is_address, is_kubernetes_name,
};
use super::guards::{Guards, Matcher};
use super::route::{Guarded, Method, Routes, Unjudged};
use super::{UNJUDGED, object, seal};
use crate::report::{CliError, progress};

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const ENVOY_GATEWAY: &str = "gateway.envoyproxy.io";
const LISTENER: &str = "envoy.config.listener.v3.Listener";
const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
/// As many open streams as Envoy's listener accepts connections.
const MOST: u64 = 10_000;

/// A description whose servers are hosts with a port.
pub(super) type Described = Description<Gateway, Service>;

/// The Gateways that the routes belong to.
pub(super) struct Gateway {
    namespace: String,
    parents: Vec<ParentRef>,
}

pub(super) fn read(document: &Value) -> Result<Described, Faults> {
    description::read(document, gateway, server)
}

fn gateway(mut fields: GatewayFields, faults: &mut Faults) -> Option<Gateway> {
    const PARENTS: &str = "the Gateway, such as {parent_refs: [{name: mcp}]}";
    let namespace = fields.namespace(faults);
    let parents = fields.gateway_api.required("gateway_api", PARENTS, faults);
    for name in fields.connectors.iter().filter(|name| !is_kubernetes_name(name)) {
        faults.push(&format!("connectors.{name}"), format!("the name {name:?}"), KUBERNETES_NAME);
    }
    for host in fields.hosts.iter().filter(|host| is_address(host)) {
        faults.push("hosts", format!("{host:?}"), "names of hosts: an HTTPRoute takes no address");
    }
    Some(Gateway { namespace: namespace?, parents: parents? })
}

fn server(fields: ServerFields<'_>, faults: &mut Faults) -> Option<Service> {
    const SERVICE: &str = "the server, such as {host: crm.mcp.svc.cluster.local, port: 8080}";
    if let Some(host) = fields.host.filter(|host| host.contains(':')) {
        let expected = "a host without a port: an HTTPRoute takes no other";
        faults.push(&format!("{}.host", fields.path), format!("{host:?}"), expected);
    }
    fields.service.required(&format!("{}.service", fields.path), SERVICE, faults)
}

pub(super) fn documents(
    description: &Described,
    guards: &mut Guards,
) -> Result<Vec<Value>, CliError> {
    let mut documents = Vec::new();
    let routes = description.routes(guards)?;
    for of_connector in &routes {
        documents.push(http_route(description, of_connector));
        documents.extend(backend(description, of_connector));
        documents.extend(traffic_policies(description, of_connector));
    }
    documents.push(refusal(description));
    let gateways = listeners(description);
    for parent in &description.gateway.parents {
        if gateways.get(&gateway_of(description, parent)).is_none_or(BTreeSet::is_empty) {
            progress(&format!(
                "the Gateway {} gets no seal: name its `listeners` or a `section_name`",
                parent.name
            ));
        }
    }
    documents.extend(gateways.iter().filter(|(_, listeners)| !listeners.is_empty()).map(
        |((namespace, gateway), listeners)| {
            sealed(description, &routes, (namespace, gateway), listeners)
        },
    ));
    Ok(documents)
}

/// The namespace and the name of a Gateway.
type Name = (String, String);

fn gateway_of(description: &Described, parent: &ParentRef) -> Name {
    let namespace = parent.namespace.as_ref().unwrap_or(&description.gateway.namespace);
    (namespace.clone(), parent.name.clone())
}

/// The known listeners of each Gateway.
fn listeners(description: &Described) -> BTreeMap<Name, BTreeSet<&str>> {
    let mut gateways: BTreeMap<Name, BTreeSet<&str>> = BTreeMap::new();
    for parent in &description.gateway.parents {
        let known = gateways.entry(gateway_of(description, parent)).or_default();
        known.extend(parent.section_name.as_deref());
        known.extend(parent.listeners.iter().map(String::as_str));
    }
    gateways
}

/// Adds the seal to each listener and its metadata to each guarded route, which takes no upgrades.
fn sealed(
    description: &Described,
    routes: &[Routes<'_, Service>],
    (namespace, gateway): (&str, &str),
    listeners: &BTreeSet<&str>,
) -> Value {
    let guarded = || routes.iter().flat_map(|of_connector| &of_connector.guarded);
    let patch = |kind: &str, listener: &str, json_path: &str, path: Option<&str>, value: Value| {
        json!({
            "type": format!("type.googleapis.com/{kind}"),
            "name": format!("{namespace}/{gateway}/{listener}"),
            "operation": object([
                ("op", Some(json!("add"))),
                ("jsonPath", Some(json!(json_path))),
                ("path", path.map(Value::from)),
                ("value", Some(value)),
            ]),
        })
    };
    let mut patches = Vec::new();
    for listener in listeners {
        // The operation `add` at the router's position puts the seal before the router.
        let router = "$..http_filters[?(@.name=='envoy.filters.http.router')]";
        let filter = seal::filter(&description.name, guarded());
        patches.push(patch(LISTENER, listener, router, None, filter));
        for of_connector in routes {
            for (nth, route) in of_connector.guarded.iter().enumerate() {
                // Each rule of an HTTPRoute has a cluster of its own.
                let (ours, name) = (&description.gateway.namespace, &of_connector.connector.name);
                let routes =
                    format!("$..routes[?(@.route.cluster=='httproute/{ours}/{name}/rule/{nth}')]");
                let place = format!("metadata/filter_metadata/{METADATA}");
                let value = seal::of_route(&route.guard);
                patches.push(patch(ROUTES, listener, &routes, Some(&place), value));
                // Envoy Gateway adds this upgrade to every route; a BackendTrafficPolicy can only name others.
                let off = json!([{"upgrade_type": "websocket", "enabled": false}]);
                patches.push(patch(ROUTES, listener, &routes, Some("route/upgrade_configs"), off));
            }
        }
    }
    json!({
        "apiVersion": format!("{ENVOY_GATEWAY}/v1alpha1"),
        "kind": "EnvoyPatchPolicy",
        "metadata": {"name": format!("{}-seal-{gateway}", description.name), "namespace": namespace},
        "spec": {
            "targetRef": {"group": GATEWAY_API, "kind": "Gateway", "name": gateway},
            "type": "JSONPatch",
            "jsonPatches": patches,
        },
    })
}

fn metadata(description: &Described, name: &str) -> Value {
    json!({"name": name, "namespace": description.gateway.namespace})
}

fn http_route(description: &Described, routes: &Routes<'_, Service>) -> Value {
    let connector = routes.connector;
    let parent = |parent: &ParentRef| {
        object([
            ("name", Some(json!(parent.name))),
            ("namespace", parent.namespace.as_deref().map(Value::from)),
            ("sectionName", parent.section_name.as_deref().map(Value::from)),
        ])
    };
    let parents: Vec<_> = description.gateway.parents.iter().map(parent).collect();
    let every_host = description.hosts.iter().any(|host| host == "*");
    let host = connector.rewrite.host.as_deref();
    let backend = backend_ref(description, &connector.name, &connector.server);
    let guarded = routes.guarded.iter().map(|route| guarded(route, host, &backend));
    let unjudged = routes.unjudged.iter().map(|route| unjudged(description, route));
    let rules: Vec<_> = guarded.chain(unjudged).collect();
    json!({
        "apiVersion": format!("{GATEWAY_API}/v1"),
        "kind": "HTTPRoute",
        "metadata": metadata(description, &connector.name),
        "spec": object([
            ("parentRefs", Some(json!(parents))),
            ("hostnames", (!every_host).then(|| json!(description.hosts))),
            ("rules", Some(json!(rules))),
        ]),
    })
}

fn guarded(route: &Guarded<'_>, host: Option<&str>, backend: &Value) -> Value {
    let (kind, value) = match &route.guard {
        Matcher::Exact(value) => ("Exact", value.clone()),
        Matcher::Either(either) => ("RegularExpression", either.regex()),
    };
    let matcher = object([
        ("path", Some(json!({"type": "Exact", "value": route.path}))),
        ("method", (route.method == Method::Get).then(|| json!("GET"))),
        ("headers", Some(json!([{"type": kind, "name": HEADER, "value": value}]))),
    ]);
    let mut filters = vec![json!({
        "type": "RequestHeaderModifier",
        "requestHeaderModifier": {"remove": [HEADER]},
    })];
    if route.rewrite.is_some() || host.is_some() {
        let path = |path| json!({"type": "ReplaceFullPath", "replaceFullPath": path});
        let rewrite =
            object([("hostname", host.map(Value::from)), ("path", route.rewrite.map(path))]);
        filters.push(json!({"type": "URLRewrite", "urlRewrite": rewrite}));
    }
    json!({
        "name": route.name,
        "matches": [matcher],
        "filters": filters,
        "backendRefs": [backend],
        "timeouts": {"request": "0s"},
    })
}

fn unjudged(description: &Described, route: &Unjudged<'_>) -> Value {
    json!({
        "name": route.name,
        "matches": [{"path": {"type": "Exact", "value": route.path}}],
        "filters": [{
            "type": "ExtensionRef",
            "extensionRef": {
                "group": ENVOY_GATEWAY,
                "kind": "HTTPRouteFilter",
                "name": refusal_name(description),
            },
        }],
    })
}

fn refusal_name(description: &Described) -> String {
    format!("{}-unjudged", description.name)
}

fn refusal(description: &Described) -> Value {
    json!({
        "apiVersion": format!("{ENVOY_GATEWAY}/v1alpha1"),
        "kind": "HTTPRouteFilter",
        "metadata": metadata(description, &refusal_name(description)),
        "spec": {"directResponse": {
            "statusCode": 503,
            "contentType": "application/json",
            "body": {"type": "Inline", "inline": UNJUDGED},
            "header": {"set": [{"name": "retry-after", "value": "1"}]},
        }},
    })
}

/// The name and namespace of a Service in the cluster; `None` for a host outside.
fn service(description: &Described, host: &str) -> Option<(String, String)> {
    let host = host.strip_suffix(".cluster.local").unwrap_or(host);
    match host.split('.').collect::<Vec<_>>().as_slice() {
        [name] => Some(((*name).to_owned(), description.gateway.namespace.clone())),
        [name, namespace, "svc"] => Some(((*name).to_owned(), (*namespace).to_owned())),
        _ => None,
    }
}

fn backend_ref(description: &Described, name: &str, server: &Service) -> Value {
    match service(description, &server.host) {
        Some((name, namespace)) => {
            let elsewhere = namespace != description.gateway.namespace;
            object([
                ("name", Some(json!(name))),
                ("namespace", elsewhere.then(|| json!(namespace))),
                ("port", Some(json!(server.port))),
            ])
        }
        None => json!({"group": ENVOY_GATEWAY, "kind": "Backend", "name": name}),
    }
}

/// The resource that makes a server reachable: a Backend for a host outside, a ReferenceGrant for a Service in another
/// namespace.
fn backend(description: &Described, routes: &Routes<'_, Service>) -> Option<Value> {
    let connector = routes.connector;
    let Service { host, port } = &connector.server;
    let ours = &description.gateway.namespace;
    match service(description, host) {
        Some((_, namespace)) if namespace == *ours => None,
        Some((name, namespace)) => Some(json!({
            "apiVersion": format!("{GATEWAY_API}/v1beta1"),
            "kind": "ReferenceGrant",
            "metadata": {
                "name": format!("{}-{}", description.name, connector.name),
                "namespace": namespace,
            },
            "spec": {
                "from": [{"group": GATEWAY_API, "kind": "HTTPRoute", "namespace": ours}],
                "to": [{"group": "", "kind": "Service", "name": name}],
            },
        })),
        None => {
            let endpoint = match is_address(host) {
                true => json!({"ip": {"address": host, "port": port}}),
                false => json!({"fqdn": {"hostname": host, "port": port}}),
            };
            Some(json!({
                "apiVersion": format!("{ENVOY_GATEWAY}/v1alpha1"),
                "kind": "Backend",
                "metadata": metadata(description, &connector.name),
                "spec": {"endpoints": [endpoint]},
            }))
        }
    }
}

/// No retries and an idle timeout, for all rules of a connector; another timeout for streams on which a client listens.
fn traffic_policies(description: &Described, routes: &Routes<'_, Service>) -> Vec<Value> {
    let connector = routes.connector;
    let policy = |name: &str, rule: Option<&str>, idle: u64| {
        let target = object([
            ("group", Some(json!(GATEWAY_API))),
            ("kind", Some(json!("HTTPRoute"))),
            ("name", Some(json!(connector.name))),
            ("sectionName", rule.map(Value::from)),
        ]);
        json!({
            "apiVersion": format!("{ENVOY_GATEWAY}/v1alpha1"),
            "kind": "BackendTrafficPolicy",
            "metadata": metadata(description, name),
            "spec": {
                "targetRefs": [target],
                "retry": {"numRetries": 0},
                "timeout": {"http": {"streamIdleTimeout": format!("{idle}s")}},
                "circuitBreaker": {
                    "maxConnections": MOST, "maxParallelRequests": MOST, "maxPendingRequests": MOST,
                },
            },
        })
    };
    let listens = routes.guarded.iter().filter(|route| route.method == Method::Get);
    let listens = listens.map(|route| policy(&route.name, Some(&route.name), route.idle));
    std::iter::once(policy(&connector.name, None, connector.idle.answer)).chain(listens).collect()
}
