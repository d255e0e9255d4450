//! `portcullis render`: what the manifests are, and that each of them leads nowhere without its guard.
//!
//! Owns a small reader of each kind of routes, which takes a request where Envoy would. What a control plane makes of a
//! manifest is not seen here.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::harness::{Said, Scratch, file, golden, golden_file, on_a_full_disk, run};
use crate::schema::document;

const TARGETS: [&str; 3] = ["envoy", "istio", "gateway-api"];
const GATEWAY: &str = "render/gateway.yaml";
const PATHS: [&str; 4] = ["/demo/mcp", "/crm/sse", "/crm/messages", "/tickets/mcp"];

fn render(description: &str, target: &str, guards: &str, more: &[&str]) -> Said {
    let arguments = ["render", description, "--for", target, "--guards", guards];
    run(&[&arguments, more].concat(), &[], "")
}

fn shipped(target: &str, more: &[&str]) -> Said {
    let said = render(&file(GATEWAY), target, &file("render/guards.json"), more);
    assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{said:?}");
    said
}

/// The documents of a manifest, as a YAML reader has them.
fn documents(text: &str) -> Vec<Value> {
    text.split("\n---\n").map(document).collect()
}

// Proves: X29, X30
#[test]
fn manifests_are_as_they_were_reviewed() {
    for target in TARGETS {
        let text = shipped(target, &[]).stdout;
        golden(&format!("render/{target}.yaml"), &text);
        let json = shipped(target, &["--output", "json"]).json();
        assert_eq!(json["documents"], Value::from(documents(&text)), "{target}");
        assert_eq!((&json["for"], &json["new_guards"]), (&json!(target), &json!([])));
    }
    golden("render/seal.yaml", &shipped("seal", &[]).stdout);
    let plugin: Value = serde_json::from_str(&shipped("plugin", &[]).stdout).unwrap();
    let guards: Value = serde_json::from_str(&golden_file("render/guards.json")).unwrap();
    assert_eq!(plugin, json!({"guards": guards}));
}

/// Where a request goes.
#[derive(Debug, PartialEq)]
enum Place {
    Server(String),
    Refused,
    Nowhere,
}

struct Request<'a> {
    path: &'a str,
    method: &'a str,
    guard: Option<&'a str>,
}

/// A route as all three kinds can be written.
struct Route {
    path: Option<String>,
    method: Option<String>,
    guard: Option<String>,
    place: Place,
}

impl Route {
    fn takes(&self, request: &Request<'_>) -> bool {
        let guard = |pattern: &String| {
            // Exact, or two values; their only special letter stands in brackets.
            let mut values = pattern.split('|').map(|value| value.replace("[.]", "."));
            request.guard.is_some_and(|guard| values.any(|value| value == guard))
        };
        self.path.as_deref().is_none_or(|path| path == request.path)
            && self.method.as_deref().is_none_or(|method| method == request.method)
            && self.guard.as_ref().is_none_or(guard)
    }
}

fn text(node: &Value) -> Option<String> {
    node.as_str().map(str::to_owned)
}

fn of_envoy(documents: &[Value]) -> Vec<Route> {
    let host = &documents[0]["virtual_hosts"][0];
    assert_eq!(host["request_headers_to_remove"], json!(["x-portcullis-guard"]));
    let route = |route: &Value| {
        let header = |name: &str| {
            let headers = route["match"]["headers"].as_array();
            let mut headers = headers.into_iter().flatten();
            headers.find(|header| header["name"] == name).map(|header| &header["string_match"])
        };
        let guard = header("x-portcullis-guard")
            .and_then(|it| text(&it["exact"]).or_else(|| text(&it["safe_regex"]["regex"])));
        let place = match route["direct_response"]["status"].as_u64() {
            Some(503) => Place::Refused,
            _ => Place::Server(text(&route["route"]["cluster"]).unwrap()),
        };
        if matches!(place, Place::Server(_)) {
            assert_eq!(route["route"]["timeout"], "0s");
            assert_eq!(route["route"]["upgrade_configs"][0]["enabled"], false);
        }
        Route {
            path: text(&route["match"]["path"]),
            method: header(":method").and_then(|it| text(&it["exact"])),
            guard,
            place,
        }
    };
    host["routes"].as_array().unwrap().iter().map(route).collect()
}

