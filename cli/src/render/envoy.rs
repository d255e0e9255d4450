//! Routes for Envoy itself: the value of `route_config`.
//!
//! Owns its form (`envoy.config.route.v3.RouteConfiguration`).

use portcullis_core::decode::Faults;
use portcullis_core::guard::HEADER;
use serde_json::{Value, json};

use super::description::{self, Description};
use super::guards::{Guards, Matcher};
use super::route::{Guarded, Method};
use super::{UNJUDGED, object, seal};
use crate::report::CliError;

/// A description whose servers are clusters.
pub(super) type Described = Description<(), String>;

pub(super) fn read(document: &Value) -> Result<Described, Faults> {
    description::read(
        document,
        |_, _| Some(()),
        |server, faults| {
            let path = format!("{}.cluster", server.path);
            server.cluster.required(&path, "the name of an Envoy cluster, such as crm", faults)
        },
    )
}

pub(super) fn documents(
    description: &Described,
    guards: &mut Guards,
) -> Result<Vec<Value>, CliError> {
    let mut routes = Vec::new();
    for of_connector in description.routes(guards)? {
        let connector = of_connector.connector;
        let host = connector.rewrite.host.as_deref();
        routes.extend(of_connector.guarded.iter().map(|it| guarded(it, &connector.server, host)));
    }
    routes.push(unjudged());
    Ok(vec![json!({
        "name": description.name,
        "virtual_hosts": [{
            "name": description.name,
            "domains": domains(&description.hosts),
            "request_headers_to_remove": [HEADER],
            "routes": routes,
        }],
    })])
}

/// Each host, and each host with any port: clients write a port that is not the scheme's default.
fn domains(hosts: &[String]) -> Vec<String> {
    let mut domains = Vec::new();
    for host in hosts {
        domains.push(host.clone());
        // Envoy accepts a wildcard at one end only.
        if !host.starts_with('*') {
            domains.push(format!("{host}:*"));
        }
    }
    domains
}

fn guarded(route: &Guarded<'_>, cluster: &str, host: Option<&str>) -> Value {
    let guard = match &route.guard {
        Matcher::Exact(value) => json!({"exact": value}),
        Matcher::Either(either) => json!({"safe_regex": {"regex": either.regex()}}),
    };
    let mut headers = vec![json!({"name": HEADER, "string_match": guard})];
    if route.method == Method::Get {
        headers.push(json!({"name": ":method", "string_match": {"exact": "GET"}}));
    }
    let action = object([
        ("cluster", Some(json!(cluster))),
        ("prefix_rewrite", route.rewrite.map(Value::from)),
        ("host_rewrite_literal", host.map(Value::from)),
        ("timeout", Some(json!("0s"))),
        ("idle_timeout", Some(json!(format!("{}s", route.idle)))),
        ("upgrade_configs", Some(json!([{"upgrade_type": "websocket", "enabled": false}]))),
    ]);
    json!({
        "name": route.name,
        "metadata": seal::metadata(&route.guard),
        "match": {"path": route.path, "headers": headers},
        "route": action,
    })
}

fn unjudged() -> Value {
    let header = |name: &str, value: &str| {
        json!({
            "header": {"key": name, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        })
    };
    json!({
        "name": "unjudged",
        "match": {"prefix": "/"},
        "direct_response": {"status": 503, "body": {"inline_string": UNJUDGED}},
        "response_headers_to_add": [
            header("content-type", "application/json"),
            header("retry-after", "1"),
        ],
    })
}
