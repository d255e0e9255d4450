//! What the routes and connection managers of dumps are found to be.

use serde_json::json;

use super::super::State;
use super::*;

fn config() -> Config {
    let document = json!({
        "redis": {"cluster": "r"},
        "guards": {"/demo/mcp": "0123456789abcdef"},
    });
    Config::parse(&document).unwrap()
}

fn dump(routes: &Value, filters: &Value) -> Value {
    let plugin = json!({"name": "p", "typed_config": {"config": {"root_id": "portcullis"}}});
    let mut all = filters.as_array().unwrap().clone();
    let at = all.iter().position(|filter| filter == "filter").unwrap();
    all[at] = plugin;
    json!({"configs": [
        {"static_listeners": [{"listener": {
            "name": "gateway", "per_connection_buffer_limit_bytes": 4_194_304,
            "filter_chains": [{"filters": [{"typed_config": {
                "@type": format!("type.googleapis.com/envoy.extensions.filters.network.{MANAGER}"),
                "http2_protocol_options": {"initial_stream_window_size": 4_194_304},
                "early_header_mutation_extensions": [{"typed_config": {"mutations": [{"remove": guard::HEADER}]}}],
                "http_filters": all,
            }}]}],
        }}]},
        {"static_route_configs": [{"route_config": {"virtual_hosts": [
            {"name": "mcp", "routes": routes, "request_headers_to_remove": [guard::HEADER]},
        ]}}]},
    ]})
}

fn guarded_route() -> Value {
    json!({
        "name": "demo",
        "match": {"path": "/demo/mcp", "headers": [
            {"name": "x-portcullis-guard", "string_match": {"exact": "0123456789abcdef"}},
        ]},
        "metadata": {"filter_metadata": {"portcullis": {"guards": ["0123456789abcdef"]}}},
        "route": {"cluster": "demo", "timeout": "0s"},
    })
}

/// As a dump has what `portcullis render` prints.
fn seal_of(value: &str, action: &str) -> Value {
    let of_route = json!({"metadata_source": "ROUTE", "metadata_matcher": {
        "filter": "portcullis", "path": [{"key": "guards"}],
        "value": {"list_match": {"one_of": {"string_match": {"exact": value}}}},
    }});
    json!({"name": "portcullis_seal", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": action, "policies": {"/demo/mcp": {
            "principals": [{"any": true}],
            "permissions": [{"and_rules": {"rules": [
                {"header": {"name": "x-portcullis-guard", "string_match": {"exact": value}}},
                {"not_rule": {"sourced_metadata": of_route}},
            ]}}],
        }}},
    }})
}

fn filters() -> Value {
    json!(["filter", seal_of("0123456789abcdef", "DENY"), {"name": ROUTER}])
}

fn told(dump: &Value) -> Vec<(String, State, String)> {
    let findings = look(dump, &config()).0.into_iter();
    findings.map(|finding| (finding.check, finding.state, finding.found)).collect()
}

// Finding 11.8.
// Proves: X16, X29
#[test]
fn a_guarded_gateway_is_in_order() {
    let unjudged =
        json!({"name": "unjudged", "match": {"prefix": "/"}, "direct_response": {"status": 503}});
    let routes = json!([guarded_route(), unjudged]);
    let found = told(&dump(&routes, &filters()));
    assert!(found.iter().all(|(_, state, _)| *state == State::Good), "{found:?}");
    assert_eq!(found.len(), 3);
    // As in a real dump, which has the bootstrap beside the listeners.
    let mut dump = dump(&routes, &filters());
    let again = dump["configs"][0].clone();
    dump["configs"].as_array_mut().unwrap().push(again);
    assert_eq!(told(&dump).len(), 3);
}

