//! `policy test`: cases decided by the core, exit statuses, JUnit, coverage; and the cookbook of the documentation.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::harness::{Operator, Scratch, file, golden_file, run};

fn cookbook() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cookbook")
}

fn files(ending: &str) -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(cookbook())
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .filter(|path| path.ends_with(ending))
        .collect();
    files.sort();
    files
}

/// Proves: X4
#[test]
fn the_cookbook_does_what_its_cases_say() {
    let tests = files(".test.yaml");
    assert!(tests.len() >= 7, "{tests:?}");
    for test in &tests {
        let policy = test.replace(".test.", ".");
        let checked = run(&["policy", "check", "--strict", &policy], &[], "");
        assert_eq!(checked.status, 0, "{checked:?}");
        let said = run(&["policy", "test", test], &[], "");
        assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{said:?}");
        assert!(said.stdout.contains("all as expected"), "{said:?}");
    }
    for script in files(".sh") {
        let operator = Operator::new();
        let program = Path::new(env!("CARGO_BIN_EXE_portcullis")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let output = Command::new("sh")
            .arg(&script)
            .current_dir(cookbook())
            .env("PATH", path)
            .env("PORTCULLIS_REDIS", operator.valkey.url())
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
    }
}

/// Task 10: each mistake of the page that passed as good.
#[test]
fn the_mistakes_of_the_cookbook_are_all_told() {
    let policy = cookbook().join("10-mistakes.yaml").display().to_string();
    let said = run(&["policy", "check", &policy, "--output", "json"], &[], "").json();
    let found: Vec<_> = said["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["line"].as_u64().unwrap(), it["kind"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        (8, "never_true"),
        (9, "unknown_member"),
        (10, "unknown_member"),
        (11, "wrong_type"),
        (12, "unknown_member"),
        (12, "unknown_tool"),
        (15, "never_matches"),
        (18, "nothing_left"),
        (19, "shown_and_allowed"),
    ];
    let lines = |kinds: &[(u64, String)]| kinds.iter().map(|(line, _)| *line).collect::<Vec<_>>();
    let expected: Vec<_> = expected.map(|(line, kind)| (line, kind.to_owned())).into();
    let missing: Vec<_> = expected.iter().filter(|it| it.0 != 12 && !found.contains(it)).collect();
    assert!(missing.is_empty(), "{missing:?} of {found:?}");
    assert!(lines(&found).contains(&12), "{found:?}");
    assert_eq!(run(&["policy", "check", "--strict", &policy], &[], "").status, 1);
}

/// For large numbers, one more is the same number: such conditions were reported as never true.
#[test]
fn a_condition_on_large_numbers_is_no_mistake() {
    for when in ["< 1e19", "> 1e19", "< 9e18", "> -1e19", "> 1e19 && arguments.n < 1e20"] {
        let document = format!(
            "version: 1\norganisations: [acme]\nconnectors:\n  crm: {{path: /crm/mcp, conditions: [{{when: 'arguments.n {when}'}}]}}\n\
             roles: {{analyst: {{crm: {{allow: ['*']}}}}}}\ntiers: {{free: {{limits: {{}}}}}}\n"
        );
        let policy = Scratch::new("large.yaml", &document);
        let said = run(&["policy", "check", policy.path(), "--output", "json"], &[], "").json();
        let warnings = said["warnings"].as_array().unwrap();
        assert!(!warnings.iter().any(|it| it["kind"] == "never_true"), "{when}: {warnings:?}");
    }
}

const CASES: &str = "
callers: {agent: {role: agent}}
at: 2027-01-04T12:00:00Z
cases:
  - {name: a cap, caller: agent, tool: balance, arguments: {days: 90}, expect: allow, goes_on_with: {days: 30}}
  - {name: <wrong> & more, caller: agent, tool: transfer, arguments: {amount: 500}, expect: allow}
  - {name: another rule, caller: {role: reader}, tool: transfer, arguments: {amount: 5}, expect: deny, rule: roles.reader.bank.show}
  - {name: waits, caller: agent, tool: transfer, arguments: {amount: 5}, expect: needs_approval}
  - {name: other arguments, caller: agent, tool: balance, arguments: {days: 90}, expect: allow, goes_on_with: {days: 31}}
";

#[test]
fn what_is_not_as_expected_is_told_with_line_rule_and_reason() {
    let (cases, junit) = (Scratch::new("rules.test.yaml", CASES), Scratch::nowhere("junit.xml"));
    let rules = file("rules.yaml");
    let command = ["policy", "test", cases.path(), "--policy", &rules, "--junit", junit.path()];
    let said = run(&command, &[], "");
    assert_eq!((said.status, said.stderr.as_str()), (1, ""), "{said:?}");
    let told: Vec<&str> = said
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("FAILED "))
        .map(|line| line.strip_prefix(cases.path()).unwrap())
        .collect();
    assert_eq!(
        told,
        [
            ":6: <wrong> & more: found deny by connectors.bank.tools.transfer.conditions[0] \
             (arguments.amount <= 100 is false), expected allow",
            ":7: another rule: found deny by roles.reader.allow_write (the policy does not state that the tool \
             only reads), expected deny by roles.reader.bank.show",
            ":9: other arguments: found that it goes on with {\"days\":30}, expected {\"days\":31}",
        ]
    );
    assert!(said.stdout.contains("5 cases, 3 not as expected"), "{said:?}");
    assert!(said.stdout.contains("not reached: roles.agent.bank.deny"), "{said:?}");
    assert!(said.stdout.contains("never false: connectors.bank.conditions[0]"), "{said:?}");
    let xml = std::fs::read_to_string(junit.path()).unwrap();
    assert!(xml.contains("tests=\"5\" failures=\"3\""), "{xml}");
    assert!(xml.contains("name=\"&lt;wrong&gt; &amp; more\""), "{xml}");
    let json = run(&[&command[..], &["--output", "json"]].concat(), &[], "");
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&json["failed"], &json["cases"][3]["decision"]),
        (&json!(3), &json!("needs_approval"))
    );
}

