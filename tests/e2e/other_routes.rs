//! Routes of others: a call that is judged for one connector is executed by that connector's server or by none.
//!
//! Owns the ways in which another team's routes, hosts, ports and filters may meet a call for a connector. Each adds
//! something to one Envoy, which has all of them; each request meets one. docs/explanation/routes-of-others.md has the table.

use std::time::Duration;

use portcullis_stack::{ports, ready};
use portcullis_tests::fake::FakeUpstream;
use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::world::{GUARD, OwnEnvoy, replaced};
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    cases!["other_routes":
        no_other_route_gets_a_credential,
        without_guards_the_policy_names_clusters_and_hosts,
        a_redirect_inside_envoy_is_judged_again,
        no_other_port_gets_a_credential,
        no_filter_in_front_sends_a_judged_call_elsewhere,
        the_seal_stops_what_is_selected_after_the_guard,
    ]
}

const ROUTES: &str = "              routes:\n";
const HOSTS: &str = "            - name: mcp\n              domains: [\"*\"]\n";
const CLUSTERS: &str = "  clusters:\n";
const FILTER: &str = "          - name: portcullis\n            typed_config:";
const TLS: &str = "\n# TLS:";
/// What the demo connector's credential begins with.
const CREDENTIAL: &str = "Bearer demo-";
const DISABLED: &str = "typed_per_filter_config: {portcullis: {\"@type\": \
     type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}";

