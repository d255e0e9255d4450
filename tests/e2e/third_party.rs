//! Agent frameworks and bridges as their users run them, in front of servers that we did not write either: each sees and
//! calls what it may, reads why a call is refused, and goes on in the same session.
//!
//! A stage of its own (`PORTCULLIS_TEST_PART=third_party`): they bring many packages.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use portcullis_stack::{Frameworks, Node, ports, ready};
use portcullis_tests::clients::conversation;
use portcullis_tests::node::{Program, Transport, node};
use portcullis_tests::organisation::{Organisation, PYTHON};
use portcullis_tests::tokens::Idp;
use portcullis_tests::world::{OwnEnvoy, Workers, replaced};
use portcullis_tests::{Case, World, cases};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["third_party":
        frameworks_go_on_after_refusals_over_streamable_http,
        frameworks_go_on_after_refusals_over_http_sse,
        refusals_reach_streams_of_python_servers,
        frameworks_log_in_where_the_gateway_sends_them,
    ]
}

const SSE: &str = "/everything/sse";
const MESSAGES: &str = "/everything/message";
const FRAMEWORKS: [&str; 5] = ["langchain", "fastmcp", "agents", "ai", "remote"];

/// A server of HTTP+SSE in Python, on either generation of the official SDK.
#[derive(Clone, Copy, Debug)]
enum Generation {
    V1,
    V2,
}

/// A gateway in front of one server per transport, and an organisation.
struct Estate<'a> {
    node: &'a Node,
    frameworks: Frameworks,
    scripts: PathBuf,
    logs: PathBuf,
    /// Where the server behind `PYTHON` listens, when it runs.
    http: u16,
    sse: u16,
    own: OwnEnvoy,
    org: Organisation,
}

impl<'a> Estate<'a> {
    fn new(world: &'a World<'a>, idp: Option<&Idp>, org: Organisation) -> Self {
        Self::posting_to(world, "/message", idp, org)
    }

    /// The server of HTTP+SSE is posted to at `onward`.
    fn posting_to(
        world: &'a World<'a>,
        onward: &str,
        idp: Option<&Idp>,
        org: Organisation,
    ) -> Self {
        let free = || ports::free_port().unwrap_or_else(|e| panic!("{e}"));
        let (http, sse) = (free(), free());
        let adjust = |settings: portcullis_stack::Bootstrap| {
            let refusals = std::env::var("PORTCULLIS_TEST_REFUSALS").unwrap_or("auto".to_owned());
            let settings = settings.python(ports::loopback(http)).set("REFUSALS", refusals);
            match idp {
                None => settings,
                Some(idp) => settings
                    .idp(idp.address())
                    .set("ISSUERS", idp.configuration())
                    .set("SLOWDOWN_FAILURES", 0)
                    .set("SCOPES_SUPPORTED", json!(["tools:use"])),
            }
        };
        let own = world
            .envoy_named_changed(Workers::Two, adjust, |template| with_sse(&template, sse, onward));
        let org = org.through(&own.gateway);
        let frameworks = Frameworks::install(world.workspace()).unwrap_or_else(|e| panic!("{e}"));
        let scripts = world.workspace().root.join("tests/python");
        let logs = world.dir().join("logs");
        Self { node: node(world.workspace()), frameworks, scripts, logs, http, sse, own, org }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.own.gateway.url())
    }

    /// `what` is `langchain-http` and so on.
    fn run(&self, what: &str, key: &str, calls: &Value, at_pause: &mut dyn FnMut(usize)) -> Value {
        let url = self.url(if what.ends_with("sse") { SSE } else { PYTHON });
        let mut command = match what.split_once('-').map(|(kind, _)| kind) {
            Some("ai" | "remote") => self.node.script("frameworks.mjs"),
            Some("langchain") => self.python(Generation::V1, "frameworks.py"),
            _ => self.python(Generation::V2, "frameworks.py"),
        };
        command.args([what, &url, key, &calls.to_string()]);
        let said = conversation(what, command, at_pause);
        if std::env::var_os("PORTCULLIS_TEST_REFUSALS").is_some() {
            eprintln!("{what}: {said}");
        }
        said
    }

    fn python(&self, generation: Generation, script: &str) -> Command {
        let mut command = match generation {
            Generation::V1 => self.frameworks.sdk_v1(),
            Generation::V2 => self.frameworks.sdk_v2(),
        };
        command.arg(self.scripts.join(script));
        command
    }

    fn everything(&self, transport: Transport) -> Program {
        let port = match transport {
            Transport::StreamableHttp => self.http,
            Transport::Sse => self.sse,
        };
        Program::everything_at(self.node, transport, port, &self.logs)
    }
}

