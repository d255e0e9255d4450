//! `key`: issue, list, show, revoke.

use portcullis_core::auth::AuthFailure;
use portcullis_core::auth::api_key::PresentedKey;
use portcullis_redis_lua::Key;
use redis::Commands as _;
use serde_json::{Value, json};

use crate::harness::{Operator, authenticate, file, issue, record};

// Proves: A1
#[test]
fn an_issued_key_is_what_the_filter_accepts() {
    let operator = Operator::with_policy();
    let issued = issue(&operator, &["--expires", "90d"]).json();
    let presented = PresentedKey::parse(issued["key"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(issued["record"]["id"], presented.id.as_str());
    assert_eq!(presented.id.as_str().len(), 10);

    let (rev, record) = record(&operator, "acme", presented.id.as_str());
    assert_eq!(rev, "1");
    let principal = authenticate(&record, issued["key"].as_str().unwrap()).unwrap();
    assert_eq!((principal.role.as_str(), principal.tier.as_str()), ("analyst", "free"));
    assert_eq!(record.expires_at, Some(record.created_at + 90 * 86_400));
    assert_eq!(record.created_by, "tester");
}

// Proves: A1
#[test]
fn the_key_is_shown_once_and_stored_nowhere() {
    let operator = Operator::with_policy();
    let issued = issue(&operator, &[]).json();
    let (key, id) = (issued["key"].as_str().unwrap(), issued["record"]["id"].as_str().unwrap());
    let secret = &key[key.len() - 49..];

    let mut redis = operator.redis();
    for name in redis.keys::<_, Vec<String>>("*").unwrap() {
        let dump: Vec<u8> = redis::cmd("DUMP").arg(&name).query(&mut redis).unwrap();
        assert!(!dump.windows(43).any(|part| part == &secret.as_bytes()[..43]), "{name}");
    }
    for arguments in [&["key", "list"][..], &["key", "show", id]] {
        for said in [operator.says(arguments), operator.plainly(arguments)] {
            assert!(!said.stdout.contains(secret), "{said:?}");
        }
    }

    let plainly = operator.plainly(&[
        "key", "issue", "--org", "acme", "--name", "x", "--role", "admin", "--tier", "pro",
    ]);
    assert!(plainly.stdout.contains("pck_acme_"), "{plainly:?}");
    assert!(plainly.stdout.contains("cannot be shown again"), "{plainly:?}");
}

#[test]
fn issue_refuses_what_the_active_policy_does_not_know() {
    let operator = Operator::new();
    let arguments = |org, role, tier| {
        ["key", "issue", "--org", org, "--name", "x", "--role", role, "--tier", tier]
    };
    let refusal = operator.says(&arguments("acme", "analyst", "free")).refusal();
    assert_eq!(refusal["found"], "there is no policy yet");
    assert_eq!(refusal["next"], "portcullis policy push FILE --reason …");

    operator.says(&["policy", "push", &file("policy.yaml"), "--reason", "start"]).json();
    for ((org, role, tier), found, expected) in [
        (
            ("acne", "analyst", "free"),
            "no active policy knows the organisation acne",
            "one of acme",
        ),
        (("acme", "analist", "free"), "the policy has no role analist", "one of admin, analyst"),
        (("acme", "analyst", "gold"), "the policy has no tier gold", "one of free, pro"),
    ] {
        let refusal = operator.says(&arguments(org, role, tier)).refusal();
        assert_eq!((&refusal["found"], &refusal["expected"]), (&json!(found), &json!(expected)));
    }
    assert_eq!(operator.says(&["key", "list"]).json(), json!({ "keys": [] }));
    assert_eq!(operator.plainly(&["key", "list"]).stdout, "no keys\n");
}

#[test]
fn list_and_show_tell_the_same() {
    let operator = Operator::with_policy();
    let first = issue(&operator, &["--not-before", "1h"]).json();
    let second = issue(&operator, &["--expires", "2126-11-20T00:00:00Z"]).json();
    let listed = operator.says(&["key", "list"]).json();
    assert_eq!(operator.says(&["key", "list", "--org", "acme"]).json(), listed);
    assert_eq!(operator.says(&["key", "list", "--org", "globex"]).json(), json!({ "keys": [] }));

    let listed = listed["keys"].as_array().unwrap();
    assert_eq!(listed.len(), 2);
    for issued in [&first, &second] {
        assert!(listed.contains(&issued["record"]), "{listed:?}");
        let id = issued["record"]["id"].as_str().unwrap();
        for more in [&[][..], &["--org", "acme"]] {
            let shown = operator.says(&[&["key", "show", id], more].concat()).json();
            assert_eq!(shown["record"], issued["record"]);
        }
    }
    assert_eq!(first["record"]["status"], "not yet valid");
    assert_eq!(second["record"]["status"], "active");
    assert_eq!(second["record"]["expires_at"], "2126-11-20T00:00:00Z");
    assert_eq!(second["record"]["revoked"], Value::Null);

    let table = operator.plainly(&["key", "list"]).stdout;
    assert!(table.starts_with("ID          ORG   NAME    ROLE     TIER  STATUS"), "{table}");
    assert!(table.contains("not yet valid") && table.contains("2126-11-20T00:00:00Z"), "{table}");
}

#[test]
fn a_revoked_key_is_refused_and_no_other() {
    let operator = Operator::with_policy();
    let [leaked, other] = [issue(&operator, &[]).json(), issue(&operator, &[]).json()];
    let id = leaked["record"]["id"].as_str().unwrap();

    let revoked = operator.says(&["key", "revoke", id, "--reason", "found in a log"]).json();
    assert_eq!(revoked["changed"], true);
    assert_eq!(revoked["record"]["status"], "revoked");
    // Finding 11 of a fresh reader: it still said `current`.
    assert_eq!(revoked["record"]["secrets"][0]["state"], "revoked");
    assert_eq!(revoked["record"]["revoked"]["by"], "tester");
    assert_eq!(revoked["record"]["revoked"]["reason"], "found in a log");

    for (issued, rev, verdict) in [(&leaked, "2", Err(AuthFailure::Revoked)), (&other, "1", Ok(()))]
    {
        let presented = PresentedKey::parse(issued["key"].as_str().unwrap().as_bytes()).unwrap();
        let (now_rev, record) = record(&operator, "acme", presented.id.as_str());
        assert_eq!(now_rev, rev);
        let judged = authenticate(&record, issued["key"].as_str().unwrap());
        assert_eq!(judged.map(|_| ()), verdict);
    }

    // A second time changes nothing, and is no error: the key is revoked, as asked.
    let again = operator.says(&["key", "revoke", id, "--reason", "again"]).json();
    assert_eq!(again["changed"], false);
    assert_eq!(again["record"], revoked["record"]);
}

#[test]
fn revocations_at_the_same_moment_leave_one_reason() {
    let operator = Operator::with_policy();
    let issued = issue(&operator, &[]).json();
    let id = issued["record"]["id"].as_str().unwrap();
    let changed: Vec<bool> = std::thread::scope(|scope| {
        let revoke =
            || operator.says(&["key", "revoke", id, "--reason", "r"]).json()["changed"] == true;
        let runs: Vec<_> = (0..6).map(|_| scope.spawn(revoke)).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(changed.iter().filter(|changed| **changed).count(), 1);
    assert_eq!(record(&operator, "acme", id).0, "2");
}

#[test]
fn an_unknown_key_is_refused() {
    let operator = Operator::with_policy();
    for arguments in [
        &["key", "show", "nosuchkey1"][..],
        &["key", "show", "nosuchkey1", "--org", "acme"],
        &["key", "revoke", "nosuchkey1", "--reason", "r"],
    ] {
        let refusal = operator.says(arguments).refusal();
        assert_eq!(refusal["found"], "there is no key nosuchkey1");
        assert_eq!(refusal["next"], "portcullis key list");
    }
}

#[test]
fn a_record_of_a_newer_version_is_left_alone_and_hides_no_other() {
    let operator = Operator::with_policy();
    let issued = issue(&operator, &[]).json();
    let id = issued["record"]["id"].as_str().unwrap();
    let name = Key::record("acme", id);
    let doc: String = operator.redis().hget(name.as_str(), "doc").unwrap();
    let newer = doc.replacen('{', "{\"cidrs\":[],", 1);
    let _: () = operator.redis().hset(name.as_str(), "doc", &newer).unwrap();

    let refusal = operator.says(&["key", "revoke", id, "--reason", "r"]).refusal();
    assert_eq!(refusal["where"], name.as_str());
    assert!(refusal["found"].as_str().unwrap().contains("unknown field `cidrs`"), "{refusal}");
    let doc: String = operator.redis().hget(name.as_str(), "doc").unwrap();
    assert_eq!(doc, newer);

    let other = issue(&operator, &[]).json();
    let listed = operator.says(&["key", "list"]).json();
    let of = |status: &str| {
        let keys = listed["keys"].as_array().unwrap().iter();
        keys.filter(|key| key["status"] == status).map(|key| key["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("active"), [other["record"]["id"].clone()]);
    assert_eq!(of("unreadable"), [json!(id)]);
    let plainly = operator.plainly(&["key", "list"]);
    assert_eq!(plainly.status, 0);
    assert!(plainly.stdout.contains("unknown field `cidrs`"), "{plainly:?}");
}
