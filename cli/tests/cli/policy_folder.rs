//! A policy of several files: put together where a file is taken, with faults in the files that have them.

use std::path::{Path, PathBuf};

use portcullis_redis_lua::Key;
use redis::Commands as _;
use serde_json::json;

use crate::harness::{Operator, Said, Scratch, run};

/// A folder that is gone when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let scratch = Scratch::nowhere("policies");
        let folder = Self(Path::new(scratch.path()).to_owned());
        files.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn says(&self, arguments: &[&str]) -> Said {
        let arguments: Vec<_> =
            arguments.iter().map(|it| if *it == "DIR" { self.path() } else { it }).collect();
        run(&arguments, &[], "")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const BASE: &str = "\
version: 1
organisations: [acme]
roles:
  analyst: {allow_write: false}
tiers:
  std: {limits: {calls: {limit: 5, window: 1s}}}
redact: [ssn]
";
const CRM: &str = "\
connectors:
  crm:
    path: /crm/mcp
    tools: {query: {read_only: true}}
roles:
  analyst:
    crm: {allow: [query]}
redact: [iban]
";
const BANK: &str = "\
version: 1
connectors:
  bank:
    path: /bank/mcp
    tools: {balance: {read_only: true}}
roles:
  analyst:
    bank: {allow: [balance]}
  teller:
    bank: {allow: [\"*\"]}
";
const CASES: &str = "\
callers:
  ann: {org: acme, role: analyst, tier: std}
cases:
  - {name: reads, caller: ann, connector: crm, tool: query, expect: allow}
";

fn teams() -> Folder {
    Folder::new(&[
        ("base.yaml", BASE),
        ("crm/policy.yaml", CRM),
        ("crm/policy.test.yaml", CASES),
        ("bank.yaml", BANK),
        ("README.md", "not a policy"),
        (".draft.yaml", "nonsense: ["),
    ])
}

/// The same as one file.
const WHOLE: &str = r#"{"version": 1, "organisations": ["acme"], "redact": ["ssn", "iban"],
    "connectors": {"crm": {"path": "/crm/mcp", "tools": {"query": {"read_only": true}}},
        "bank": {"path": "/bank/mcp", "tools": {"balance": {"read_only": true}}}},
    "roles": {"analyst": {"allow_write": false, "crm": {"allow": ["query"]}, "bank": {"allow": ["balance"]}},
        "teller": {"bank": {"allow": ["*"]}}},
    "tiers": {"std": {"limits": {"calls": {"limit": 5, "window": "1s"}}}}}"#;

// Proves: X4, X31
#[test]
fn the_files_of_a_folder_are_one_document_that_is_stored_compared_and_gone_back_from() {
    let operator = Operator::new();
    let (folder, whole) = (teams(), Scratch::new("whole.json", WHOLE));
    let says = |arguments: &[&str]| operator.says(arguments);
    let first = says(&["policy", "push", folder.path(), "--reason", "r"]).json();
    assert_eq!(says(&["policy", "diff", whole.path(), folder.path(), "--exit-code"]).status, 0);
    let shown = says(&["policy", "show"]).json();
    assert_eq!(shown["version"], first["version"]);
    assert_eq!(shown["document"]["redact"], json!(["ssn", "iban"]));
    assert_eq!(shown["document"]["roles"]["analyst"].as_object().unwrap().len(), 3);

    // A team changes its part.
    folder.write("crm/policy.yaml", &CRM.replace("[query]", "[query, search]"));
    let diff = operator.plainly(&["policy", "diff", folder.path()]);
    assert!(diff.stdout.contains("roles.analyst.crm.allow  + \"search\""), "{diff:?}");
    assert!(diff.stdout.ends_with("1 changed\n"), "{diff:?}");
    says(&["policy", "push", folder.path(), "--reason", "r"]).json();
    says(&["policy", "rollback", "--reason", "r"]).json();
    let active: String = operator.redis().hget(Key::policy("acme").as_str(), "rev").unwrap();
    assert_eq!(json!(active), first["version"]);
}

// Proves: X4, X31
#[test]
fn a_folder_is_checked_tested_and_explained_like_a_file() {
    let folder = teams();
    let checked = folder.says(&["policy", "check", "DIR", "--strict"]);
    assert_eq!(checked.status, 0, "{checked:?}");
    assert!(checked.stdout.contains(": good, version "), "{checked:?}");
    let tested = folder.says(&["policy", "test", "DIR"]);
    assert_eq!(tested.status, 0, "{tested:?}");
    assert!(tested.stdout.contains("crm/policy.test.yaml: 1 case, all as expected"), "{tested:?}");
    assert!(tested.stdout.contains("not reached: roles.teller.bank"), "{tested:?}");
    let asked = ["explain", "--org", "acme", "--role", "teller", "--connector", "bank"];
    let explained = folder.says(&[&asked[..], &["--tool", "move", "--policy", "DIR"]].concat());
    assert_eq!(explained.status, 0, "{explained:?}");
    // A second file of cases is tried, too, and a failure fails.
    folder.write("bank.test.yaml", &CASES.replace("expect: allow", "expect: deny"));
    assert_eq!(folder.says(&["policy", "test", "DIR"]).status, 1);
}

#[test]
fn faults_and_warnings_name_the_file_and_the_line() {
    let folder = teams();
    folder.write(
        "crm/policy.yaml",
        &CRM.replace("[query]", "[query, qery]").replace("path:", "pth:"),
    );
    let checked = folder.says(&["policy", "check", "DIR"]);
    assert_eq!(checked.status, 1, "{checked:?}");
    let file = folder.0.join("crm/policy.yaml");
    let line = format!("{}:3: connectors.crm.pth: found ", file.display());
    assert!(checked.stdout.contains(&line), "{checked:?}");
    let json = folder.says(&["policy", "check", "DIR", "--output", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["faults"][0]["file"], json!(file.display().to_string()));
}

#[test]
fn a_name_that_two_files_state_is_a_fault_of_the_second() {
    for (name, text, found) in [
        ("z.yaml", "connectors: {crm: {path: /x/mcp}}\n", "a second connectors.crm"),
        ("z.yaml", "roles:\n  analyst: {crm: {allow: [\"*\"]}}\n", "a second roles.analyst.crm"),
        ("z.yaml", "roles: {analyst: {allow_write: true}}\n", "a second roles.analyst.allow_write"),
        ("z.yaml", "tiers: {std: {}}\n", "a second tiers.std"),
        ("z.yaml", "organisations: [globex]\n", "a second organisations"),
        ("z.yaml", "version: 2\n", "a second version"),
        ("z.yaml", "redact: x\n", "a second redact"),
        ("z.yaml", "- a\n", "a list"),
    ] {
        let folder = teams();
        folder.write(name, text);
        let checked = folder.says(&["policy", "check", "DIR"]);
        assert_eq!(checked.status, 1, "{text}: {checked:?}");
        let file = folder.0.join(name).display().to_string();
        assert!(checked.stderr.contains(&format!("{file}:")), "{text}: {checked:?}");
        assert!(checked.stderr.contains(&format!("found {found}")), "{text}: {checked:?}");
    }
    let empty = Folder::new(&[("README.md", "")]);
    let checked = empty.says(&["policy", "check", "DIR"]);
    assert!(checked.stderr.contains("0 policy files"), "{checked:?}");
}
