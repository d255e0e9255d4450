//! A connection that is lost while a key is rotated: the new key may count, and must not be lost.
//!
//! Between `portcullis` and Valkey stands a fake that passes everything on but the answer to a change: only so
//! can that one be lost.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

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
