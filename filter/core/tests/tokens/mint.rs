//! An issuer for tests: keys, key sets, and tokens, valid and invalid.
//!
//! Owns how tokens are made, from parts that may not fit together. Judges none.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwt_simple::prelude::{
    ECDSAP256KeyPairLike as _, ECDSAP384KeyPairLike as _, ES256KeyPair, ES384KeyPair,
    Ed25519KeyPair, EdDSAKeyPairLike as _, HS256Key, JWTClaims, MACLike as _, PS256KeyPair,
    RS256KeyPair, RSAKeyPairLike as _,
};
use portcullis_core::auth::token::issuer::{self, Issuer};
use portcullis_core::decode::{Faults, Node};
use portcullis_core::time::UnixTime;
use serde_json::{Map, Value, json};

/// 2026-11-20T22:00:00Z.
pub(crate) const START: u64 = 1_795_212_000;
pub(crate) const ISS: &str = "https://idp.example";
pub(crate) const RESOURCE: &str = "https://mcp.example/demo/mcp";
/// The secret of the HMAC issuer.
pub(crate) const SECRET: &str = "a shared secret of forty characters, no less";

/// The keys of the issuer; made for these tests only.
pub(crate) struct Keys {
    pub(crate) ed: Ed25519KeyPair,
    pub(crate) es256: ES256KeyPair,
    pub(crate) es384: ES384KeyPair,
    pub(crate) rs256: RS256KeyPair,
    pub(crate) ps256: PS256KeyPair,
    /// A key of another party.
    pub(crate) stranger: Ed25519KeyPair,
}

pub(crate) static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    const RSA: &str = include_str!("keys/rsa.pem");
    Keys {
        ed: Ed25519KeyPair::from_pem(include_str!("keys/ed25519.pem")).unwrap().with_key_id("ed"),
        es256: ES256KeyPair::from_pem(include_str!("keys/p256.pem")).unwrap().with_key_id("es256"),
        es384: ES384KeyPair::from_pem(include_str!("keys/p384.pem")).unwrap().with_key_id("es384"),
        rs256: RS256KeyPair::from_pem(RSA).unwrap().with_key_id("rs256"),
        ps256: PS256KeyPair::from_pem(RSA).unwrap().with_key_id("ps256"),
        stranger: Ed25519KeyPair::from_pem(include_str!("keys/stranger.pem")).unwrap(),
    }
});

/// The issuer's key set.
pub(crate) fn jwks() -> Value {
    let keys = &*KEYS;
    let jwks = [
        keys.ed.public_key().to_jwk(),
        keys.es256.public_key().to_jwk(),
        keys.es384.public_key().to_jwk(),
        keys.rs256.public_key().to_jwk(),
        keys.ps256.public_key().to_jwk(),
    ];
    json!({"keys": jwks.map(|jwk| serde_json::from_str::<Value>(&jwk).unwrap())})
}

/// An issuer with its keys in the configuration, changed by `more`.
pub(crate) fn inline(more: Value) -> Value {
    let mut issuer = json!({"issuer": ISS, "jwks_inline": jwks()});
    set(&mut issuer, more);
    issuer
}

/// An issuer whose keys are fetched, changed by `more`.
pub(crate) fn remote(more: Value) -> Value {
    let jwks = json!({"cluster": "idp", "path": "/jwks"});
    let mut issuer = json!({"issuer": ISS, "jwks": jwks});
    set(&mut issuer, more);
    issuer
}

/// An issuer with a shared secret.
pub(crate) fn shared() -> Value {
    json!({"issuer": ISS, "secret": "vault://secret/idp#hmac"})
}

pub(crate) fn issuers(documents: &[Value]) -> Vec<Issuer> {
    let document = Value::Array(documents.to_vec());
    let mut faults = Faults::default();
    let issuers = issuer::read(Node::root(&document), &mut faults);
    assert!(faults.is_empty(), "{faults}");
    issuers.expect("no faults, so issuers")
}

/// The claims of a valid token.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISS, "sub": "agent-1", "aud": RESOURCE, "iat": START - 10, "exp": START + 300,
        "jti": "t-1", "scope": "tools:read tools:write", "org": "acme", "role": "analyst",
        "tier": "pro"
    })
}

/// [`claims`], changed by `more`; null removes a claim.
pub(crate) fn claims_with(more: Value) -> Value {
    let mut claims = claims();
    set(&mut claims, more);
    claims
}

fn set(document: &mut Value, more: Value) {
    let Value::Object(more) = more else { panic!("not an object: {more}") };
    for (name, value) in more {
        match value {
            Value::Null => _ = document.as_object_mut().unwrap().shift_remove(&name),
            value => document[name] = value,
        }
    }
}

/// A token of the issuer's Edwards key, from parts that need not be JSON.
pub(crate) fn raw(header: &str, claims: &str) -> String {
    signed_by(&KEYS.ed, header, claims)
}

pub(crate) fn signed_by(key: &Ed25519KeyPair, header: &str, claims: &str) -> String {
    let (header, claims) = (URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signed = format!("{header}.{claims}");
    let signature = key.key_pair().as_ref().sk.sign(&signed, None);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&signature[..]))
}

/// A token of the issuer's Edwards key with these claims.
pub(crate) fn token(claims: &Value) -> String {
    raw(r#"{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}"#, &claims.to_string())
}

/// A valid token with another header, changed from the usual one by `more`.
pub(crate) fn headed(more: Value) -> String {
    let mut header = json!({"alg": "EdDSA", "kid": "ed", "typ": "at+jwt"});
    set(&mut header, more);
    raw(&header.to_string(), &claims().to_string())
}

/// A valid token, signed with `algorithm`.
pub(crate) fn signed(algorithm: &str) -> String {
    let claims: JWTClaims<Map<String, Value>> = serde_json::from_value(claims()).unwrap();
    let keys = &*KEYS;
    let token = match algorithm {
        "ES256" => keys.es256.sign(claims),
        "ES384" => keys.es384.sign(claims),
        "RS256" => keys.rs256.sign(claims),
        "PS256" => keys.ps256.sign(claims),
        "EdDSA" => keys.ed.sign(claims),
        "HS256" => HS256Key::from_bytes(SECRET.as_bytes()).authenticate(claims),
        other => panic!("no key for {other}"),
    };
    token.unwrap()
}

/// A token that uses `secret`, whatever it is, as the key of an HMAC.
pub(crate) fn hmac(secret: &[u8], kid: &str) -> String {
    let claims: JWTClaims<Map<String, Value>> = serde_json::from_value(claims()).unwrap();
    HS256Key::from_bytes(secret).with_key_id(kid).authenticate(claims).unwrap()
}

pub(crate) fn at(second: u64) -> UnixTime {
    UnixTime::from_micros(second * 1_000_000)
}
