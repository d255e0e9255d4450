//! Judged or refused: where the filter is not in the way, routes refuse; and what is judged for one connector is executed
//! by that connector's server or by none.

use std::fs;
use std::process::Command;
use std::time::Duration;

use portcullis_stack::{Bootstrap, ready};
use portcullis_tests::fake::{FakeUpstream, json_answer};
use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::world::{OwnEnvoy, Workers, replaced};
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["guard":
        where_the_filter_is_not_in_the_way_nothing_reaches_a_server,
        the_guard_stays_in_the_gateway,
        routes_may_take_two_values_while_one_is_changed,
        no_other_route_gets_what_was_judged,
        without_guards_the_policy_names_clusters_and_hosts,
        a_redirect_inside_envoy_is_judged_again,
        rendered_routes_serve_what_is_judged_and_nothing_else,
    ]
}

const GUARD: &str = "0123456789abcdef0123456789abcdef";
const FILTER: &str = "          - name: portcullis\n            typed_config:";
const ROUTES: &str = "              routes:\n";
const HOSTS: &str = "            - name: mcp\n              domains: [\"*\"]\n";
const CLUSTERS: &str = "  clusters:\n";
const CREDENTIAL: &str = "Bearer demo-";

fn server() -> FakeUpstream {
    FakeUpstream::answering(|_| {
        let result = json!({"content": [], "structuredContent": {"rows": [1]}});
        json_answer(&json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string())
    })
}

/// An Envoy whose demo connector is `fake`.
fn before(
    world: &World<'_>,
    fake: &FakeUpstream,
    change: impl FnOnce(String) -> String,
) -> OwnEnvoy {
    let adjust = |settings: Bootstrap| settings.demo(fake.address()).set("GUARD", GUARD);
    world.envoy_changed(Workers::One, adjust, change)
}

fn call() -> Request {
    Request::post(DEMO, mcp::call("query_users", json!({"limit": 1})).to_string())
}

fn at(host: &str) -> Request {
    call().without("host").header("host", host)
}

fn forged() -> Request {
    call().header("x-portcullis-guard", format!("demo-{GUARD}"))
}

// Finding 11.2, on plain Envoy.
// Proves: X29
fn where_the_filter_is_not_in_the_way_nothing_reaches_a_server(world: &World<'_>) {
    let disabled =
        "          - name: portcullis\n            disabled: true\n            typed_config:";
    let per_route = "              typed_per_filter_config: {portcullis: {\"@type\": \
         type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}\n";
    let elsewhere = "            - {name: elsewhere, domains: [\"elsewhere.example\"], typed_per_filter_config: {portcullis: \
         {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}, routes: [{match: {path: /}, \
         direct_response: {status: 204}}]}\n";
    type Change<'a> = &'a dyn Fn(&str) -> String;
    let ways: [(&str, Change<'_>); 2] = [
        ("disabled", &|template| replaced(template, FILTER, disabled)),
        ("disabled for a host", &|template| {
            replaced(template, HOSTS, &format!("{HOSTS}{per_route}"))
        }),
    ];
    for (what, change) in ways {
        let fake = server();
        let own = before(world, &fake, |template| change(&template));
        let key = world.organisation().through(&own.gateway).key("analyst").key;
        for request in [call(), call().bearer(&key), forged(), forged().bearer(&key)] {
            let answer = Wire::connect(own.gateway.address()).unwrap().exchange(&request).unwrap();
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            assert_eq!(answer.status, 503, "{what}: {body}");
            assert_eq!(body["error"]["code"], -31_503, "{what}");
        }
        assert_eq!(fake.requests(), Vec::<String>::new(), "{what}");
    }
    // A host that opts out leaves the others as they are.
    let fake = server();
    let own =
        before(world, &fake, |template| replaced(&template, HOSTS, &format!("{elsewhere}{HOSTS}")));
    let org = world.organisation().through(&own.gateway);
    let answer = org.gateway.send(&call().bearer(&org.key("analyst").key));
    assert_eq!((answer.status(), fake.requests().len()), (200, 1), "{}", answer.text());
}

// Proves: X29, A5
fn the_guard_stays_in_the_gateway(world: &World<'_>) {
    let fake = server();
    let own = before(world, &fake, |template| template);
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let mine = call().header("x-portcullis-guard", "mine");
    for request in [call().bearer(&key), forged().bearer(&key), mine.bearer(&key)] {
        let answer = org.gateway.send(&request);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(answer.header("x-portcullis-guard"), None);
        assert!(!answer.audit().to_string().contains(GUARD));
    }
    let refused = org.gateway.send(&forged());
    refused.assert_refused(401, -31_401);
    let requests = fake.requests();
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert!(!request.to_ascii_lowercase().contains("x-portcullis-guard"), "{request}");
        assert!(!request.contains(GUARD), "{request}");
    }
    for file in [own.envoy.rejected_log(), own.envoy.process().log()] {
        assert!(
            !fs::read_to_string(file).unwrap_or_default().contains(GUARD),
            "{}",
            file.display()
        );
    }
}

