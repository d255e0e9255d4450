//! `key set` and `key rotate` of one key, and what `key show` tells of its secrets.

use portcullis_core::auth::{AuthFailure, CertificateFailure, Writes};
use portcullis_redis_lua::Key;
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, Scratch, authenticate, issue, record};

fn id(issued: &Value) -> &str {
    issued["record"]["id"].as_str().unwrap()
}

fn key(issued: &Value) -> &str {
    issued["key"].as_str().unwrap()
}

/// What the filter would say now.
fn judged(operator: &Operator, id: &str, key: &str) -> Result<(), AuthFailure> {
    authenticate(&record(operator, "acme", id).1, key).map(|_| ())
}

/// Notes a use as the gateway does.
fn use_secret(operator: &Operator, id: &str, sha256: &Value, at: u64) {
    let label = &sha256.as_str().unwrap()[..12];
    let _: () = operator.redis().hset(Key::used("acme", id).as_str(), label, at).unwrap();
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

// Proves: A2
#[test]
fn a_key_is_narrower_than_its_role_from_issue_on() {
    let operator = Operator::with_policy();
    let issued = issue(
        &operator,
        &[
            "--connectors",
            "demo",
            "--tools",
            "query_*, search_contacts",
            "--read-only",
            "--sources",
            "192.0.2.0/24,::1",
            "--reason",
            "for the crawler",
        ],
    )
    .json();
    let principal = authenticate(&record(&operator, "acme", id(&issued)).1, key(&issued)).unwrap();
    let restrictions = principal.restrictions;
    assert!(restrictions.connectors.unwrap().matches("demo"));
    let tools = restrictions.tools.unwrap();
    assert!(tools.matches("query_users") && !tools.matches("create_note"));
    assert_eq!(restrictions.writes, Writes::Closed);
    let shown = operator.says(&["key", "show", id(&issued)]).json()["record"].clone();
    assert_eq!(shown["tools"], json!(["query_*", "search_contacts"]));
    assert_eq!(shown["sources"], json!(["192.0.2.0/24", "::1"]));
    let plainly = operator.plainly(&["key", "show", id(&issued)]).stdout;
    assert!(plainly.contains("sources    192.0.2.0/24, ::1"), "{plainly}");

    let elsewhere = issue(&operator, &["--sources", "10.0.0.0/8"]).json();
    let failure = judged(&operator, id(&elsewhere), key(&elsewhere));
    assert_eq!(failure, Err(AuthFailure::SourceNotAllowed));
    let bound = issue(&operator, &["--certificate", &["Ab"; 32].join(":")]).json();
    let mismatch = AuthFailure::Certificate(CertificateFailure::OtherCertificate);
    assert_eq!(judged(&operator, id(&bound), key(&bound)), Err(mismatch));
    assert_eq!(bound["record"]["certificate"], "ab".repeat(32));

    let refusal = issue(&operator, &["--connectors", "demo,dmeo"]).refusal();
    assert_eq!(refusal["found"], "no connector of the policy is called dmeo");
    assert_eq!(refusal["expected"], "one of demo, python");
}

// Proves: A21
#[test]
fn set_changes_what_is_named_and_nothing_else() {
    let operator = Operator::with_policy();
    let [one, other] = [issue(&operator, &[]).json(), issue(&operator, &[]).json()];
    let untouched = record(&operator, "acme", id(&other));
    let set = |more: &[&str]| operator.says(&[&["key", "set", id(&one)], more].concat());

    let changed = set(&["--role", "admin", "--tools", "query_users", "--read-only"]).json();
    assert_eq!(changed["changed"], true);
    let (rev, now) = record(&operator, "acme", id(&one));
    assert_eq!((rev.as_str(), now.role.as_str(), now.read_only), ("2", "admin", true));
    assert_eq!((now.name.as_str(), now.tier.as_str()), ("cursor", "free"));
    let changed =
        set(&["--tools", "all", "--read-only=off", "--name", "ci", "--tier", "pro"]).json();
    let (_, now) = record(&operator, "acme", id(&one));
    assert_eq!((now.tools, now.read_only, now.name.as_str()), (None, false, "ci"));
    assert_eq!(changed["record"]["tier"], "pro");
    assert_eq!(judged(&operator, id(&one), key(&one)), Ok(()));

    set(&["--expires", "0s"]).json();
    assert_eq!(judged(&operator, id(&one), key(&one)), Err(AuthFailure::Expired));
    set(&["--expires", "never", "--not-before", "1h"]).json();
    assert_eq!(judged(&operator, id(&one), key(&one)), Err(AuthFailure::NotYetValid));
    set(&["--not-before", "none"]).json();
    assert_eq!(judged(&operator, id(&one), key(&one)), Ok(()));
    let (rev, _) = record(&operator, "acme", id(&one));

    // The same again is no change, and no entry.
    let again = set(&["--role", "admin"]).json();
    assert_eq!(again["changed"], false);
    assert_eq!(record(&operator, "acme", id(&one)).0, rev);

    for (arguments, found) in [
        (&["--role", "analist"][..], "the policy has no role analist"),
        (&["--tier", "gold"], "the policy has no tier gold"),
        (&["--connectors", "dmeo"], "no connector of the policy is called dmeo"),
    ] {
        assert_eq!(set(arguments).refusal()["found"], found);
    }
    for usage in [&[][..], &["--reason", "r"], &["--expires", "1h", "--not-before", "2h"]] {
        assert_eq!(set(usage).status, 2, "{usage:?}");
    }
    operator.says(&["key", "revoke", id(&one), "--reason", "r"]).json();
    let refusal = set(&["--role", "analyst"]).refusal();
    assert_eq!(refusal["found"], format!("key {} is revoked", id(&one)));
    assert_eq!(record(&operator, "acme", id(&other)), untouched, "another key was touched");
}

// Proves: A4, A22, A23, A24, C2
#[test]
fn a_rotated_key_has_two_secrets_until_the_overlap_ends_and_no_other_key_changes() {
    let operator = Operator::with_policy();
    let [one, other] = [issue(&operator, &[]).json(), issue(&operator, &[]).json()];
    let untouched = record(&operator, "acme", id(&other));
    let arguments = ["key", "rotate", id(&one), "--overlap", "1h", "--reason", "monthly"];
    let rotated = operator.says(&arguments).json();
    assert_eq!(id(&rotated), id(&one));
    assert_ne!(key(&rotated), key(&one));
    for works in [&rotated, &one] {
        assert_eq!(judged(&operator, id(&one), key(works)), Ok(()));
    }
    let facts = &rotated["record"]["rotated"];
    assert_eq!((&facts["by"], &facts["reason"]), (&json!("tester"), &json!("monthly")));
    let states = |shown: &Value| {
        let secrets = shown["secrets"].as_array().unwrap().iter();
        secrets.map(|secret| secret["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states(&rotated["record"]), ["current", "replaced"]);

    // Inside the overlap only by force, and then without an overlap nothing older works.
    let before = record(&operator, "acme", id(&one));
    let refusal = operator.says(&["key", "rotate", id(&one)]).refusal();
    assert!(refusal["found"].as_str().unwrap().contains("was rotated before"), "{refusal}");
    assert!(refusal["next"].as_str().unwrap().contains("--force"), "{refusal}");
    assert_eq!(record(&operator, "acme", id(&one)), before);
    let forced = ["key", "rotate", id(&one), "--force", "--overlap", "0s"];
    let forced = operator.says(&forced).json();
    assert_eq!(states(&forced["record"]), ["current", "ended", "ended"]);
    assert_eq!(judged(&operator, id(&one), key(&forced)), Ok(()));
    for ended in [&rotated, &one] {
        let failure = judged(&operator, id(&one), key(ended));
        assert_eq!(failure, Err(AuthFailure::RotatedOut));
    }
    // The overlap is over: no force is needed.
    operator.says(&["key", "rotate", id(&one)]).json();
    assert_eq!(record(&operator, "acme", id(&other)), untouched, "another key was touched");
    assert_eq!(judged(&operator, id(&other), key(&other)), Ok(()));

    let plainly = operator.plainly(&["key", "rotate", id(&other)]).stdout;
    assert!(plainly.contains("pck_acme_") && plainly.contains("The old one works until"));
    operator.says(&["key", "set", id(&other), "--expires", "0s"]).json();
    let refusal = operator.says(&["key", "rotate", id(&other), "--force"]).refusal();
    assert_eq!(refusal["found"], format!("key {} has expired", id(&other)));
}

#[test]
fn a_new_key_can_go_to_a_file_of_its_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let operator = Operator::with_policy();
    let file = Scratch::nowhere("new-key.jsonl");
    let issued = issue(&operator, &["--out", file.path()]).json();
    assert_eq!((&issued["key"], &issued["out"]), (&Value::Null, &json!(file.path())));
    let line: Value = serde_json::from_str(&std::fs::read_to_string(file.path()).unwrap()).unwrap();
    assert_eq!(judged(&operator, id(&issued), key(&line)), Ok(()));
    let mode = std::fs::metadata(file.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Not over a file that is there, and then nothing is changed.
    let refusal = operator.says(&["key", "rotate", id(&issued), "--out", file.path()]).refusal();
    assert_eq!(refusal["where"], file.path());
    assert_eq!(record(&operator, "acme", id(&issued)).0, "1");
    let next = Scratch::nowhere("next-key.jsonl");
    let rotated = operator.says(&["key", "rotate", id(&issued), "--out", next.path()]).json();
    assert_eq!(rotated["key"], Value::Null);
    // A rotation that is refused leaves no file.
    let third = Scratch::nowhere("third-key.jsonl");
    operator.says(&["key", "rotate", id(&issued), "--out", third.path()]).refusal();
    assert!(!std::path::Path::new(third.path()).exists());
}

// Proves: X3
#[test]
fn show_tells_when_each_secret_was_last_used_and_warns_of_late_use_of_the_old_one() {
    let operator = Operator::with_policy();
    let issued = issue(&operator, &[]).json();
    let show = || operator.says(&["key", "show", id(&issued)]).json()["record"].clone();
    assert_eq!(show()["last_used"], Value::Null);

    let rotated = operator.says(&["key", "rotate", id(&issued), "--overlap", "100m"]).json();
    let [new, old] = [0, 1].map(|nth| rotated["record"]["secrets"][nth]["sha256"].clone());
    let used = now() - 30;
    use_secret(&operator, id(&issued), &new, used);
    use_secret(&operator, id(&issued), &old, used - 10);
    let shown = show();
    assert_eq!(shown["last_used"], shown["secrets"][0]["last_used"]);
    assert!(shown["secrets"][1]["last_used"].is_string());
    assert_eq!(shown["warnings"], json!([]), "most of the overlap is left");
    let listed = operator.says(&["key", "list"]).json();
    assert_eq!(listed["keys"][0], shown);

    // Forced inside the overlap with a short one: the old ones now end within a minute.
    let forced = ["key", "rotate", id(&issued), "--overlap", "30s", "--force"];
    operator.says(&forced).json();
    assert_eq!(show()["warnings"], json!([]), "both were used before they were replaced alone");
    for secret in [&new, &old] {
        use_secret(&operator, id(&issued), secret, now() + 1);
    }
    let warnings = show()["warnings"].clone();
    assert_eq!(warnings.as_array().unwrap().len(), 2, "{warnings}");
    assert!(warnings[0].as_str().unwrap().contains(&new.as_str().unwrap()[..12]), "{warnings}");
    let plainly = operator.plainly(&["key", "show", id(&issued)]).stdout;
    assert!(plainly.contains("warning    the replaced secret"), "{plainly}");
    assert!(plainly.contains("current, last used never"), "{plainly}");
    let listed = operator.plainly(&["key", "list"]).stdout;
    assert!(listed.contains(&format!("warning: acme/{}: the replaced", id(&issued))), "{listed}");
}
