//! `top`: what the last while came to, from files that grow and from standard input.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use portcullis_core::audit::{Chain, Decision, Entry};
use portcullis_core::time::UnixTime;
use serde_json::{Value, json};

use crate::harness::{Operator, Scratch, run};

/// An entry of so many seconds ago.
fn entry(chain: &mut Chain, ago: u64, caller: &str, status: &'static str) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970") - Duration::from_secs(ago);
    let now = UnixTime::from_micros(u64::try_from(now.as_micros()).expect("before 586524"));
    let line = chain.append(&Entry {
        timestamp: now.rfc3339(),
        org_id: Some("acme".into()),
        principal: Some(caller.into()),
        connector: Some("crm".into()),
        mcp_method: Some("tools/call".into()),
        tool_name: Some("find".into()),
        status,
        decision: Decision { effect: "deny", rule: format!("rule.{status}") },
        latency_ms: 7,
        ..Entry::default()
    });
    format!("{line}\n")
}

fn requests(frame: &Value) -> (u64, Vec<(&str, u64)>) {
    let callers = frame["callers"].as_array().expect("callers");
    let caller = |it: &Value| it["requests"].as_u64().expect("a number");
    let callers =
        callers.iter().map(|it| (it["name"].as_str().expect("a name"), caller(it))).collect();
    (caller(&frame["all"]), callers)
}

// Proves: A28, A29, A30
#[test]
fn one_picture_sums_up_the_last_while_and_says_whose_windows_are_nearly_used_up() {
    let mut chain = Chain::new("worker".into());
    // More than a megabyte of older calls: they are not all read.
    let old: String = (0..4_000).map(|_| entry(&mut chain, 3_600, "old", "success")).collect();
    let new: String = [("ada", "success"), ("bot", "denied"), ("bot", "limited")]
        .map(|(caller, status)| entry(&mut chain, 5, caller, status))
        .concat();
    let log = Scratch::new("audit.jsonl", &format!("{old}[info] another program\n{new}"));
    let operator = Operator::with_policy();
    let said = operator.plainly(&["top", log.path(), "--once", "--output", "json"]);
    let frame = said.json();
    assert_eq!(requests(&frame), (3, vec![("acme/bot", 2), ("acme/ada", 1)]), "{frame}");
    assert_eq!(frame["all"]["limited"], json!(1));
    assert_eq!(frame["calls"][0]["name"], json!("crm/find"));
    assert_eq!(frame["refused_by"][0], json!({"rule": "rule.denied", "requests": 1, "callers": 1}));
    assert_eq!((&frame["windows"], &frame["windows_error"]), (&json!([]), &Value::Null));
    let all = ["top", log.path(), "--once", "--window", "2h", "--output", "json"];
    let (count, callers) = requests_of(&all);
    assert_eq!((count, callers[0].1), (4_003, 4_000));
    let bots = ["top", log.path(), "--once", "--client", "bot", "--output", "json"];
    assert_eq!(requests_of(&bots).0, 2);
    let text = run(&["top", log.path(), "--once"], &[], "");
    assert_eq!((text.status, text.stderr.as_str()), (0, ""), "{text:?}");
    for part in ["last 60 s: 3 requests", "acme/bot  2", "rule.limited", "windows are not shown"] {
        assert!(text.stdout.contains(part), "{part}: {}", text.stdout);
    }
    assert!(!text.stdout.contains('\u{1b}'), "no terminal reads this");
}

// Finding of an outside tester: a key and a token of one name were one row, and the name is often the caller's choice.
#[test]
fn callers_of_one_name_have_rows_of_their_own() {
    let mut chain = Chain::new("worker".into());
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    let now = UnixTime::from_micros(u64::try_from(now.as_micros()).expect("before 586524"));
    let mut of = |key: Option<&str>, client: &str, name: &str| {
        let entry = Entry {
            timestamp: now.rfc3339(),
            org_id: Some("acme".into()),
            api_key_id: key.map(Into::into),
            client_id: Some(client.into()),
            principal: Some(name.into()),
            status: "success",
            ..Entry::default()
        };
        chain.append(&entry) + "\n"
    };
    let lines = [
        of(Some("k1"), "k1", "weak"),
        of(Some("k1"), "k1", "weak"),
        of(Some("k1"), "k1", "weak"),
        of(Some("k2"), "k2", "weak"),
        of(Some("k2"), "k2", "weak"),
        of(None, "weak", "weak"),
    ];
    let log = Scratch::new("audit.jsonl", &lines.concat());
    let (count, callers) = requests_of(&["top", log.path(), "--once", "--output", "json"]);
    let named = |name: &str, count| (name.to_owned(), count);
    let rows = [named("acme/weak (k1)", 3), named("acme/weak (k2)", 2), named("acme/weak", 1)];
    assert_eq!((count, &callers[..]), (6, &rows[..]));
    let report = run(&["audit", "report", log.path()], &[], "").stdout;
    for (name, _) in rows {
        assert!(
            report.lines().any(|line| line.starts_with(&format!("{name}  "))),
            "{name}: {report}"
        );
    }
}

fn requests_of(arguments: &[&str]) -> (u64, Vec<(String, u64)>) {
    let frame = run(arguments, &[], "").json();
    let (all, callers) = requests(&frame);
    (all, callers.into_iter().map(|(name, count)| (name.to_owned(), count)).collect())
}

#[test]
fn a_log_on_standard_input_is_read_to_its_end() {
    let mut chain = Chain::new("worker".into());
    let lines: String = (0..3).map(|_| entry(&mut chain, 1, "ada", "success")).collect();
    for once in [&["--once"][..], &[]] {
        let arguments = [&["top", "-", "--output", "json"][..], once].concat();
        let said = run(&arguments, &[], &lines);
        let last = said.stdout.lines().last().unwrap_or_else(|| panic!("{said:?}"));
        assert_eq!(requests(&serde_json::from_str(last).unwrap()).0, 3, "{said:?}");
    }
    let said = run(&["top", "-", "no-such-file"], &[], &lines);
    assert_eq!(said.status, 2, "{said:?}");
}

/// `top` while it goes on, with its pictures.
struct Watching {
    process: Child,
    frames: Receiver<String>,
}

impl Watching {
    fn start(path: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["top", path, "--every", "1s", "--output", "json"])
            .env_remove("PORTCULLIS_REDIS")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("portcullis runs");
        let stdout = BufReader::new(process.stdout.take().expect("piped"));
        let (read, frames) = channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| read.send(line))
        });
        Self { process, frames }
    }

    /// Waits for a picture of so many requests.
    fn until(&mut self, count: u64) {
        loop {
            let frame = self.frames.recv_timeout(Duration::from_secs(60)).expect("a picture");
            if requests(&serde_json::from_str(&frame).expect("JSON")).0 == count {
                return;
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn what_a_log_gains_is_in_the_next_picture() {
    let mut chain = Chain::new("worker".into());
    let log = Scratch::new("audit.jsonl", &entry(&mut chain, 0, "ada", "success"));
    let mut top = Watching::start(log.path());
    top.until(1);
    let mut file = OpenOptions::new().append(true).open(log.path()).expect("a log");
    file.write_all(entry(&mut chain, 0, "bot", "denied").as_bytes()).expect("written");
    top.until(2);
}
