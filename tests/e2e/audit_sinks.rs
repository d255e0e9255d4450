//! Where entries go besides a file: whole, in order, and never in the way of a call.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use portcullis_stack::{ports, ready};
use portcullis_tests::log_service::{LogService, SECRET};
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::world::{OwnEnvoy, Workers, replaced};
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};

use crate::streams::{Listener, Source};

pub(crate) fn cases() -> Vec<Case> {
    cases!["audit_sinks":
        an_access_log_service_gets_every_entry,
        an_opentelemetry_collector_gets_every_entry,
        standard_output_gets_every_entry,
        a_sink_that_is_gone_or_hangs_stops_no_call,
        a_full_disk_stops_no_call,
        a_stream_that_is_open_is_in_the_log_before_it_ends,
    ]
}

const CLIENTS: usize = 4;
const CALLS: usize = 30;

/// Where a sink is put.
#[derive(Clone, Copy)]
enum Place {
    BesideTheFile,
    OfTheFile,
}

/// The shipped configuration with a sink of `envoy/sinks/`, beside the file or in its place.
fn with_sink(world: &World<'_>, sink: &str, port: u16, place: Place) -> OwnEnvoy {
    let change = |template| placed(world, template, (sink, port), place);
    world.envoy_changed(Workers::Two, |settings| settings, change)
}

fn placed(world: &World<'_>, template: String, (sink, port): (&str, u16), place: Place) -> String {
    let file = world.stack().options().root.join("envoy/sinks").join(sink);
    let text = fs::read_to_string(file).expect("a shipped sink");
    let text = text.replace("${PORTCULLIS_AUDIT_SINK_PORT:-4317}", &port.to_string());
    let (loggers, clusters) = text.split_once("\nclusters:\n").unwrap_or((&text, ""));
    let (_, logger) = loggers.split_once("access_log:\n").expect("a logger");
    let indented =
        |text: &str, by: &str| text.lines().map(|line| format!("{by}{line}\n")).collect::<String>();
    let (logger, clusters) = (indented(logger, "          "), indented(clusters, "  "));
    let begin = "          - name: audit_file\n";
    let end = "          # What Envoy answered without the filter";
    let template = match place {
        Place::BesideTheFile => replaced(&template, begin, &format!("{logger}{begin}")),
        Place::OfTheFile => {
            let (before, rest) = template.split_once(begin).expect("the shipped logger");
            let (_, after) = rest.split_once(end).expect("the next logger");
            format!("{before}{logger}          # ${{PORTCULLIS_AUDIT_LOG}}\n{end}{after}")
        }
    };
    replaced(&template, "\n  clusters:\n", &format!("\n  clusters:\n{clusters}"))
}

/// Calls of all sorts on several connections, so that both workers write; how many answers there were.
fn calls(org: &Organisation, key: &str) -> usize {
    let long = "ä\u{2028}\"\\ ".repeat(600);
    let text = |n: usize| if n.is_multiple_of(5) { long.clone() } else { format!("text {n}") };
    let one = |client: usize| {
        let mut wire = Wire::connect(org.gateway.address()).expect("a gateway");
        let answers = (0..CALLS).map(|n| {
            let tool = ["query_users", "delete_user", "search_contacts"][(client + n) % 3];
            let message = mcp::call(tool, json!({"query": text(n), "password": SECRET}));
            let agent = format!("trial password={SECRET}");
            let request = Request::post(DEMO, message.to_string()).bearer(key);
            let request = request.without("user-agent").header("user-agent", agent);
            wire.exchange(&request).expect("an answer").status
        });
        answers.filter(|status| [200, 403].contains(status)).count()
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || one(client))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    })
}

fn verified(org: &Organisation, file: &Path, more: &[&str]) -> Value {
    let verify = ["audit", "verify", "--output", "json", file.to_str().unwrap()];
    let output = org.operator.run(&[&verify, more].concat()).unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn written(world: &World<'_>, lines: &[String]) -> std::path::PathBuf {
    let file = world.dir().join("received.jsonl");
    fs::write(&file, lines.join("\n") + "\n").unwrap();
    file
}

/// As `ORDER BY chain, seq` has them.
fn in_order(lines: &[String]) -> Vec<String> {
    let mut lines = lines.to_vec();
    lines.sort_by_cached_key(|line| {
        let entry: Value = serde_json::from_str(line).expect("an entry");
        (entry["chain"].to_string(), entry["seq"].as_u64())
    });
    lines
}

fn wait<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    ready::eventually(what, Duration::from_secs(30), condition)
        .unwrap_or_else(|fault| panic!("{fault}"))
}

