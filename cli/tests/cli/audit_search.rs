//! `audit search` and `audit tail`: what is found, how it is shown, and how a log is followed.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use portcullis_core::audit::{AuditEvent, Chain, Decision, Entry};

use crate::audit::gzipped;
use crate::harness::{Scratch, run};

/// Ten requests, a minute apart: of two tools, every third one denied.
pub(crate) fn log() -> Vec<String> {
    let mut chain = Chain::new("worker".into());
    (0..10)
        .map(|index: u64| {
            let denied = index % 3 == 2;
            let id = "k1".to_owned();
            let mut events = vec![AuditEvent::AuthSuccess { client_id: id.clone() }];
            if denied {
                events.push(AuditEvent::ToolAccessDenied { client_id: id, tool: "pay".into() });
            }
            chain.append(&Entry {
                timestamp: format!("2026-11-28T10:{index:02}:00.000000Z"),
                request_id: format!("r{index}"),
                org_id: Some("acme".into()),
                api_key_id: Some("k1".into()),
                principal: Some("cursor".into()),
                mcp_method: Some("tools/call".into()),
                tool_name: Some(if denied { "pay" } else { "list" }.into()),
                input: Some(format!(r#"{{"page":{index}}}"#)),
                status: if denied { "denied" } else { "success" },
                decision: match denied {
                    true => Decision { effect: "deny", rule: "tool.blocked".into() },
                    false => Decision { effect: "allow", rule: String::new() },
                },
                latency_ms: index,
                events,
                ..Entry::default()
            })
        })
        .collect()
}

pub(crate) fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

// Proves: A20
#[test]
fn entries_that_match_are_found_in_all_files_and_scripts_get_them_unchanged() {
    let lines = log();
    let old = gzipped("audit.jsonl.1.gz", &text(&lines[..4]));
    let new = Scratch::new("audit.jsonl", &format!("[info] started\n{}", text(&lines[4..])));
    let search = |more: &[&str]| {
        run(&[&["audit", "search", new.path(), old.path()], more].concat(), &[], "")
    };
    let found = search(&["--status", "denied", "--output", "json"]);
    assert_eq!((found.status, found.stderr.as_str()), (0, ""), "{found:?}");
    let denied = [2, 5, 8].map(|index: usize| lines[index].clone());
    assert_eq!(found.stdout, text(&denied));

    // What is found is still entries of their chain, which only lacks the others.
    let verified = run(&["audit", "verify", "--start", "anywhere", "-"], &[], &text(&lines[3..]));
    assert_eq!(verified.status, 0);

    let one = search(&["--tool", "pay", "--limit", "1"]);
    let rows: Vec<_> = one.stdout.lines().collect();
    assert_eq!(rows.len(), 2, "{one:?}");
    assert!(rows[0].starts_with("TIME                  STATUS"), "{one:?}");
    assert!(rows[1].starts_with("2026-11-28T10:08:00Z  denied"), "{one:?}");
    assert!(
        rows[1].ends_with("tools/call pay                        tool.blocked, tool_access_denied"),
        "{one:?}"
    );

    for (more, status) in [
        (&["--org", "acme", "--key", "k1", "--client", "cursor", "--method", "tools/*"][..], 0),
        (&["--since", "2026-11-28T10:09:00Z"], 0),
        (&["--until", "2026-11-28T10:00:00Z"], 1),
        (&["--text", "R7"], 0),
        (&["--event", "schema_drift"], 1),
        (&["--since", "yesterday"], 2),
        (&["--limit", "0"], 2),
    ] {
        let said = search(more);
        assert_eq!(said.status, status, "{more:?}: {said:?}");
    }
    let none = search(&["--org", "globex"]);
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "no entry matches\n"));
}

// Proves: A20
#[test]
fn the_newest_come_last_whatever_log_they_are_in() {
    let mut other = Chain::new("another gateway".into());
    let entry = |minute: u64| Entry {
        timestamp: format!("2026-11-28T10:{minute:02}:30.000000Z"),
        ..Entry::default()
    };
    let others: Vec<_> = [0, 4, 9].iter().map(|minute| other.append(&entry(*minute))).collect();
    let (one, two) =
        (Scratch::new("a.jsonl", &text(&log())), Scratch::new("b.jsonl", &text(&others)));
    let found = run(
        &["audit", "search", one.path(), two.path(), "--limit", "4", "--output", "json"],
        &[],
        "",
    );
    assert_eq!(
        found.stdout,
        text(&[log()[7].clone(), log()[8].clone(), log()[9].clone(), others[2].clone()])
    );
}