#[test]
fn without_a_case_that_was_tried_the_status_is_two() {
    let rules = file("rules.yaml");
    for (cases, found) in [
        ("cases: {}", "cases: found an object of 0"),
        ("cases: [{name: x, caller: nobody, tool: t, expect: allow}]", "found \"nobody\""),
        (
            "cases: [{name: x, caller: {role: agent}, tool: t, expect: yes}]",
            "expected one of allow",
        ),
        ("cases: [{name: x, caller: {role: agent}, tol: t, expect: allow}]", "did you mean tool?"),
        (
            "cases: [{name: x, caller: {role: agent}, tool: t, expect: allow, connector: bnk}]",
            "one of bank",
        ),
        (
            "cases: [{name: x, caller: {token: {iss: a}}, tool: t, expect: allow}]",
            "one of `issuers`",
        ),
        // Issue 14, finding of a fresh reader: a case of a caller that no credential makes passed as one.
        (
            "cases: [{name: x, caller: {role: agent, key: k1a2b3, agent: bot}, tool: t, expect: allow}]",
            "cases[0].caller.agent: found `agent` beside `key`: a key has no `agent`",
        ),
        (
            "callers: {a: {role: agent, tools: [t], scopes: [s]}}\ncases: []",
            "callers.a.scopes: found `scopes` beside `tools`: a key has no `scopes`",
        ),
        (
            "cases: [{name: x, caller: {role: agent, agent: \"a\\tb\"}, tool: t, expect: allow}]",
            "expected the agent that the token names",
        ),
    ] {
        let file = Scratch::new("bad.test.yaml", cases);
        let said = run(&["policy", "test", file.path(), "--policy", &rules], &[], "");
        assert_eq!((said.status, said.stdout.as_str()), (2, ""), "{said:?}");
        assert!(said.stderr.contains(found), "{said:?}");
    }
    let cases = Scratch::new("alone.test.yaml", "cases: []");
    assert_eq!(run(&["policy", "test", cases.path()], &[], "").status, 2);
    assert_eq!(run(&["policy", "test", "nowhere.yaml"], &[], "").status, 2);
}