fn policy(policy: &mut Value) {
    policy["connectors"] = json!({
        "everything": {"path": PYTHON},
        "everything-sse": {"path": SSE, "messages": MESSAGES},
    });
    let access = json!({"allow": ["echo"], "show": ["get-sum"]});
    policy["roles"] = json!({"analyst": {"everything": access, "everything-sse": access}});
    policy["tiers"]["four"] = json!({"limits": {"calls": {"limit": 4, "window": "10m"}}});
}

/// Two routes and a cluster for a server of HTTP+SSE.
fn with_sse(template: &str, port: u16, onward: &str) -> String {
    let route = |path: &str, onward: &str| {
        format!(
            "              - match: {{path: {path}}}\n                route: {{cluster: sse, prefix_rewrite: \
             {onward}, host_rewrite_literal: \"localhost:{port}\", timeout: 0s}}\n"
        )
    };
    let routes =
        format!("              routes:\n{}{}", route(SSE, "/sse"), route(MESSAGES, onward));
    let cluster = format!(
        "  clusters:\n  - name: sse\n    type: STATIC\n    load_assignment:\n      cluster_name: sse\n      \
         endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: \
         {port}}}}}}}}}]}}]\n"
    );
    replaced(&replaced(template, "              routes:\n", &routes), "  clusters:\n", &cluster)
}

/// What the model, or whoever reads faults, reads of the call number `at`.
fn words(said: &Value, at: usize) -> String {
    let call = &said["calls"][at];
    let text = call["text"].as_str().or(call["error"]["message"].as_str());
    text.unwrap_or_else(|| panic!("call {at}: {said}")).to_owned()
}

fn assert_served(said: &Value, at: usize, what: &str) {
    assert_eq!(said["calls"][at]["isError"], false, "{what}, call {at}: {said}");
    assert!(words(said, at).contains("Echo: hi"), "{what}, call {at}: {said}");
}

fn assert_told(said: &Value, at: usize, parts: &[&str], what: &str) {
    let words = words(said, at);
    assert!(parts.iter().all(|part| words.contains(part)), "{what}, call {at}: {said}");
    assert_ne!(said["calls"][at]["isError"], false, "{what}, call {at}: {said}");
}

fn echo() -> Value {
    json!(["echo", {"message": "hi"}])
}

fn sum() -> Value {
    json!(["get-sum", {"a": 1, "b": 2}])
}

