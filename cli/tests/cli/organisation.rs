//! `--organisation` and `PORTCULLIS_ORG`: commands look at no other organisation, whatever else names one. Redis allows
//! all here; `operators` has the users whom it does not.

use portcullis_core::audit::{Chain, Decision, Entry};
use portcullis_redis_lua::Key;
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, Said, Scratch, golden_file, run};

const DIGEST: &str = "3f9c0a5be2d177883f9c0a5be2d177883f9c0a5be2d177883f9c0a5be2d17788";

fn policy(organisations: &str, limit: u32) -> Scratch {
    let text = golden_file("policy.yaml").replace("[acme]", organisations);
    Scratch::new("policy.yaml", &text.replace("limit: 5,", &format!("limit: {limit},")))
}

/// Two organisations that were pushed together and then on their own, each with a key.
struct Deployment {
    operator: Operator,
    first: String,
    keys: [String; 2],
}

impl Deployment {
    fn new() -> Self {
        let operator = Operator::new();
        let push = |file: &Scratch| {
            let pushed = operator.says(&["policy", "push", file.path(), "--all", "--reason", "r"]);
            pushed.json()["version"].as_str().unwrap().to_owned()
        };
        let first = push(&policy("[acme, globex]", 5));
        push(&policy("[acme, globex]", 6));
        let keys = ["acme", "globex"].map(|org| {
            let issue = ["key", "issue", "--org", org, "--name", "n", "--role", "analyst"];
            let issued = operator.says(&[&issue[..], &["--tier", "free"]].concat()).json();
            issued["record"]["id"].as_str().unwrap().to_owned()
        });
        Self { operator, first, keys }
    }

    fn says(&self, arguments: &[&str]) -> Said {
        self.operator.says(&[arguments, &["--organisation", "globex"]].concat())
    }

    /// All that is stored, but for what every connection changes.
    fn state(&self) -> Vec<(String, Vec<u8>)> {
        let mut redis = self.operator.redis();
        let mut names: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).unwrap();
        names.sort();
        let mut dumped = |name: String| {
            let dump: Vec<u8> = redis::cmd("DUMP").arg(&name).query(&mut redis).unwrap();
            (name, dump)
        };
        names.into_iter().map(&mut dumped).collect()
    }

    /// Refused as wrong usage, with nothing changed.
    fn refused(&self, arguments: &[&str]) -> Value {
        let before = self.state();
        let said = self.says(arguments);
        assert_eq!((said.status, said.stdout.as_str()), (2, ""), "{arguments:?}: {said:?}");
        assert!(self.state() == before, "{arguments:?} changed something");
        let document: Value = serde_json::from_str(&said.stderr).expect("one JSON document");
        document["error"].clone()
    }
}