/// What comes of a call that meets it.
#[derive(Clone, Copy)]
enum Then {
    /// The filter refuses it, with this rule.
    Refused(&'static str),
    /// It is a call as any other: its own connector's server executes it.
    Served,
    /// Its path is no connector's, or Envoy itself answers: this status.
    Answered(u16),
    /// The other server gets what the client sent, without a credential of the gateway: the filter is off there.
    Unjudged,
}

const UNGUARDED: Then = Then::Refused("upstream.unguarded");

/// One way: what others have written, and a request that meets it.
struct Way {
    name: &'static str,
    place: Place,
    request: Request,
    then: Then,
}

/// Where others have written something.
enum Place {
    /// A route before ours, on our host.
    OnOurHost(String),
    /// A virtual host of their own.
    Host(String),
    /// Nowhere: the request alone is another one.
    Nowhere,
}

fn to(path: &str) -> Request {
    Request::post(path, mcp::call("query_users", json!({"limit": 1})).to_string())
}

fn call() -> Request {
    to(DEMO)
}

fn at(host: &str) -> Request {
    call().without("host").header("host", host)
}

/// A cluster of others.
fn cluster(name: &str, fake: &FakeUpstream) -> String {
    let address = fake.address();
    format!(
        "  - {{name: {name}, type: STATIC, connect_timeout: 1s, load_assignment: {{cluster_name: {name}, endpoints: \
         [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}\n",
        address.ip(),
        address.port()
    )
}

/// A route before ours that `matches`; `action` is `route` or `redirect` with its fields.
fn route(name: &'static str, matches: &str, action: &str, request: Request, then: Then) -> Way {
    let place = Place::OnOurHost(format!("{{match: {{{matches}}}, {action}}}"));
    Way { name, place, request, then }
}

/// A route before ours to another server, for our path and requests that have `x-way: WAY`.
fn marked(name: &'static str, way: &str, matches: &str, action: &str) -> Way {
    let matches = format!("{matches}, {}", when(way));
    route(name, &matches, action, call().header("x-way", way), UNGUARDED)
}

fn when(way: &str) -> String {
    format!("headers: [{{name: x-way, string_match: {{exact: \"{way}\"}}}}]")
}

/// A virtual host whose every path has one route.
fn host(name: &'static str, domain: &str, action: &str, request: Request) -> Way {
    let place = Place::Host(format!(
        "{{name: \"{domain}\", domains: [\"{domain}\"], routes: [{{match: {{prefix: /}}, {action}}}]}}"
    ));
    Way { name, place, request, then: UNGUARDED }
}

fn alone(name: &'static str, request: Request, then: Then) -> Way {
    Way { name, place: Place::Nowhere, request, then }
}

/// By routes on our host.
fn ways_of_routes() -> Vec<Way> {
    let demo = format!("path: {DEMO}");
    let evil = "route: {cluster: evil}";
    let template = "path_match_policy: {name: envoy.path.match.uri_template.uri_template_matcher, typed_config: {\"@type\": \
         type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: \"/{name}/mcp\"}}";
    let own_guard = |value: &str| {
        format!("{demo}, headers: [{{name: x-portcullis-guard, string_match: {{exact: {value}}}}}]")
    };
    let weights = "route: {weighted_clusters: {clusters: [{name: demo, weight: 0}, {name: evil, weight: 100}]}}";
    let regex = "safe_regex: {regex: \"/(?i)demo/mcp.*\"}";
    let stolen = format!("python-{GUARD}");
    vec![
        marked("a header", "header", &demo, evil),
        route(
            "a query parameter",
            &format!("{demo}, query_parameters: [{{name: way, present_match: true}}]"),
            evil,
            to(&format!("{DEMO}?way=query")),
            UNGUARDED,
        ),
        route(
            "a cookie",
            &format!("{demo}, headers: [{{name: cookie, string_match: {{contains: way=cookie}}}}]"),
            evil,
            call().header("cookie", "way=cookie"),
            UNGUARDED,
        ),
        route(
            "a header of MCP, which goes to the server",
            &format!(
                "{demo}, headers: [{{name: mcp-protocol-version, string_match: {{exact: 2025-03-26}}}}]"
            ),
            evil,
            call().header("mcp-protocol-version", "2025-03-26"),
            UNGUARDED,
        ),
        marked("a regular expression", "regex", regex, evil),
        alone(
            "the same, another case",
            to("/DEMO/mcp").header("x-way", "regex"),
            Then::Answered(404),
        ),
        alone(
            "the same, a longer path",
            to("/demo/mcp/x").header("x-way", "regex"),
            Then::Answered(404),
        ),
        marked("a prefix", "prefix", "prefix: /demo", evil),
        marked("a prefix of segments", "segments", "path_separated_prefix: /demo", evil),
        marked(
            "a path without regard to case",
            "case",
            "path: /DEMO/MCP, case_sensitive: false",
            evil,
        ),
        marked("a path template", "template", template, evil),
        marked(
            "a share of calls",
            "share",
            &format!("{demo}, runtime_fraction: {{default_value: {{numerator: 100}}}}"),
            evil,
        ),
        marked("weights", "weights", &demo, weights),
        marked(
            "a mirror",
            "mirror",
            &demo,
            "route: {cluster: demo, request_mirror_policies: [{cluster: evil}]}",
        ),
        marked(
            "a rewritten path",
            "rewrite",
            &demo,
            "route: {cluster: evil, regex_rewrite: {pattern: {regex: \".*\"}, substitution: /x}}",
        ),
        marked(
            "a rewritten host",
            "rewrite-host",
            &demo,
            "route: {cluster: evil, host_rewrite_literal: gateway.test}",
        ),
        route(
            "a prefix rewritten to ours",
            "prefix: /other/",
            "route: {cluster: evil, prefix_rewrite: /demo/}",
            to("/other/mcp"),
            Then::Answered(404),
        ),
        route(
            "a cluster by a client's header",
            &format!("{demo}, headers: [{{name: x-cluster, present_match: true}}]"),
            "route: {cluster_header: x-cluster}",
            call().header("x-cluster", "evil"),
            UNGUARDED,
        ),
        marked(
            "retries",
            "retries",
            &demo,
            "route: {cluster: evil, retry_policy: {retry_on: 5xx, num_retries: 3}}",
        ),
        // A redirect leads to no server. Once the filter has taken off what it matches on, the call is as any other.
        Way {
            then: Then::Served,
            ..marked("a redirect", "redirect", &demo, "redirect: {host_redirect: evil.example}")
        },
        route(
            "a redirect, matched by the path",
            &format!("{demo}, query_parameters: [{{name: redirect, present_match: true}}]"),
            "redirect: {host_redirect: evil.example}",
            to(&format!("{DEMO}?redirect=1")),
            // It matched when Envoy selected again: the seal.
            Then::Answered(403),
        ),
        Way {
            then: Then::Unjudged,
            ..marked("a route with the filter off", "off", &demo, &format!("{DISABLED}, {evil}"))
        },
        route(
            "the guard of another connector, stolen",
            &own_guard(&stolen),
            evil,
            call().header("x-portcullis-guard", &stolen),
            Then::Served,
        ),
        route(
            "a guard of their own",
            &own_guard("mine"),
            evil,
            call().header("x-portcullis-guard", "mine"),
            Then::Served,
        ),
        alone(
            "our guard, stolen",
            call().header("x-portcullis-guard", format!("demo-{GUARD}")),
            Then::Served,
        ),
        alone(
            "our guard, twice",
            call()
                .header("x-portcullis-guard", "mine")
                .header("X-Portcullis-Guard", format!("demo-{GUARD}")),
            Then::Served,
        ),
    ]
}

/// By hosts of their own.
fn ways_of_hosts() -> Vec<Way> {
    let evil = "route: {cluster: evil}";
    let mirror = "request_mirror_policies: [{cluster: evil}]";
    vec![
        host("another host", "host.example", evil, at("host.example")),
        alone("the same in another case", at("HOST.example"), UNGUARDED),
        host("another host with a port", "port.example:8080", evil, at("port.example:8080")),
        host("a wildcard host", "*.wild.example", evil, at("a.wild.example")),
        alone(
            "a target with another host",
            Request { path: format!("http://host.example{DEMO}"), ..call() },
            UNGUARDED,
        ),
        alone(
            "another host, forwarded",
            call().header("x-forwarded-host", "host.example"),
            Then::Served,
        ),
        alone("two hosts", call().header("host", "host.example"), Then::Served),
        host(
            "another host with a mirror",
            "mirror.example",
            &format!("route: {{cluster: demo, {mirror}}}"),
            at("mirror.example"),
        ),
        Way {
            place: Place::Host(format!(
                "{{name: all-mirrored, domains: [all-mirrored.example], {mirror}, routes: [{{match: {{prefix: /}}, route: {{cluster: demo}}}}]}}"
            )),
            ..alone("a host that mirrors all of its routes", at("all-mirrored.example"), UNGUARDED)
        },
        host(
            "another host with weights",
            "weights.example",
            "route: {weighted_clusters: {clusters: [{name: demo, weight: 1}, {name: evil, weight: 99}]}}",
            at("weights.example"),
        ),
        host(
            "another host that rewrites to ours",
            "rewrite.example",
            "route: {cluster: evil, host_rewrite_literal: gateway.test}",
            at("rewrite.example"),
        ),
        Way {
            then: Then::Unjudged,
            ..host(
                "another host with the filter off",
                "off.example",
                &format!("{DISABLED}, {evil}"),
                at("off.example"),
            )
        },
    ]
}

fn ways() -> Vec<Way> {
    ways_of_routes().into_iter().chain(ways_of_hosts()).collect()
}

/// `template` with what others have written.
fn others(template: &str, fake: &FakeUpstream) -> String {
    let (mut routes, mut hosts) = (String::new(), String::new());
    for way in ways() {
        match way.place {
            Place::OnOurHost(route) => routes.push_str(&format!("              - {route}\n")),
            Place::Host(host) => hosts.push_str(&format!("            - {host}\n")),
            Place::Nowhere => {}
        }
    }
    let template = replaced(template, ROUTES, &format!("{ROUTES}{routes}"));
    let template = replaced(&template, HOSTS, &format!("{hosts}{HOSTS}"));
    replaced(&template, CLUSTERS, &format!("{CLUSTERS}{}", cluster("evil", fake)))
}

/// One call by one way, with a good key.
fn tried(own: &OwnEnvoy, way: &Way, key: &str, server: &FakeUpstream, other: &FakeUpstream) {
    let (name, at_server, at_other) = (way.name, server.requests().len(), other.requests().len());
    let request = way.request.clone().bearer(key);
    let answer = own.gateway.send(&request);
    let status = answer.status();
    let reached = server.requests().len() - at_server;
    let elsewhere = other.requests().split_off(at_other);
    assert!(!elsewhere.iter().any(|it| it.contains(CREDENTIAL)), "{name}: {elsewhere:?}");
    match way.then {
        // The status depends on the client: a result that says it, to one that speaks MCP.
        Then::Refused(rule) => {
            assert_eq!(reached, 0, "{name}: {status} {}", answer.text());
            let entry = answer.audit();
            assert_eq!(entry["decision"]["rule"], rule, "{name}");
            assert_eq!(entry["events"][0]["event"], "misrouted", "{name}");
        }
        Then::Served => assert_eq!((status, reached), (200, 1), "{name}: {}", answer.text()),
        Then::Answered(expected) => {
            assert_eq!((status, reached), (expected, 0), "{name}: {}", answer.text());
        }
        Then::Unjudged => {
            assert_eq!((status, reached), (200, 0), "{name}");
            assert_eq!(elsewhere.len(), 1, "{name}");
            return;
        }
    }
    assert_eq!(elsewhere, Vec::<String>::new(), "{name}");
}

// Finding 11.1.
// Proves: X30, A5
fn no_other_route_gets_a_credential(world: &World<'_>) {
    let (server, other) = (FakeUpstream::of_one_row(), FakeUpstream::of_one_row());
    let own = world.envoy_serving(&server, |template| others(&template, &other));
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let answer = org.gateway.send(&call().bearer(&key));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    for way in ways() {
        tried(&own, &way, &key, &server, &other);
    }
    let all = server.requests();
    assert!(all.iter().all(|request| request.contains(CREDENTIAL)), "{all:?}");
}

/// Without guards: routes that are open, as they were before there were any.
fn unguarded(template: &str) -> String {
    let template = replaced(template, "\"/demo/mcp\": \"demo-${PORTCULLIS_GUARD}\",\n", "");
    let open = format!("              - {{match: {{path: {DEMO}}}, route: {{cluster: demo}}}}\n");
    let demo = "              - name: demo-listen\n";
    replaced(&template, demo, &format!("{open}{demo}"))
}

// Finding 11.1, where routes have no guard.
// Proves: X30, A5
fn without_guards_the_policy_names_clusters_and_hosts(world: &World<'_>) {
    let (server, other) = (FakeUpstream::of_one_row(), FakeUpstream::of_one_row());
    let own = world.envoy_serving(&server, |template| unguarded(&others(&template, &other)));
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["connectors"]["demo"]["upstream"] =
            json!({"clusters": ["demo"], "hosts": ["gateway.test"]});
    });
    let org = org.through(&own.gateway);
    let key = org.key("analyst").key;
    assert_eq!(org.gateway.send(&call().bearer(&key)).status(), 200);
    for mut way in ways() {
        // A mirror has the cluster that the policy names: only a guard keeps it away.
        if way.name == "a mirror" {
            continue;
        }
        let host = way.request.headers.iter().find(|(name, _)| name == "host");
        let is_ours = host.is_some_and(|(_, host)| host == b"gateway.test")
            && !way.request.path.starts_with("http:")
            && way.name != "two hosts";
        if matches!(way.then, Then::Refused(_))
            || way.name.starts_with("a redirect")
            || way.name == "two hosts"
        {
            way.then = Then::Refused(if is_ours { "upstream.cluster" } else { "upstream.host" });
        }
        tried(&own, &way, &key, &server, &other);
    }
    let answer = org.gateway.send(&at("host.example").bearer(&key));
    answer.assert_refused(421, -32_600);
    assert_eq!(
        answer.audit()["events"][0],
        json!({"event": "misrouted", "connector": "demo", "cluster": "evil", "host": "host.example"})
    );
}