#[test]
fn damaged_entries_are_counted_and_the_first_is_named() {
    let mut lines = log();
    lines[3].truncate(60);
    let cut = format!("{}{{\"api_key_id\":\"k1\",\"chain\"", text(&lines));
    let said = run(&["audit", "search", "-", "--tool", "list"], &[], &cut);
    assert_eq!(said.status, 0);
    assert_eq!(said.stdout.lines().count(), 7, "{said:?}");
    assert!(said.stderr.starts_with("warning: 2 lines are damaged entries"), "{said:?}");
    assert!(said.stderr.contains("standard input:4: "), "{said:?}");
}

#[test]
fn a_log_that_cannot_be_read_is_not_one_without_such_an_entry() {
    let (log, nowhere) = (Scratch::new("a.jsonl", &text(&log())), Scratch::nowhere("b.jsonl"));
    let search = |file: &str, tool| run(&["audit", "search", file, "--tool", tool], &[], "").status;
    assert_eq!(search(log.path(), "list"), 0);
    assert_eq!(search(log.path(), "nosuchtool"), 1);
    assert_eq!(search(nowhere.path(), "list"), 2);
}

#[test]
fn hostile_entries_do_not_reach_the_terminal() {
    let line = "{\"chain\":\"c\",\"seq\":1,\"principal\":\"\\u001b[2J\u{202e}\u{9b}x\",\"tool_name\":\"a\\nb\"}\n";
    for output in ["table", "json"] {
        let said = run(&["audit", "search", "-", "--output", output], &[], line);
        assert_eq!(said.status, 0, "{said:?}");
        let seen = |c: char| c == '\n' || (!c.is_control() && c != '\u{202e}');
        assert!(said.stdout.chars().all(seen), "{said:?}");
    }
}

// Proves: A20
#[test]
fn tail_shows_the_last_entries_of_all_files() {
    let lines = log();
    let old = gzipped("audit.jsonl.1.gz", &text(&lines[..8]));
    let new = Scratch::new("audit.jsonl", &text(&lines[8..]));
    let tail = |more: &[&str]| {
        let command = ["audit", "tail", new.path(), old.path(), "--output", "json"];
        run(&[&command, more].concat(), &[], "").stdout
    };
    assert_eq!(tail(&["-n", "1"]), text(&lines[9..]));
    assert_eq!(tail(&["-n", "3"]), text(&lines[7..]));
    assert_eq!(
        tail(&["-n", "2", "--status", "denied"]),
        text(&[lines[5].clone(), lines[8].clone()])
    );
    assert_eq!(tail(&[]), text(&lines));
}

/// The last entries are found from the end of a file that is larger than what is read first.
#[test]
fn tail_reads_a_large_file_from_its_end() {
    let lines = log();
    let filler = format!("{}\n", "x".repeat(4_000)).repeat(1_000);
    let file = Scratch::new("audit.jsonl", &(text(&lines[..5]) + &filler + &text(&lines[5..])));
    let tail = |most: &str| {
        run(&["audit", "tail", file.path(), "--output", "json", "-n", most], &[], "").stdout
    };
    assert_eq!(tail("5"), text(&lines[5..]));
    assert_eq!(tail("6"), text(&lines[4..]));
}

/// An entry whose line has no end is shown, as `search` shows it.
#[test]
fn tail_shows_the_last_line_also_without_its_end() {
    let lines = log();
    let file = Scratch::new("audit.jsonl", text(&lines).trim_end());
    let said = run(&["audit", "tail", file.path(), "--output", "json", "-n", "2"], &[], "");
    assert_eq!(said.stdout, text(&lines[8..]), "{said:?}");
    assert_eq!(said.stderr, "");
}