// Finding of an outside tester: pushes and rollbacks changed the organisation that the document named, and --org
// overrode the option. Proves: X32
#[test]
fn what_names_another_organisation_is_refused_and_changes_nothing() {
    let deployment = Deployment::new();
    let [theirs, own] = &deployment.keys;
    let [other, both] = ["[acme]", "[acme, globex]"].map(|orgs| policy(orgs, 9));
    for (file, words) in
        [(&other, "the document names acme"), (&both, "the document also names acme")]
    {
        for command in [
            &["policy", "push", file.path()][..],
            &["policy", "push", file.path(), "--dry-run"],
            &["policy", "push", file.path(), "--all"],
            &["policy", "push", file.path(), "--canary", "10%"],
            &["policy", "canary", "start", file.path(), "--caller", theirs],
        ] {
            let refusal = deployment.refused(&[command, &["--reason", "r"]].concat());
            let found = format!("--organisation (or PORTCULLIS_ORG) is globex, and {words}");
            assert_eq!(refusal["found"], found, "{command:?}");
            assert_eq!(refusal["where"], file.path());
            assert_eq!(
                refusal["expected"],
                "no other organisation than globex; nothing was changed"
            );
        }
        deployment.refused(&["policy", "diff", file.path()]);
    }
    let named = deployment.refused(&["policy", "push", both.path(), "--reason", "r"]);
    assert!(named["next"].as_str().unwrap().starts_with("--org globex beside it, "), "{named}");
    let back = ["policy", "rollback", "--to", &deployment.first, "--reason", "r", "--all"];
    let refusal = deployment.refused(&back);
    let found = format!(
        "--organisation (or PORTCULLIS_ORG) is globex, and policy {} also names acme",
        deployment.first
    );
    assert_eq!((&refusal["found"], &refusal["where"]), (&json!(found), &json!("--to")));

    let issue = ["--name", "n", "--role", "analyst", "--tier", "free", "--reason", "r"];
    let subject = ["--issuer", "i", "--subject", "s", "--org", "acme"];
    for command in [
        &["policy", "push", both.path(), "--reason", "r", "--org", "acme"][..],
        &["policy", "rollback", "--reason", "r", "--org", "acme"],
        &["policy", "rollback", "--reason", "r", "--org", "globex", "--org", "acme"],
        &["policy", "canary", "stop", "--reason", "r", "--org", "acme"],
        &["policy", "promote", "--reason", "r", "--org", "acme"],
        &["policy", "diff", both.path(), "--org", "acme"],
        &[&["key", "issue", "--org", "acme"][..], &issue].concat()[..],
        &["key", "list", "--org", "acme"],
        &["key", "show", theirs, "--org", "acme"],
        &["key", "set", theirs, "--org", "acme", "--name", "x", "--reason", "r"],
        &["key", "rotate", theirs, "--org", "acme", "--reason", "r"],
        &["key", "revoke", theirs, "--org", "acme", "--reason", "r"],
        &[&["token", "deny", "--reason", "r"][..], &subject].concat()[..],
        &[&["token", "allow", "--reason", "r"][..], &subject].concat()[..],
        &["token", "list", "--org", "acme"],
        &["approve", "grant", DIGEST, "--org", "acme", "--reason", "r"],
        &["limits", "reset", theirs, "--org", "acme", "--reason", "r"],
        &["limits", "list", "--org", "acme"],
        &["audit", "show", "--admin", "--org", "acme"],
        &["redis", "accept-restore", "--org", "acme", "--reason", "r"],
        &["operator", "create", "alice", "--org", "acme", "--task", "keys"],
    ] {
        let refusal = deployment.refused(command);
        let found = refusal["found"].as_str().unwrap();
        assert!(
            found.starts_with("--organisation (or PORTCULLIS_ORG) is globex, and --org "),
            "{found}"
        );
        assert!(found.ends_with("names acme"), "{found}");
    }
    for command in ["create", "acl"] {
        let all = deployment.refused(&["operator", command, "alice", "--all", "--task", "keys"]);
        let found = "and --all names all organisations";
        assert!(all["found"].as_str().unwrap().ends_with(found), "{all}");
    }

    // Without --org, what acme has is not there.
    for command in [
        &["key", "show", theirs][..],
        &["key", "revoke", theirs, "--reason", "r"],
        &["limits", "show", theirs],
    ] {
        let refusal = deployment.says(command).refusal();
        assert_eq!(refusal["where"], "the keys of globex", "{command:?}");
    }
    let refusal = deployment.refused(&["explain", "--key", theirs, "--tool", "query_users"]);
    assert_eq!(refusal["where"], "the keys of globex");
    deployment.says(&["key", "show", own, "--org", "globex"]).json();
}

#[test]
fn its_own_organisation_is_changed_alone() {
    let deployment = Deployment::new();
    let active = |org: &str| -> String {
        let key = Key::policy(org);
        deployment.operator.redis().hget(key.as_str(), "rev").unwrap()
    };
    let before = active("acme");
    // The last change was of both.
    let back = deployment.says(&["policy", "rollback", "--reason", "r"]).json();
    assert_eq!(back["organisations"][0]["org"], "globex");
    assert_eq!((active("acme"), active("globex")), (before.clone(), deployment.first.clone()));
    let both = policy("[acme, globex]", 9);
    let push = ["policy", "push", both.path(), "--reason", "r", "--org", "globex"];
    let pushed = deployment.says(&push).json();
    assert_eq!(pushed["organisations"].as_array().unwrap().len(), 1);
    assert_eq!((active("acme"), json!(active("globex"))), (before, pushed["version"].clone()));
    deployment.says(&["redis", "accept-restore", "--all", "--reason", "r"]).json();
    let chains = ["acme", "globex"].map(|org| {
        let shown = deployment.operator.says(&["audit", "show", "--admin", "--org", org]).json();
        shown["entries"].to_string().contains("restore")
    });
    assert_eq!(chains, [false, true]);
}

