//! What large logs cost: time, CPU time and memory of the commands that read them. Figures, so nothing that the test command runs.
//!
//! `PORTCULLIS_AUDIT_ENTRIES=10000000 cargo test --release -p portcullis --test cli -- --ignored --nocapture audit_size`

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_core::audit::{AuditEvent, Chain, Decision, Entry};

use crate::harness::Scratch;

const ENTRIES: u64 = 1_000_000;

/// Four workers, 200 callers, 40 tools; arguments of about 150 bytes; every twentieth call denied.
fn entry(index: u64) -> Entry {
    let text = |name: &str, of: u64| Some(format!("{name}{:03}", index.wrapping_mul(7_919) % of));
    let denied = index.is_multiple_of(20);
    let id = text("key", 200).unwrap();
    let mut events = vec![AuditEvent::AuthSuccess { client_id: id.clone() }];
    if denied {
        let tool = text("tool_", 40).unwrap();
        events.push(AuditEvent::ToolAccessDenied { client_id: id.clone(), tool });
    }
    let seconds = index / 20;
    let (day, hour, minute, second) =
        (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    Entry {
        timestamp: format!(
            "2026-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z",
            1 + day / 28,
            1 + day % 28,
            index % 20 * 50_000
        ),
        request_id: format!("{index:08x}-722f-8d8a-9462-d4c6c9e7af0e"),
        org_id: text("org", 5),
        api_key_id: Some(id),
        principal: text("agent-", 200),
        auth_method: Some("api_key"),
        role: Some("analyst".into()),
        connector: Some("crm".into()),
        http_method: "POST".into(),
        path: "/crm/mcp".into(),
        mcp_method: Some("tools/call".into()),
        tool_name: text("tool_", 40),
        input: Some(format!(
            r#"{{"filter":{{"country":"DE","segment":"enterprise customers","since":"2026-01-01"}},"limit":{},"query":"find the accounts with open invoices of more than 1000 euro"}}"#,
            index % 100
        )),
        input_sha256: Some(format!("{index:064x}")),
        status: if denied { "denied" } else { "success" },
        http_status: Some(if denied { 403 } else { 200 }),
        decision: match denied {
            true => Decision { effect: "deny", rule: "roles.analyst.crm.show".into() },
            false => Decision { effect: "allow", rule: String::new() },
        },
        latency_ms: index.wrapping_mul(6_364_136_223) % 700,
        upstream_ms: Some(index % 300),
        rows_returned: Some(index % 50),
        policy_version: Some("e4b1590df285cc5b".into()),
        events,
        client_address: format!("192.0.2.{}", index % 250),
        user_agent: Some("claude-code/2.1.0".into()),
        ..Entry::default()
    }
}

fn write(path: &str, entries: u64) -> u64 {
    let mut chains = ["a", "b", "c", "d"].map(|name| Chain::new(format!("worker-{name}")));
    let mut file = BufWriter::new(File::create(path).expect("room for a log"));
    for index in 0..entries {
        let chain = &mut chains[usize::try_from(index % 4).unwrap()];
        writeln!(file, "{}", chain.append(&entry(index))).expect("room for a log");
    }
    file.into_inner().expect("written").metadata().expect("a file").len()
}

/// Runs a command with its output thrown away; how long it took, its CPU time, and its largest resident set in MB.
fn measured(arguments: &[&str]) -> (Duration, Duration, u64) {
    let started = Instant::now();
    let mut process = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .expect("portcullis runs");
    let [status, stat] = ["status", "stat"].map(|file| format!("/proc/{}/{file}", process.id()));
    let (mut most, mut ticks) = (0, 0);
    let ended = loop {
        let now = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = now.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok());
        most = most.max(peak.unwrap_or(0));
        let now = std::fs::read_to_string(&stat).unwrap_or_default();
        // Behind the name: user and system time, in hundredths of a second.
        let fields = now.rsplit_once(')').map_or("", |(_, fields)| fields).split(' ');
        let used = fields.skip(12).take(2).filter_map(|it| it.parse::<u64>().ok()).sum();
        ticks = ticks.max(used);
        match process.try_wait().expect("a child") {
            Some(ended) => break ended,
            // How often memory is looked at; nothing waits for it.
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert!(ended.success(), "{arguments:?}: {ended}");
    (started.elapsed(), Duration::from_millis(ticks * 10), most / 1_024)
}

#[test]
#[ignore = "takes minutes and gigabytes: for the figures of docs/explanation/benchmarks.md"]
fn audit_size() {
    let entries = std::env::var("PORTCULLIS_AUDIT_ENTRIES");
    let entries = entries.map_or(ENTRIES, |entries| entries.parse().expect("a number"));
    let log = Scratch::nowhere("large.jsonl");
    let bytes = write(log.path(), entries);
    println!("{entries} entries, {} MB", bytes / 1_000_000);
    println!(
        "| command | time | CPU | entries/s of CPU | MB/s of CPU | memory |\n|---|---|---|---|---|---|"
    );
    for arguments in [
        &["verify"][..],
        &["search", "--key", "key020", "--status", "denied", "--limit", "100"],
        &["search", "--text", "agent-199", "--since", "2026-01-01T00:00:00Z"],
        &["tail", "-n", "100"],
        &["report"],
        &["export", "--format", "json"],
        &["export", "--format", "csv"],
        &["export", "--format", "cef"],
        &["export", "--format", "ocsf"],
    ] {
        let arguments = [&["audit"], arguments].concat();
        let (took, cpu, memory) = measured(&[&arguments[..], &[log.path()]].concat());
        let per_second = |count: u64| u128::from(count) * 1_000 / cpu.as_millis().max(1);
        println!(
            "| `{}` | {:.1} s | {:.1} s | {} | {} | {memory} MB |",
            arguments.join(" "),
            took.as_secs_f64(),
            cpu.as_secs_f64(),
            per_second(entries),
            per_second(bytes) / 1_000_000
        );
    }
}