// Proves: X29
fn routes_may_take_two_values_while_one_is_changed(world: &World<'_>) {
    const NEW: &str = "fedcba9876543210fedcba9876543210";
    let exact = "string_match: {exact: \"demo-${PORTCULLIS_GUARD}\"}";
    let both = format!("string_match: {{safe_regex: {{regex: \"demo-({GUARD}|{NEW})\"}}}}");
    for value in [GUARD, NEW] {
        let fake = server();
        let own = before(world, &fake, |template| {
            let template = replaced(&template, exact, &both);
            template.replace("demo-${PORTCULLIS_GUARD}", &format!("demo-{value}"))
        });
        let org = world.organisation().through(&own.gateway);
        let answer = org.gateway.send(&call().bearer(&org.key("analyst").key));
        assert_eq!((answer.status(), fake.requests().len()), (200, 1), "{}", answer.text());
    }
}

/// A cluster of somebody else.
fn cluster(name: &str, fake: &FakeUpstream) -> String {
    let address = fake.address();
    format!(
        "  - {{name: {name}, type: STATIC, connect_timeout: 1s, load_assignment: {{cluster_name: {name}, endpoints: \
         [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}\n",
        address.ip(),
        address.port()
    )
}

/// What another team wrote: routes before ours on our host, and hosts of their own, each for our path.
fn others(template: &str, fake: &FakeUpstream) -> String {
    let header = |name: &str| format!("headers: [{{name: {name}, present_match: true}}]");
    let on_our_host = [
        (format!("{{path: {DEMO}, {}}}", header("x-team")), "{cluster: evil}"),
        (
            format!("{{path: {DEMO}, query_parameters: [{{name: team, present_match: true}}]}}"),
            "{cluster: evil}",
        ),
        ("{safe_regex: {regex: \"/(?i)demo/mcp.*\"}, headers: [{name: x-regex, present_match: true}]}".to_owned(), "{cluster: evil}"),
        (
            format!("{{path: {DEMO}, {}}}", header("x-weighted")),
            "{weighted_clusters: {clusters: [{name: demo, weight: 0}, {name: evil, weight: 100}]}}",
        ),
        (
            format!("{{path: {DEMO}, {}}}", header("x-mirrored")),
            "{cluster: demo, request_mirror_policies: [{cluster: evil}]}",
        ),
        (
            format!("{{path: {DEMO}, {}}}", header("x-rewritten")),
            "{cluster: evil, regex_rewrite: {pattern: {regex: \".*\"}, substitution: /x}}",
        ),
        (
            format!("{{path: {DEMO}, {}}}", header("x-chosen")),
            "{cluster_header: x-chosen}",
        ),
        (
            // The value of another connector, stolen from its team's own route.
            format!(
                "{{path: {DEMO}, headers: [{{name: x-portcullis-guard, string_match: {{exact: \"python-{GUARD}\"}}}}]}}"
            ),
            "{cluster: evil}",
        ),
        (
            format!("{{path: {DEMO}, headers: [{{name: x-portcullis-guard, string_match: {{exact: mine}}}}]}}"),
            "{cluster: evil}",
        ),
        ("{prefix: /other/}".to_owned(), "{cluster: evil, prefix_rewrite: /demo/}"),
    ];
    let on_our_host: String = on_our_host
        .iter()
        .map(|(matches, route)| format!("              - {{match: {matches}, route: {route}}}\n"))
        .collect();
    let redirect = format!(
        "              - {{match: {{path: {DEMO}, {}}}, redirect: {{host_redirect: evil.example}}}}\n",
        header("x-redirected")
    );
    let hosts: String = [
        ("host", "{cluster: evil}"),
        ("mirror", "{cluster: demo, request_mirror_policies: [{cluster: evil}]}"),
        ("weights", "{weighted_clusters: {clusters: [{name: demo, weight: 1}, {name: evil, weight: 99}]}}"),
    ]
    .iter()
    .map(|(name, route)| {
        format!(
            "            - {{name: {name}, domains: [\"{name}.example\"], routes: [{{match: {{prefix: /}}, route: {route}}}]}}\n"
        )
    })
    .collect();
    let template = replaced(template, ROUTES, &format!("{ROUTES}{on_our_host}{redirect}"));
    let template = replaced(&template, HOSTS, &format!("{hosts}{HOSTS}"));
    replaced(&template, CLUSTERS, &format!("{CLUSTERS}{}", cluster("evil", fake)))
}

