//! Unmodified clients against servers that we did not write either, in every transport and era that both speak: what
//! they list, what they may call, and what they make of a refusal.

use std::process::Command;

use portcullis_stack::Node;
use portcullis_tests::clients::{Mode, rmcp_list_and_call};
use portcullis_tests::node::{Program, Transport, node, said};
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::world::{OwnEnvoy, Workers, replaced};
use portcullis_tests::{Case, World, cases};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["interop":
        typescript_clients_see_and_call_what_they_may,
        python_clients_see_and_call_what_they_may,
        rust_clients_see_and_call_what_they_may,
        the_inspector_sees_and_calls_what_it_may,
        clients_of_http_sse_see_and_call_what_they_may,
        no_client_gets_in_without_a_key,
    ]
}

const SSE: &str = "/everything/sse";
const MESSAGES: &str = "/everything/message";

/// Of a server's tools: one to call, one that is hidden, one to see only.
struct Tools {
    allowed: (&'static str, Value),
    hidden: &'static str,
    shown: (&'static str, Value),
}

/// Servers, a gateway in front of them, and a caller who may use a part of each.
struct Estate<'a> {
    node: &'a Node,
    world: &'a World<'a>,
    fixture: Program,
    /// Behind `PYTHON` and `SSE`.
    _everything: [Program; 2],
    own: OwnEnvoy,
    org: Organisation,
    key: String,
}

fn fixture_tools() -> Tools {
    Tools {
        allowed: ("test_simple_text", json!({})),
        hidden: "test_audio_content",
        shown: ("test_image_content", json!({})),
    }
}

fn everything_tools() -> Tools {
    Tools {
        allowed: ("echo", json!({"message": "hi"})),
        hidden: "get-env",
        shown: ("get-sum", json!({"a": 1, "b": 2})),
    }
}

impl<'a> Estate<'a> {
    fn new(world: &'a World<'a>) -> Self {
        let (node, logs) = (node(world.workspace()), world.dir().join("logs"));
        let fixture = Program::fixture(node, &logs);
        let http = Program::everything(node, Transport::StreamableHttp, &logs);
        let sse = Program::everything(node, Transport::Sse, &logs);
        let adjust = |settings: portcullis_stack::Bootstrap| {
            settings.demo(fixture.address()).python(http.address())
        };
        let port = sse.address().port();
        let own = world.envoy_changed(Workers::Two, adjust, |template| with_sse(&template, port));
        let org = Organisation::with_policy(world.stack(), policy).through(&own.gateway);
        let key = org.key("visitor").key;
        Self { node, world, fixture, _everything: [http, sse], own, org, key }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.own.gateway.url())
    }

    fn typescript(&self, which: &str, path: &str, key: &str, calls: &Value) -> Value {
        let mut command = self.node.script("client.mjs");
        command.args([which, &self.url(path), key, &calls.to_string()]);
        said(which, command)
    }

    fn python(&self, which: &str, path: &str, key: &str, calls: &Value) -> Value {
        let script = self.world.workspace().root.join("tests/python/client.py");
        let mut command = self.world.stack().options().tools.python_command();
        command.arg(script).args([which, &self.url(path), key, &calls.to_string()]);
        said(which, command)
    }

    fn inspector(&self, path: &str, options: &[&str]) -> Value {
        let mut command: Command =
            self.node.package("@modelcontextprotocol/inspector/clients/launcher/build/index.js");
        command.args(["--cli", "--stored-auth-only", "--format", "json"]);
        command.args([
            "--server-url",
            &self.url(path),
            "--header",
            &format!("X-Api-Key: {}", self.key),
        ]);
        command.args(options);
        said("the inspector", command)
    }
}

impl Tools {
    fn calls(&self) -> Value {
        json!([self.allowed, [self.hidden, {}], self.shown])
    }

    fn visible(&self) -> [&str; 2] {
        [self.allowed.0, self.shown.0]
    }
}

fn policy(policy: &mut Value) {
    policy["connectors"] = json!({
        "fixture": {"path": DEMO},
        "everything": {"path": PYTHON},
        "everything-sse": {"path": SSE, "messages": MESSAGES},
    });
    let access = |tools: Tools| json!({"allow": [tools.allowed.0], "show": [tools.shown.0]});
    policy["roles"] = json!({"visitor": {
        "fixture": access(fixture_tools()),
        "everything": access(everything_tools()),
        "everything-sse": access(everything_tools()),
    }});
}

