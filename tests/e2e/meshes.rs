//! What control planes made of the shipped files (`envoy/rendered/`), served by a plain Envoy: the same answers, the same entries.
//!
//! `cargo xtask mesh` runs the control planes themselves; the test command refuses a rendered file that is not of today's
//! manifests.

use portcullis_stack::{Bootstrap, ENVOY_VERSION, EnvoyOptions, Topology, ports};
use portcullis_tests::gateway::Answer;
use portcullis_tests::organisation::DEMO;
use portcullis_tests::world::{self, OwnEnvoy, Workers};
use portcullis_tests::{Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["meshes":
        what_istio_makes_of_the_shipped_files_judges_as_the_plain_envoy_does,
        what_istio_makes_of_the_wasm_plugin_judges_as_the_plain_envoy_does,
        what_envoy_gateway_makes_of_the_shipped_files_judges_as_the_plain_envoy_does,
        without_the_filter_istios_routes_lead_nowhere,
        without_the_filter_envoy_gateways_routes_lead_nowhere,
        the_seal_of_istios_routes_refuses_a_route_that_is_selected_later,
        the_seal_of_the_wasm_plugins_routes_refuses_a_route_that_is_selected_later,
        the_seal_of_envoy_gateways_routes_refuses_a_route_that_is_selected_later,
    ]
}

/// The host in the shipped routes.
const HOST: &str = "mcp.example.com";

/// What Envoy Gateway makes is for the Envoy that it brings; an older one does not know every field of it.
const ENVOY_GATEWAY: &str = "envoy-gateway.yaml";

/// Two workers with a rendered configuration, after `change`; none where Redis is not one plain server, which is what the
/// manifests have, or Envoy is not the pinned one and Envoy Gateway brings its own.
fn rendered(
    world: &World<'_>,
    file: &str,
    change: impl FnOnce(String) -> String,
) -> Option<OwnEnvoy> {
    let is_pinned = std::env::var_os(ENVOY_VERSION).is_none();
    if world::topology_of_this_run() != Topology::Server || (file == ENVOY_GATEWAY && !is_pinned) {
        return None;
    }
    let stack = world.stack();
    let options = stack.options();
    let shipped = options.root.join("envoy/rendered").join(file);
    let text = std::fs::read_to_string(&shipped).expect("a rendered configuration");
    std::fs::create_dir_all(world.dir()).expect("a directory of the test's own");
    let template = world.dir().join("rendered-template.yaml");
    std::fs::write(&template, change(text)).expect("write a template");
    let bootstrap = Bootstrap::default()
        .set("WASM", options.artifacts.filter.display())
        .set("FRAMING_WASM", options.artifacts.framing.display())
        .redis(stack.valkey.address())
        .vault(stack.openbao.address(), stack.openbao.token_sds())
        .demo(stack.connector.address());
    let port = ports::free_port().expect("a port");
    let options = EnvoyOptions {
        program: options.tools.envoy.clone(),
        template,
        bootstrap,
        dir: world.dir(),
        logs: world.dir().join("logs"),
        name: "envoy-rendered".to_owned(),
        port,
        admin_port: ports::free_port().expect("a port"),
        concurrency: Workers::Two.count(),
    };
    Some(OwnEnvoy::start(options, stack))
}

fn send(own: &OwnEnvoy, key: Option<&str>, tool: &str) -> Answer {
    send_message(own, key, &mcp::call(tool, json!({"limit": 2})))
}

fn send_message(own: &OwnEnvoy, key: Option<&str>, message: &Value) -> Answer {
    let request = Request::post(DEMO, message.to_string()).without("host").header("host", HOST);
    let request = match key {
        Some(key) => request.bearer(key),
        None => request,
    };
    own.gateway.send(&request)
}

// Finding 11.6, 11.7, 11.10.
// Proves: X29, X30
fn what_istio_makes_of_the_shipped_files_judges_as_the_plain_envoy_does(world: &World<'_>) {
    judges(world, "istio.yaml");
}

// Finding 11.6: the API server refused the manifest; in `split` mode a body above 32 KiB was refused.
// Proves: X29, X30
fn what_istio_makes_of_the_wasm_plugin_judges_as_the_plain_envoy_does(world: &World<'_>) {
    judges(world, "istio-plugin.yaml");
}

// Finding 11.2, 11.9.
// Proves: X29, X30
fn what_envoy_gateway_makes_of_the_shipped_files_judges_as_the_plain_envoy_does(world: &World<'_>) {
    judges(world, ENVOY_GATEWAY);
}

fn judges(world: &World<'_>, file: &str) {
    let Some(own) = rendered(world, file, |text| {
        text.replace("${PORTCULLIS_REDIS_TIMEOUT_MS:-50}", "1000")
            .replace("${PORTCULLIS_SLOWDOWN_FAILURES:-100}", "0")
    }) else {
        return;
    };
    let org = world.organisation();
    let key = org.key("analyst").key;
    let allowed = send(&own, Some(&key), "query_users");
    assert_eq!(allowed.rows().len(), 2);
    assert_eq!(allowed.upstream().len(), 1);
    assert_eq!(allowed.audit()["decision"]["effect"], "allow");
    let reached = allowed.upstream();
    let headers = reached[0]["headers"].to_string();
    assert!(!headers.contains("x-portcullis-guard"), "{headers}");

    let params = json!({"name": "query_users", "arguments": {"limit": 2}, "_meta": {"padding": "x".repeat(900_000)}});
    let large = send_message(&own, Some(&key), &mcp::request("large", "tools/call", params));
    assert_eq!(large.rows().len(), 2);

    let danger = send(&own, Some(&key), "delete_user");
    assert!(danger.error_code().is_some_and(|code| code < -31_000), "{}", danger.text());
    assert_eq!(executions(&danger), 0);
    assert_eq!(danger.audit()["decision"]["effect"], "deny");
    let nokey = send(&own, None, "query_users");
    assert_eq!(nokey.status(), 401);
    assert_eq!(nokey.upstream(), Vec::<Value>::new());
}

