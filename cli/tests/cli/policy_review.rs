//! What `policy push` shows and asks before it changes something: on a terminal, and to a script.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::{Operator, Said, Scratch, file, issue};
use crate::policy_diff::log;

/// Runs a command on a terminal of its own, and answers its question with `answer`, after what another operator does
/// meanwhile. All that the terminal shows is `stdout`.
const TERMINAL: &str = r#"
import json, os, pty, subprocess, sys
answer, others, command = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
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
        for other in others:
            subprocess.run([command[0], *other], check=True, stdout=subprocess.DEVNULL)
        os.write(terminal, answer.encode() + b"\n")
        answered = True
sys.stdout.write(shown.decode().replace("\r\n", "\n"))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

fn at_a_terminal(operator: &Operator, answer: &str, arguments: &[&str]) -> Said {
    at_a_terminal_of("", operator, answer, &[], arguments)
}

/// With what the variable CI says, and what another operator does before the answer.
fn at_a_terminal_of(
    ci: &str,
    operator: &Operator,
    answer: &str,
    meanwhile: &[&[&str]],
    arguments: &[&str],
) -> Said {
    let meanwhile = serde_json::to_string(meanwhile).unwrap();
    let output = Command::new("python3")
        .args(["-c", TERMINAL, answer, &meanwhile, env!("CARGO_BIN_EXE_portcullis")])
        .args(arguments)
        .args(["--actor", "tester"])
        .env("CI", ci)
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
    let said = at_a_terminal_of("true", &operator, "n", &[], &push);
    assert!(said.status == 0 && !said.stdout.contains("[y/N]"), "{said:?}");
    assert_ne!(active(&operator), before);
    back();
    let said = operator.plainly(&push);
    assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{said:?}");
    let said = at_a_terminal(&operator, "n", &push);
    assert!(said.status == 0 && said.stdout.contains("nothing was changed"), "{said:?}");
    assert!(!said.stdout.contains("[y/N]"), "nothing would change: {said:?}");
}

/// An answer is about what was shown.
#[test]
fn a_push_goes_on_only_if_what_was_shown_is_still_so() {
    let operator = Operator::with_policy();
    let [policy, _cases] = changed("allow");
    let push = ["policy", "push", policy.path(), "--reason", "more calls"];
    let asked = |meanwhile: &[&[&str]], arguments: &[&str]| {
        let said = at_a_terminal_of("", &operator, "y", meanwhile, arguments);
        assert_eq!(said.stdout.matches("[y/N]").count(), 1, "{said:?}");
        said
    };

    let text = std::fs::read_to_string(file("policy.yaml")).unwrap();
    let other = Scratch::new("other.yaml", &text.replace("limit: 5,", "limit: 7,"));
    let second = ["policy", "push", other.path(), "--reason", "other", "--actor", "other"];
    let said = asked(&[&second], &push);
    assert!(said.status == 1 && said.stdout.contains("changed while you looked"), "{said:?}");
    let history = operator.says(&["policy", "history"]).json();
    assert_eq!(history["history"][0]["reason"], "other", "{history}");

    // A key that the new policy serves changes nothing of what was shown.
    let issue = |name, role| {
        [
            "key", "issue", "--org", "acme", "--name", name, "--role", role, "--tier", "free",
            "--reason", "r",
        ]
    };
    let key = issue("cursor", "analyst");
    let said = asked(&[&key], &push);
    assert!(said.status == 0 && said.stdout.contains("from the next request on"), "{said:?}");

    // One that loses its role does.
    let without = Scratch::new("without.yaml", &text.replace("analyst:", "reader:"));
    operator.says(&["key", "revoke", &listed_key(&operator), "--reason", "r"]).json();
    let before = active(&operator);
    let push = ["policy", "push", without.path(), "--reason", "without"];
    let said = asked(&[&key], &push);
    assert!(said.status == 1 && said.stdout.contains("changed while you looked"), "{said:?}");
    assert_eq!(active(&operator), before);
}

fn listed_key(operator: &Operator) -> String {
    let keys = operator.says(&["key", "list"]).json();
    keys["keys"][0]["id"].as_str().expect("an id").to_owned()
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
    assert!(said.stderr.contains("1 of 1 case is not as expected"), "{said:?}");

    let dry = operator.says(&["policy", "push", policy.path(), "--dry-run"]);
    assert_eq!(dry.status, 1, "{dry:?}");
    let dry: serde_json::Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!((&dry["cases"]["cases"], &dry["cases"]["failed"]), (&json!(1), &json!(1)));

    let dry = operator.plainly(&["policy", "push", policy.path(), "--dry-run"]);
    assert!(dry.stdout.ends_with("\na push needs --failing-cases\n"), "{dry:?}");

    let all_the_same = [&push[..], &["--failing-cases"]].concat();
    let said = at_a_terminal(&operator, "n", &all_the_same);
    assert_eq!(said.stdout.matches("FAILED").count(), 1, "{said:?}");
    let said = operator.plainly(&all_the_same);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.stderr.starts_with(&failed), "{said:?}");
    assert_eq!(said.stderr.matches("FAILED").count(), 1, "{said:?}");
    assert_ne!(active(&operator), before);
}

/// The cases beside a policy are tried on what is pushed, whatever the file is called.
#[test]
fn cases_are_tried_on_the_policy_that_is_pushed() {
    let operator = Operator::with_policy();
    let text = std::fs::read_to_string(file("policy.yaml")).unwrap();
    let policy = Scratch::new("named.yml", &text.replace("limit: 5,", "limit: 6,"));
    // Of the same name, and with other rules.
    let _other = policy.beside(".yaml", &text.replace("search_contacts", "other_tool"));
    let _cases = policy.beside(
        ".test.yaml",
        "cases:\n  - {name: searches, caller: {role: analyst}, connector: demo, tool: search_contacts, expect: allow}\n",
    );
    let dry = operator.says(&["policy", "push", policy.path(), "--dry-run"]).json();
    assert_eq!((&dry["cases"]["cases"], &dry["cases"]["failed"]), (&json!(1), &json!(0)));
    assert_ne!(dry["cases"]["rules"], 0);
}

#[test]
fn cases_with_faults_refuse_a_push_and_cases_of_another_policy_do_not() {
    let operator = Operator::with_policy();
    let text = std::fs::read_to_string(file("policy.yaml")).unwrap();
    let policy = Scratch::new("faulty.yaml", &text.replace("limit: 5,", "limit: 6,"));
    let push = ["policy", "push", policy.path(), "--reason", "r"];
    for other in ["nowhere.yaml", "faulty.test.yaml"] {
        let _cases = policy.beside(".test.yaml", &format!("policy: {other}\ncases: [{{}}]\n"));
        let said = operator.plainly(&[&push[..], &["--dry-run"]].concat());
        assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{said:?}");
    }
    for faulty in ["cases: [{}]\n", "cases: [\n"] {
        let cases = policy.beside(".test.yaml", faulty);
        let said = operator.plainly(&push);
        assert_eq!(said.status, 1, "{said:?}");
        assert!(said.stderr.contains("nothing was changed"), "{said:?}");
        assert!(said.stderr.contains("--failing-cases"), "{said:?}");
        let said = operator.plainly(&[&push[..], &["--failing-cases"]].concat());
        let warning = format!("warning: {}: ", cases.path());
        assert!(said.status == 0 && said.stderr.starts_with(&warning), "{said:?}");
    }
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