/// Two routes and a cluster for a server of HTTP+SSE.
fn with_sse(template: &str, port: u16) -> String {
    let route = |path: &str, onward: &str| {
        format!(
            "              - match: {{path: {path}}}\n                route: {{cluster: sse, prefix_rewrite: \
             {onward}, host_rewrite_literal: \"localhost:{port}\", timeout: 0s}}\n"
        )
    };
    let routes =
        format!("              routes:\n{}{}", route(SSE, "/sse"), route(MESSAGES, "/message"));
    let cluster = format!(
        "  clusters:\n  - name: sse\n    type: STATIC\n    load_assignment:\n      cluster_name: sse\n      \
         endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: \
         {port}}}}}}}}}]}}]\n"
    );
    replaced(&replaced(template, "              routes:\n", &routes), "  clusters:\n", &cluster)
}

/// Both tools listed in the server's order, the first one called.
fn assert_listed_and_called(said: &Value, tools: &Tools, what: &str) {
    let mut visible = tools.visible();
    visible.sort_unstable();
    let mut listed: Vec<&str> =
        said["tools"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    listed.sort_unstable();
    assert_eq!(listed, visible, "{what}: {said}");
    assert_eq!(said["calls"][0]["result"]["content"][0]["type"], "text", "{what}: {said}");
}

/// A model of the legacy era reads why its call is refused (finding 8.4).
fn assert_told_as_a_result(call: &Value, tools: &Tools, what: &str) {
    let result = &call["result"];
    assert_eq!(result["isError"], true, "{what}: {call}");
    let text = result["content"][0]["text"].as_str().unwrap_or_default();
    assert!(text.contains(&format!("refuses tool `{}`", tools.shown.0)), "{what}: {call}");
}

fn mentions(fault: &Value, code: &str) -> bool {
    fault["message"].as_str().is_some_and(|message| message.contains(code))
}

// Proves: B1, B2, C3, X17
fn typescript_clients_see_and_call_what_they_may(world: &World<'_>) {
    let estate = Estate::new(world);
    let expected = [
        ("v1-http", DEMO, "2025-11-25"),
        ("v2-legacy", DEMO, "2025-11-25"),
        ("v2-auto", DEMO, "2026-07-28"),
        ("v1-http", PYTHON, "2025-11-25"),
        ("v2-legacy", PYTHON, "2025-11-25"),
        // This server does not know 2026-07-28: the client has to find that out through the gateway.
        ("v2-auto", PYTHON, "2025-11-25"),
    ];
    for (which, path, protocol) in expected {
        let tools = if path == DEMO { fixture_tools() } else { everything_tools() };
        let said = estate.typescript(which, path, &estate.key, &tools.calls());
        let what = format!("{which} {path}");
        assert_listed_and_called(&said, &tools, &what);
        assert_eq!(said["protocol"], protocol, "{what}: {said}");
        let (hidden, shown) = (&said["calls"][1]["error"], &said["calls"][2]);
        assert_eq!(hidden["code"], -32_602, "{what}: {said}");
        assert!(mentions(hidden, &format!("Unknown tool: {}", tools.hidden)), "{what}: {said}");
        if protocol == "2026-07-28" {
            // These clients show of a 403 only its text.
            let shown = &shown["error"];
            assert!(shown["code"] == 403 || shown["status"] == 403, "{what}: {said}");
            assert!(mentions(shown, "-31403"), "{what}: {said}");
        } else {
            assert_told_as_a_result(shown, &tools, &what);
        }
    }
    assert_nothing_refused_ran(&estate, 3);
}

fn assert_nothing_refused_ran(estate: &Estate<'_>, allowed: usize) {
    let tools = fixture_tools();
    assert_eq!(estate.fixture.ran(tools.allowed.0), allowed);
    assert_eq!(estate.fixture.ran(tools.hidden), 0);
    assert_eq!(estate.fixture.ran(tools.shown.0), 0);
}

// Proves: B1, B2, C3, X17
fn python_clients_see_and_call_what_they_may(world: &World<'_>) {
    let estate = Estate::new(world);
    let expected = [
        ("auto", DEMO, "2026-07-28"),
        ("legacy", DEMO, "2025-11-25"),
        ("auto", PYTHON, "2025-11-25"),
        ("legacy", PYTHON, "2025-11-25"),
    ];
    for (which, path, protocol) in expected {
        let tools = if path == DEMO { fixture_tools() } else { everything_tools() };
        let said = estate.python(which, path, &estate.key, &tools.calls());
        let what = format!("{which} {path}");
        assert_listed_and_called(&said, &tools, &what);
        assert_eq!(said["protocol"], protocol, "{what}: {said}");
        assert_eq!(said["calls"][1]["error"]["code"], -32_602, "{what}: {said}");
        if protocol == "2026-07-28" {
            assert_eq!(said["calls"][2]["error"]["code"], -31_403, "{what}: {said}");
        } else {
            assert_told_as_a_result(&said["calls"][2], &tools, &what);
        }
    }
    assert_nothing_refused_ran(&estate, 2);
}

// Proves: B1, B2, X17
fn rust_clients_see_and_call_what_they_may(world: &World<'_>) {
    let estate = Estate::new(world);
    let expected =
        [(Mode::Auto, DEMO), (Mode::Legacy, DEMO), (Mode::Auto, PYTHON), (Mode::Legacy, PYTHON)];
    for (mode, path) in expected {
        let tools = if path == DEMO { fixture_tools() } else { everything_tools() };
        let url = estate.url(path);
        let run = |tool: &str, arguments: &Value| {
            rmcp_list_and_call((&url, &estate.key), mode, (tool, arguments.clone()))
                .unwrap_or_else(|fault| panic!("{mode:?} {path}: {fault}"))
        };
        let allowed = run(tools.allowed.0, &tools.allowed.1);
        let said = json!({"tools": allowed.tools, "calls": [{"result": allowed.call.unwrap()}]});
        assert_listed_and_called(&said, &tools, &format!("{mode:?} {path}"));
        let hidden = run(tools.hidden, &json!({})).call.unwrap_err();
        assert!(hidden.contains("-32602"), "{mode:?} {path}: {hidden}");
        match (run(tools.shown.0, &tools.shown.1).call, mode, path) {
            (Err(shown), Mode::Auto, DEMO) => {
                assert!(shown.contains("-31403"), "{mode:?} {path}: {shown}");
            }
            (Ok(shown), _, _) => {
                let what = format!("{mode:?} {path}");
                assert_told_as_a_result(&json!({"result": shown}), &tools, &what);
            }
            (Err(shown), _, _) => panic!("{mode:?} {path}: {shown}"),
        }
    }
    assert_nothing_refused_ran(&estate, 2);
}

// Proves: B1, C3
fn the_inspector_sees_and_calls_what_it_may(world: &World<'_>) {
    let estate = Estate::new(world);
    let names = |listed: &Value| {
        let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{listed}"));
        tools.iter().filter_map(|tool| tool["name"].as_str()).map(str::to_owned).collect::<Vec<_>>()
    };
    let runs = [
        (DEMO, "http", "legacy", fixture_tools()),
        (DEMO, "http", "modern", fixture_tools()),
        (PYTHON, "http", "legacy", everything_tools()),
        (SSE, "sse", "legacy", everything_tools()),
    ];
    for (path, transport, era, tools) in runs {
        let inspect = |options: &[&str]| {
            let to = ["--transport", transport, "--protocol-era", era, "--method"];
            estate.inspector(path, &[&to, options].concat())
        };
        let listed = names(&inspect(&["tools/list"]));
        assert_eq!(listed, tools.visible(), "{path} {era}");
        let mut call = vec!["tools/call", "--tool-name", tools.allowed.0];
        if path != DEMO {
            call.extend(["--tool-arg", "message=hi"]);
        }
        let called = inspect(&call);
        assert_eq!(called["result"]["content"][0]["type"], "text", "{path} {era}: {called}");
        let hidden = inspect(&["tools/call", "--tool-name", tools.hidden]);
        assert_eq!(hidden["error"]["code"], "tool_not_found", "{path} {era}: {hidden}");
    }
    assert_nothing_refused_ran(&estate, 2);
}

// Proves: B1, B2, C3, X17
fn clients_of_http_sse_see_and_call_what_they_may(world: &World<'_>) {
    let estate = Estate::new(world);
    let tools = everything_tools();
    // Finding 8.5: a refusal comes on the stream, and the session goes on.
    let again = json!([tools.allowed, [tools.hidden, {}], tools.shown, tools.allowed]);
    let clients = [
        ("python", estate.python("sse", SSE, &estate.key, &again)),
        ("typescript", estate.typescript("v1-sse", SSE, &estate.key, &again)),
    ];
    for (what, said) in clients {
        assert_listed_and_called(&said, &tools, what);
        assert_eq!(said["calls"][1]["error"]["code"], -32_602, "{said}");
        assert_told_as_a_result(&said["calls"][2], &tools, what);
        assert_eq!(said["calls"][3]["result"]["content"][0]["text"], "Echo: hi", "{said}");
    }
}

// Proves: B7
fn no_client_gets_in_without_a_key(world: &World<'_>) {
    let estate = Estate::new(world);
    let stranger = estate.org.key("visitor");
    estate.org.operator.revoke_key(&stranger.id, "a test").unwrap();
    let tools = fixture_tools();
    for which in ["v1-http", "v1-sse", "v2-auto", "v2-legacy"] {
        let path = if which == "v1-sse" { SSE } else { DEMO };
        let said = estate.typescript(which, path, &stranger.key, &tools.calls());
        assert!(said["error"].to_string().contains("401"), "{which}: {said}");
    }
    for which in ["auto", "legacy", "sse"] {
        let path = if which == "sse" { SSE } else { DEMO };
        let said = estate.python(which, path, &stranger.key, &tools.calls());
        assert!(said.get("error").is_some(), "{which}: {said}");
    }
    assert_nothing_refused_ran(&estate, 0);
}