fn assert_sees_what_it_may(said: &Value, what: &str) {
    let mut tools: Vec<&str> =
        said["tools"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    tools.sort_unstable();
    assert_eq!(tools, ["echo", "get-sum"], "{what}: {said}");
}

// Finding 8.4: clients on the SDK 1.x lost their session at every status but 200.
// Proves: B1, B2, A12
fn frameworks_go_on_after_refusals_over_streamable_http(world: &World<'_>) {
    let estate = Estate::new(world, None, Organisation::with_policy(world.stack(), policy));
    for kind in FRAMEWORKS {
        let what = format!("{kind}-http");
        let key = estate.org.key_in("analyst", "four");
        let mut server = Some(estate.everything(Transport::StreamableHttp));
        let pause = json!(["@pause", {}]);
        let calls = [
            echo(),
            json!(["get-env", {}]),
            sum(),
            echo(),
            echo(),
            pause.clone(),
            echo(),
            echo(),
            pause,
            echo(),
        ];
        let said = estate.run(&what, &key.key, &json!(calls), &mut |pause| match pause {
            // 503, of a caller that is proven.
            0 => server = None,
            _ => estate.org.operator.revoke_key(&key.id, "a test").map(drop).unwrap(),
        });
        assert_sees_what_it_may(&said, &what);
        for served in [0, 3, 4] {
            assert_served(&said, served, &what);
        }
        assert_told(&said, 1, &["get-env"], &what);
        assert_told(&said, 2, &["roles.analyst.everything.show", "Do not repeat"], &what);
        assert_told(&said, 5, &["The gateway cannot serve this call right now"], &what);
        assert_told(&said, 6, &["tiers.four.calls", "4 calls", "Try again in"], &what);
        // A 401 stays one: what a client makes of it is its own; a hang would show here.
        assert_ne!(said["calls"][7]["isError"], false, "{what}: {said}");
    }
}

// Finding 8.5: a refused POST ended the session of every Python client.
// Proves: B1, B2, X17
fn frameworks_go_on_after_refusals_over_http_sse(world: &World<'_>) {
    let estate = Estate::new(world, None, Organisation::with_policy(world.stack(), policy));
    let _server = estate.everything(Transport::Sse);
    for kind in FRAMEWORKS {
        assert_goes_on(&estate, &format!("{kind}-sse"));
    }
}

fn assert_goes_on(estate: &Estate<'_>, what: &str) {
    let key = estate.org.key_in("analyst", "four");
    let calls = [
        echo(),
        json!(["get-env", {}]),
        sum(),
        echo(),
        echo(),
        echo(),
        echo(),
        json!(["@pause", {}]),
        echo(),
    ];
    let said = estate.run(what, &key.key, &json!(calls), &mut |_| {
        estate.org.operator.revoke_key(&key.id, "a test").unwrap();
    });
    assert_sees_what_it_may(&said, what);
    for served in [0, 3, 4, 5] {
        assert_served(&said, served, what);
    }
    assert_told(&said, 1, &["get-env"], what);
    assert_told(&said, 2, &["roles.analyst.everything-sse.show", "Do not repeat"], what);
    assert_told(&said, 6, &["tiers.four.calls", "4 calls", "Try again in"], what);
    assert_ne!(said["calls"][7]["isError"], false, "{what}: {said}");
    let of_key = |rule: &str| {
        let entries = estate.own.gateway.audit().entries_where("org_id", &estate.org.name);
        let mine = entries.iter().filter(|entry| entry["api_key_id"] == key.id.as_str());
        mine.filter(|entry| entry["decision"]["rule"] == rule)
            .map(|entry| (entry["status"].clone(), entry["decision"]["effect"].clone()))
            .collect::<Vec<_>>()
    };
    // Lines are in Envoy's memory for a moment; this is the last of those that are looked at.
    let written = ready::eventually("the limited call's entry", Duration::from_secs(10), || {
        Some(of_key("tiers.four.calls")).filter(|entries| !entries.is_empty())
    });
    assert_eq!(written.unwrap(), [(json!("limited"), json!("deny"))], "{what}");
    let denied = of_key("roles.analyst.everything-sse.show");
    assert_eq!(denied, [(json!("denied"), json!("deny"))], "{what}");
}

// Finding 8.5, with servers on both generations of the Python SDK: they too answer what they do not know.
// Proves: B1, B2, X17
fn refusals_reach_streams_of_python_servers(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), policy);
    let estate = Estate::posting_to(world, "/messages/", None, org);
    for generation in [Generation::V1, Generation::V2] {
        let name = format!("sse-server-{generation:?}");
        let _server = Program::start(&name, &estate.logs, estate.sse, |port| {
            let mut command = estate.python(generation, "sse_server.py");
            command.arg(port);
            command
        });
        for kind in ["langchain", "fastmcp"] {
            assert_goes_on(&estate, &format!("{kind}-sse"));
        }
    }
}

// Finding 8.3: a token for the stream's path is good where its client posts to.
// Proves: A3, B7
fn frameworks_log_in_where_the_gateway_sends_them(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), policy);
    let idp = Idp::start(node(world.workspace()), &world.dir(), &org.name);
    let estate = Estate::new(world, Some(&idp), org);
    let _servers = [Transport::StreamableHttp, Transport::Sse].map(|it| estate.everything(it));
    let calls = json!([echo(), sum(), echo()]);
    for what in [
        "langchain-http",
        "langchain-sse",
        "fastmcp-http",
        "fastmcp-sse",
        "agents-http",
        "remote-http",
        "remote-sse",
    ] {
        let said = estate.run(what, "oauth:", &calls, &mut |_| {});
        assert_sees_what_it_may(&said, what);
        assert_served(&said, 0, what);
        assert_told(&said, 1, &["get-sum"], what);
        assert_served(&said, 2, what);
    }
}
