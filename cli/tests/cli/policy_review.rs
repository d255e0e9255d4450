//! What `policy push` shows and asks before it changes something: on a terminal, and to a script.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::{Operator, Said, Scratch, file, issue};
use crate::policy_diff::log;

/// Runs a command on a terminal of its own, and answers its question with `answer`. All that the terminal shows is `stdout`.
const TERMINAL: &str = r#"
import os, pty, sys
answer, command = sys.argv[1], sys.argv[2:]
child, terminal = pty.fork()
if child == 0:
    os.execv(command[0], command)
shown, answered = b"", False
while True:
    try:
        more = os.read(terminal, 65536)
    except OSError:
        break
    if not more:
        break
    shown += more
    if b"[y/N] " in shown and not answered:
        os.write(terminal, answer.encode() + b"\n")
        answered = True
sys.stdout.write(shown.decode().replace("\r\n", "\n"))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

fn at_a_terminal(operator: &Operator, answer: &str, arguments: &[&str]) -> Said {
    let output = Command::new("python3")
        .args(["-c", TERMINAL, answer, env!("CARGO_BIN_EXE_portcullis")])
        .args(arguments)
        .args(["--actor", "tester"])
        .env("PORTCULLIS_REDIS", operator.valkey.url())
        .stdin(Stdio::null())
        .output()
        .expect("python3 runs");
    Said {
        status: output.status.code().expect("an exit status"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

fn active(operator: &Operator) -> String {
    let diff = operator.says(&["policy", "diff", &file("policy.yaml")]).json();
    diff["comparisons"][0]["from"]["version"].as_str().expect("a version").to_owned()
}

/// `policy.yaml` with one more call a second, and cases beside it.
fn changed(expect: &str) -> [Scratch; 2] {
    let text = std::fs::read_to_string(file("policy.yaml")).unwrap();
    let policy = Scratch::new("asked.yaml", &text.replace("limit: 5,", "limit: 6,"));
    let cases = format!(
        "cases:\n  - {{name: searches, caller: {{role: analyst}}, connector: demo, tool: search_contacts, expect: {expect}}}\n"
    );
    let cases = policy.beside(".test.yaml", &cases);
    [policy, cases]
}

// Proves: X4
#[test]
fn on_a_terminal_a_push_shows_what_changes_and_asks() {
    let operator = Operator::with_policy();
    let before = active(&operator);
    let [policy, _cases] = changed("allow");
    let push = ["policy", "push", policy.path(), "--reason", "more calls"];

    for answer in ["n", "", "yep"] {
        let said = at_a_terminal(&operator, answer, &push);
        assert_eq!((said.status, active(&operator)), (1, before.clone()), "{said:?}");
        assert!(said.stdout.contains("limit  5 -> 6"), "{said:?}");
        assert!(said.stdout.contains("1 case, all as expected"), "{said:?}");
        assert!(said.stdout.contains("cases reach "), "{said:?}");
        assert!(said.stdout.contains("push this? [y/N] "), "{said:?}");
        assert!(said.stdout.contains("the answer was not yes"), "{said:?}");
        assert!(!said.stdout.contains("a dry run"), "{said:?}");
    }

    let said = at_a_terminal(&operator, "y", &push);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.stdout.contains("is active, from the next request on"), "{said:?}");
    assert_ne!(active(&operator), before);
}

#[test]
fn whoever_wants_no_question_and_every_script_gets_none() {
    let operator = Operator::with_policy();
    let before = active(&operator);
    let [policy, _cases] = changed("allow");
    let push = ["policy", "push", policy.path(), "--reason", "more calls"];
    let back = || operator.says(&["policy", "rollback", "--reason", "back"]).json();
    for more in [&["--yes"][..], &["--output", "json"]] {
        let said = at_a_terminal(&operator, "n", &[&push, more].concat());
        assert_eq!(said.status, 0, "{said:?}");
        assert!(!said.stdout.contains("[y/N]"), "{said:?}");
        assert_ne!(active(&operator), before);
        back();
    }
    let said = operator.plainly(&push);
    assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{said:?}");
}

// Proves: X4
#[test]
fn cases_that_fail_refuse_a_push() {
    let operator = Operator::with_policy();
    let before = active(&operator);
    let [policy, cases] = changed("deny");
    let push = ["policy", "push", policy.path(), "--reason", "more calls"];

    let said = operator.plainly(&push);
    assert_eq!((said.status, active(&operator)), (1, before.clone()), "{said:?}");
    let failed = format!("FAILED {}:2: searches: found allow", cases.path());
    assert!(said.stderr.starts_with(&failed), "{said:?}");
    assert!(said.stderr.contains("1 of 1 case not as expected"), "{said:?}");

    let dry = operator.says(&["policy", "push", policy.path(), "--dry-run"]);
    assert_eq!(dry.status, 1, "{dry:?}");
    let dry: serde_json::Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!((&dry["cases"]["cases"], &dry["cases"]["failed"]), (&json!(1), &json!(1)));

    let said = operator.plainly(&[&push[..], &["--failing-cases"]].concat());
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.stderr.starts_with(&failed), "{said:?}");
    assert_ne!(active(&operator), before);
}

// Proves: X4
#[test]
fn a_push_shows_what_the_calls_of_a_log_would_get() {
    let operator = Operator::with_policy();
    let id = issue(&operator, &[]).json()["record"]["id"].as_str().unwrap().to_owned();
    let log = Scratch::new("audit.jsonl", &log(&id));
    let text = std::fs::read_to_string(file("policy.yaml")).unwrap();
    let policy = Scratch::new(
        "closed.yaml",
        &text.replace("[query_users, search_contacts]", "[query_users]"),
    );
    let against = ["--against", log.path()];
    let told = "newly refused: 1 call of 1 caller";

    let dry = ["policy", "push", policy.path(), "--dry-run"];
    let replays = operator.says(&[&dry[..], &against].concat()).json()["replays"].clone();
    let diff = ["policy", "diff", policy.path()];
    assert_eq!(replays, operator.says(&[&diff[..], &against].concat()).json()["replays"]);
    assert_eq!(replays[0]["newly_refused"][0]["tool"], "demo/search_contacts");

    let push = [&["policy", "push", policy.path(), "--reason", "r"][..], &against].concat();
    let said = at_a_terminal(&operator, "n", &push);
    assert!(said.status == 1 && said.stdout.contains(told), "{said:?}");
    let said = operator.plainly(&push);
    assert!(said.status == 0 && said.stderr.contains(told), "{said:?}");
}