/// The line numbers are those of the file, also where only its end is read.
#[test]
fn tail_names_damaged_entries_as_search_does() {
    let lines = log();
    let filler = format!("{}\n", "x".repeat(4_000)).repeat(1_000);
    let mut damaged = lines[8].clone();
    damaged.truncate(60);
    let text = text(&lines[..5]) + &filler + &text(&lines[5..8]) + &damaged + "\n" + &lines[9];
    let (plain, packed) = (Scratch::new("audit.jsonl", &text), gzipped("audit.jsonl.1.gz", &text));
    let tail = |file: &str, input: &str| {
        let said = run(&["audit", "tail", file, "--output", "json", "-n", "2"], &[], input);
        assert_eq!(said.stdout, format!("{}\n{}\n", lines[7], lines[9]), "{said:?}");
        said.stderr
    };
    for (file, input, place) in [
        (plain.path(), "", plain.path()),
        (packed.path(), "", packed.path()),
        ("-", text.as_str(), "standard input"),
    ] {
        let warning = "warning: 1 lines are damaged entries and are left out; the first: ";
        let said = tail(file, input);
        assert!(said.starts_with(&format!("{warning}{place}:1009: ")), "{said}");
    }
    // A line that is being written is named, too, and of several files the older one's line is the first.
    let newer = Scratch::new("audit.jsonl.2", &format!("{}\n{{\"chain\":\"c", lines[9]));
    let said = run(&["audit", "tail", newer.path(), plain.path(), "-n", "2"], &[], "").stderr;
    assert!(said.starts_with("warning: 2 lines are damaged entries"), "{said}");
    assert!(said.contains(&format!("{}:1009: ", plain.path())), "{said}");
}

/// `audit tail --follow`, with its lines.
struct Following {
    process: Child,
    lines: Receiver<String>,
    warnings: Receiver<String>,
}

impl Following {
    fn start(path: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["audit", "tail", "--follow", "-n", "1", "--output", "json", path])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("portcullis runs");
        let lines = lines_of(process.stdout.take().expect("piped"));
        let warnings = lines_of(process.stderr.take().expect("piped"));
        Self { process, lines, warnings }
    }

    /// Waits for the next line.
    fn next(&mut self) -> String {
        self.lines.recv_timeout(Duration::from_secs(60)).expect("another line")
    }

    /// Waits for the next warning.
    fn warning(&mut self) -> String {
        self.warnings.recv_timeout(Duration::from_secs(60)).expect("another warning")
    }
}

/// The lines of an output, as they come.
fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (read, lines) = channel();
    std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| read.send(line))
    });
    lines
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn append(path: &str, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("a log");
    file.write_all(text.as_bytes()).expect("written");
}

// Proves: A20
#[test]
fn tail_follows_a_log_through_rotation_and_truncation() {
    let lines = log();
    let line = |index: usize| format!("{}\n", lines[index]);
    let log = Scratch::new("audit.jsonl", &(line(0) + &line(1)));
    let rotated = Scratch::nowhere("audit.jsonl.1");
    let mut tail = Following::start(log.path());
    assert_eq!(tail.next(), lines[1]);
    // A line that comes in two parts.
    let (start, rest) = lines[2].split_at(100);
    append(log.path(), start);
    append(log.path(), &format!("{rest}\n"));
    assert_eq!(tail.next(), lines[2]);
    // Renamed; the program still writes to it until it reopens its log.
    std::fs::rename(log.path(), rotated.path()).unwrap();
    append(rotated.path(), &line(3));
    assert_eq!(tail.next(), lines[3]);
    append(log.path(), &line(4));
    assert_eq!(tail.next(), lines[4]);
    append(rotated.path(), &line(5));
    assert_eq!(tail.next(), lines[5]);
    // Truncated where it is, and as long again as it was before anybody looks.
    std::fs::write(log.path(), line(6)).unwrap();
    assert_eq!(tail.next(), lines[6]);
    append(log.path(), &line(7));
    assert_eq!(tail.next(), lines[7]);
}

// Proves: A20
#[test]
fn tail_names_damaged_entries_also_while_it_follows() {
    let lines = log();
    let damaged = format!("{}\n", &lines[0][..60]);
    let log = Scratch::new("audit.jsonl", &format!("{damaged}{}\n{}", lines[1], lines[2]));
    let mut tail = Following::start(log.path());
    assert_eq!(tail.next(), lines[1], "the last line may still grow");
    let warning = tail.warning();
    assert!(warning.contains(&format!("the first: {}:1: ", log.path())), "{warning}");
    append(log.path(), &format!("\n{damaged}"));
    assert_eq!(tail.next(), lines[2]);
    let warning = tail.warning();
    let added =
        format!("1 damaged entries were added and are left out; the first, to {}", log.path());
    assert!(warning.contains(&added), "{warning}");
}
