//! What a real OpenTelemetry Collector makes of a real log: `cargo xtask shipping` builds the Collector and names it in
//! `PORTCULLIS_COLLECTOR`. Without one there is nothing to try.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use portcullis_stack::{Process, http, ports, ready};
use portcullis_tests::organisation::DEMO;
use portcullis_tests::otlp_http::OtlpHttp;
use portcullis_tests::world::Workers;
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    match collector() {
        None => Vec::new(),
        Some(_) => cases!["shipping":
            every_line_arrives_unchanged_through_rotations_an_outage_and_a_crash,
        ],
    }
}

fn collector() -> Option<PathBuf> {
    std::env::var_os("PORTCULLIS_COLLECTOR").map(PathBuf::from)
}

/// A line that is no entry, as another program may write it into the file.
const OF_OTHERS: &str =
    "[2026-11-30 06:00:00.000][7][warning] a line of another program, with \"quotes\"";

/// What is not shipped: a second destination, so that files are combined as the page says; no compression, which the
/// trial's servers do not read; a queue that one request fills; and retries that come soon.
fn of_the_trial(second: &str) -> String {
    let exporter = json!({
        "compression": "none",
        "sending_queue": {"queue_size": 1, "num_consumers": 1},
        "retry_on_failure": {"initial_interval": "100ms", "max_interval": "500ms"},
    });
    let mut other = exporter.clone();
    other["endpoint"] = second.into();
    other["sending_queue"]["storage"] = "file_storage".into();
    other["sending_queue"]["block_on_overflow"] = true.into();
    let pipeline = json!({"receivers": ["file_log"], "exporters": ["otlp_http/second"]});
    json!({
        "exporters": {"otlp_http": exporter, "otlp_http/second": other},
        "service": {"pipelines": {"logs/second": pipeline}},
    })
    .to_string()
}

fn started(world: &World<'_>, log: &Path, [endpoint, second]: [&str; 2], nth: usize) -> Process {
    let shipped = world.stack().options().root.join("observability/shipping/otel-collector");
    let own = world.dir().join("collector.yaml");
    fs::write(&own, of_the_trial(second)).unwrap();
    let mut command = Command::new(collector().expect("a collector"));
    command.arg("--feature-gates=stanza.synchronousLogEmitter");
    for file in [shipped.join("base.yaml"), shipped.join("otlp.yaml"), own] {
        command.arg("--config").arg(file);
    }
    let state = world.dir().join("collector");
    let listen = format!("127.0.0.1:{}", ports::free_port().unwrap());
    command
        .env("PORTCULLIS_AUDIT_LOG", log)
        .env("PORTCULLIS_COLLECTOR_STATE", state)
        .env("PORTCULLIS_COLLECTOR_LISTEN", listen)
        .env("PORTCULLIS_OTLP_ENDPOINT", endpoint);
    let output = world.dir().join(format!("collector-{nth}.log"));
    Process::spawn("otelcol", command, &output).unwrap()
}

fn wait<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    ready::eventually(what, Duration::from_secs(120), condition)
        .unwrap_or_else(|fault| panic!("{fault}"))
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