// Finding 11.1: Envoy selects a route again after the filter has set the guard.
// Proves: X16, X30
#[test]
fn an_unsealed_route_has_a_line() {
    let router = json!({"name": ROUTER});
    let good = seal_of("0123456789abcdef", "DENY");
    let mut bare = guarded_route();
    bare["metadata"] = json!({});
    let mut of_another = guarded_route();
    of_another["metadata"]["filter_metadata"]["portcullis"]["guards"] =
        json!(["another-guard-value"]);
    let mut off = good.clone();
    off["disabled"] = json!(true);
    for (route, filters) in [
        (guarded_route(), json!(["filter", router])),
        (guarded_route(), json!([good, "filter", router])),
        (guarded_route(), json!(["filter", off, router])),
        (guarded_route(), json!(["filter", seal_of("0123456789abcdef", "ALLOW"), router])),
        (guarded_route(), json!(["filter", seal_of("another-guard-value", "DENY"), router])),
        (bare, json!(["filter", good, router])),
        (of_another, json!(["filter", good, router])),
    ] {
        let found = told(&dump(&json!([route]), &filters));
        let line = found.iter().find(|(check, ..)| check == "envoy.route mcp/demo");
        let (_, state, told) = line.unwrap_or_else(|| panic!("{filters}: {found:?}"));
        assert!(*state == State::Warning && told.contains("seal"), "{filters}: {found:?}");
    }
}

// Finding 11.1: whoever writes a route may switch filters off there. Proves: X16, X30
#[test]
fn a_route_that_switches_the_seal_off_has_a_line() {
    let off = json!({"portcullis_seal": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
    }});
    let shop = json!({"name": "shop", "match": {"path": "/shop"}, "route": {"cluster": "shop"}});
    let mut of_route = dump(&json!([guarded_route(), shop]), &filters());
    let mut of_host = of_route.clone();
    let host = "/configs/1/static_route_configs/0/route_config/virtual_hosts/0";
    of_route.pointer_mut(host).unwrap()["routes"][1]["typed_per_filter_config"] = off.clone();
    of_host.pointer_mut(host).unwrap()["typed_per_filter_config"] = off;
    // Another RBAC filter behind Portcullis is a rule of others, and may be set for a route.
    let own = json!({"name": "own_rbac", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
    }});
    let seal = seal_of("0123456789abcdef", "DENY");
    let own_behind = json!(["filter", seal, own, {"name": ROUTER}]);
    let mut of_own = dump(&json!([guarded_route()]), &own_behind);
    of_own.pointer_mut(host).unwrap()["typed_per_filter_config"] = json!({"own_rbac": {}});
    assert!(told(&of_own).iter().all(|(_, state, _)| *state == State::Good));
    for (dump, name) in [(of_route, "shop"), (of_host, "mcp")] {
        let found = told(&dump);
        let check = format!("envoy.route {name}");
        let line = found.iter().find(|(it, ..)| *it == check);
        let (_, state, told) = line.unwrap_or_else(|| panic!("{found:?}"));
        assert!(*state == State::Warning && told.contains("portcullis_seal"), "{found:?}");
        assert!(!found.iter().any(|(check, ..)| check == "envoy.seal"), "{found:?}");
    }
}

// On Istio the listener names the filter, and its configuration is a resource of its own (ECDS).
// Proves: X16
#[test]
fn a_filter_that_is_discovered_is_found() {
    let mut dump = dump(&json!([guarded_route()]), &filters());
    let place = "/configs/0/static_listeners/0/listener/filter_chains/0/filters/0/typed_config/http_filters/0";
    let filter = dump.pointer_mut(place).unwrap();
    let config = filter["typed_config"].take();
    *filter = json!({"name": "p", "config_discovery": {"type_urls": []}});
    let ecds = json!({"ecds_filters": [{"ecds_filter": {"name": "p", "typed_config": config}}]});
    dump["configs"].as_array_mut().unwrap().push(ecds);
    let checks: Vec<_> = told(&dump).into_iter().map(|(check, ..)| check).collect();
    assert_eq!(checks, ["envoy.guard", "envoy.seal", "envoy.listener gateway"]);
}