/// Finding of a fresh reader: such cases were green, refused by another rule than the one that they were about.
#[test]
fn a_case_with_a_misspelt_name_is_no_success() {
    let (rules, pins) = (file("rules.yaml"), cookbook().join("07-pins.yaml"));
    let pins = pins.display().to_string();
    let said = |policy: &str, case: &str| {
        let cases = format!("at: 2027-01-04T12:00:00Z\ncases: [{{name: x, {case}}}]");
        let cases = Scratch::new("x.test.yaml", &cases);
        run(&["policy", "test", cases.path(), "--policy", policy], &[], "")
    };
    for (policy, case, found) in [
        (
            &rules,
            "caller: {role: agnet}, tool: transfer, expect: deny",
            "cases[0].caller: found the role agnet, which the policy does not have; its roles are agent, reader; did you \
             mean agent?",
        ),
        (
            &pins,
            "caller: {role: support}, tool: refnd, expect: deny",
            "cases[0].tool: found the tool refnd, which shop neither pins nor names, expected a tool of shop, or `rule`: an \
             unknown tool may be refused as such; did you mean refund?",
        ),
        (
            &pins,
            "caller: {role: support}, tool: delete_order, expect: deny",
            "found the tool delete_order, which shop neither pins nor names",
        ),
        (
            &pins,
            "caller: {role: support}, tool: refund, arguments: {order: o1, amout: 500}, expect: deny",
            "cases[0].arguments.amout: found the argument amout, which the pinned schema does not have, expected an \
             argument of refund, or `rule`; did you mean amount?",
        ),
    ] {
        let faulty = said(policy, case);
        assert_eq!((faulty.status, faulty.stdout.as_str()), (2, ""), "{faulty:?}");
        assert!(faulty.stderr.contains(found), "{}", faulty.stderr);
    }
    // The rule says what the case is about; and a tool of a policy without pins may be any.
    for (policy, case) in [
        (
            &pins,
            "caller: {role: support}, tool: delete_order, expect: deny, rule: connectors.unpinned",
        ),
        (
            &pins,
            "caller: {role: support}, tool: refund, arguments: {order: o1, iban: X}, expect: deny",
        ),
        (&rules, "caller: {role: agent}, tool: close_account, expect: deny"),
    ] {
        let good = said(policy, case);
        assert_eq!(good.status, 0, "{good:?}");
    }
    // Where it is no success, it is said why.
    let failed = said(&rules, "caller: {role: ceo}, tool: transfer, expect: allow");
    let why = "(the policy has no role ceo; its roles are agent, reader), expected allow";
    assert!(failed.status == 1 && failed.stdout.contains(why), "{failed:?}");
}

// Finding of an outside tester: "0 cases, all as expected", exit 0. A pipeline that lost its cases stayed green.
// Proves: X31
#[test]
fn a_file_without_a_case_is_no_success() {
    let operator = Operator::new();
    for text in ["cases: []", "at: 2027-01-04T12:00:00Z\ncases: []\n"] {
        let cases = Scratch::new("none.test.yaml", text);
        let said = run(&["policy", "test", cases.path(), "--policy", &file("rules.yaml")], &[], "");
        assert_eq!((said.status, said.stdout.as_str()), (2, ""), "{said:?}");
        assert!(said.stderr.contains("cases: found no case, expected a list of cases"), "{said:?}");
    }
    // A push tries the cases beside the policy.
    let policy = Scratch::new("rules.yaml", &golden_file("rules.yaml"));
    let _cases = policy.beside(".test.yaml", "cases: []");
    let push = ["policy", "push", policy.path(), "--reason", "r"];
    let refused = operator.says(&push).refusal();
    assert!(refused["next"].as_str().unwrap().contains("--failing-cases"), "{refused}");
    assert_eq!(operator.says(&[&push[..], &["--failing-cases"]].concat()).status, 0);
}

#[test]
fn rules_that_no_case_reaches_fail_where_all_are_to_be_reached() {
    let case = "at: 2027-01-04T12:00:00Z\ncases: [{name: x, caller: {role: agent}, tool: balance, expect: allow}]";
    let cases = Scratch::new("some.test.yaml", case);
    let command = ["policy", "test", cases.path(), "--policy", &file("rules.yaml")];
    assert_eq!(run(&command, &[], "").status, 0);
    assert_eq!(run(&[&command[..], &["--covered"]].concat(), &[], "").status, 1);
}
