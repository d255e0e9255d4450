//! A connection that is lost while a key is rotated: the new key may count, and must not be lost.
//!
//! Between `portcullis` and Valkey stands a fake that passes everything on but the answer to a change: only so
//! can that one be lost.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{Operator, Scratch, authenticate, issue, record, run};

/// Passes commands on to `valkey` and answers back, until a script was run: that answer it keeps.
fn swallow_the_answer_of_a_script(listener: &TcpListener, valkey: &str) {
    let (mut client, _) = listener.accept().expect("portcullis connects");
    let mut server = TcpStream::connect(valkey).expect("Valkey listens");
    let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let script = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut bytes = [0; 65_536];
            while let Ok(length @ 1..) = answers.read(&mut bytes) {
                // Whoever runs a script has had every answer before.
                if script.load(Ordering::SeqCst) || back.write_all(&bytes[..length]).is_err() {
                    break;
                }
            }
            let _ = back.shutdown(Shutdown::Both);
        });
        let mut bytes = [0; 65_536];
        while let Ok(length @ 1..) = client.read(&mut bytes) {
            let command = &bytes[..length];
            script.store(command.windows(7).any(|word| word == b"EVALSHA"), Ordering::SeqCst);
            server.write_all(command).expect("Valkey takes it");
        }
        let _ = server.shutdown(Shutdown::Both);
    });
}

// Proves: C2
#[test]
fn a_key_whose_rotation_was_not_answered_is_kept_in_its_file() {
    let operator = Operator::with_policy();
    let issued = issue(&operator, &[]).json();
    let id = issued["record"]["id"].as_str().unwrap();
    let file = Scratch::nowhere("unanswered.jsonl");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let fake = format!("redis://{}/", listener.local_addr().unwrap());
    let valkey = operator.valkey.url().trim_start_matches("redis://").trim_end_matches('/');
    let said = std::thread::scope(|scope| {
        scope.spawn(|| swallow_the_answer_of_a_script(&listener, valkey));
        let arguments =
            ["key", "rotate", id, "--overlap", "1h", "--out", file.path(), "--reason", "r"];
        let environment = [("PORTCULLIS_REDIS", fake.as_str())];
        run(&[&arguments[..], &["--output", "json"]].concat(), &environment, "")
    });
    let refusal = said.refusal();
    let next = refusal["next"].as_str().unwrap();
    assert!(next.starts_with(&format!("portcullis key show {id}: whether")), "{refusal}");

    // The change was made. Whoever looks finds the secret that the file names.
    let line: Value = serde_json::from_str(&std::fs::read_to_string(file.path()).unwrap()).unwrap();
    let (rev, record) = record(&operator, "acme", id);
    assert_eq!(rev, "2");
    for key in [&line["key"], &issued["key"]] {
        assert!(authenticate(&record, key.as_str().unwrap()).is_ok());
    }
    let shown = operator.plainly(&["key", "show", id]).stdout;
    let current = format!("secret     {}  current", line["secret"].as_str().unwrap());
    assert!(shown.contains(&current), "{shown}");
}

// Finding of an outside tester: `policy rollback` without an answer was repeated, which undid it.
// Proves: C2
#[test]
fn a_change_whose_answer_is_lost_says_that_it_may_have_been_made() {
    let operator = Operator::with_policy();
    let issued = issue(&operator, &[]).json();
    let id = issued["record"]["id"].as_str().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let fake = format!("redis://{}/", listener.local_addr().unwrap());
    let valkey = operator.valkey.url().trim_start_matches("redis://").trim_end_matches('/');
    let said = std::thread::scope(|scope| {
        scope.spawn(|| swallow_the_answer_of_a_script(&listener, valkey));
        let arguments = ["key", "revoke", id, "--reason", "r", "--output", "json"];
        run(&arguments, &[("PORTCULLIS_REDIS", fake.as_str())], "")
    });
    let refusal = said.refusal();
    let found = refusal["found"].as_str().unwrap();
    assert!(found.ends_with("; the change may have been made"), "{refusal}");
    assert!(
        refusal["next"].as_str().unwrap().starts_with("before you repeat it, look"),
        "{refusal}"
    );
    assert_eq!(record(&operator, "acme", id).0, "2");
}

