//! Access tokens: only what the issuer signed is taken, whatever else the text says.
//!
//! Owns an issuer with one key, whose tokens no fuzzer would come upon; so a good one is made from the
//! input's claims as well, and must be judged by them alone.

use portcullis_core::auth::AuthFailure;
use portcullis_core::auth::token::issuer::Issuer;
use portcullis_core::auth::token::jws::PresentedToken;
use portcullis_core::auth::token::keyring::{Keyring, Verification};
use serde_json::{Value, json};

use crate::mint::{ISS, RESOURCE, START, at, claims, inline, issuers, raw, token};

thread_local! {
    static ISSUERS: Vec<Issuer> = issuers(&[inline(json!({}))]);
}

const HEADER: &str = r#"{"alg":"EdDSA","kid":"ed"}"#;

/// The input is a token; or, after a `!`, the claims of one that is then signed; or, after a `?`, its
/// header.
pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match (text.strip_prefix('!'), text.strip_prefix('?')) {
        (Some(claims), _) => honest(claims),
        (None, Some(header)) => headed(header),
        (None, None) => presented(input),
    }
}

fn verify(text: &[u8]) -> Result<Verification, AuthFailure> {
    let token = PresentedToken::parse(text, 16_384)?;
    let mut keyring = Keyring::new(0);
    let mut judge =
        || ISSUERS.with(|issuers| keyring.verify(&token, issuers, Some(RESOURCE), at(START)));
    let (first, second) = (judge(), judge());
    let good = |seen: &Verification| matches!(seen, Verification::Verified(_));
    assert_eq!(good(&first), good(&second), "remembered otherwise than judged");
    assert!(!matches!(first, Verification::Fetch(_) | Verification::Unavailable(_)));
    Ok(first)
}

/// The one good token that stands for all is in the corpus.
fn presented(input: &[u8]) {
    let good = token(&claims());
    if let Ok(Verification::Verified(_)) = verify(input) {
        assert_eq!(input, good.as_bytes(), "a forged token");
    }
}

/// Whatever the header says: claims that are good are good only under the issuer's own signature.
fn headed(header: &str) {
    if let Ok(Verification::Verified(_)) = verify(raw(header, &claims().to_string()).as_bytes()) {
        let header: Value = serde_json::from_str(header).expect("JSON");
        assert!(["EdDSA", "Ed25519"].iter().any(|name| header["alg"] == *name), "{header}");
        assert!(["crit", "jwk", "zip"].iter().all(|name| header.get(name).is_none()), "{header}");
    }
}

fn honest(claims: &str) {
    let Ok(Verification::Verified(verified)) = verify(raw(HEADER, claims).as_bytes()) else {
        return;
    };
    let claims: Value = serde_json::from_str(claims).expect("JSON");
    assert_eq!(claims["iss"], ISS);
    let subject = ["sub", "client_id", "azp"].map(|name| claims.get(name));
    let subject = subject.into_iter().flatten().next().expect("a subject");
    assert_eq!(*subject, verified.credential.principal.name);
    let org = claims["org"].get(0).unwrap_or(&claims["org"]);
    assert_eq!(*org, verified.credential.principal.org.as_str());
    let expires = claims["exp"].as_f64().expect("a number");
    assert!((START as f64 - 30.0..=START as f64 + 86_430.0).contains(&expires));
    let mentions = |value: &Value| value.as_str().is_some_and(|uri| uri.contains("/demo/mcp"));
    let audience = &claims["aud"];
    assert!(mentions(audience) || audience.as_array().is_some_and(|all| all.iter().any(mentions)));
}
