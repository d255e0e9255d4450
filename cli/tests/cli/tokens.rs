//! `portcullis token`: what is denied, listed and allowed again.

use crate::harness::Operator;

// Proves: A21
#[test]
fn a_denial_is_written_listed_and_taken_back() {
    let operator = Operator::with_policy();
    let place = ["--issuer", "https://idp.example", "--org", "acme"];
    let says = |verb: &str, more: &[&str]| {
        operator.says(&[&["token", verb], place.as_slice(), more].concat())
    };
    let denied = says("deny", &["--jti", "t-1", "--reason", "leaked"]).json();
    assert_eq!(denied["denied"]["what"], "token t-1 of https://idp.example");
    assert_eq!(denied["denied"]["by"], "tester");
    says("deny", &["--subject", "agent-1", "--issued-before", "now", "--reason", "laptop lost"])
        .json();
    let listed = operator.says(&["token", "list"]).json();
    assert_eq!(listed["denied"].as_array().unwrap().len(), 2, "{listed}");
    // Where the filter looks for it; the digest is the one that the core's test has.
    let key = "portcullis:{acme}:denied:token:\
        b770101a67914272c461b64d4cfab628f52b9732c40c8fe13ed71cc01831e30b";
    let rev: String = redis::cmd("HGET").arg(key).arg("rev").query(&mut operator.redis()).unwrap();
    assert_eq!(rev.len(), 16);
    says("deny", &["--jti", "t-1", "--reason", "again"]).json();
    let next: String = redis::cmd("HGET").arg(key).arg("rev").query(&mut operator.redis()).unwrap();
    assert_ne!(rev, next, "a filter would go on with the old one");
    says("allow", &["--jti", "t-1"]).json();
    assert!(
        says("allow", &["--jti", "t-1"]).refusal()["found"]
            .as_str()
            .unwrap()
            .contains("not denied")
    );
    let entries = operator.says(&["audit", "show", "--admin", "--org", "acme"]).json().to_string();
    for action in ["token.deny", "token.allow"] {
        assert!(entries.contains(action), "{entries}");
    }
    let left = operator.says(&["token", "list", "--org", "acme"]).json();
    assert_eq!(left["denied"][0]["what"], "subject agent-1 of https://idp.example");
}

#[test]
fn a_denial_names_one_thing() {
    let operator = Operator::new();
    for what in [&[][..], &["--jti", "a", "--subject", "b"]] {
        let place = ["token", "deny", "--issuer", "i", "--org", "acme", "--reason", "x"];
        assert_eq!(operator.says(&[place.as_slice(), what].concat()).status, 2);
    }
}