#[test]
fn an_organisation_that_does_not_exist_is_named() {
    let deployment = Deployment::new();
    let says = |arguments: &[&str]| {
        deployment.operator.says(&[arguments, &["--organisation", "nosuch"]].concat())
    };
    let warning = "warning: there is no organisation nosuch (--organisation or PORTCULLIS_ORG): Redis has no policy";
    for command in [
        &["key", "list"][..],
        &["token", "list"],
        &["approve", "list"],
        &["limits", "list"],
        &["policy", "history"],
    ] {
        let said = says(command);
        let (_, warned) = said.warned();
        assert!(
            warned.starts_with(warning) && warned.lines().count() == 1,
            "{command:?}: {warned}"
        );
    }
    let refused = says(&["redis", "accept-restore", "--all", "--reason", "r"]).refusal();
    assert_eq!(refused["found"], "no organisation");
    // The first push for it is no mistake.
    says(&["policy", "push", policy("[nosuch]", 5).path(), "--reason", "r"]).json();
    assert_eq!(says(&["key", "list"]).json(), json!({ "keys": [] }));
}

/// The refusal's first part for what `of` names.
fn found(refusal: &Value) -> &str {
    let found = refusal["found"].as_str().unwrap();
    found.strip_prefix("--organisation (or PORTCULLIS_ORG) is globex, and ").unwrap()
}

// Proves: X32
#[test]
fn a_window_of_all_organisations_is_not_emptied_for_one() {
    let deployment = Deployment::new();
    let [_, own] = &deployment.keys;
    let global = "limits:\n  all: {limit: 9, window: 1h, per: [global]}\n";
    let text = golden_file("policy.yaml").replace("[acme]", "[acme, globex]");
    let both = Scratch::new("policy.yaml", &text.replace("limits:\n", global));
    deployment.operator.says(&["policy", "push", both.path(), "--all", "--reason", "r"]).json();
    let reset = |limit: &'static str| ["limits", "reset", own, "--limit", limit, "--reason", "r"];
    let refusal = deployment.refused(&reset("all"));
    assert_eq!(found(&refusal), "limits.all counts calls of all organisations");
    assert_eq!(refusal["where"], "--limit");
    // Its own windows, and that one for an operator of the deployment, are no other matter.
    deployment.says(&reset("tiers.free.calls")).json();
    deployment.operator.says(&reset("all")).json();
}

// Proves: X32
#[test]
fn only_operators_of_the_organisation_alone_are_removed_replaced_and_listed() {
    let deployment = Deployment::new();
    let users: [(&str, &[&str], &str); 4] = [
        ("ada", &["--org", "acme"], "the user ada is an operator of acme"),
        (
            "bob",
            &["--org", "acme", "--org", "globex"],
            "the user bob is an operator of acme, globex",
        ),
        ("cyd", &["--all"], "the user cyd is an operator of all organisations"),
        ("dan", &["--org", "globex"], ""),
    ];
    for (name, of, _) in users {
        let create = [&["operator", "create", name, "--task", "keys"], of].concat();
        assert_eq!(deployment.operator.says(&create).status, 0);
    }
    let listed = |said: &Said| -> Vec<String> {
        let listed = said.json();
        let listed = listed["operators"].as_array().unwrap().iter();
        listed.map(|it| format!("{} {}", it["user"], it["org"]).replace('"', "")).collect()
    };
    let all = ["ada acme", "bob acme", "bob globex", "cyd null", "dan globex"];
    assert_eq!(listed(&deployment.operator.says(&["operator", "list"])), all);
    let own = ["bob globex", "cyd null", "dan globex"];
    assert_eq!(listed(&deployment.says(&["operator", "list"])), own);
    for (name, _, expected) in users {
        let replace =
            ["operator", "create", name, "--org", "globex", "--task", "read", "--replace"];
        let remove = ["operator", "remove", name];
        if expected.is_empty() {
            assert_eq!(deployment.says(&replace).status, 0);
            assert_eq!(deployment.says(&remove).status, 0);
            continue;
        }
        for command in [&replace[..], &remove] {
            assert_eq!(found(&deployment.refused(command)), expected, "{command:?}");
        }
    }
    let gateway = ["SETUSER", "gateway", "on", ">secret", "~*", "+@all"];
    redis::cmd("ACL").arg(&gateway).exec(&mut deployment.operator.redis()).unwrap();
    let refusal = deployment.refused(&["operator", "remove", "gateway"]);
    assert_eq!(found(&refusal), "the user gateway is no operator");
    let left = ["ada acme", "bob acme", "bob globex", "cyd null"];
    assert_eq!(listed(&deployment.operator.says(&["operator", "list"])), left);
    let none = deployment.says(&["operator", "remove", "nosuch"]).refusal();
    assert_eq!(none["found"], "there is no user nosuch");
}