// Proves: X30, A5
fn a_redirect_inside_envoy_is_judged_again(world: &World<'_>) {
    let other = FakeUpstream::of_one_row();
    let server = FakeUpstream::answering(|_| {
        let head = "HTTP/1.1 302 Found\r\nlocation: http://host.example/demo/mcp\r\ncontent-length: 0\r\n\r\n";
        vec![head.as_bytes().to_vec()]
    });
    let own = world.envoy_serving(&server, |template| {
        let policy = "                  cluster: demo\n";
        let redirecting = format!(
            "{policy}                  internal_redirect_policy: {{max_internal_redirects: 3}}\n"
        );
        let template = template.replace(policy, &redirecting);
        others(&template, &other)
    });
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let answer =
        Wire::connect(own.gateway.address()).unwrap().exchange(&call().bearer(&key)).unwrap();
    assert!(answer.status >= 300, "{}", answer.status);
    assert_eq!(other.requests(), Vec::<String>::new());
}

/// A listener of others, with `filters` before the router and every path to `evil`.
fn listener(port: u16, filters: &str) -> String {
    format!(
        "  - name: other-{port}\n    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n    filter_chains:\n    \
         - filters:\n      - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: other\n          http_filters:\n{filters}          - name: envoy.filters.http.router\n            \
         typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}\n          \
         route_config:\n            virtual_hosts:\n            \
         - {{name: other, domains: [\"*\"], routes: [{{match: {{prefix: /}}, route: {{cluster: evil}}}}]}}\n"
    )
}

