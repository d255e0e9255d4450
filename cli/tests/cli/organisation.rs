//! `--organisation` and `PORTCULLIS_ORG`: commands look at no other organisation, whatever else names one. Redis allows
//! all here; `operators` has the users whom it does not.

use portcullis_redis_lua::Key;
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, Said, Scratch, golden_file};

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
    let all = deployment.refused(&["operator", "create", "alice", "--all", "--task", "keys"]);
    assert!(all["found"].as_str().unwrap().ends_with("and --all names all organisations"), "{all}");

    // Without --org, what acme has is not there.
    for command in [
        &["key", "show", theirs][..],
        &["key", "revoke", theirs, "--reason", "r"],
        &["limits", "show", theirs],
        &["explain", "--key", theirs, "--tool", "query_users"],
    ] {
        let refusal = deployment.says(command).refusal();
        assert_eq!(refusal["where"], "the keys of globex", "{command:?}");
    }
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
