//! Routes for Istio: a VirtualService, and an EnvoyFilter for settings that a VirtualService lacks.
//!
//! Owns the form of both.

use portcullis_core::decode::Faults;
use portcullis_core::guard::HEADER;
use serde_json::{Map, Value, json};

use super::description::{self, Description, Istio, Service};
use super::guards::{Guards, Matcher};
use super::route::{Guarded, Method, Unjudged};
use super::{UNJUDGED, object, seal};
use crate::report::CliError;

/// Each patch puts its filter just before the router. The seal has to come after `envoyfilter.yaml` (20).
const AFTER_THE_FILTER: u32 = 30;

/// A description whose servers are hosts with a port.
pub(super) type Described = Description<Gateway, Service>;

/// The Istio gateways that the routes belong to.
pub(super) struct Gateway {
    namespace: String,
    istio: Istio,
}

pub(super) fn read(document: &Value) -> Result<Described, Faults> {
    const GATEWAYS: &str = "the gateways, such as {gateways: [portcullis]}";
    const SERVICE: &str = "the server, such as {host: crm.mcp.svc.cluster.local, port: 8080}";
    description::read(
        document,
        |mut gateway, faults| {
            let namespace = gateway.namespace(faults);
            for (wildcard, host) in overlapping(&gateway.hosts) {
                let expected =
                    "hosts that do not overlap: Istio refuses a VirtualService with such";
                faults.push("hosts", format!("{wildcard} and {host}"), expected);
            }
            let istio = gateway.istio.required("istio", GATEWAYS, faults);
            Some(Gateway { namespace: namespace?, istio: istio? })
        },
        |server, faults| {
            let path = format!("{}.service", server.path);
            server.service.required(&path, SERVICE, faults)
        },
    )
}

/// Each wildcard with a listed host that it already covers.
fn overlapping(hosts: &[String]) -> impl Iterator<Item = (&str, &str)> {
    hosts.iter().flat_map(move |wildcard| {
        let suffix = wildcard.strip_prefix('*').filter(|suffix| !suffix.is_empty());
        let has = move |host: &&String| {
            suffix.is_some_and(|suffix| *host != wildcard && host.ends_with(suffix))
        };
        hosts.iter().filter(has).map(move |host| (wildcard.as_str(), host.as_str()))
    })
}

pub(super) fn documents(
    description: &Described,
    guards: &mut Guards,
) -> Result<Vec<Value>, CliError> {
    let Description { name, hosts, gateway, .. } = description;
    let Gateway { namespace, istio } = gateway;
    let (mut http, mut patches) = (Vec::new(), Vec::new());
    let routes = description.routes(guards)?;
    for of_connector in &routes {
        let connector = of_connector.connector;
        let host = connector.rewrite.host.as_deref();
        for route in &of_connector.guarded {
            http.push(guarded(name, route, &connector.server, host));
            patches.push(patch(name, route));
        }
        http.extend(of_connector.unjudged.iter().map(|route| unjudged(name, route)));
    }
    patches.push(sealed(name, routes.iter().flat_map(|of_connector| &of_connector.guarded)));
    // An EnvoyFilter applies to pods of its own namespace.
    let pods = istio.workload_namespace.as_ref().unwrap_or(namespace);
    let selector: Map<_, _> = istio
        .selector
        .iter()
        .map(|(label, value)| (label.clone(), Value::from(value.as_str())))
        .collect();
    Ok(vec![
        json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"hosts": hosts, "gateways": istio.gateways, "http": http},
        }),
        json!({
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": format!("{name}-routes"), "namespace": pods},
            "spec": {
                "workloadSelector": {"labels": selector},
                "priority": AFTER_THE_FILTER,
                "configPatches": patches,
            },
        }),
    ])
}

/// The patches find a route by its name alone, so another team's route must not have the same name.
fn route_name(name: &str, route: &str) -> String {
    format!("{name}-{route}")
}

fn guarded(name: &str, route: &Guarded<'_>, service: &Service, host: Option<&str>) -> Value {
    let guard = match &route.guard {
        Matcher::Exact(value) => json!({"exact": value}),
        Matcher::Either(either) => json!({"regex": either.regex()}),
    };
    let get = (route.method == Method::Get).then(|| json!({"exact": "GET"}));
    let matcher = object([
        ("uri", Some(json!({"exact": route.path}))),
        ("method", get),
        ("headers", Some(json!({HEADER: guard}))),
    ]);
    let rewrite = (route.rewrite.is_some() || host.is_some()).then(|| {
        object([("uri", route.rewrite.map(Value::from)), ("authority", host.map(Value::from))])
    });
    let destination = json!({"host": service.host, "port": {"number": service.port}});
    object([
        ("name", Some(json!(route_name(name, &route.name)))),
        ("match", Some(json!([matcher]))),
        ("rewrite", rewrite),
        ("headers", Some(json!({"request": {"remove": [HEADER]}}))),
        ("route", Some(json!([{"destination": destination}]))),
        // No timeout: Istio sets none by default, and refuses an explicit "0s".
        ("retries", Some(json!({"attempts": 0}))),
    ])
}

fn unjudged(name: &str, route: &Unjudged<'_>) -> Value {
    json!({
        "name": route_name(name, &route.name),
        "match": [{"uri": {"exact": route.path}}],
        "directResponse": {"status": 503, "body": {"string": UNJUDGED}},
        "headers": {"response": {"set": {"content-type": "application/json", "retry-after": "1"}}},
    })
}

fn patch(name: &str, route: &Guarded<'_>) -> Value {
    json!({
        "applyTo": "HTTP_ROUTE",
        "match": {
            "context": "GATEWAY",
            "routeConfiguration": {"vhost": {"route": {"name": route_name(name, &route.name)}}},
        },
        "patch": {
            "operation": "MERGE",
            "value": {
                "metadata": seal::metadata(&route.guard),
                "route": {
                    "idle_timeout": format!("{}s", route.idle),
                    "upgrade_configs": [{"upgrade_type": "websocket", "enabled": false}],
                },
            },
        },
    })
}

/// The seal, between Portcullis and the router.
fn sealed<'a>(name: &str, routes: impl IntoIterator<Item = &'a Guarded<'a>>) -> Value {
    json!({
        "applyTo": "HTTP_FILTER",
        "match": {
            "context": "GATEWAY",
            "listener": {"filterChain": {"filter": {
                "name": "envoy.filters.network.http_connection_manager",
                "subFilter": {"name": "envoy.filters.http.router"},
            }}},
        },
        "patch": {"operation": "INSERT_BEFORE", "value": seal::filter(name, routes)},
    })
}