/// Both sinks have the same entries, those of an access log service are in order in each chain, and the chains are whole.
fn all_arrive_at(world: &World<'_>, sink: &str) {
    let port = ports::free_port().unwrap();
    let service = LogService::listening_on(port);
    let own = with_sink(world, sink, port, Place::BesideTheFile);
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    assert_eq!(calls(&org, &key), CLIENTS * CALLS);
    let received = wait("all entries", || {
        let received = service.entries();
        (received.len() >= CLIENTS * CALLS).then_some(received)
    });
    let in_file = wait("all lines of the file", || {
        let lines = own.gateway.audit().lines();
        (lines.len() >= CLIENTS * CALLS).then_some(lines)
    });
    let set = |lines: &[String]| lines.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(received.len(), CLIENTS * CALLS);
    assert!(set(&received) == set(&in_file), "the sinks have different entries");
    // Of OTLP each request is an exchange of its own: on a busy machine a later one may end first.
    let received = if sink == "opentelemetry.yaml" { in_order(&received) } else { received };
    let report = verified(&org, &written(world, &received), &[]);
    assert_eq!(
        (&report["intact"], &report["entries"]),
        (&json!(true), &json!(CLIENTS * CALLS)),
        "{report:#}"
    );
    let chains = received.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let chains: BTreeSet<String> = chains.map(|entry| entry["chain"].to_string()).collect();
    println!("{} entries of {} chains", received.len(), chains.len());
}

// Issue 16: shown for a file only. Proves: A19
fn an_access_log_service_gets_every_entry(world: &World<'_>) {
    all_arrive_at(world, "access-log-service.yaml");
}

// Proves: A19
fn an_opentelemetry_collector_gets_every_entry(world: &World<'_>) {
    all_arrive_at(world, "opentelemetry.yaml");
}

// Proves: A19
fn standard_output_gets_every_entry(world: &World<'_>) {
    let own = with_sink(world, "stdout.yaml", 0, Place::OfTheFile);
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    assert_eq!(calls(&org, &key), CLIENTS * CALLS);
    // Envoy's own log is in the same file, as on a platform that mixes both outputs.
    let report = wait("all entries", || {
        let report = verified(&org, own.envoy.process().log(), &[]);
        (report["entries"] == json!(CLIENTS * CALLS)).then_some(report)
    });
    assert_eq!(report["intact"], true, "{report:#}");
    println!("{} entries among {} lines of Envoy's own", report["entries"], report["foreign"]);
}

// Issue 16: "a dead collector never stops or slows traffic"; what was lost is counted. Proves: A19
fn a_sink_that_is_gone_or_hangs_stops_no_call(world: &World<'_>) {
    for sink in ["access-log-service.yaml", "opentelemetry.yaml"] {
        let port = ports::free_port().unwrap();
        let own = with_sink(world, sink, port, Place::BesideTheFile);
        let org = world.organisation().through(&own.gateway);
        let key = org.key("analyst").key;
        // No program listens.
        assert_eq!(calls(&org, &key), CLIENTS * CALLS, "{sink}");
        // A program listens and never reads.
        let hanging = TcpListener::bind(("127.0.0.1", port)).expect("a port that was free");
        assert_eq!(calls(&org, &key), CLIENTS * CALLS, "{sink}");
        drop(hanging);
        let service = LogService::listening_on(port);
        // It is there again: so are entries.
        wait("an entry after the outage", || {
            assert_eq!(org.call(&key, "query_users", json!({})).status(), 200);
            (!service.entries().is_empty()).then_some(())
        });
        let after = calls(&org, &key);
        // What is missing has a number: in the gaps, and before the first entry of a chain that came. Both sinks are some
        // moments late.
        let (made, received, lost) = wait("a count of what was lost", || {
            let (made, received) = (own.gateway.audit().lines().len(), service.entries());
            let report = verified(&org, &written(world, &in_order(&received)), &[]);
            let lost = made.checked_sub(received.len())?;
            let counted = report["missing"] == json!(lost) && received.len() > after;
            counted.then_some((made, received.len(), lost))
        });
        println!("{sink}: {made} entries made, {received} received, {lost} counted as lost");
    }
}