fn of_istio(documents: &[Value]) -> Vec<Route> {
    let patched: BTreeSet<_> = documents[1]["spec"]["configPatches"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|patch| text(&patch["match"]["routeConfiguration"]["vhost"]["route"]["name"]))
        .collect();
    let route = |route: &Value| {
        let matcher = &route["match"][0];
        assert_eq!(route["match"].as_array().unwrap().len(), 1);
        let guard = &matcher["headers"]["x-portcullis-guard"];
        let place = match route["directResponse"]["status"].as_u64() {
            Some(503) => Place::Refused,
            _ => Place::Server(text(&route["route"][0]["destination"]["host"]).unwrap()),
        };
        if matches!(place, Place::Server(_)) {
            assert_eq!(route["headers"]["request"]["remove"], json!(["x-portcullis-guard"]));
            assert_eq!(route["retries"]["attempts"], 0);
            // None by default; "0s" is refused.
            assert!(route.get("timeout").is_none(), "{route}");
            assert!(patched.contains(route["name"].as_str().unwrap()), "{route}");
        }
        Route {
            path: text(&matcher["uri"]["exact"]),
            method: text(&matcher["method"]["exact"]),
            guard: text(&guard["exact"]).or_else(|| text(&guard["regex"])),
            place,
        }
    };
    documents[0]["spec"]["http"].as_array().unwrap().iter().map(route).collect()
}

fn of_kind<'a>(documents: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    documents.iter().filter(move |document| document["kind"] == kind)
}

/// Whether a patch takes the upgrade off a rule that Envoy Gateway puts on every one.
fn takes_no_upgrade(documents: &[Value], route: &Value, nth: usize) -> bool {
    let cluster = format!(
        "=='httproute/{}/{}/rule/{nth}'",
        route["namespace"].as_str().unwrap(),
        route["name"].as_str().unwrap()
    );
    let patches = of_kind(documents, "EnvoyPatchPolicy")
        .flat_map(|policy| policy["spec"]["jsonPatches"].as_array().unwrap());
    let mut operations = patches.map(|patch| &patch["operation"]);
    operations.any(|it| {
        it["path"] == "route/upgrade_configs"
            && it["jsonPath"].as_str().is_some_and(|path| path.contains(&cluster))
            && it["value"] == json!([{"upgrade_type": "websocket", "enabled": false}])
    })
}

fn of_gateway_api(documents: &[Value]) -> Vec<Route> {
    let kind = |kind| of_kind(documents, kind);
    let refusal = kind("HTTPRouteFilter").next().unwrap();
    assert_eq!(refusal["spec"]["directResponse"]["statusCode"], 503);
    let mut routes: Vec<Route> = Vec::new();
    for document in kind("HTTPRoute") {
        let policies: Vec<_> = kind("BackendTrafficPolicy")
            .filter(|policy| {
                policy["spec"]["targetRefs"][0]["name"] == document["metadata"]["name"]
            })
            .collect();
        assert_eq!(policies.len(), 2, "{document}");
        assert!(policies.iter().all(|policy| policy["spec"]["retry"]["numRetries"] == 0));
        for (nth, rule) in document["spec"]["rules"].as_array().unwrap().iter().enumerate() {
            let matcher = &rule["matches"][0];
            let filters = rule["filters"].as_array().unwrap();
            let filter = |kind: &str| filters.iter().find(|filter| filter["type"] == kind);
            let backend = &rule["backendRefs"][0]["name"];
            let place = match filter("ExtensionRef") {
                Some(filter) => {
                    assert_eq!(filter["extensionRef"]["name"], refusal["metadata"]["name"]);
                    assert!(rule.get("backendRefs").is_none());
                    Place::Refused
                }
                None => {
                    let removed =
                        &filter("RequestHeaderModifier").unwrap()["requestHeaderModifier"];
                    assert_eq!(removed["remove"], json!(["x-portcullis-guard"]));
                    assert_eq!(rule["timeouts"]["request"], "0s");
                    assert!(takes_no_upgrade(documents, &document["metadata"], nth), "{rule}");
                    Place::Server(text(backend).unwrap())
                }
            };
            assert!(
                matcher["headers"].is_null()
                    || matcher["headers"][0]["name"] == "x-portcullis-guard"
            );
            routes.push(Route {
                path: text(&matcher["path"]["value"]),
                method: text(&matcher["method"]),
                guard: text(&matcher["headers"][0]["value"]),
                place,
            });
        }
    }
    // Paths are exact here: what is left to decide is the method, then the number of headers.
    routes.sort_by_key(|route| (route.method.is_none(), route.guard.is_none()));
    routes
}