// Finding 11.2: a listener more, with the filter and without it.
// Proves: X29, X30, A5
fn no_other_port_gets_a_credential(world: &World<'_>) {
    let (server, other) = (FakeUpstream::of_one_row(), FakeUpstream::of_one_row());
    let port = || ports::free_port().expect("a port");
    let (with, without) = (port(), port());
    let own = world.envoy_serving(&server, |template| {
        let (_, ours) = template.split_once(FILTER).expect("the filter");
        let (ours, _) =
            ours.split_once("          - name: envoy.filters.http.router").expect("the router");
        let more = listener(with, &format!("{FILTER}{ours}")) + &listener(without, "");
        let template = replaced(&template, TLS, &format!("\n{more}{TLS}"));
        replaced(&template, CLUSTERS, &format!("{CLUSTERS}{}", cluster("evil", &other)))
    });
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    assert_eq!(org.gateway.send(&call().bearer(&key)).status(), 200);
    let sent = |port| {
        let mut wire = Wire::connect(ports::loopback(port)).expect("the other port");
        wire.exchange(&call().bearer(&key)).expect("an answer").status
    };
    assert_eq!(sent(with), 503);
    assert_eq!(other.requests(), Vec::<String>::new());
    // It gets what its own client sends, and nothing of ours.
    assert_eq!(sent(without), 200);
    let reached = other.requests();
    assert!(reached.len() == 1 && !reached[0].contains(CREDENTIAL), "{reached:?}");
    assert_eq!(server.requests().len(), 1);
}