/// Requests of which the server got a body: in `split` mode it gets the headers of one that is refused for its body.
fn executions(answer: &Answer) -> usize {
    let with_body =
        |request: &&Value| request["body"].as_str().is_some_and(|body| !body.is_empty());
    answer.upstream().iter().filter(with_body).count()
}

// Finding 11.2: with the filter taken away, calls without any credential were executed.
// Proves: X29
fn without_the_filter_istios_routes_lead_nowhere(world: &World<'_>) {
    leads_nowhere(world, "istio.yaml", |text| {
        let filter = text.find("\"name\": \"portcullis\",\n").expect("the filter");
        let (before, after) = text.split_at(filter);
        format!("{before}\"disabled\": true,\n{after}")
    });
}

// Finding 11.2: a more specific policy, even an empty one, took the filter off the routes.
// Proves: X29
fn without_the_filter_envoy_gateways_routes_lead_nowhere(world: &World<'_>) {
    leads_nowhere(world, ENVOY_GATEWAY, |text| {
        // The filter is off in the listener, and on in the routes that say so.
        let routes = "\"envoy.filters.http.wasm//mcp/portcullis/wasm/0\": {";
        assert!(text.contains(routes), "no route has the filter");
        text.replace(routes, "\"nothing\": {\n\"is_optional\": true,")
    });
}

fn leads_nowhere(world: &World<'_>, file: &str, without: impl FnOnce(String) -> String) {
    let Some(own) = rendered(world, file, without) else {
        return;
    };
    let org = world.organisation();
    let key = org.key("analyst").key;
    let message = |id: &str| {
        let params = json!({"name": "query_users", "arguments": {"limit": 2}});
        mcp::request(format!("without-the-filter-{id}"), "tools/call", params)
    };
    for (id, key) in [("key", Some(key.as_str())), ("nokey", None)] {
        let answer = send_message(&own, key, &message(id));
        assert_eq!(answer.status(), 503, "{}", answer.text());
        assert_eq!(answer.header("x-portcullis-request-id"), None);
    }
    let reached = own.gateway.recorded();
    let ours = |request: &&Value| request.to_string().contains("without-the-filter-");
    assert_eq!(reached.iter().find(ours), None);
}

// Finding 11.1: Envoy selects a route again, later than the filter can look.
// Proves: X30, A5
fn the_seal_of_istios_routes_refuses_a_route_that_is_selected_later(world: &World<'_>) {
    is_sealed(world, "istio.yaml", "outbound|8080||demo.mcp.svc.cluster.local");
}

// Finding 11.1.
// Proves: X30, A5
fn the_seal_of_the_wasm_plugins_routes_refuses_a_route_that_is_selected_later(world: &World<'_>) {
    is_sealed(world, "istio-plugin.yaml", "outbound|8080||demo.mcp.svc.cluster.local");
}

// Finding 11.1.
// Proves: X30, A5
fn the_seal_of_envoy_gateways_routes_refuses_a_route_that_is_selected_later(world: &World<'_>) {
    is_sealed(world, ENVOY_GATEWAY, "httproute/mcp/demo/rule/0");
}

/// A route of others that matches on any guard, and on an organisation, before ours: it leads to a server, with the credential.
fn is_sealed(world: &World<'_>, file: &str, cluster: &str) {
    let Some(own) = rendered(world, file, |text| {
        let late = |header: &str| {
            json!({
                "match": {
                    "path": DEMO,
                    "headers": [{"name": header, "present_match": true}],
                    "query_parameters": [{"name": "late", "string_match": {"exact": header}}],
                },
                "route": {"cluster": cluster, "prefix_rewrite": "/mcp", "host_rewrite_literal": "demo"},
            })
        };
        let routes = "\"routes\": [\n";
        let (before, after) = text.split_once(routes).expect("the routes");
        let (guard, org) = (late("x-portcullis-guard"), late("x-portcullis-org"));
        format!("{before}{routes}{guard},\n{org},\n{after}")
            .replace("${PORTCULLIS_REDIS_TIMEOUT_MS:-50}", "1000")
            .replace("${PORTCULLIS_SLOWDOWN_FAILURES:-100}", "0")
    }) else {
        return;
    };
    let org = world.organisation();
    let key = org.key("analyst").key;
    assert_eq!(send(&own, Some(&key), "query_users").rows().len(), 2);
    for header in ["x-portcullis-guard", "x-portcullis-org"] {
        let message = mcp::call("query_users", json!({"limit": 2})).to_string();
        let request = Request::post(&format!("{DEMO}?late={header}"), message);
        let request = request.without("host").header("host", HOST).bearer(&key);
        let answer = own.gateway.send(&request);
        assert_eq!(answer.status(), 403, "{header}: {}", answer.text());
        assert_eq!(executions(&answer), 0, "{header}");
    }
}
