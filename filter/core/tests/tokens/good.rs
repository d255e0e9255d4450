//! Accepted tokens, and the use of their claims.

use std::rc::Rc;

use portcullis_core::auth::deny_list::Deniable;
use portcullis_core::auth::token::claims::VerifiedToken;
use portcullis_core::auth::token::issuer::Issuer;
use portcullis_core::auth::token::keyring::Verification;
use portcullis_core::auth::{IdentityKind, Scopes};
use serde_json::{Value, json};

use crate::mint::{
    ISS, KEYS, RESOURCE, START, claims, claims_with, headed, inline, issuers, jwks, signed, token,
};
use crate::verify;

fn verified(token: &str, issuers: &[Issuer]) -> Rc<VerifiedToken> {
    match verify(token, issuers) {
        Verification::Verified(verified) => verified,
        other => panic!("not verified: {other:?}"),
    }
}

// Proves: A3
#[test]
fn every_published_algorithm_is_understood() {
    let issuers = issuers(&[inline(json!({}))]);
    for algorithm in ["ES256", "ES384", "RS256", "PS256", "EdDSA"] {
        let verified = verified(&signed(algorithm), &issuers);
        assert_eq!(verified.credential.principal.name, "agent-1", "{algorithm}");
    }
    for header in [
        json!({"typ": null}),
        json!({"typ": "JWT"}),
        json!({"typ": "application/at+jwt"}),
        json!({"alg": "EdDSA", "kid": null}),
        json!({"jku": "https://evil.example", "x5u": "https://evil.example", "x5t": "x"}),
    ] {
        verified(&headed(header), &issuers);
    }
}

// Proves: B7
#[test]
fn claims_become_a_principal() {
    let issuers = issuers(&[inline(json!({}))]);
    let verified = verified(&token(&claims()), &issuers);
    let principal = &verified.credential.principal;
    assert_eq!(principal.org.as_str(), "acme");
    assert_eq!(principal.role.as_str(), "analyst");
    assert_eq!(principal.tier.as_str(), "pro");
    let identity = IdentityKind::Token { issuer: ISS.into(), subject: "agent-1".into() };
    assert_eq!(*principal.identity.kind(), identity);
    let scopes = ["tools:read".to_owned(), "tools:write".to_owned()];
    assert_eq!(principal.scopes, Scopes::Granted(scopes.into()));
    let deniable = [
        Deniable::Token { issuer: ISS.into(), id: "t-1".into() },
        Deniable::Subject { issuer: ISS.into(), subject: "agent-1".into() },
    ];
    let denials = deniable.map(|deniable| deniable.key(&principal.org));
    assert_eq!(verified.credential.deny_list_keys(), denials);
    assert_eq!(verified.credential.issued_at, Some(START - 10));
    assert_eq!(verified.expires_at(), START + 300);
    assert_eq!(verified.credential.cnf_thumbprint, None);
}

/// The forms of Keycloak, Auth0, Entra ID and client credentials of any provider.
// Proves: A3, B7
#[test]
fn issuers_say_it_in_other_ways() {
    let issuers = issuers(&[inline(json!({
        "org": "acme", "tier": "pro",
        "claims": {"role": "realm_access.roles", "name": "https://acme.example/name",
                   "scopes": "granted"},
        "roles": {"mcp-admin": "admin", "mcp-agent": "analyst"},
        "audiences": ["api://mcp"]
    }))]);
    let thumbprint = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg0";
    let claims = claims_with(json!({
        "org": null, "role": null, "tier": null, "sub": null, "azp": "client-7", "jti": null,
        "aud": ["account", "api://mcp"], "scope": "ignored", "granted": ["a", "b", "a"],
        "realm_access": {"roles": ["offline_access", "mcp-agent"]},
        "https://acme.example/name": "Agent 7", "cnf": {"x5t#S256": thumbprint},
        "iat": 1_795_211_990.5, "exp": 1_795_212_300.75
    }));
    let verified = verified(&token(&claims), &issuers);
    let principal = &verified.credential.principal;
    assert_eq!((principal.org.as_str(), principal.role.as_str()), ("acme", "analyst"));
    assert_eq!(principal.name, "Agent 7");
    let identity = IdentityKind::Token { issuer: ISS.into(), subject: "client-7".into() };
    assert_eq!(*principal.identity.kind(), identity);
    assert_eq!(principal.scopes, Scopes::Granted(["a".to_owned(), "b".to_owned()].into()));
    let subject = Deniable::Subject { issuer: ISS.into(), subject: "client-7".into() };
    assert_eq!(verified.credential.deny_list_keys(), [subject.key(&principal.org)]);
    assert_eq!(
        verified.credential.cnf_thumbprint.as_ref().unwrap().bytes()[..3],
        [0x6f, 0x07, 0x0a]
    );
    assert_eq!(verified.expires_at(), START + 300);
}