// Finding 11.8.
// Proves: X16, X29
#[test]
fn every_hole_has_a_line() {
    let open = |name: &str, matcher: Value, route: Value| json!({"name": name, "match": matcher, "route": route});
    let routes = json!([
        guarded_route(),
        open(
            "same path",
            json!({"path": "/demo/mcp"}),
            json!({"cluster": "evil", "timeout": "0s"})
        ),
        open("prefix", json!({"prefix": "/de"}), json!({"cluster": "evil", "timeout": "0s"})),
        open(
            "any",
            json!({"safe_regex": {"regex": ".*"}}),
            json!({"cluster": "evil", "timeout": "0s"})
        ),
        open("same server", json!({"path": "/x"}), json!({"cluster": "demo", "timeout": "0s"})),
        open("none of ours", json!({"path": "/shop"}), json!({"cluster": "shop"})),
        open(
            "any case",
            json!({"path": "/DEMO/mcp", "case_sensitive": false}),
            json!({"cluster": "evil", "timeout": "0s"})
        ),
        open(
            "any value",
            json!({"path": "/demo/mcp", "headers": [
                {"name": "x-portcullis-guard", "string_match": {"safe_regex": {"regex": ".*"}}},
            ]}),
            json!({"cluster": "evil", "timeout": "0s"})
        ),
        open(
            "by header",
            json!({"path": "/demo/mcp"}),
            json!({"cluster_header": "x-portcullis-org", "timeout": "0s"})
        ),
        open(
            "own header",
            json!({"path": "/y", "headers": [
                {"name": "x-portcullis-org", "string_match": {"exact": "acme"}},
            ]}),
            json!({"cluster": "evil", "timeout": "0s"})
        ),
        open(
            "not the guard",
            json!({"path": "/demo/mcp", "headers": [
                {"name": "x-portcullis-guard", "present_match": true, "invert_match": true},
            ]}),
            json!({"cluster": "evil", "timeout": "0s"})
        ),
    ]);
    let found = told(&dump(&routes, &json!(["filter", {"name": ROUTER}])));
    let bad: Vec<_> = found
        .iter()
        .filter(|(_, state, _)| *state == State::Bad)
        .map(|(check, ..)| check.as_str())
        .collect();
    assert_eq!(
        bad,
        [
            "envoy.route mcp/any",
            "envoy.route mcp/any case",
            "envoy.route mcp/any value",
            "envoy.route mcp/by header",
            "envoy.route mcp/not the guard",
            "envoy.route mcp/prefix",
            "envoy.route mcp/same path",
            "envoy.route mcp/same server",
            "envoy.route mcp/own header",
        ]
        .map(str::to_owned)
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>(),
        "{found:?}"
    );
}

// Finding 11.17.
// Proves: X16
#[test]
fn split_mode_beside_a_filter_that_streams_bodies_is_bad() {
    let kind = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor";
    let processor = json!({"name": "inspect", "typed_config": {"@type": kind}});
    let dump = dump(&json!([guarded_route()]), &json!([processor, "filter", {"name": ROUTER}]));
    let mut split = config();
    split.mode = Mode::Split;
    let bad = |config: &Config| {
        let findings = look(&dump, config).0.into_iter();
        findings.filter(|it| it.state == State::Bad).map(|it| it.found).collect::<Vec<_>>()
    };
    assert_eq!(bad(&split), ["split mode beside inspect: requests may end early and fail"]);
    assert_eq!(bad(&config()), Vec::<String>::new());
}

// Findings 11.3, 11.4, 11.7, 11.9.
// Proves: X16
#[test]
fn what_hurts_is_told() {
    let mut route = guarded_route();
    route["route"] = json!({
        "cluster": "demo", "retry_policy": {"retry_on": "5xx"},
        "request_mirror_policies": [{"cluster": "evil"}],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    });
    let filters = json!(["filter", {"name": "envoy.filters.http.ext_authz"}, {"name": ROUTER}]);
    // The filter refuses upgrades of what has a guard: the other route to the server is what takes them.
    let open = json!({"name": "open", "match": {"path": "/x"}, "route": route["route"]});
    let mut dump = dump(&json!([route, open]), &filters);
    let listener = dump.pointer_mut("/configs/0/static_listeners/0/listener").unwrap();
    listener["per_connection_buffer_limit_bytes"] = json!(32_768);
    listener["filter_chains"][0]["filters"][0]["typed_config"]["http2_protocol_options"] =
        json!({});
    let found = told(&dump);
    let warnings: Vec<_> = found
        .iter()
        .filter(|(_, state, _)| *state == State::Warning)
        .map(|(_, _, found)| found.as_str())
        .collect();
    for part in [
        "retries",
        "mirrors",
        "upgrades",
        "15 s",
        "ext_authz",
        "initial_stream_window_size is 65535",
        "per_connection_buffer_limit_bytes is 32768",
    ] {
        assert!(warnings.iter().any(|found| found.contains(part)), "{part}: {warnings:?}");
    }
    let upgrades = |(check, _, told): &&(String, State, String)| {
        check == "envoy.route mcp/demo" && told.contains("upgrades")
    };
    assert!(!found.iter().any(|line| upgrades(&line)), "{found:?}");
}