/// Filters of others in front: what each does to a request is in its `x-front` header.
fn filters_in_front() -> String {
    let lua = |name: &str, clears: bool| {
        format!(
            "          - name: {name}\n            typed_config:\n              \
             \"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua\n              \
             clear_route_cache: {clears}\n              default_source_code:\n                inline_string: |\n                  \
             function envoy_on_request(handle)\n                    local headers = handle:headers()\n                    \
             local set = {{[\"{name}-header\"] = {{\"x-way\", \"header\"}}, [\"{name}-host\"] = {{\":authority\", \"host.example\"}}, \
             [\"{name}-query\"] = {{\":path\", \"/demo/mcp?way=query\"}}, [\"{name}-mcp\"] = {{\"mcp-protocol-version\", \"2025-03-26\"}}, \
             [\"{name}-guard\"] = {{\"x-portcullis-guard\", \"demo-{GUARD}\"}}, [\"{name}-path\"] = {{\":path\", \"/demo/mcp\"}}}}\n                    \
             local way = set[headers:get(\"x-front\")]\n                    \
             if way then headers:replace(way[1], way[2]) end\n                  end\n"
        )
    };
    lua("clearing", true) + &lua("quiet", false)
}

// Proves: X30, A5
fn no_filter_in_front_sends_a_judged_call_elsewhere(world: &World<'_>) {
    let (server, other) = (FakeUpstream::of_one_row(), FakeUpstream::of_one_row());
    let own = world.envoy_serving(&server, |template| {
        let template = others(&template, &other);
        replaced(&template, FILTER, &format!("{}{FILTER}", filters_in_front()))
    });
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let ways = [
        ("clearing-header", UNGUARDED),
        ("clearing-host", UNGUARDED),
        ("clearing-query", UNGUARDED),
        ("clearing-mcp", UNGUARDED),
        ("clearing-guard", UNGUARDED),
        ("clearing-path", Then::Served),
        // The filter takes off what it does not know, a guard of others, too.
        ("quiet-header", Then::Served),
        ("quiet-guard", Then::Served),
        ("quiet-path", Then::Served),
    ];
    for (name, then) in ways {
        let way = alone(name, call().header("x-front", name), then);
        tried(&own, &way, &key, &server, &other);
    }
}