// Issue 16: "a full disk never stops or slows traffic". Proves: A19
fn a_full_disk_stops_no_call(world: &World<'_>) {
    let own = world.envoy_changed(
        Workers::Two,
        |settings| settings,
        |template| {
            let begin = "path: \"${PORTCULLIS_AUDIT_LOG:-/var/log/portcullis/audit.jsonl}\"";
            replaced(&template, begin, "path: /dev/full # ${PORTCULLIS_AUDIT_LOG}")
        },
    );
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    assert_eq!(calls(&org, &key), CLIENTS * CALLS);
    wait("a count of failed writes", || {
        let page = own.envoy.admin("stats?filter=filesystem.write_failed").ok()?.body;
        let page = String::from_utf8_lossy(&page).into_owned();
        let failed: u64 = page.trim().rsplit(' ').next()?.parse().ok()?;
        (failed > 0).then_some(())
    });
    // The gateway counts what it made, and `--checkpoints` names the last of each chain.
    wait("a count of entries", || {
        let page = own.envoy.admin("stats?filter=audit_entries_total").ok()?.body;
        let page = String::from_utf8_lossy(&page).into_owned();
        let made: usize = page.trim().rsplit(' ').next()?.parse().ok()?;
        (made >= CLIENTS * CALLS).then_some(())
    });
}

// Issue 16: "Long streams: an entry at the start and one at the end". Proves: A15, A17
fn a_stream_that_is_open_is_in_the_log_before_it_ends(world: &World<'_>) {
    let source = Source::start();
    let own = world.envoy_changed(
        Workers::One,
        |settings| settings.python(source.address),
        |template| {
            let audit = "\"audit\": {\"input_max_bytes\"";
            let open = "\"audit\": {\"open_after_seconds\": 1, \"input_max_bytes\"";
            replaced(&template, audit, open)
        },
    );
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let of = |agent: &str| own.gateway.audit().entries_where("user_agent", agent);
    let listen = |agent: &str| {
        let request = Request::bare("GET", PYTHON).header("host", "gateway.test").bearer(&key);
        let request = request.header("accept", "text/event-stream").header("user-agent", agent);
        Listener::open(own.gateway.address(), &request)
    };
    // The entry of a call brings that of an open stream along.
    let open = |agent: &str| {
        wait("the entry of an open stream", || {
            let call = mcp::call("echo", json!({"message": "x"})).to_string();
            assert_eq!(own.gateway.send(&Request::post(DEMO, call).bearer(&key)).status(), 200);
            of(agent).pop()
        })
    };
    let first = listen("first");
    let opened = open("first");
    assert_eq!((&opened["status"], &opened["http_status"]), (&json!("open"), &json!(200)));
    assert!(opened["started_at"].as_str() < opened["timestamp"].as_str(), "{opened}");
    assert!(opened.get("latency_ms").is_none() && opened.get("events").is_none(), "{opened}");
    // A short one has the entry of its end alone.
    let (second, short) = (listen("second"), listen("short"));
    drop(short);
    wait("the end of a short stream", || of("short").pop());
    open("second");
    drop((first, second));
    wait("the ends", || (of("first").len() + of("second").len() == 4).then_some(()));
    for (agent, statuses) in [
        ("first", &["open", "success"][..]),
        ("second", &["open", "success"]),
        ("short", &["success"]),
    ] {
        let entries = of(agent);
        let found: Vec<_> = entries.iter().map(|entry| entry["status"].clone()).collect();
        assert_eq!(found, statuses, "{agent}");
        assert!(entries.iter().all(|entry| entry["request_id"] == entries[0]["request_id"]));
    }
    let lines = own.gateway.audit().lines();
    let report = verified(&org, &written(world, &lines), &[]);
    let entries = json!(lines.len());
    assert_eq!((&report["intact"], &report["entries"]), (&json!(true), &entries), "{report:#}");
}