// Proves: X32
#[test]
fn a_stored_policy_of_others_is_not_shown() {
    let deployment = Deployment::new();
    let pushed = |organisations: &str| -> String {
        let file = policy(organisations, 7);
        let push = ["policy", "push", file.path(), "--all", "--reason", "r"];
        deployment.operator.says(&push).json()["version"].as_str().unwrap().to_owned()
    };
    let (theirs, own) = (pushed("[acme]"), pushed("[globex]"));
    let words = format!("policy {theirs} names acme");
    for command in [
        &["policy", "show", &theirs][..],
        &["policy", "diff", &theirs, &own],
        &["policy", "diff", &own, &theirs],
        &["policy", "diff", &theirs],
        &["policy", "rollback", "--to", &theirs, "--reason", "r"],
    ] {
        assert_eq!(found(&deployment.refused(command)), words, "{command:?}");
    }
    // A version of several is one of its own.
    for version in [&deployment.first, &own] {
        let shown = deployment.says(&["policy", "show", version]).json();
        assert_eq!(shown["version"], json!(version));
    }
}

/// A log with a call of each organisation, and a request that proved no caller.
fn log() -> Scratch {
    let mut chain = Chain::new("worker".into());
    let line = |(number, org): (usize, Option<&str>)| {
        let entry = Entry {
            timestamp: "2026-11-28T10:00:00.000000Z".into(),
            request_id: format!("r{number}"),
            org_id: org.map(str::to_owned),
            principal: org.map(|org| format!("agent of {org}")),
            role: org.map(|_| "analyst".to_owned()),
            connector: Some("demo".into()),
            mcp_method: Some("tools/call".into()),
            tool_name: Some("query_users".into()),
            input: Some("{}".into()),
            status: "denied",
            decision: Decision { effect: "deny", rule: "tool.blocked".into() },
            ..Entry::default()
        };
        chain.append(&entry) + "\n"
    };
    let orgs = [Some("acme"), Some("globex"), None];
    Scratch::new("audit.jsonl", &orgs.into_iter().enumerate().map(line).collect::<String>())
}

// Proves: X32
#[test]
fn entries_of_others_are_in_no_answer_about_a_log() {
    let log = log();
    let says = |arguments: &[&str]| {
        let globex = ["--organisation", "globex", "--output", "json"];
        run(&[arguments, &globex].concat(), &[], "")
    };
    let commands: [&[&str]; 5] = [
        &["audit", "search", log.path()],
        &["audit", "tail", log.path()],
        &["audit", "export", log.path(), "--format", "csv"],
        &["audit", "report", log.path()],
        &["top", log.path(), "--once", "--window", "36500d"],
    ];
    for command in commands {
        // Each finds both organisations on its own.
        let all = run(command, &[], "");
        assert!(all.stdout.contains("agent of acme"), "{command:?}: {all:?}");
        for pattern in [&[][..], &["--org", "*"], &["--org", "acme,glob*"]] {
            let said = says(&[command, pattern].concat());
            assert_eq!(said.status, 0, "{command:?}: {said:?}");
            assert!(said.stdout.contains("agent of globex"), "{command:?}: {said:?}");
            assert!(!said.stdout.contains("acme") && !said.stdout.contains("\"r2\""), "{said:?}");
        }
        let said = says(&[command, &["--org", "ac*"]].concat());
        assert_eq!((said.status, said.stdout.as_str()), (2, ""), "{command:?}: {said:?}");
        let document: Value = serde_json::from_str(&said.stderr).unwrap();
        assert_eq!(found(&document["error"]), "--org names ac*");
    }
    let file = policy("[acme, globex]", 5);
    let explain = |request| {
        let ask = ["explain", "--request", request, "--log", log.path(), "--policy", file.path()];
        says(&ask)
    };
    let said = explain("r0");
    assert_eq!((said.status, said.stdout.as_str()), (2, ""), "{said:?}");
    let document: Value = serde_json::from_str(&said.stderr).unwrap();
    assert_eq!(found(&document["error"]), "its entry names acme");
    let said = explain("r1");
    assert!(said.status == 1 && said.stdout.contains("tool.blocked"), "{said:?}");
    // The calls of the log under two policies of several.
    let other = policy("[acme, globex]", 6);
    let diff = ["policy", "diff", file.path(), other.path(), "--against", log.path()];
    let replayed = says(&diff);
    let replayed: Value = serde_json::from_str(&replayed.stdout).unwrap();
    assert_eq!(replayed["replays"][0]["calls"], json!(1), "{replayed}");
    let all = run(&[&diff[..], &["--output", "json"]].concat(), &[], "").json();
    assert_eq!(all["replays"][0]["calls"], json!(2), "{all}");
}