fn routes(target: &str, text: &str) -> Vec<Route> {
    let documents = documents(text);
    match target {
        "envoy" => of_envoy(&documents),
        "istio" => of_istio(&documents),
        _ => of_gateway_api(&documents),
    }
}

fn place<'a>(routes: &'a [Route], request: &Request<'_>) -> &'a Place {
    routes.iter().find(|route| route.takes(request)).map_or(&Place::Nowhere, |route| &route.place)
}

/// Each way to ask for a path: with which guard, and whether it has to reach a server.
fn every_way_is_as_it_has_to_be(target: &str, text: &str, accepted: &[(&str, &str)]) {
    let routes = routes(target, text);
    let forged = ["", "demo", "0123456789abcdef", ".*", "messages-is-only-an-exampl."];
    let guards: BTreeSet<&str> = accepted.iter().map(|(_, guard)| *guard).chain(forged).collect();
    for path in PATHS {
        for method in ["GET", "POST", "DELETE", "OPTIONS"] {
            let asked = |guard| place(&routes, &Request { path, method, guard });
            assert_eq!(asked(None), &Place::Refused, "{target} {method} {path}");
            for guard in &guards {
                let found = asked(Some(*guard));
                if !accepted.contains(&(path, *guard)) {
                    assert_eq!(found, &Place::Refused, "{target} {method} {path} {guard}");
                    continue;
                }
                let Place::Server(server) = found else {
                    panic!("{target} {method} {path}: {found:?}");
                };
                let connector = path.split('/').nth(1).unwrap();
                assert!(server.starts_with(connector), "{target} {method} {path}: {server}");
            }
        }
    }
    // No route to a server is without a guard, wherever it stands.
    let open = |route: &&Route| route.place != Place::Refused && route.guard.is_none();
    assert_eq!(routes.iter().filter(open).count(), 0, "{target}");
}

fn values(name: &str) -> Vec<(String, String)> {
    let guards: Value = serde_json::from_str(&golden_file(name)).unwrap();
    let members = guards.as_object().unwrap().iter();
    members.map(|(path, value)| (path.clone(), value.as_str().unwrap().to_owned())).collect()
}

fn borrowed(values: &[(String, String)]) -> Vec<(&str, &str)> {
    values.iter().map(|(path, value)| (path.as_str(), value.as_str())).collect()
}

// Finding 11.2: a route to a server that nothing guards.
// Proves: X29, X30
#[test]
fn a_server_is_reached_with_the_guard_of_its_path_only() {
    let new = values("render/guards.json");
    for target in TARGETS {
        every_way_is_as_it_has_to_be(target, &shipped(target, &[]).stdout, &borrowed(&new));
    }
}

// Proves: X29
#[test]
fn while_guards_are_changed_routes_take_both_and_the_filter_sets_the_new_one() {
    let both = [values("render/guards.json"), values("render/previous.json")].concat();
    let previous = file("render/previous.json");
    let more = ["--previous-guards", previous.as_str()];
    for target in TARGETS {
        every_way_is_as_it_has_to_be(target, &shipped(target, &more).stdout, &borrowed(&both));
    }
    assert_eq!(shipped("plugin", &more).stdout, shipped("plugin", &[]).stdout);
}