// Finding 7.5: 401, also where no scope is needed.
// Proves: B7
#[test]
fn what_is_no_scope_grants_none() {
    for scopes in [json!({"permissions": 7}), json!({"scope": {"a": 1}}), json!({"scp": [1, "a"]})]
    {
        let mut claims = claims_with(json!({"scope": null}));
        claims["scope"] = Value::Null;
        claims.as_object_mut().unwrap().extend(scopes.as_object().unwrap().clone());
        let verified = verified(&token(&claims), &issuers(&[inline(json!({}))]));
        assert_eq!(verified.credential.principal.scopes, Scopes::Granted([].into()), "{scopes}");
    }
}

/// With roles in a text, the first one in the operator's list counts, in any order of the token.
// Proves: B7
#[test]
fn of_several_roles_the_operators_first_counts() {
    let issuers = issuers(&[inline(json!({
        "claims": {"role": "scope"}, "roles": {"mcp:admin": "admin", "mcp:use": "analyst"}
    }))]);
    for scope in ["mcp:use mcp:admin", "mcp:admin x mcp:use"] {
        let verified = verified(&token(&claims_with(json!({"scope": scope}))), &issuers);
        assert_eq!(verified.credential.principal.role.as_str(), "admin", "{scope}");
    }
}

#[test]
fn the_endpoints_uri_may_be_written_in_other_ways() {
    let issuers = issuers(&[inline(json!({}))]);
    for audience in [
        json!("https://MCP.example/demo/mcp"),
        json!("https://mcp.example/demo/mcp/"),
        json!(["https://other.example", RESOURCE]),
    ] {
        verified(&token(&claims_with(json!({"aud": audience}))), &issuers);
    }
}

#[test]
fn clocks_may_differ_a_little() {
    let issuers = issuers(&[inline(json!({}))]);
    for more in [json!({"exp": START - 29}), json!({"nbf": START + 30, "iat": START + 30})] {
        verified(&token(&claims_with(more)), &issuers);
    }
}

/// Unfit keys are left out; the others of the set are used.
// Proves: B18
#[test]
fn a_key_serves_only_what_it_says() {
    let keys = jwks()["keys"].as_array().unwrap().clone();
    let [ed, _, _, rs256, _] = keys.as_slice() else { panic!("five keys") };
    let mut private: Value = serde_json::from_str(&KEYS.rs256.to_jwk()).unwrap();
    private["kid"] = json!("private");
    let with = |member: &str, value: Value| {
        let mut jwk = ed.clone();
        jwk[member] = value;
        jwk
    };
    let weak = json!({"kty": "RSA", "kid": "weak", "e": "AQAB", "alg": "RS256", "n": WEAK});
    let off = json!({"kty": "EC", "crv": "P-256", "kid": "off", "x": ZEROS, "y": ZEROS});
    let oct = json!({"kty": "oct", "kid": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"});
    let set = json!({"keys": [
        private, weak, off, oct, null, 7, {}, {"kty": "RSA"},
        with("use", json!("enc")), with("key_ops", json!(["sign"])), with("key_ops", json!([])),
        with("alg", json!("ES256")), with("kid", json!(7)), with("d", json!(ZEROS)), rs256
    ]});
    let issuers = issuers(&[inline(json!({"jwks_inline": set}))]);
    verified(&signed("RS256"), &issuers);
    for algorithm in ["EdDSA", "ES256"] {
        let refused = verify(&signed(algorithm), &issuers);
        assert!(matches!(refused, Verification::Refused(..)), "{algorithm}: {refused:?}");
    }
    let first = |found: &Issuer| found.keys.inline().map(|keys| keys.len());
    assert_eq!(issuers.iter().find_map(first), Some(1));
}

/// A key without `alg` is used for the algorithms of its kind that its issuer may use.
#[test]
fn a_key_without_an_algorithm_is_bound_by_its_kind() {
    let mut set = jwks();
    for jwk in set["keys"].as_array_mut().unwrap() {
        jwk.as_object_mut().unwrap().shift_remove("alg");
    }
    let all = issuers(&[inline(json!({"jwks_inline": set}))]);
    for algorithm in ["ES256", "ES384", "RS256", "PS256", "EdDSA"] {
        verified(&signed(algorithm), &all);
    }
    let some = issuers(&[inline(json!({"jwks_inline": set, "algorithms": ["PS256"]}))]);
    verified(&signed("PS256"), &some);
    assert!(matches!(verify(&signed("RS256"), &some), Verification::Refused(..)));
}

/// 32 zero bytes.
const ZEROS: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// A modulus of 1024 bits.
const WEAK: &str = "oU6fSfHB0k8qJGz5dJMlb1IOBPRyhclvrH98-jNB4udEg2CJoRmDYemdGMA2XsCkMi4beH55ogO5\
    kTL1xMLek73-56UW3r0_rMwXo_VyPC2vkA7DgfDXIlLx2xrFz8M34rrrGjOtEKuSMfm8Fk3UvHMI8SpWTF6KscWwWkHQ2zM";
