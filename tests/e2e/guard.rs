//! Judged or refused: where the filter is not in the way, routes refuse.

use std::fs;
use std::process::Command;

use portcullis_tests::fake::FakeUpstream;
use portcullis_tests::organisation::DEMO;
use portcullis_tests::world::{GUARD, replaced};
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["guard":
        where_the_filter_is_not_in_the_way_nothing_reaches_a_server,
        the_guard_stays_in_the_gateway,
        routes_may_take_two_values_while_one_is_changed,
        rendered_routes_serve_what_is_judged_and_nothing_else,
    ]
}

const FILTER: &str = "          - name: portcullis\n            typed_config:";
const HOSTS: &str = "            - name: mcp\n              domains: [\"*\"]\n";

fn call() -> Request {
    Request::post(DEMO, mcp::call("query_users", json!({"limit": 1})).to_string())
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
        let fake = FakeUpstream::of_one_row();
        let own = world.envoy_serving(&fake, |template| change(&template));
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
    let fake = FakeUpstream::of_one_row();
    let own = world.envoy_serving(&fake, |template| {
        replaced(&template, HOSTS, &format!("{elsewhere}{HOSTS}"))
    });
    let org = world.organisation().through(&own.gateway);
    let answer = org.gateway.send(&call().bearer(&org.key("analyst").key));
    assert_eq!((answer.status(), fake.requests().len()), (200, 1), "{}", answer.text());
}

// Proves: X29, A5
fn the_guard_stays_in_the_gateway(world: &World<'_>) {
    let fake = FakeUpstream::of_one_row();
    let own = world.envoy_serving(&fake, |template| template);
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
        let fake = FakeUpstream::of_one_row();
        let own = world.envoy_serving(&fake, |template| {
            let template = replaced(&template, exact, &both);
            template.replace("demo-${PORTCULLIS_GUARD}", &format!("demo-{value}"))
        });
        let org = world.organisation().through(&own.gateway);
        let answer = org.gateway.send(&call().bearer(&org.key("analyst").key));
        assert_eq!((answer.status(), fake.requests().len()), (200, 1), "{}", answer.text());
    }
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
        let fake = FakeUpstream::of_one_row();
        let own = world.envoy_serving(&fake, |template| rendered(world, &template, more));
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

        let fake = FakeUpstream::of_one_row();
        let own = world.envoy_serving(&fake, |template| {
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
