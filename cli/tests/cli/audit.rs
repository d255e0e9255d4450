//! `audit verify`: intact logs, and the first bad entry of others.

use portcullis_core::audit::{Chain, Entry};
use serde_json::Value;

use crate::harness::{Said, Scratch, run};

/// Two workers' chains in one log, as Envoy writes it.
fn log() -> Vec<String> {
    let mut chains = [Chain::new("worker-a".into()), Chain::new("worker-b".into())];
    (0..10)
        .map(|index: u64| {
            let entry = Entry { latency_ms: index, ..Entry::default() };
            let [a, b] = &mut chains;
            if index % 3 == 2 { b.append(&entry) } else { a.append(&entry) }
        })
        .collect()
}

fn verify(lines: &[String], more: &[&str]) -> Said {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    run(&[&["audit", "verify", "-"], more].concat(), &[], &text)
}

// Proves: A18
#[test]
fn an_intact_log_verifies() {
    let said = verify(&log(), &["--output", "json"]);
    let found = said.json();
    assert_eq!((&found["intact"], &found["entries"]), (&true.into(), &10.into()));
    assert_eq!(found["first_bad"], Value::Null);
    let chain = &found["chains"][0];
    assert_eq!((&chain["chain"], &chain["last"]), (&"worker-a".into(), &7.into()));
    let plainly = verify(&log(), &[]).stdout;
    assert!(plainly.ends_with("intact: 10 entries\n"), "{plainly}");
}

// Proves: A17, A18
#[test]
fn the_first_bad_entry_is_named() {
    let edited = {
        let mut lines = log();
        lines[4] = lines[4].replace("\"latency_ms\":4", "\"latency_ms\":5");
        lines
    };
    let dropped = {
        let mut lines = log();
        lines.remove(4);
        lines
    };
    let swapped = {
        let mut lines = log();
        lines.swap(3, 4);
        lines
    };
    let repeated = {
        let mut lines = log();
        lines.insert(4, lines[4].clone());
        lines
    };
    let cut = {
        let mut lines = log();
        let half = lines[9].len() / 2;
        lines[9].truncate(half);
        lines
    };
    for (lines, line, fault) in [
        (edited, 5, "entry 4 of chain worker-a was changed after it was written"),
        (dropped, 6, "chain worker-a: found entry 5, expected 4: entries are missing"),
        (swapped, 4, "chain worker-a: found entry 4, expected 3: entries are missing"),
        (repeated, 6, "chain worker-a: found entry 4, expected 5: repeated or moved"),
        (cut, 10, "not an audit entry: "),
    ] {
        let said = verify(&lines, &["--output", "json"]);
        assert_eq!((said.status, said.stderr.as_str()), (1, ""), "{said:?}");
        let found: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(found["intact"], false);
        assert_eq!(found["first_bad"]["line"], line, "{said:?}");
        assert!(found["first_bad"]["fault"].as_str().unwrap().starts_with(fault), "{said:?}");

        let plainly = verify(&lines, &[]);
        assert_eq!(plainly.status, 1);
        let named = format!("standard input:{line}: {fault}");
        assert!(plainly.stdout.starts_with(&named), "{plainly:?}");
    }
}

// Proves: A18
#[test]
fn rotated_files_are_one_log() {
    let lines = log();
    let old = Scratch::new("audit.1.log", &(lines[..5].join("\n") + "\n"));
    let new = Scratch::new("audit.log", &(lines[5..].join("\n") + "\n"));
    let both = run(&["audit", "verify", old.path(), new.path()], &[], "");
    assert_eq!(both.status, 0, "{both:?}");

    let alone = run(&["audit", "verify", new.path()], &[], "");
    assert_eq!(alone.status, 1);
    assert!(alone.stdout.starts_with(&format!("{}:1: chain", new.path())), "{alone:?}");
    let alone = run(&["audit", "verify", new.path(), "--start", "anywhere"], &[], "");
    assert_eq!(alone.status, 0, "{alone:?}");
}

#[test]
fn an_empty_log_proves_nothing() {
    let said = verify(&[], &[]);
    assert_eq!((said.status, said.stdout.as_str()), (1, "no audit entries\n"));
}

#[test]
fn hostile_lines_do_not_reach_the_terminal() {
    let said = verify(
        &["{\"chain\":\"\u{9b}2J\\u001b[2J\",\"seq\":1,\"prev_hash\":\"\",\"hash\":\"\"}".into()],
        &[],
    );
    assert_eq!(said.status, 1);
    assert!(said.stdout.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
}

#[test]
fn a_missing_file_is_a_refusal() {
    let refusal = run(&["audit", "verify", "nosuch.log", "--output", "json"], &[], "").refusal();
    assert_eq!(refusal["where"], "nosuch.log");
}
