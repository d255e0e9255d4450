//! `watch`: what waits and what is nearly used up reaches a program and a URL, once.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_redis_lua::{Admit, Key, Scope, Window};
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, Scratch, golden_file, issue};

/// A call waits for approval, as `request` asked for it.
fn ask(operator: &Operator, digest: &str, request: &str) {
    let doc = json!({
        "digest": digest, "org": "acme", "principal": "agent", "client_id": "k1", "role": "analyst",
        "connector": "demo", "tool": "create_note", "arguments": {"text": "x"}, "rule": "r",
        "request_id": request, "asked_at": "2026-11-29T12:00:00Z",
    });
    let mut redis = operator.redis();
    let key = Key::approval("acme", digest);
    let fields = [("rev", "pending".to_owned()), ("doc", doc.to_string())];
    let _: () = redis.hset_multiple(key.as_str(), &fields).unwrap();
    let _: () = redis.expire(key.as_str(), 600).unwrap();
    let _: () = redis.zadd(Key::approvals("acme").as_str(), digest, 9_999_999_999_999_u64).unwrap();
}

fn draw(operator: &Operator, id: &str, cost: u64) {
    let window = Window {
        key: Key::window(Scope::Org("acme"), "tiers.free.calls", &[("key", id)]),
        limit: 5,
        length_us: 60_000_000,
        grain_us: 1,
        cost,
        alert: None,
    };
    let admit = Admit { guards: vec![], windows: vec![window], used: None, intent: None };
    crate::valkey::run(&mut operator.redis(), &admit.call());
}

fn deployment() -> (Operator, String) {
    let operator = Operator::new();
    // Windows that outlast a slow test.
    let policy = golden_file("policy.yaml").replace("window: 1s", "window: 1m");
    let policy = Scratch::new("policy.yaml", &policy);
    operator.says(&["policy", "push", policy.path(), "--reason", "start"]).json();
    let id = issue(&operator, &[]).json()["record"]["id"].as_str().unwrap().to_owned();
    (operator, id)
}

// Proves: C7
#[test]
fn what_waits_and_what_is_near_its_end_reaches_a_program() {
    let (operator, id) = deployment();
    ask(&operator, &"ab".repeat(32), "q");
    draw(&operator, &id, 3);
    let log = Scratch::new("events", "");
    let hook = Scratch::new("hook", &format!("#!/bin/sh\ncat >> '{}'\n", log.path()));
    std::fs::set_permissions(hook.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let events = || -> Vec<Value> {
        let text = std::fs::read_to_string(log.path()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let watch = ["watch", "--once", "--exec", hook.path()];
    assert_eq!(operator.says(&watch).status, 0);
    let told = events();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["event"], "approval_waiting");
    assert_eq!(told[0]["call"]["arguments"], json!({"text": "x"}));
    // At 80 % the window is an event, too.
    draw(&operator, &id, 1);
    assert_eq!(operator.says(&watch).status, 0);
    let told = events();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(
        (&told[2]["event"], &told[2]["window"]["percent"]),
        (&json!("limit_near"), &json!(80))
    );
    assert_eq!(told[2]["window"]["key"], json!(id));
    // A program that fails is a failure.
    let failing = operator.says(&["watch", "--once", "--exec", "/bin/false"]);
    assert_eq!(failing.status, 1, "{failing:?}");
    assert!(failing.stderr.starts_with("the hook failed: "), "it is not called again: {failing:?}");
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes one POST, and answers with `status`.
fn take(listener: &TcpListener, status: &str) -> Value {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) => assert!(Instant::now() < deadline, "nothing was posted"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    stream.set_nonblocking(false).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).unwrap();
    serde_json::from_slice(&body).unwrap()
}

// Proves: C7
#[test]
fn an_event_is_posted_until_it_is_taken_and_then_once() {
    let (operator, id) = deployment();
    draw(&operator, &id, 5);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let watch = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["watch", "--every", "1s", "--output", "json", "--post", &url])
        .env("PORTCULLIS_REDIS", operator.valkey.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut watch = Running(watch);
    let first = take(&listener, "503 Busy");
    let again = take(&listener, "200 OK");
    assert_eq!(first["window"]["key"], again["window"]["key"]);
    // What comes next is something else.
    ask(&operator, &"cd".repeat(32), "q");
    let next = take(&listener, "204 None");
    assert_eq!(next["event"], "approval_waiting", "{next}");
    // The same call again: it was approved and made between two looks, and has the same id.
    ask(&operator, &"cd".repeat(32), "r");
    let next = take(&listener, "204 None");
    assert_eq!(
        (&next["event"], &next["call"]["request_id"]),
        (&json!("approval_waiting"), &json!("r"))
    );
    let mut lines = BufReader::new(watch.0.stdout.take().unwrap()).lines();
    let printed: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(printed["window"]["key"], json!(id));
}