/// Routes that match only after the filter has changed the request, and a filter in front that sets metadata for one.
fn late(template: &str, fake: &FakeUpstream) -> String {
    let metadata = "          - name: metadata\n            typed_config:\n              \
         \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config\n              \
         request_rules: [{header: x-meta, on_header_present: {metadata_namespace: others, key: way, type: STRING}}]\n";
    let only =
        |way: &str| format!("query_parameters: [{{name: late, string_match: {{exact: {way}}}}}]");
    let routes = [
        (format!("{}, headers: [{{name: x-portcullis-guard, present_match: true}}]", only("guard")), "{cluster: evil}"),
        (format!("{}, headers: [{{name: x-portcullis-org, present_match: true}}]", only("org")), "{cluster: evil}"),
        (format!("{}, headers: [{{name: x-portcullis-org, present_match: true}}]", only("header")), "{cluster_header: x-portcullis-principal}"),
        (format!("{}, headers: [{{name: x-portcullis-org, present_match: true}}]", only("mirror")), "{cluster: demo, request_mirror_policies: [{cluster: evil}]}"),
        ("dynamic_metadata: [{filter: others, path: [{key: way}], value: {string_match: {exact: evil}}}]".to_owned(), "{cluster: evil}"),
    ];
    let routes: String = routes
        .iter()
        .map(|(matches, action)| {
            format!("              - {{match: {{path: {DEMO}, {matches}}}, route: {action}}}\n")
        })
        .collect();
    let template = replaced(&others(template, fake), ROUTES, &format!("{ROUTES}{routes}"));
    // The principal of the key is `analyst`.
    let analyst = cluster("analyst", fake);
    let template = replaced(&template, CLUSTERS, &format!("{CLUSTERS}{analyst}"));
    replaced(&template, FILTER, &format!("{}{metadata}{FILTER}", filters_in_front()))
}

/// Without the seal that envoy/envoy.yaml has.
fn unsealed(template: &str) -> String {
    const SEAL: &str = "          - name: portcullis_seal\n";
    const ROUTER: &str = "          - name: envoy.filters.http.router\n";
    let (before, rest) = template.split_once(SEAL).expect("the seal");
    let (_, after) = rest.split_once(ROUTER).expect("the router");
    format!("{before}{ROUTER}{after}")
}

/// Until what Envoy sends has come to another server, on a busy machine.
const ARRIVES: Duration = Duration::from_secs(10);

// Finding 11.1: Envoy selects a route again, later than the filter can look.
// Proves: X30, A5
fn the_seal_stops_what_is_selected_after_the_guard(world: &World<'_>) {
    let to_late = |way: &str| to(&format!("{DEMO}?late={way}"));
    let mut ways: Vec<(String, Request)> = ["guard", "org", "header", "mirror"]
        .map(|way| (format!("late {way}"), to_late(way)))
        .into();
    ways.push(("metadata".to_owned(), call().header("x-meta", "evil")));
    ways.extend(
        ["quiet-host", "quiet-query", "quiet-mcp"]
            .map(|way| (way.to_owned(), call().header("x-front", way))),
    );
    let mut open = Vec::new();
    for is_sealed in [false, true] {
        let (server, other) = (FakeUpstream::of_one_row(), FakeUpstream::of_one_row());
        let own = world.envoy_serving(&server, |template| {
            let template = late(&template, &other);
            if is_sealed { template } else { unsealed(&template) }
        });
        let org = world.organisation().through(&own.gateway);
        let key = org.key("analyst").key;
        let answer = org.gateway.send(&call().bearer(&key));
        assert_eq!((answer.status(), server.requests().len()), (200, 1), "{}", answer.text());
        for (name, request) in &ways {
            let before = other.requests().len();
            let answer = own.gateway.send(&request.clone().bearer(&key));
            let elsewhere = || other.requests().split_off(before);
            if is_sealed {
                let elsewhere = elsewhere();
                assert!(elsewhere.is_empty(), "{name}: {elsewhere:?}");
                assert_eq!(answer.status(), 403, "{name}: {}", answer.text());
                continue;
            }
            // A mirror's copy may come after the answer.
            let got_it = || elsewhere().iter().any(|it| it.contains(CREDENTIAL)).then_some(());
            if ready::eventually("the other server has the call", ARRIVES, got_it).is_ok() {
                open.push(name.clone());
            }
        }
        // The rest is as it was.
        if is_sealed {
            for way in &self::ways() {
                tried(&own, way, &key, &server, &other);
            }
        }
    }
    let all: Vec<String> = ways.into_iter().map(|(name, _)| name).collect();
    assert_eq!(open, all, "what is open without the seal, as the page says");
}
