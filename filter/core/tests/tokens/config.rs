//! The allowed configuration of issuers, and the error messages for the rest.

use portcullis_core::auth::token::issuer::read;
use portcullis_core::decode::{Faults, Node};
use serde_json::{Value, json};

use crate::mint::{inline, jwks, remote, shared};

fn faults(document: Value) -> String {
    let mut faults = Faults::default();
    let issuers = read(Node::root(&document), &mut faults);
    assert_eq!(issuers.is_none(), !faults.is_empty(), "{faults}");
    faults.to_string()
}

#[test]
fn every_fault_of_every_issuer_is_told_at_once() {
    let told = faults(json!([
        {"issuer": "", "jwks": {"cluster": "", "path": "jwks", "refresh_seconds": 1}},
        {"issuer": "a", "algorithms": ["HS256"], "jwks_inline": jwks()},
        {"issuer": "b", "secret": "hunter2", "algorithms": ["RS256"]},
        {"issuer": "c", "jwks_inline": {"keys": []}, "org": "A", "roles": {"x": "a b"}},
        {"issuer": "d"},
        {"issuer": "e", "jwks_inline": jwks(), "role": "x", "claims": {"role": "y", "team": "z"}},
        {"issuer": "f", "jwks_inline": jwks(), "secret": "vault://a/b#c", "leeway": 1},
        7
    ]));
    let expected = include_str!("config.expected");
    assert_eq!(told, expected.trim_end(), "\n{told}");
    assert!(!told.contains("hunter2"));
}

#[test]
fn an_issuer_is_named_once() {
    let told = faults(json!([inline(json!({})), remote(json!({}))]));
    assert!(told.starts_with("[1].issuer: found \"https://idp.example\", expected"), "{told}");
    assert_eq!(faults(json!([shared()])), "");
}
