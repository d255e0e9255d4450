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

/// Task 6 of the first afternoon: no way to make a key, a JWKS or a token. Proves: X4
#[test]
fn a_minted_token_is_one_that_a_gateway_with_the_printed_issuers_accepts() {
    use jwt_simple::prelude::{Ed25519PublicKey, EdDSAPublicKeyLike as _, NoCustomClaims};
    let key = crate::harness::Scratch::nowhere("trial.pem");
    let keygen = ["token", "keygen", "--out", key.path()];
    let said = crate::harness::run(&keygen, &[], "");
    assert_eq!((said.status, said.stdout.lines().count()), (0, 1), "{said:?}");
    assert!(!said.stdout.contains("PRIVATE") && !said.stdout.contains("\"d\""), "{said:?}");
    let issuers: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let config = serde_json::json!({
        "redis": {"cluster": "redis"},
        "auth": {"external_url": "https://mcp.example", "issuers": issuers},
    });
    portcullis_core::config::Config::parse(&config).expect("the gateway takes it");
    let again = crate::harness::run(&keygen, &[], "");
    assert!(again.status == 1 && again.stderr.contains("not there yet"), "{again:?}");
    let mint = ["token", "mint", "--key", key.path(), "--audience", "https://mcp.example/demo/mcp"];
    let claims = r#"{"org": "acme", "role": "analyst", "tier": "free"}"#;
    let said = crate::harness::run(&[&mint[..], &["--claims", claims]].concat(), &[], "");
    assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{said:?}");
    let jwk = &issuers[0]["jwks_inline"]["keys"][0];
    assert_eq!(jwk["kid"], "trial", "{jwk}");
    let public = std::fs::read_to_string(key.path()).unwrap();
    let public = jwt_simple::prelude::Ed25519KeyPair::from_pem(&public).unwrap();
    let public: Ed25519PublicKey = public.public_key();
    let claims = public.verify_token::<NoCustomClaims>(said.stdout.trim(), None).unwrap();
    assert_eq!(claims.subject.as_deref(), Some("trial"));
    let bad = ["token", "mint", "--key", "nowhere.pem", "--audience", "a"];
    assert!(crate::harness::run(&bad, &[], "").stderr.contains("token keygen"));
}

/// Finding 7 of a fresh reader: "no private key" of the stack's own key, which is P-256.
#[test]
fn a_p256_key_signs_too_and_another_file_is_named_for_what_it_is() {
    use jwt_simple::prelude::NoCustomClaims;
    use jwt_simple::prelude::{ECDSAP256PublicKeyLike as _, ES256KeyPair};
    let pair = ES256KeyPair::generate();
    let key = crate::harness::Scratch::new("p256.pem", &pair.to_pem().unwrap());
    let mint = |key: &str| {
        let mint = ["token", "mint", "--key", key, "--key-id", "demo", "--audience", "a"];
        crate::harness::run(&mint, &[], "")
    };
    let said = mint(key.path());
    assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{said:?}");
    pair.public_key().verify_token::<NoCustomClaims>(said.stdout.trim(), None).unwrap();
    let header = jwt_simple::token::Token::decode_metadata(said.stdout.trim()).unwrap();
    assert_eq!((header.algorithm(), header.key_id()), ("ES256", Some("demo")));
    let other = crate::harness::Scratch::new("x.pem", "-----BEGIN RSA PRIVATE KEY-----\nMII\n");
    let said = mint(other.path());
    assert!(said.status == 1 && said.stderr.contains("RSA PRIVATE KEY"), "{said:?}");
}

// Proves: X4
#[test]
fn a_trial_key_that_cannot_be_written_leaves_no_file() {
    let key = crate::harness::Scratch::nowhere("trial.pem");
    let keygen = ["token", "keygen", "--out", key.path()];
    let said = crate::harness::on_a_full_disk(&keygen, &[]);
    assert!(said.status == 1 && said.stderr.contains("File too large"), "{said:?}");
    assert!(!std::path::Path::new(key.path()).exists());
    assert_eq!(crate::harness::run(&keygen, &[], "").status, 0);
}
