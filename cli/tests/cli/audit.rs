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

/// Two workers' chains again, each line a second after the one before.
fn timed_log() -> Vec<String> {
    let mut chains = [Chain::new("worker-a".into()), Chain::new("worker-b".into())];
    (0..10)
        .map(|index: u64| {
            let timestamp = format!("2026-11-28T10:00:{index:02}Z");
            let entry = Entry { timestamp, ..Entry::default() };
            let [a, b] = &mut chains;
            if index % 3 == 2 { b.append(&entry) } else { a.append(&entry) }
        })
        .collect()
}

pub(crate) fn gzipped(name: &str, text: &str) -> Scratch {
    let file = Scratch::nowhere(name);
    let mut process = std::process::Command::new("gzip")
        .stdin(std::process::Stdio::piped())
        .stdout(std::fs::File::create(file.path()).unwrap())
        .spawn()
        .expect("gzip");
    std::io::Write::write_all(&mut process.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(process.wait().unwrap().success());
    file
}

// Findings 9.10 and 11.15.
#[test]
fn rotated_files_may_be_compressed_empty_in_any_order_and_have_lines_of_others() {
    let lines = timed_log();
    let text = |lines: &[String]| lines.join("\n") + "\n";
    let oldest = gzipped("audit.jsonl.2.gz", &text(&lines[..4]));
    let older = Scratch::new("audit.jsonl.1", &text(&lines[4..7]));
    let foreign = "[2026-11-28T10:00:08Z] \"GET / HTTP/1.1\" 200 -\n\n{\"method\":\"GET\"}\n";
    let newest = Scratch::new("audit.jsonl", &(foreign.to_owned() + &text(&lines[7..])));
    let empty = Scratch::new("audit.jsonl.0", "");
    // As a shell writes them: the newest first.
    let files = [newest.path(), empty.path(), older.path(), oldest.path()];
    let verify = [&["audit", "verify", "--output", "json"][..], &files].concat();
    let found = run(&verify, &[], "").json();
    assert_eq!((&found["entries"], &found["foreign"]), (&10.into(), &3.into()), "{found:#}");

    // Today's alone begins in the middle, and says what to do.
    let alone = run(&["audit", "verify", newest.path()], &[], "");
    assert_eq!(alone.status, 1);
    assert!(alone.stdout.contains("--start anywhere"), "{alone:?}");
    let alone = run(&["audit", "verify", newest.path(), "--start", "anywhere"], &[], "");
    assert_eq!(alone.status, 0, "{alone:?}");
    assert!(alone.stdout.ends_with("; 3 lines of others were passed over\n"), "{alone:?}");
}

// Finding 9.10: only the first bad line was named, and no gap counted.
#[test]
fn every_bad_line_is_named_and_gaps_are_counted() {
    let mut lines = log();
    lines[1] = lines[1].replace("\"latency_ms\":1", "\"latency_ms\":9");
    lines.drain(3..5);
    let said = verify(&lines, &["--output", "json"]);
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&found["bad"], &found["missing"]), (&2.into(), &2.into()), "{found:#}");
    let named = found["faults"].as_array().unwrap().iter().map(|fault| fault["line"].clone());
    assert_eq!(named.collect::<Vec<_>>(), [2, 5]);
    let plainly = verify(&lines, &[]).stdout;
    assert!(plainly.contains("standard input:2: ") && plainly.contains("standard input:5: "));
    assert!(plainly.contains("2 of 8 lines are bad, 2 entries are missing"), "{plainly}");
}

// Finding 9.5: an older copy is intact, only shorter.
#[test]
fn an_entry_that_was_seen_before_has_to_be_there() {
    let lines = log();
    let known = verify(&lines, &["--output", "json"]).json();
    let chain = &known["chains"][0];
    let anchor = format!("worker-a:{}:{}", chain["last"], chain["head"].as_str().unwrap());
    let expect = ["--expect", anchor.as_str()];
    assert_eq!(verify(&lines, &expect).status, 0);
    // What was written since does not matter; what is gone does.
    let cut = verify(&lines[..7], &expect);
    assert_eq!(cut.status, 1);
    assert!(
        cut.stdout.contains("chain worker-a ends with entry 5, before the expected entry 7"),
        "{cut:?}"
    );
    assert!(cut.stdout.contains("NOT AS EXPECTED"), "{cut:?}");
    let other = format!("worker-a:7:{}", "0".repeat(64));
    let replaced = verify(&lines, &["--expect", &other]);
    assert!(replaced.status == 1 && replaced.stdout.contains("has the hash"), "{replaced:?}");
    assert_eq!(verify(&lines, &["--expect", "worker-a:7"]).status, 2);
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
fn a_log_that_cannot_be_read_is_not_one_that_is_not_intact() {
    let verify = |more: &[&str], redis: &str| {
        let command = [&["audit", "verify", "--output", "json"][..], more].concat();
        run(&command, &[("PORTCULLIS_REDIS", redis)], "").unanswered()["where"].clone()
    };
    let (log, away) = (crate::harness::file("audit.jsonl"), "redis://127.0.0.1:1/");
    assert_eq!(verify(&["nosuch.log"], away), "nosuch.log");
    assert_eq!(verify(&[&log, "--anchors", "nosuch.anchors"], away), "nosuch.anchors");
    for asks_redis in [&["--admin"][..], &[&log, "--checkpoints"]] {
        assert_eq!(verify(asks_redis, away), "Redis at 127.0.0.1:1");
    }
    // An answer stays one: no entry, and what is not intact.
    assert_eq!(run(&["audit", "verify", "-"], &[], "").status, 1);
}