/// Calls `look` for `value` and everything inside it.
fn each(value: &Value, look: &mut dyn FnMut(&Value)) {
    look(value);
    match value {
        Value::Object(fields) => fields.values().for_each(|field| each(field, look)),
        Value::Array(items) => items.iter().for_each(|item| each(item, look)),
        _ => {}
    }
}

// Finding 11.1: Envoy selects a route again after the filter has set the guard.
// Proves: X30
#[test]
fn every_value_of_a_route_is_in_its_seal() {
    let new = values("render/guards.json");
    let both = [new.clone(), values("render/previous.json")].concat();
    let previous = file("render/previous.json");
    let changing = ["--previous-guards", previous.as_str()];
    for (more, accepted) in [(&[][..], &new), (&changing[..], &both)] {
        let accepted: BTreeSet<String> = accepted.iter().map(|(_, value)| value.clone()).collect();
        for target in TARGETS {
            let mut all = documents(&shipped(target, more).stdout);
            if target == "envoy" {
                all.extend(documents(&shipped("seal", more).stdout));
            }
            let (mut of_routes, mut refused) = (BTreeSet::new(), BTreeSet::new());
            each(&Value::from(all), &mut |node| {
                of_routes.extend(node["guards"].as_array().into_iter().flatten().filter_map(text));
                let rules = &node["permissions"][0]["and_rules"]["rules"];
                let header = &rules[0]["header"]["string_match"]["exact"];
                let route = &rules[1]["not_rule"]["sourced_metadata"]["metadata_matcher"];
                let one = &route["value"]["list_match"]["one_of"]["string_match"]["exact"];
                assert_eq!((header, &rules[1]["not_rule"].is_object()), (one, &!header.is_null()));
                refused.extend(text(header));
            });
            assert_eq!(of_routes, accepted, "{target} {more:?}");
            assert_eq!(refused, accepted, "{target} {more:?}");
        }
    }
}