// Finding 11.2: a more specific policy, even an empty one, takes the filter off a route. Envoy Gateway disables it in the
// connection manager, and routes enable it. Proves: X16, X29
#[test]
fn where_routes_switch_the_filter_on_and_off_is_told() {
    let on = json!({"p": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}});
    let off = json!({"p": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true}});
    let unjudged = |own: &Value| {
        json!({"name": "unjudged", "match": {"path": "/demo/mcp"}, "direct_response": {"status": 503},
            "typed_per_filter_config": own})
    };
    let with = |own: &Value, is_off: bool| {
        let mut dump = dump(&json!([guarded_route(), unjudged(own)]), &filters());
        let place = "/configs/0/static_listeners/0/listener/filter_chains/0/filters/0/typed_config/http_filters/0";
        dump.pointer_mut(place).unwrap()["disabled"] = json!(is_off);
        dump
    };
    for good in [with(&on, true), with(&json!({}), false)] {
        let found = told(&good);
        assert!(found.iter().all(|(_, state, _)| *state == State::Good), "{found:?}");
    }
    let found = told(&with(&off, false));
    let line = found.iter().find(|(check, ..)| check == "envoy.route mcp/unjudged");
    assert!(
        line.is_some_and(|(_, state, told)| *state == State::Bad && told.contains("off")),
        "{found:?}"
    );
    // Disabled, and nothing enables it.
    let found = told(&with(&json!({}), true));
    assert!(
        found
            .iter()
            .any(|(check, state, _)| check == "envoy.listener gateway" && *state == State::Bad),
        "{found:?}"
    );
}

// A host without MCP servers whose route matches every path: no line where the filter is off, one where it is on.
// Proves: X16
#[test]
fn a_host_that_is_left_out_has_no_line() {
    let off = json!({"p": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true}});
    let web = json!({"name": "web", "match": {"prefix": "/"}, "route": {"cluster": "web"}});
    let mut left_out = dump(&json!([guarded_route()]), &filters());
    let hosts = left_out
        .pointer_mut("/configs/1/static_route_configs/0/route_config/virtual_hosts")
        .unwrap();
    hosts.as_array_mut().unwrap().push(json!({"name": "web.example:80", "routes": [web]}));
    let mut judged = left_out.clone();
    let host = "/configs/1/static_route_configs/0/route_config/virtual_hosts/1";
    left_out.pointer_mut(host).unwrap()["typed_per_filter_config"] = off;
    assert!(
        told(&left_out).iter().all(|(_, state, _)| *state == State::Good),
        "{:?}",
        told(&left_out)
    );
    // It gets what is judged for the path.
    judged.pointer_mut(host).unwrap()["typed_per_filter_config"] = json!({});
    assert!(
        told(&judged)
            .iter()
            .any(|(check, state, _)| check == "envoy.route web.example:80/web"
                && *state == State::Bad)
    );
}

// A sidecar has tables of routes for what its own server calls: no line for them. Proves: X16
#[test]
fn a_table_that_no_listener_with_the_filter_uses_is_left_alone() {
    let any = json!({"name": "any", "match": {"prefix": "/"}, "route": {"cluster": "elsewhere"}});
    let same = json!({"name": "same", "match": {"prefix": "/"}, "route": {"cluster": "demo"}});
    let with = |route: &Value| {
        let mut dump = dump(&json!([guarded_route()]), &filters());
        let manager =
            "/configs/0/static_listeners/0/listener/filter_chains/0/filters/0/typed_config";
        dump.pointer_mut(manager).unwrap()["rds"] = json!({"route_config_name": "inbound"});
        dump.pointer_mut("/configs/1/static_route_configs/0/route_config").unwrap()["name"] =
            json!("inbound");
        let outbound = json!({"route_config": {"name": "8080", "virtual_hosts": [{"name": "others", "routes": [route]}]}});
        dump.pointer_mut("/configs/1/static_route_configs")
            .unwrap()
            .as_array_mut()
            .unwrap()
            .push(outbound);
        told(&dump)
    };
    let found = with(&any);
    assert!(found.iter().all(|(_, state, _)| *state == State::Good), "{found:?}");
    // What leads to a server without its guard is a hole on any listener.
    let found = with(&same);
    assert!(
        found
            .iter()
            .any(|(check, state, _)| check == "envoy.route others/same" && *state == State::Bad),
        "{found:?}"
    );
}