// Finding of an outside tester: the same status as that of a finding, and a bare line.
// Proves: C2
#[test]
fn an_output_that_takes_nothing_is_no_finding_and_undoes_nothing() {
    let operator = Operator::with_policy();
    let (status, refusal) = on_a_full_disk(&operator, &["key", "list"]);
    assert_eq!((status, &refusal["where"]), (Some(2), &json!("standard output")), "{refusal}");
    let issued = issue(&operator, &[]).json();
    let id = issued["record"]["id"].as_str().unwrap();
    let (status, refusal) = on_a_full_disk(&operator, &["key", "revoke", id, "--reason", "r"]);
    assert_eq!((status, &refusal["where"]), (Some(1), &json!("standard output")), "{refusal}");
    assert!(refusal["expected"].as_str().unwrap().contains("is done all the same"), "{refusal}");
    assert_eq!(record(&operator, "acme", id).0, "2");
}

/// Runs a command whose standard output is a full disk; returns its status and what it said of that.
fn on_a_full_disk(operator: &Operator, arguments: &[&str]) -> (Option<i32>, Value) {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments)
        .args(["--output", "json"])
        .env("PORTCULLIS_REDIS", operator.valkey.url())
        .env_remove("PORTCULLIS_ORG")
        .stdout(Stdio::from(full))
        .output()
        .expect("portcullis runs");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    // Progress of several rotations stands before it.
    let error = said.find("{\n").map_or("", |at| &said[at..]);
    let document: Value = serde_json::from_str(error).unwrap_or_else(|_| panic!("JSON: {said}"));
    (output.status.code(), document["error"].clone())
}

// Finding of an outside tester: the key was there, its secret nowhere, and the error was only "no space left".
// Proves: C2
#[test]
fn a_secret_that_could_not_be_printed_is_named_with_the_way_on() {
    let operator = Operator::with_policy();
    let new = [
        "key", "issue", "--org", "acme", "--name", "n", "--role", "analyst", "--tier", "free",
        "--reason", "r",
    ];
    let (status, refusal) = on_a_full_disk(&operator, &new);
    let listed = operator.says(&["key", "list"]).json();
    let id = listed["keys"][0]["id"].as_str().expect("a key");
    let next = format!("portcullis key rotate {id} --org acme --force --overlap 0s --reason …");
    for (status, refusal) in [
        (status, refusal),
        on_a_full_disk(&operator, &["key", "rotate", id, "--overlap", "0s", "--reason", "r"]),
    ] {
        assert_eq!((status, &refusal["where"]), (Some(1), &json!("standard output")), "{refusal}");
        let found = refusal["found"].as_str().unwrap();
        let what = format!(
            "the new secret of key {id} of acme is shown here alone, and cannot be written: "
        );
        assert!(found.starts_with(&what) && found.contains("No space left"), "{refusal}");
        assert!(refusal["next"].as_str().unwrap().starts_with(&next), "{refusal}");
    }
    // What it names helps.
    let again = ["key", "rotate", id, "--org", "acme", "--force", "--overlap", "0s"];
    let key = operator.says(&again).json()["key"].as_str().unwrap().to_owned();
    let stored = record(&operator, "acme", id).1;
    assert!(authenticate(&stored, &key).is_ok());
    let all =
        ["key", "rotate", "--older-than", "0s", "--force", "--overlap", "0s", "--reason", "r"];
    let (_, refusal) = on_a_full_disk(&operator, &all);
    assert!(
        refusal["found"].as_str().unwrap().contains(&format!("shown here alone: {id}")),
        "{refusal}"
    );
}