/// Each way to meet one of them.
fn ways() -> Vec<(&'static str, Request)> {
    let query = |query: &str| {
        Request::post(
            &format!("{DEMO}{query}"),
            mcp::call("query_users", json!({"limit": 1})).to_string(),
        )
    };
    let to =
        |path: &str| Request::post(path, mcp::call("query_users", json!({"limit": 1})).to_string());
    vec![
        ("a header", call().header("x-team", "1")),
        ("a query", query("?team=1")),
        ("a regular expression", call().header("x-regex", "1")),
        ("a regular expression, another case", to("/DEMO/mcp").header("x-regex", "1")),
        ("a longer path", to("/demo/mcp/x").header("x-regex", "1")),
        ("weights", call().header("x-weighted", "1")),
        ("a mirror", call().header("x-mirrored", "1")),
        ("a rewrite", call().header("x-rewritten", "1")),
        ("a cluster by header", call().header("x-chosen", "evil")),
        (
            "a guard of another connector",
            call().header("x-portcullis-guard", format!("python-{GUARD}")),
        ),
        ("a forged guard", call().header("x-portcullis-guard", "mine")),
        ("a rewritten prefix", to("/other/mcp")),
        ("a redirect", call().header("x-redirected", "1")),
        ("another host", at("host.example")),
        ("another host with a mirror", at("mirror.example")),
        ("another host with weights", at("weights.example")),
        ("another host in another case", at("HOST.example")),
    ]
}

fn tried(own: &OwnEnvoy, org: &Organisation, server: &FakeUpstream, other: &FakeUpstream) {
    let key = org.key("analyst").key;
    let answer = org.gateway.send(&call().bearer(&key));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    for (what, request) in ways() {
        let before = server.requests().len();
        let request = request.bearer(&key);
        let answer = Wire::connect(own.gateway.address()).unwrap().exchange(&request).unwrap();
        assert_eq!(other.requests(), Vec::<String>::new(), "{what}");
        let reached = server.requests().len() - before;
        match answer.status {
            // The header that led elsewhere is not for the server, so without it the call is an ordinary one.
            200 => assert_eq!(reached, 1, "{what}"),
            301 | 404 | 421 | 503 => assert_eq!(reached, 0, "{what}"),
            status => panic!("{what}: {status} {}", String::from_utf8_lossy(&answer.body)),
        }
    }
    let all = server.requests();
    assert!(all.iter().all(|request| request.contains(CREDENTIAL)), "{all:?}");
}

// Finding 11.1.
// Proves: X30, A5
fn no_other_route_gets_what_was_judged(world: &World<'_>) {
    let (server, other) = (server(), server());
    let own = before(world, &server, |template| others(&template, &other));
    let org = world.organisation().through(&own.gateway);
    tried(&own, &org, &server, &other);
    // Not among them: the redirect, which has no cluster; three paths that are no connector's; and guards of a client's own,
    // which are taken off, so that the calls are ordinary ones.
    let all = ways().len() + 1;
    let entries = ready::eventually("every entry", Duration::from_secs(10), || {
        Some(own.gateway.audit().entries()).filter(|entries| entries.len() >= all)
    });
    let entries = entries.unwrap_or_else(|fault| panic!("{fault}"));
    let unguarded = |entry: &&Value| entry["decision"]["rule"] == "upstream.unguarded";
    assert_eq!(entries.iter().filter(unguarded).count(), 11, "{entries:?}");
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
    let (server, other) = (server(), server());
    let own = before(world, &server, |template| unguarded(&others(&template, &other)));
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["connectors"]["demo"]["upstream"] =
            json!({"clusters": ["demo"], "hosts": ["gateway.test"]});
    });
    let org = org.through(&own.gateway);
    let key = org.key("analyst").key;
    assert_eq!(org.gateway.send(&call().bearer(&key)).status(), 200);
    for (what, request) in ways() {
        // A mirror has the cluster that the policy names: only a guard keeps it away.
        if what == "a mirror" {
            continue;
        }
        let answer = org.gateway.send(&request.bearer(&key));
        assert_eq!(other.requests(), Vec::<String>::new(), "{what}");
        let status = answer.status();
        assert!([200, 404, 421, 503].contains(&status), "{what}: {status} {}", answer.text());
    }
    let answer = org.gateway.send(&at("host.example").bearer(&key));
    answer.assert_refused(421, -32_600);
    let entry = answer.audit();
    assert_eq!(entry["decision"]["rule"], "upstream.host");
    assert_eq!(
        entry["events"][0],
        json!({"event": "misrouted", "connector": "demo", "cluster": "evil", "host": "host.example"})
    );
    let answer = org.gateway.send(&call().header("x-team", "1").bearer(&key));
    answer.assert_refused(503, -31_503);
    assert_eq!(answer.audit()["decision"]["rule"], "upstream.cluster");
}