// Issue 16: "run for real". Proves: A19, X1
fn every_line_arrives_unchanged_through_rotations_an_outage_and_a_crash(world: &World<'_>) {
    // One worker has one chain, so that files begin alike.
    let own = world.envoy(Workers::One, |settings| settings);
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let log = own.gateway.audit().file().to_owned();
    let rotated = |nth: usize| PathBuf::from(format!("{}.{nth}", log.display()));
    let (server, address) = OtlpHttp::start();
    let (second, second_address) = OtlpHttp::start();
    let endpoints = [address, second_address].map(|address| format!("http://{address}"));
    let endpoints = [endpoints[0].as_str(), endpoints[1].as_str()];
    let long = "ä\u{2028}\"\\ ".repeat(600);
    // The line of others counts.
    let mut made = 1;
    let mut calls = |count: usize| {
        let mut wire = Wire::connect(own.gateway.address()).expect("a gateway");
        for n in 0..count {
            let query = if n % 5 == 0 { long.clone() } else { format!("text {n}") };
            let message = mcp::call("query_users", json!({"query": query})).to_string();
            wire.exchange(&Request::post(DEMO, message).bearer(&key)).expect("an answer");
        }
        made += count;
        made
    };
    let distinct = |server: &OtlpHttp| {
        let mut times = BTreeMap::<String, usize>::new();
        server.records().into_iter().for_each(|line| *times.entry(line).or_default() += 1);
        times
    };
    let at = |server: &OtlpHttp, made: usize| {
        let all = || (distinct(server).len() >= made).then_some(());
        if ready::eventually("every line", Duration::from_secs(30), all).is_err() {
            let found = distinct(server);
            let files = [rotated(1), log.clone()];
            let missing = files.map(|file| {
                let lines = lines(&file).into_iter().enumerate();
                lines.filter(|(_, line)| !found.contains_key(line)).map(|(n, _)| n).collect()
            });
            let missing: [Vec<usize>; 2] = missing;
            panic!("{} of {made} lines arrived; missing are {missing:?}", found.len());
        }
    };
    let arrived = |made: usize| [&server, &second].iter().for_each(|it| at(it, made));
    // All is written before the file is opened again, so that the next call is the first line of the new one.
    let reopened = |old: &[usize], made: usize| {
        let written = || {
            let files = old.iter().map(|&nth| lines(&rotated(nth)).len());
            (files.sum::<usize>() >= made).then_some(())
        };
        wait("the entries in the old files", written);
        let url = format!("{}/reopen_logs", own.envoy.admin_url());
        assert_eq!(http::send("POST", &url, &[], b"").unwrap().status, 200);
    };
    // What is there before the Collector starts, is read from its beginning.
    let before = calls(200);
    wait("the entries", || (lines(&log).len() >= before - 1).then_some(()));
    let mut file = File::options().append(true).open(&log).unwrap();
    file.write_all(format!("{OF_OTHERS}\n").as_bytes()).unwrap();
    let collector = started(world, &log, endpoints, 1);
    arrived(before);
    // Rotated while it reads, as logrotate does: Envoy writes into the renamed file until it opens the new one.
    fs::rename(&log, rotated(1)).unwrap();
    reopened(&[1], calls(100));
    arrived(calls(200));
    // One destination is down until its queue is full, and comes back. The other one gets each line once.
    server.set_down(true);
    for _ in 0..5 {
        let made = calls(100);
        wait("the entries", || {
            (lines(&log).len() + lines(&rotated(1)).len() >= made).then_some(())
        });
    }
    server.set_down(false);
    arrived(calls(1));
    let again = distinct(&second).into_iter().filter(|(_, times)| *times > 1).count();
    assert_eq!(again, 0, "lines came again where nothing failed");
    // It takes records and says 503.
    server.set_down(true);
    let during = calls(200);
    let unacknowledged = || (distinct(&server).len() > during - 200).then_some(());
    wait("a record that is not acknowledged", unacknowledged);
    // The Collector is killed meanwhile, and the log is rotated and compressed.
    collector.kill_9();
    fs::rename(rotated(1), rotated(2)).unwrap();
    fs::rename(&log, rotated(1)).unwrap();
    reopened(&[1, 2], during);
    let old = lines(&rotated(2));
    assert!(Command::new("gzip").arg(rotated(2)).status().unwrap().success());
    let after = calls(200);
    // The Collector knows a file by its beginning, by itself the first 1,000 bytes.
    let begins = |file: &Path| lines(file).first()?.as_bytes().get(..1_000).map(<[u8]>::to_vec);
    wait("an entry in the new file", || begins(&log));
    assert_eq!(begins(&log), begins(&rotated(1)), "files that begin alike are the trial");
    server.set_down(false);
    let _collector = started(world, &log, endpoints, 2);
    arrived(after);
    // Nothing is lost, nothing is changed; what was sent again is the same line, which chain and number tell apart.
    let mut expected = [old, lines(&rotated(1)), lines(&log)].concat();
    expected.sort();
    assert_eq!(expected.len(), after);
    let mut received = Vec::new();
    for server in [&server, &second] {
        let times = distinct(server);
        let found: Vec<&String> = times.keys().collect();
        let all = found.iter().copied().eq(&expected);
        assert!(all, "{} lines arrived of {}", found.len(), expected.len());
        received.push(times.values().sum::<usize>());
    }
    let mut once: Vec<(String, u64, String)> = Vec::new();
    for line in expected {
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        once.push((entry["chain"].to_string(), entry["seq"].as_u64().unwrap_or(0), line));
    }
    once.sort();
    let back = world.dir().join("back.jsonl");
    let text: String = once.into_iter().map(|(_, _, line)| line + "\n").collect();
    fs::write(&back, text).unwrap();
    let report = org.operator.json(&["audit", "verify", back.to_str().unwrap()]).unwrap();
    let found = ["intact", "entries", "foreign"].map(|member| &report[member]);
    assert_eq!(found, [&json!(true), &json!(after - 1), &json!(1)]);
    println!("{after} lines written; {received:?} records received by the two destinations");
}