// Proves: X29
#[test]
fn guards_are_made_once_for_their_owner_and_never_alike() {
    let guards = Scratch::nowhere("guards.json");
    let made = render(&file(GATEWAY), "istio", guards.path(), &[]);
    assert_eq!(made.status, 0, "{made:?}");
    let note = "guards of /demo/mcp, /crm/sse, /crm/messages, /tickets/mcp";
    assert_eq!(made.stderr, format!("created {}: {note}\n", guards.path()));
    let mode = std::fs::metadata(guards.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let kept = std::fs::read_to_string(guards.path()).unwrap();
    let values: Value = serde_json::from_str(&kept).unwrap();
    let values: BTreeSet<&str> =
        values.as_object().unwrap().values().map(|value| value.as_str().unwrap()).collect();
    assert_eq!(values.len(), PATHS.len());
    assert!(values.iter().all(|value| value.len() == 43 && made.stdout.contains(value)));
    // What is there stays, for every target.
    let again = render(&file(GATEWAY), "istio", guards.path(), &[]);
    assert_eq!((again.stdout, again.stderr.as_str()), (made.stdout, ""));
    assert_eq!(std::fs::read_to_string(guards.path()).unwrap(), kept);
}

#[test]
fn a_new_path_gets_a_value_and_the_others_keep_theirs() {
    let guards = Scratch::new("guards.json", r#"{"/demo/mcp": "demo-is-only-an-example"}"#);
    std::fs::set_permissions(guards.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let made = render(&file(GATEWAY), "plugin", guards.path(), &["--output", "json"]).json();
    assert_eq!(made["new_guards"], json!(["/crm/sse", "/crm/messages", "/tickets/mcp"]));
    assert_eq!(made["documents"][0]["guards"]["/demo/mcp"], "demo-is-only-an-example");
    let kept: Value =
        serde_json::from_str(&std::fs::read_to_string(guards.path()).unwrap()).unwrap();
    assert_eq!(kept, made["documents"][0]["guards"]);
    let mode = std::fs::metadata(guards.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn guards_that_are_wrong_are_refused_and_not_shown() {
    let secret = "hunter2-hunter2-hunter2";
    for (guards, found) in [
        (format!(r#"{{"/demo/mcp": "{secret}", "/crm/sse": "{secret}"}}"#), "have the same guard"),
        (format!(r#"{{"/demo/mcp": "{secret} "}}"#), "the guards have faults"),
        (r#"{"/demo/mcp": "hunter2"}"#.to_owned(), "the guards have faults"),
        (r#"{"demo": "hunter2"}"#.to_owned(), "the guards have faults"),
        (format!(r#"["{secret}"]"#), "the guards have faults"),
        (format!(r#"{{"/demo/mcp": "{secret}""#), "cannot be read"),
        // The value of one path was that of another.
        (r#"{"/crm/sse": "demo-was-only-an-example"}"#.to_owned(), "have the same guard"),
    ] {
        let guards = Scratch::new("guards.json", &guards);
        let before = std::fs::read_to_string(guards.path()).unwrap();
        let previous = file("render/previous.json");
        let more = ["--previous-guards", previous.as_str()];
        let said = render(&file(GATEWAY), "envoy", guards.path(), &more);
        assert_eq!((said.status, said.stdout.as_str()), (1, ""), "{before}: {said:?}");
        assert!(said.stderr.contains(found), "{before}: {said:?}");
        assert!(!said.stderr.contains("hunter2"), "{before}: {said:?}");
        assert_eq!(std::fs::read_to_string(guards.path()).unwrap(), before);
    }
    for (guards, previous) in [("-", "render/previous.json"), ("render/guards.json", "-")] {
        let said = render(GATEWAY, "envoy", guards, &["--previous-guards", previous]);
        assert_eq!(said.status, 2, "{said:?}");
    }
    let said = render(GATEWAY, "envoy", "nowhere/guards.json", &[]);
    assert_eq!((said.status, said.stdout.as_str()), (1, ""), "{said:?}");
    assert!(said.stderr.contains("nothing was printed"), "{said:?}");
}

// What kubectl and Envoy read as a number, a date or nothing at all would be no secret any more.
#[test]
fn every_guard_is_a_text_to_every_reader() {
    for value in [
        "0123456789012345",
        "1_234_567_890_123_456",
        "0x0123456789abcdef",
        "0b10101010101010101010",
        "2026-11-28-2026-11-28",
        "123456789012345e1",
        "~~~~~~~~~~~~~~~~",
        "....-----...........",
        "-----------------",
        "1234567890.123456789",
    ] {
        let description =
            "version: 1\nhosts: [\"*\"]\nconnectors: {a: {path: /a, upstream: {cluster: a}}}\n";
        let guards = Scratch::new("guards.json", &json!({"/a": value}).to_string());
        let arguments = ["render", "-", "--for", "envoy", "--guards", guards.path()];
        let said = run(&arguments, &[], description);
        assert_eq!(said.status, 0, "{said:?}");
        assert!(said.stdout.contains(&format!("exact: \"{value}\"\n")), "{}", said.stdout);
        assert_eq!(routes("envoy", &said.stdout)[0].guard.as_deref(), Some(value));
    }
}

#[test]
fn what_is_not_judged_gets_the_refusal_of_the_shipped_configuration() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let shipped_file = std::fs::read_to_string(root.join("envoy/envoy.yaml")).unwrap();
    let documents = documents(&shipped("envoy", &[]).stdout);
    let routes = documents[0]["virtual_hosts"][0]["routes"].as_array().unwrap();
    let last = routes.last().unwrap();
    assert_eq!(last["match"], json!({"prefix": "/"}));
    let body = last["direct_response"]["body"]["inline_string"].as_str().unwrap();
    assert!(shipped_file.contains(&format!("'{body}'")), "{body}");
}

#[test]
fn every_mistake_of_a_description_is_told_with_line_path_and_what_is_expected() {
    const BASE: [(&str, &str); 6] = [
        ("version:", "version: 1\n"),
        ("hosts:", "hosts: [mcp.example.com]\n"),
        ("namespace:", "namespace: mcp\n"),
        ("istio:", "istio: {gateways: [portcullis]}\n"),
        ("gateway_api:", "gateway_api: {parent_refs: [{name: mcp}]}\n"),
        (
            "connectors:",
            "connectors: {crm: {path: /crm/mcp, upstream: {cluster: crm, service: {host: crm.mcp.svc, port: 8080}}}}\n",
        ),
    ];
    let guards = Scratch::nowhere("guards.json");
    let corpus = golden_file("render/bad.txt");
    let mut cases = corpus.split("\n--- ");
    let mut written = cases.next().unwrap().to_owned();
    let (mut tried, mut unclear) = (0, Vec::new());
    for case in cases {
        let (heading, rest) = case.split_once('\n').unwrap();
        let (text, _) = rest.split_once("\n=>").expect("an answer");
        let target = TARGETS.into_iter().find(|name| heading.starts_with(&format!("[{name}] ")));
        let target = target.unwrap_or("envoy");
        let mut description = format!("{text}\n");
        let absent = |name: &str| !text.lines().any(|line| line.starts_with(name));
        let base = BASE.into_iter().filter(|(name, _)| absent(name));
        base.for_each(|(_, line)| description.push_str(line));
        let arguments = ["render", "-", "--for", target, "--guards", guards.path()];
        let said = run(&arguments, &[], &description);
        let lines = said.stderr.lines();
        let faults = lines.filter_map(|line| line.trim_start().strip_prefix("standard input:"));
        let told = faults.collect::<Vec<_>>().join("\n   ");
        let (place, fault) = told.split_once(": found ").unwrap_or_default();
        let located = place.split(':').next().is_some_and(|line| line.parse::<usize>().is_ok());
        if said.status != 1 || !located || !fault.contains(", expected ") || told.contains('\n') {
            unclear.push(format!("{heading}: {} {told}", said.status));
        }
        write!(written, "\n--- {heading}\n{text}\n=> {told}\n").unwrap();
        tried += 1;
    }
    golden("render/bad.txt", &written);
    assert!(unclear.is_empty(), "{unclear:#?}");
    assert!(tried >= 40, "{tried}");
    // A description with a mistake makes no guards.
    assert!(!std::path::Path::new(guards.path()).exists());
}

#[test]
fn a_target_asks_for_what_it_needs() {
    let description = "version: 1\nhosts: [a.example]\nconnectors: {a: {path: /a, upstream: {}}}\n";
    let guards = Scratch::nowhere("guards.json");
    for (target, wanted) in [
        ("envoy", &["connectors.a.upstream.cluster"][..]),
        ("istio", &["connectors.a.upstream.service", "istio", "namespace"]),
        ("gateway-api", &["connectors.a.upstream.service", "gateway_api", "namespace"]),
    ] {
        let arguments = ["render", "-", "--for", target, "--guards", guards.path()];
        let said = run(&[&arguments[..], &["--output", "json"]].concat(), &[], description);
        let refusal = said.refusal();
        let faults = refusal["faults"].as_array().unwrap();
        let paths: BTreeSet<_> =
            faults.iter().map(|fault| fault["path"].as_str().unwrap()).collect();
        assert_eq!(paths.into_iter().collect::<Vec<_>>(), wanted, "{target}");
    }
    let arguments = ["render", "-", "--for", "plugin", "--guards", guards.path()];
    assert_eq!(run(&arguments, &[], description).status, 0);
}

// Finding of an outside tester: the first run on a full disk left an empty file, and each later run failed by it.
#[test]
fn guards_that_cannot_be_written_leave_no_file() {
    let guards = Scratch::nowhere("guards.json");
    let arguments = ["render", &file(GATEWAY), "--for", "envoy", "--guards", guards.path()];
    let said = on_a_full_disk(&arguments, &[]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.stderr.contains("the guards cannot be written: File too large"), "{said:?}");
    assert!(!std::path::Path::new(guards.path()).exists());
    assert_eq!(render(&file(GATEWAY), "envoy", guards.path(), &[]).status, 0);
}