// Proves: X30, A5
fn a_redirect_inside_envoy_is_judged_again(world: &World<'_>) {
    let other = server();
    let server = FakeUpstream::answering(|_| {
        let head = "HTTP/1.1 302 Found\r\nlocation: http://host.example/demo/mcp\r\ncontent-length: 0\r\n\r\n";
        vec![head.as_bytes().to_vec()]
    });
    let own = before(world, &server, |template| {
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

/// The template with the routes that `portcullis render` makes of the template's two connectors.
fn rendered(world: &World<'_>, template: &str, more: &[(&str, &str)]) -> String {
    let folder = world.dir().join("render");
    fs::create_dir_all(&folder).expect("a directory of the test's own");
    let (description, guards) = (folder.join("gateway.yaml"), folder.join("guards.json"));
    let connector = |name: &str| json!({"path": format!("/{name}/mcp"), "upstream": {"cluster": name, "path": "/mcp", "host": "localhost"}});
    let described = json!({
        "version": 1, "hosts": ["*"],
        "connectors": {"demo": connector("demo"), "python": connector("python")},
    });
    let values = |prefix: &str| json!({"/demo/mcp": format!("demo-{prefix}"), "/python/mcp": format!("python-{prefix}")});
    fs::write(&description, described.to_string()).expect("write a description");
    fs::write(&guards, values(GUARD).to_string()).expect("write guards");
    let mut command = Command::new(&world.stack().options().artifacts.cli);
    command.arg("render").arg(&description).args(["--for", "envoy", "--guards"]).arg(&guards);
    for (option, prefix) in more {
        let previous = folder.join("previous.json");
        fs::write(&previous, values(prefix).to_string()).expect("write guards");
        command.arg(option).arg(previous);
    }
    let said = command.output().expect("portcullis runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let made = String::from_utf8(said.stdout).expect("UTF-8");
    let made: String = made.lines().map(|line| format!("            {line}\n")).collect();
    let (head, rest) = template.split_once("          route_config:\n").expect("routes");
    let (_, tail) = rest.split_once("\n# TLS:").expect("an end of the routes");
    format!("{head}          route_config:\n{made}\n# TLS:{tail}")
}

// Findings 11.1, 11.2, 11.7.
// Proves: X29, X30
fn rendered_routes_serve_what_is_judged_and_nothing_else(world: &World<'_>) {
    const OLD: &str = "fedcba9876543210fedcba9876543210";
    let disabled =
        "          - name: portcullis\n            disabled: true\n            typed_config:";
    let change = [("--previous-guards", OLD)];
    for more in [&[][..], &change] {
        let fake = server();
        let own = before(world, &fake, |template| rendered(world, &template, more));
        let org = world.organisation().through(&own.gateway);
        let key = org.key("analyst").key;
        let answer = org.gateway.send(&call().bearer(&key));
        assert_eq!((answer.status(), fake.requests().len()), (200, 1), "{}", answer.text());
        org.gateway.send(&forged()).assert_refused(401, -31_401);
        let requests = fake.requests();
        assert_eq!(requests.len(), 1);
        assert!(
            !requests[0].contains(GUARD) && requests[0].starts_with("POST /mcp "),
            "{requests:?}"
        );

        let fake = server();
        let own = before(world, &fake, |template| {
            replaced(&rendered(world, &template, more), FILTER, disabled)
        });
        let old = call().header("x-portcullis-guard", format!("demo-{OLD}"));
        for request in [call(), call().bearer(&key), forged().bearer(&key), old.bearer(&key)] {
            let answer = Wire::connect(own.gateway.address()).unwrap().exchange(&request).unwrap();
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            assert_eq!((answer.status, &body["error"]["code"]), (503, &json!(-31_503)), "{body}");
        }
        assert_eq!(fake.requests(), Vec::<String>::new());
    }
}