// Istio makes a TCP chain beside the HTTP chain where a port does not say its protocol.
// Proves: X16, X29
#[test]
fn a_chain_that_puts_connections_through_to_a_server_has_a_line() {
    let tcp = |cluster: Value| {
        let mut dump = dump(&json!([guarded_route()]), &filters());
        let chains = dump.pointer_mut("/configs/0/static_listeners/0/listener/filter_chains");
        chains.unwrap().as_array_mut().unwrap().push(json!({"filters": [{"typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "cluster": cluster["cluster"], "weighted_clusters": cluster["weighted_clusters"],
        }}]}));
        dump
    };
    for cluster in [
        json!({"cluster": "demo"}),
        json!({"weighted_clusters": {"clusters": [{"name": "other"}, {"name": "demo"}]}}),
    ] {
        let found = told(&tcp(cluster));
        let is_named = found.iter().any(|(check, state, found)| {
            check == "envoy.listener gateway"
                && *state == State::Bad
                && found.contains("TCP connections reach demo")
        });
        assert!(is_named, "{found:?}");
    }
    let found = told(&tcp(json!({"cluster": "other"})));
    assert!(found.iter().all(|(_, state, _)| *state == State::Good), "{found:?}");
    // In a listener without the filter it may be meant.
    let mut apart = tcp(json!({"cluster": "other"}));
    let mut listener = apart["configs"][0]["static_listeners"][0].clone();
    listener["listener"]["name"] = json!("operators");
    let chains = &mut listener["listener"]["filter_chains"];
    chains[1]["filters"][0]["typed_config"]["cluster"] = json!("demo");
    *chains = json!([chains[1]]);
    apart["configs"][0]["static_listeners"].as_array_mut().unwrap().push(listener);
    let found = told(&apart);
    let line = found.iter().find(|(check, ..)| check == "envoy.listener operators");
    assert_eq!(line.map(|(_, state, _)| *state), Some(State::Warning), "{found:?}");
}

// Of a waypoint, which has a cluster for each protocol of a port.
// Proves: X16, X29
#[test]
fn a_waypoints_tcp_chain_has_a_line() {
    let mut route = guarded_route();
    route["route"]["cluster"] = json!("inbound-vip|8080|http|demo.mcp.svc.cluster.local");
    for (cluster, is_named) in [
        ("inbound-vip|8080|tcp|demo.mcp.svc.cluster.local", true),
        ("inbound-vip|8081|tcp|demo.mcp.svc.cluster.local", false),
        ("inbound-vip|8080|tcp|other.mcp.svc.cluster.local", false),
    ] {
        let mut dump = dump(&json!([route]), &filters());
        let chains = dump.pointer_mut("/configs/0/static_listeners/0/listener/filter_chains");
        chains.unwrap().as_array_mut().unwrap().push(json!({"filters": [{"typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "cluster": cluster,
        }}]}));
        let found = told(&dump);
        let bad = found
            .iter()
            .any(|(_, state, found)| *state == State::Bad && found.contains("without the filter"));
        assert_eq!(bad, is_named, "{cluster}: {found:?}");
    }
}

// Proves: X16, X29
#[test]
fn a_guard_that_a_client_keeps_has_a_line() {
    let mut dump = dump(&json!([guarded_route()]), &filters());
    let manager = "/configs/0/static_listeners/0/listener/filter_chains/0/filters/0/typed_config";
    let manager = dump.pointer_mut(manager).unwrap();
    manager["early_header_mutation_extensions"] = json!([{"typed_config": {"mutations": [
        {"remove_on_match": {"key_matcher": {"exact": "x-portcullis-guard"}}},
    ]}}]);
    assert!(told(&dump).iter().all(|(_, state, _)| *state == State::Good));
    let manager = "/configs/0/static_listeners/0/listener/filter_chains/0/filters/0/typed_config";
    dump.pointer_mut(manager).unwrap()["early_header_mutation_extensions"] = json!([]);
    let found = told(&dump);
    let lines: Vec<_> = found.iter().filter(|(_, state, _)| *state == State::Warning).collect();
    assert!(
        matches!(lines[..], [(_, _, found)] if found.contains("stays until the filter")),
        "{found:?}"
    );
}
