//! The audit log over everything that ends a VM: a new configuration, a new Envoy, a crash.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use portcullis_stack::{Envoy, Epoch, StackError, ready};
use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::world::{Workers, replaced};
use portcullis_tests::{Case, Gateway, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["audit_restarts":
        no_call_is_lost_by_a_reload_a_hot_restart_and_a_crash,
    ]
}

/// Clients that call until they are stopped; a connection that ends is opened again.
#[derive(Default)]
struct Load {
    stopped: AtomicBool,
    answered: AtomicU64,
    /// A request whose answer did not come.
    broken: AtomicU64,
}

impl Load {
    fn calls(&self, gateway: &Gateway, request: &Request) {
        while !self.stopped.load(Ordering::Relaxed) {
            let Ok(mut wire) = Wire::connect(gateway.address()) else {
                // How often it is tried; nothing waits for it.
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            // Some calls on each connection: Envoy closes those of a listener that drains.
            for _ in 0..20 {
                match wire.exchange(request) {
                    Ok(reply) => {
                        assert_eq!(reply.status, 200);
                        self.answered.fetch_add(1, Ordering::Relaxed);
                        if reply.header("connection").is_some_and(|it| it == "close") {
                            break;
                        }
                    }
                    Err(_) => {
                        self.broken.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                }
            }
        }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn more(&self, calls: u64) {
        let from = self.answered();
        wait("more calls", || (self.answered() >= from + calls).then_some(()));
    }
}

/// Stops the clients also when the trial fails: the scope waits for them.
struct Stops<'a>(&'a Load);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

fn wait<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    ready::eventually(what, Duration::from_secs(90), condition)
        .unwrap_or_else(|fault| panic!("{fault}"))
}

/// Moves the listeners of a filled bootstrap into a file that Envoy watches.
fn listeners_apart(config: &Path, listeners: &Path) -> Result<(), StackError> {
    let text = fs::read_to_string(config).expect("a filled bootstrap");
    let (before, rest) = text.split_once("\n  listeners:\n").expect("listeners");
    let (inner, after) = rest.split_once("\n  clusters:\n").expect("clusters");
    let inner: String = inner
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line)))
        .collect();
    let kind = "- \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener\n  name: ";
    publish(listeners, &format!("resources:\n{}", inner.replacen("- name: ", kind, 1)));
    let before = before.strip_suffix("static_resources:").expect("the resources");
    let watched = format!(
        "dynamic_resources:\n  lds_config: {{path_config_source: {{path: {}}}}}\n",
        listeners.display()
    );
    fs::write(config, format!("{before}{watched}static_resources:\n  clusters:\n{after}"))
        .expect("the bootstrap is written");
    Ok(())
}

/// Envoy reads a file again when one is moved into its place.
fn publish(file: &Path, text: &str) {
    let staged = file.with_extension("staged");
    fs::write(&staged, text).expect("a file");
    fs::rename(staged, file).expect("a file in its place");
}

fn verified(org: &Organisation, log: &Path) -> Value {
    let verify = ["audit", "verify", log.to_str().unwrap(), "--intents", "--checkpoints"];
    let more = ["--partial", "--org", &org.name, "--output", "json"];
    let output = org.operator.run(&[&verify[..], &more].concat()).unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn listed(report: &Value, name: &str) -> u64 {
    report["intents"][name].as_array().unwrap().len() as u64
}

// Issue 16, second show. Proves: B13, A17
fn no_call_is_lost_by_a_reload_a_hot_restart_and_a_crash(world: &World<'_>) {
    let options = || {
        world.options(Workers::Two, |template| {
            let audit = "\"audit\": {\"input_max_bytes\"";
            replaced(&template, audit, "\"audit\": {\"durable\": true, \"input_max_bytes\"")
        })
    };
    let first_options = options();
    let (port, admin_port) = (first_options.port, first_options.admin_port);
    let listeners = world.dir().join("listeners.yaml");
    let apart = |config: &Path| listeners_apart(config, &listeners);
    let epoch = |number| Epoch { base_id: port, number };
    let first = Envoy::start_epoch(first_options, epoch(0), apart).unwrap();
    let gateway = Gateway::at(&first, world.stack().connector.record());
    let org = world.organisation().through(&gateway);
    let key = org.key("analyst").key;
    let message = mcp::call("query_users", json!({})).to_string();
    let request = Request::post(DEMO, message).bearer(&key);
    let log = gateway.audit().file();

    let load = Load::default();
    let second = thread::scope(|scope| {
        let _stops = Stops(&load);
        for _ in 0..4 {
            scope.spawn(|| load.calls(&gateway, &request));
        }
        load.more(50);
        // A new configuration of the filter is a new VM on each worker.
        let text = fs::read_to_string(&listeners).unwrap();
        publish(
            &listeners,
            &replaced(&text, "\"input_max_bytes\": 4096", "\"input_max_bytes\": 4095"),
        );
        wait("the new listener", || {
            let page =
                first.admin("stats?filter=listener_manager.listener_in_place_updated").ok()?;
            let page = String::from_utf8_lossy(&page.body).into_owned();
            (page.trim().ends_with(": 1")).then_some(())
        });
        load.more(50);
        let mut options = options();
        (options.port, options.admin_port) = (port, admin_port);
        let second = Envoy::start_epoch(options, epoch(1), apart).unwrap();
        wait("the end of the first Envoy", || (!first.process().is_running()).then_some(()));
        load.more(50);
        second
    });
    let (answered, broken) = (load.answered(), load.broken.load(Ordering::Relaxed));
    // Calls of the last half minute may be open.
    let report = wait("a report of all calls", || {
        let report = verified(&org, log);
        (report["intents"]["logged"] == report["intents"]["calls"]).then_some(report)
    });
    let calls = report["intents"]["calls"].as_u64().unwrap();
    assert_eq!(report["intact"], true, "{report:#}");
    assert!((answered..=answered + broken).contains(&calls), "{answered}, {broken}: {report:#}");
    assert_eq!(gateway.audit().lines().len() as u64, calls, "an entry for each call");
    let chains = gateway.audit().entries();
    let chains: std::collections::BTreeSet<_> =
        chains.iter().map(|entry| entry["chain"].to_string()).collect();
    assert!(chains.len() >= 3, "three generations of VMs: {chains:?}");
    println!(
        "reload and hot restart: {answered} answered, {broken} broken off, {calls} intents and entries, {} chains",
        chains.len()
    );

    // A crash on top.
    let load = Load::default();
    thread::scope(|scope| {
        let _stops = Stops(&load);
        for _ in 0..4 {
            scope.spawn(|| load.calls(&gateway, &request));
        }
        load.more(100);
        second.process().kill_9();
    });
    let answered = answered + load.answered();
    let report = wait("a report of all calls", || {
        let report = verified(&org, log);
        let number = |name: &str| report["intents"][name].as_u64().unwrap();
        let all = number("logged") + listed(&report, "incomplete") + listed(&report, "lost");
        (all == number("calls") && number("calls") > calls).then_some(report)
    });
    let calls = report["intents"]["calls"].as_u64().unwrap();
    // Each of four clients may have had one call under way when Envoy was killed.
    assert!((answered..=answered + broken + 4).contains(&calls), "{answered}: {report:#}");
    assert_eq!((&report["bad"], &report["missing"]), (&json!(0), &json!(0)), "{report:#}");
    println!(
        "and a crash: {answered} answered, {calls} intents; {} in the log, {} without an entry, {} lost",
        report["intents"]["logged"],
        listed(&report, "incomplete"),
        listed(&report, "lost")
    );
}
