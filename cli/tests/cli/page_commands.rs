//! The commands of the guides, run as they stand there: in bash, against a Valkey with a deployment like the one that
//! the page assumes.
//!
//! Owns what stands for a placeholder, and which commands are not run here and why. Calls through a gateway are for
//! the end-to-end tests.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_markdown as markdown;
use portcullis_redis_lua::Key;
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, Scratch, file};

/// A page, and what its commands need.
struct Page {
    path: &'static str,
    /// The policy that is pushed before, and lies in the folder as `policy.yaml`.
    policy: Policy,
    /// Texts of the page, and what stands for them: a text in angle brackets is a fact of the deployment.
    with: &'static [(&'static str, &'static str)],
    /// Commands, by how they begin, that are expected to be refused.
    refused: &'static [&'static str],
    /// Commands or blocks, by how they begin, that are not run, and why.
    not_run: &'static [(&'static str, &'static str)],
}

enum Policy {
    /// [`STANDARD`].
    Standard,
    /// What the first YAML block of this page says; it is pushed only by the page itself.
    OfPage,
    /// What the first YAML block of that page says.
    Of(&'static str),
}

const STANDARD: &str = "\
version: 1
organisations: [acme]
connectors:
  crm:
    path: /crm/mcp
    tools: {query_users: {read_only: true, max_records: {argument: limit, max: 50}}, delete_user: {}, create_note: {approval: required}}
roles:
  analyst: {allow_write: false, crm: {allow: [\"*\"]}}
  admin: {crm: {allow: [\"*\"]}}
tiers:
  std: {limits: {calls: {limit: 5, window: 1s}}}
  free: {limits: {calls: {limit: 5, window: 1s}, month: {limit: 100, cost: credits, window: 30d}}}
";

const NEEDS_GATEWAY: &str = "a call through a gateway: the end-to-end tests make them";
const OTHER_PROGRAM: &str = "another program";
const OWN_TEST: &str = "it runs until it is ended: cli/tests/cli/watch.rs and audit.rs run it";

const PAGES: [Page; 15] = [
    Page {
        path: "get-started/first-hour.md",
        policy: Policy::OfPage,
        with: &[("KEY_ID", "<first key of north>")],
        refused: &["portcullis explain --key"],
        not_run: &[("export KEY=", "the key is the output before"), ("curl", NEEDS_GATEWAY)],
    },
    Page {
        path: "get-started/demo.md",
        policy: Policy::Standard,
        with: &[(" ID ", " <key> ")],
        refused: &[],
        not_run: &[
            ("cargo xtask demo", OTHER_PROGRAM),
            (". target/stack/env", NEEDS_GATEWAY),
            ("curl", NEEDS_GATEWAY),
            ("export DEMO_AUTH", NEEDS_GATEWAY),
            ("portcullis doctor", NEEDS_GATEWAY),
        ],
    },
    Page {
        path: "guides/write-a-policy.md",
        policy: Policy::OfPage,
        with: &[],
        refused: &[],
        not_run: &[
            ("portcullis explain --key k1a2b3", "of another policy: cli/tests/cli/explain.rs"),
            ("portcullis explain --role agent", "of another policy: cli/tests/cli/explain.rs"),
            ("portcullis explain --request", "of a call that was made: cli/tests/cli/explain.rs"),
        ],
    },
    Page {
        path: "guides/test-a-policy.md",
        policy: Policy::Standard,
        with: &[],
        refused: &[],
        not_run: &[],
    },
    Page {
        path: "guides/cookbook.md",
        policy: Policy::Standard,
        with: &[],
        refused: &[],
        not_run: &[(
            "portcullis audit search",
            "it needs the log of a gateway: cli/tests/cli/audit_search.rs",
        )],
    },
    Page {
        path: "guides/keys.md",
        policy: Policy::Standard,
        with: &[(" ID ", " <key> "), ("search_*,get_user", "query_*")],
        refused: &[],
        not_run: &[(
            "portcullis audit search",
            "it needs the log of a gateway: cli/tests/cli/audit_search.rs",
        )],
    },
    Page {
        path: "guides/approvals.md",
        policy: Policy::Standard,
        with: &[
            ("grant 3f9c0a5be2d17788", "grant <waiting>"),
            ("deny 3f9c0a5be2d17788", "deny <other waiting>"),
        ],
        refused: &[],
        not_run: &[("portcullis watch", OWN_TEST)],
    },
    Page {
        path: "guides/limits.md",
        policy: Policy::Standard,
        with: &[("KEY_ID", "<key>")],
        refused: &[],
        not_run: &[],
    },
    Page {
        path: "guides/canary-and-rollback.md",
        policy: Policy::Standard,
        with: &[("QYDJf6v9j5", "<key>"), ("VERSION", "<version>")],
        // It stands beside the one before it.
        refused: &["portcullis policy canary stop"],
        not_run: &[(
            "portcullis audit search",
            "of the last 7 days: cli/tests/cli/audit_search.rs",
        )],
    },
    Page {
        path: "guides/operators.md",
        policy: Policy::Standard,
        with: &[(
            "portcullis key list\n",
            "export PORTCULLIS_REDIS=$(cat alice.url) PORTCULLIS_ORG=acme\nportcullis key list\n",
        )],
        refused: &["portcullis token deny"],
        not_run: &[],
    },
    Page {
        path: "guides/organisations.md",
        policy: Policy::Standard,
        with: &[],
        refused: &[],
        not_run: &[("portcullis key list", "by an operator of acme: cli/tests/cli/operators.rs")],
    },
    Page {
        path: "guides/try-tokens.md",
        policy: Policy::Of("get-started/first-hour.md"),
        with: &[],
        refused: &[],
        not_run: &[
            ("PORTCULLIS_ISSUERS=", NEEDS_GATEWAY),
            ("curl", NEEDS_GATEWAY),
            (". target/stack/env", NEEDS_GATEWAY),
            ("printf %s \"$TOKEN\" > stack-token", NEEDS_GATEWAY),
        ],
    },
    Page {
        path: "guides/identity-provider.md",
        policy: Policy::Standard,
        with: &[],
        refused: &[],
        not_run: &[("curl", NEEDS_GATEWAY)],
    },
    Page {
        path: "guides/pin-tools.md",
        policy: Policy::Standard,
        with: &[],
        refused: &[],
        not_run: &[
            ("portcullis discover --policy policy.yaml --write", NEEDS_GATEWAY),
            ("portcullis discover --policy policy.yaml --connector crm --direct", NEEDS_GATEWAY),
        ],
    },
    Page {
        path: "guides/outages.md",
        policy: Policy::Standard,
        with: &[("ORG", "acme")],
        refused: &[],
        not_run: &[],
    },
];

/// Pages whose commands of `portcullis` are not run here.
const ELSEWHERE: [(&str, &str); 12] = [
    ("get-started/envoy.md", "with an Envoy: the end-to-end tests"),
    ("get-started/helm.md", "with Helm and an API server: `cargo xtask chart`"),
    ("get-started/istio.md", "with Istio: `cargo xtask mesh istio`"),
    ("guides/audit-log.md", "of a log that a gateway wrote: cli/tests/cli/audit*.rs"),
    ("guides/ship-the-audit-log.md", "with collectors and stores: tests/e2e/audit_sinks.rs"),
    ("guides/guarded-routes.md", "with Kubernetes and Envoy: cli/tests/cli/render.rs"),
    ("guides/operations.md", "with an Envoy and jq: the end-to-end tests"),
    ("guides/redis.md", "with an Envoy: tests/e2e/doctor.rs"),
    ("guides/client-certificates.md", "with an Envoy: tests/e2e/certificates.rs"),
    ("guides/vault-credentials.md", "with a Vault: tests/e2e/vault.rs"),
    ("reference/compliance.md", "they run the tests themselves"),
    ("reference/doctor.md", "with an Envoy and a Vault: tests/e2e/doctor.rs"),
];

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn blocks(path: &str) -> Vec<markdown::Block> {
    let page = std::fs::read_to_string(docs().join(path)).expect("a page");
    markdown::blocks(&page)
}

fn first_yaml(path: &str) -> String {
    let block = blocks(path).into_iter().find(|block| block.language == "yaml");
    block.expect("a policy").text
}

/// A folder that is gone when the test ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ask(operator: &Operator, digest: &str) {
    let doc = json!({
        "digest": digest, "org": "acme", "principal": "agent", "client_id": "k1", "role": "analyst",
        "connector": "crm", "tool": "create_note", "arguments": {}, "rule": "r",
        "request_id": "q", "asked_at": "2026-11-29T12:00:00Z",
    });
    let mut redis = operator.redis();
    let key = Key::approval("acme", digest);
    let fields = [("rev", "pending".to_owned()), ("doc", doc.to_string())];
    let _: () = redis.hset_multiple(key.as_str(), &fields).unwrap();
    let _: () = redis.expire(key.as_str(), 600).unwrap();
    let _: () = redis.zadd(Key::approvals("acme").as_str(), digest, 9_999_999_999_999_u64).unwrap();
}

/// The deployment that a page assumes, and the facts of it.
fn deployment(page: &Page, folder: &Path) -> (Operator, Vec<(&'static str, String)>) {
    let operator = Operator::new();
    let (policy, pushed) = match page.policy {
        Policy::Standard => (STANDARD.to_owned(), true),
        Policy::OfPage => (first_yaml(page.path), false),
        Policy::Of(other) => (first_yaml(other), true),
    };
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("policy.yaml", &policy);
    write("new.yaml", &policy.replace("limit: 5,", "limit: 6,"));
    if let Some(cases) = blocks(page.path).iter().find(|it| it.text.contains("\ncases:")) {
        write("policy.test.yaml", &cases.text);
    }
    let log = std::fs::read(file("audit.jsonl")).unwrap();
    std::fs::write(folder.join("audit.jsonl"), &log).unwrap();
    let gz = std::fs::File::create(folder.join("audit.jsonl.1.gz")).unwrap();
    let mut gz = flate2::write::GzEncoder::new(gz, flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &log).unwrap();
    gz.finish().unwrap();
    std::fs::copy(file("tools.json"), folder.join("tools.json")).unwrap();
    symlink(docs(), folder.join("docs")).unwrap();
    symlink(env!("CARGO_BIN_EXE_portcullis"), folder.join("portcullis")).unwrap();

    let mut facts = vec![(
        "<first key of north>",
        "$(portcullis key list --org north --output json | sed -n 's/.*\"id\": \"\\(.*\\)\".*/\\1/p' | head -1)"
            .to_owned(),
    )];
    if pushed {
        let policy = folder.join("policy.yaml").display().to_string();
        let version = operator.says(&["policy", "push", &policy, "--reason", "start"]).json();
        facts.push(("<version>", version["version"].as_str().unwrap().to_owned()));
    }
    if matches!(page.policy, Policy::Standard) {
        let issue = ["key", "issue", "--org", "acme", "--name", "agent", "--role", "analyst"];
        let issued: Value = operator.says(&[&issue[..], &["--tier", "free"]].concat()).json();
        facts.push(("<key>", issued["record"]["id"].as_str().unwrap().to_owned()));
        for (name, digits) in [("<waiting>", "ab"), ("<other waiting>", "cd")] {
            let digest = digits.repeat(32);
            ask(&operator, &digest);
            facts.push((name, digest[..16].to_owned()));
        }
    }
    (operator, facts)
}

/// The blocks of a page as one script of bash.
fn script(page: &Page, facts: &[(&str, String)]) -> String {
    let (mut script, mut met) = (String::from("set -euo pipefail\n"), BTreeSet::new());
    for block in blocks(page.path).into_iter().filter(|block| block.language == "sh") {
        let mut text = block.text.clone();
        for (from, to) in page.with {
            if text.contains(from) {
                met.insert(*from);
                text = text.replace(from, to);
            }
        }
        for (fact, value) in facts {
            text = text.replace(fact, value);
        }
        let mut begins = |with: &str, lines: &str| {
            let begins = lines.trim_start().starts_with(with);
            if begins {
                met.insert(
                    page.not_run
                        .iter()
                        .map(|(it, _)| *it)
                        .chain(page.refused.iter().copied())
                        .find(|it| *it == with)
                        .unwrap(),
                );
            }
            begins
        };
        script.push_str(&format!("echo '{}:{}' >&2\n", page.path, block.line));
        // A script has an end of its own.
        if text.starts_with("#!") {
            script.push_str(&format!("(\n{text})\n"));
            continue;
        }
        if page.not_run.iter().any(|(it, _)| !it.starts_with("portcullis") && begins(it, &text)) {
            continue;
        }
        for line in text.replace("\\\n", " ").lines() {
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            if page.not_run.iter().any(|(it, _)| begins(it, &line)) {
                continue;
            }
            match page.refused.iter().any(|it| begins(it, &line)) {
                true => script.push_str(&format!(
                    "if {line}; then echo 'this was expected to be refused: {}' >&2; exit 9; fi\n",
                    line.replace('\'', "\"")
                )),
                false => script.push_str(&format!("{line}\n")),
            }
        }
    }
    let wanted = page.with.iter().map(|(it, _)| *it).chain(page.refused.iter().copied());
    for it in wanted.chain(page.not_run.iter().map(|(it, _)| *it)) {
        assert!(met.contains(it), "{}: nothing there begins with, or has, {it:?}", page.path);
    }
    script
}

// Proves: X16
#[test]
fn the_commands_of_pages_do_what_the_pages_say() {
    let mut failed = Vec::new();
    for page in &PAGES {
        let scratch = Scratch::nowhere("page");
        let folder = Folder(Path::new(scratch.path()).to_owned());
        std::fs::create_dir_all(&folder.0).unwrap();
        let (operator, facts) = deployment(page, &folder.0);
        let script = script(page, &facts);
        let path = format!("{}:{}", folder.0.display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(&folder.0)
            .env("PATH", path)
            .env("PORTCULLIS_REDIS", operator.valkey.url())
            .env("PORTCULLIS_AUDIT_LOG", folder.0.join("audit.jsonl"))
            .env_remove("PORTCULLIS_ORG")
            .output()
            .expect("bash");
        let said = String::from_utf8_lossy(&output.stderr);
        let shown = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            // What stands before the command that failed is what was run.
            failed.push(format!("{}: {}\n{said}\n{shown}", page.path, output.status));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn every_page_with_commands_is_run_or_says_why_not() {
    let folder = docs();
    let mut known: BTreeSet<&str> = PAGES.iter().map(|page| page.path).collect();
    known.extend(ELSEWHERE.iter().map(|(path, _)| *path));
    let mut found = BTreeSet::new();
    for path in markdown::pages(&folder).expect("the pages") {
        let page = std::fs::read_to_string(&path).expect("a page");
        let name = path.strip_prefix(&folder).unwrap().display().to_string();
        let runs = |block: &markdown::Block| {
            let mut words = block.text.split_whitespace();
            block.language == "sh" && words.any(|word| word == "portcullis")
        };
        if markdown::blocks(&page).iter().any(runs) {
            assert!(
                known.contains(name.as_str()),
                "{name} has commands: add it to PAGES, or to ELSEWHERE with the reason"
            );
            found.insert(name);
        }
    }
    for (path, _) in ELSEWHERE {
        assert!(docs().join(path).exists(), "{path}");
    }
    assert!(PAGES.iter().all(|page| found.contains(page.path)));
}
