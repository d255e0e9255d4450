//! Tokens that must be refused, each for its own reason.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_core::auth::{AuthFailure as F, Unmapped};
use serde_json::{Value, json};

use crate::mint::{
    KEYS, RESOURCE, START, claims, claims_with, headed, hmac, inline, issuers, jwks, raw, signed,
    signed_by, token,
};
use crate::refusal;

fn every(cases: Vec<(&str, F, String)>, issuer: Value) {
    let issuers = issuers(&[issuer]);
    for (what, expected, token) in cases {
        let found = refusal(&token, &issuers);
        assert_eq!(found, expected, "{what}");
        assert!(!found.told().is_empty() && !found.code().is_empty(), "{what}");
    }
}

fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().unwrap()
}

fn unsigned(header: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.", part(header), part(&claims().to_string()))
}

/// Changes one letter of the part `at`, keeping it base64url.
fn altered(token: &str, at: usize) -> String {
    let mut parts = parts(token).map(str::to_owned);
    let letter = if parts[at].starts_with('A') { "B" } else { "A" };
    parts[at].replace_range(0..1, letter);
    parts.join(".")
}

// Proves: B18
#[test]
fn what_is_no_token_is_malformed() {
    let good = token(&claims());
    let [header, body, signature] = parts(&good);
    let big = claims_with(json!({"pad": "x".repeat(16_384)}));
    let long = headed(json!({"pad": "x".repeat(2_048)}));
    let twice = |member: &str| claims().to_string().replacen('{', &format!("{{{member},"), 1);
    let head = r#"{"alg":"EdDSA","kid":"ed"}"#;
    every(
        vec![
            ("empty", F::TokenMalformed, String::new()),
            ("dots", F::TokenMalformed, "..".into()),
            ("one segment", F::TokenMalformed, header.into()),
            ("two segments", F::TokenMalformed, format!("{header}.{body}")),
            ("five segments (JWE)", F::TokenMalformed, format!("{good}.{body}.{header}")),
            ("no header", F::TokenMalformed, format!(".{body}.{signature}")),
            ("no claims", F::TokenMalformed, format!("{header}..{signature}")),
            ("padding", F::TokenMalformed, format!("{header}.{body}.{signature}==")),
            ("standard base64", F::TokenMalformed, format!("{header}.{body}.+/{signature}")),
            ("white space", F::TokenMalformed, format!("{header}. {body}.{signature}")),
            ("not ASCII", F::TokenMalformed, format!("{header}.{body}é.{signature}")),
            ("a length that is none", F::TokenMalformed, format!("{header}.{body}.AAAAA")),
            ("bits after the end", F::TokenMalformed, format!("{header}.{body}.AB")),
            ("oversized", F::TokenTooLarge, token(&big)),
            ("oversized header", F::TokenTooLarge, long),
            ("header is no JSON", F::TokenMalformed, raw("EdDSA", &claims().to_string())),
            ("header is a list", F::TokenMalformed, raw("[]", &claims().to_string())),
            ("claims are no JSON", F::TokenMalformed, raw(head, "{")),
            ("claims are a text", F::TokenMalformed, raw(head, "\"admin\"")),
            ("two values", F::TokenMalformed, raw(head, "{}{}")),
            ("a byte-order mark", F::TokenMalformed, raw(head, &format!("\u{feff}{}", claims()))),
            ("a claim twice", F::TokenMalformed, raw(head, &twice(r#""role":"admin""#))),
            (
                "a claim twice, escaped",
                F::TokenMalformed,
                raw(head, &twice(r#""r\u006fle":"admin""#)),
            ),
            (
                "alg twice",
                F::TokenMalformed,
                raw(r#"{"alg":"EdDSA","kid":"ed","alg":"none"}"#, &claims().to_string()),
            ),
            (
                "nested too deeply",
                F::TokenMalformed,
                raw(head, &format!("{{\"a\":{}{}}}", "[".repeat(70), "]".repeat(70))),
            ),
        ],
        inline(json!({})),
    );
}

// Proves: B18
#[test]
fn a_header_chooses_neither_the_algorithm_nor_the_key() {
    let none = |alg: &str| unsigned(&format!(r#"{{"alg":"{alg}","kid":"ed"}}"#));
    let stranger = jwks()["keys"][0].clone();
    let algorithm = |name: &str| headed(json!({"alg": name}));
    every(
        vec![
            ("none", F::TokenAlgorithm, none("none")),
            ("None", F::TokenAlgorithm, none("None")),
            ("NONE", F::TokenAlgorithm, none("NONE")),
            ("no alg", F::TokenAlgorithm, headed(json!({"alg": null}))),
            ("alg is a list", F::TokenAlgorithm, headed(json!({"alg": ["EdDSA"]}))),
            ("alg in lower case", F::TokenAlgorithm, algorithm("eddsa")),
            ("an algorithm nobody has", F::TokenAlgorithm, algorithm("RS1")),
            ("RS512", F::TokenAlgorithm, algorithm("RS512")),
            ("another algorithm's name", F::TokenAlgorithm, algorithm("ES256")),
            ("HS256 with a public key's name", F::TokenAlgorithm, algorithm("HS256")),
            ("crit", F::TokenHeader, headed(json!({"crit": ["exp"]}))),
            ("crit, empty", F::TokenHeader, headed(json!({"crit": []}))),
            ("b64", F::TokenHeader, headed(json!({"b64": false}))),
            ("compressed", F::TokenHeader, headed(json!({"zip": "DEF"}))),
            ("encrypted", F::TokenHeader, headed(json!({"enc": "A256GCM"}))),
            ("nested", F::TokenHeader, headed(json!({"cty": "JWT"}))),
            ("brings its key", F::TokenHeader, headed(json!({"jwk": stranger}))),
            ("a DPoP proof", F::TokenHeader, headed(json!({"typ": "dpop+jwt"}))),
            ("a logout token", F::TokenHeader, headed(json!({"typ": "logout+jwt"}))),
            ("typ is a number", F::TokenHeader, headed(json!({"typ": 1}))),
            ("kid is a number", F::TokenHeader, headed(json!({"kid": 1}))),
            ("kid is empty", F::TokenHeader, headed(json!({"kid": ""}))),
            ("kid is a book", F::TokenHeader, headed(json!({"kid": "x".repeat(257)}))),
            ("unknown kid", F::UnknownSigner, headed(json!({"kid": "other"}))),
            ("kid as a path", F::UnknownSigner, headed(json!({"kid": "../../dev/null"}))),
            ("kid as SQL", F::UnknownSigner, headed(json!({"kid": "' UNION SELECT 'x"}))),
            ("another key's kid", F::TokenAlgorithm, headed(json!({"kid": "es256"}))),
        ],
        inline(json!({})),
    );
}

// Proves: B18
#[test]
fn only_the_issuers_keys_sign() {
    let good = token(&claims());
    let [header, body, signature] = parts(&good);
    let [_, _, other] = parts(&token(&claims_with(json!({"sub": "agent-2"})))).map(str::to_owned);
    let head = r#"{"alg":"EdDSA","kid":"ed"}"#;
    let stranger = signed_by(&KEYS.stranger, head, &claims().to_string());
    let rsa = signed("RS256");
    let [rs_header, rs_body, rs_signature] = parts(&rsa);
    let rs_as_ps = {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"PS256","kid":"ps256"}"#);
        format!("{header}.{rs_body}.{rs_signature}")
    };
    let es = signed("ES256");
    let [es_header, es_body, _] = parts(&es);
    let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
    let mut edwards_small = [0; 64];
    edwards_small[0] = 1;
    let small = URL_SAFE_NO_PAD.encode(edwards_small);
    every(
        vec![
            ("stripped signature", F::BadSignature, format!("{header}.{body}.")),
            ("altered header", F::TokenMalformed, altered(&good, 0)),
            ("altered signature", F::BadSignature, altered(&good, 2)),
            ("another token's signature", F::BadSignature, format!("{header}.{body}.{other}")),
            ("cut signature", F::BadSignature, format!("{header}.{body}.{}", &signature[..84])),
            (
                "doubled signature",
                F::BadSignature,
                format!("{header}.{body}.{signature}{signature}AA"),
            ),
            ("a stranger's signature", F::BadSignature, stranger),
            ("all zero, Edwards", F::BadSignature, format!("{header}.{body}.{zeros}")),
            ("small order, Edwards", F::BadSignature, format!("{header}.{body}.{small}")),
            (
                "all zero, ECDSA (CVE-2022-21449)",
                F::BadSignature,
                format!("{es_header}.{es_body}.{zeros}"),
            ),
            ("no RSA signature", F::BadSignature, format!("{rs_header}.{rs_body}.AA")),
            ("PKCS #1 v1.5 called PSS", F::BadSignature, rs_as_ps),
        ],
        inline(json!({})),
    );
    let mut changed: Value = claims();
    changed["role"] = json!("admin");
    let forged = URL_SAFE_NO_PAD.encode(changed.to_string());
    let forged = format!("{header}.{forged}.{signature}");
    every(vec![("altered claims", F::BadSignature, forged)], inline(json!({})));
}

/// The public key of an issuer, in every form that a library might take for a secret.
// Proves: B18
#[test]
fn a_public_key_is_never_the_secret_of_an_hmac() {
    let (rsa, ec) = (KEYS.rs256.public_key(), KEYS.es256.public_key());
    let (rsa_pem, ec_pem) = (rsa.to_pem().unwrap(), ec.to_pem().unwrap());
    let (rsa_der, ec_der) = (rsa.to_der().unwrap(), ec.to_der().unwrap());
    let jwk = jwks()["keys"][3].to_string();
    let forms: [&[u8]; 6] = [
        rsa_pem.as_bytes(),
        rsa_pem.trim().as_bytes(),
        &rsa_der,
        ec_pem.as_bytes(),
        &ec_der,
        jwk.as_bytes(),
    ];
    let cases = forms.iter().flat_map(|form| {
        let kids = ["rs256", "es256", "none"].iter();
        kids.map(|kid| ("confusion", F::TokenAlgorithm, hmac(form, kid))).collect::<Vec<_>>()
    });
    every(cases.collect(), inline(json!({})));
}

// Proves: B18
#[test]
fn an_issuer_signs_as_it_is_configured() {
    let only = inline(json!({"algorithms": ["ES256"]}));
    every(
        ["EdDSA", "ES384", "RS256", "PS256"]
            .map(|name| ("not this issuer's", F::TokenAlgorithm, signed(name)))
            .to_vec(),
        only,
    );
}

// Proves: B7, B18
#[test]
fn claims_that_do_not_hold_are_told_apart() {
    let with = |more: Value| token(&claims_with(more));
    let huge = (0..300).map(|n| n.to_string()).collect::<Vec<_>>();
    every(
        vec![
            ("no issuer", F::UnknownIssuer, with(json!({"iss": null}))),
            ("wrong issuer", F::UnknownIssuer, with(json!({"iss": "https://evil.example"}))),
            ("issuer with a slash", F::UnknownIssuer, with(json!({"iss": "https://idp.example/"}))),
            ("issuer in capitals", F::UnknownIssuer, with(json!({"iss": "HTTPS://IDP.EXAMPLE"}))),
            ("issuers in a list", F::UnknownIssuer, with(json!({"iss": [crate::mint::ISS]}))),
            ("no audience", F::WrongAudience, with(json!({"aud": null}))),
            ("wrong audience", F::WrongAudience, with(json!({"aud": "https://other.example/mcp"}))),
            ("another endpoint", F::WrongAudience, with(json!({"aud": format!("{RESOURCE}2")}))),
            ("the host only", F::WrongAudience, with(json!({"aud": "https://mcp.example"}))),
            (
                "the prefix of a host",
                F::WrongAudience,
                with(json!({"aud": "https://mcp.example.evil/demo/mcp"})),
            ),
            ("no scheme", F::WrongAudience, with(json!({"aud": "mcp.example/demo/mcp"}))),
            ("plain http", F::WrongAudience, with(json!({"aud": "http://mcp.example/demo/mcp"}))),
            ("a list of others", F::WrongAudience, with(json!({"aud": ["a", "b"]}))),
            ("an empty list", F::WrongAudience, with(json!({"aud": []}))),
            ("a number as audience", F::TokenClaims, with(json!({"aud": 1}))),
            ("a number in the list", F::TokenClaims, with(json!({"aud": [RESOURCE, 1]}))),
            ("too many audiences", F::TokenClaims, with(json!({"aud": huge}))),
            ("never expires", F::TokenClaims, with(json!({"exp": null}))),
            ("expires as a text", F::TokenClaims, with(json!({"exp": "1895212000"}))),
            ("expires before time", F::TokenClaims, with(json!({"exp": -1}))),
            ("expires at the end of numbers", F::TokenClaims, with(json!({"exp": u64::MAX}))),
            ("expires in 1e300", F::TokenClaims, with(json!({"exp": 1e300}))),
            ("expired", F::Expired, with(json!({"exp": START - 30}))),
            ("expired long ago", F::Expired, with(json!({"exp": 1, "iat": 0}))),
            ("not yet valid", F::NotYetValid, with(json!({"nbf": START + 31}))),
            ("issued tomorrow", F::NotYetValid, with(json!({"iat": START + 31}))),
            ("nbf is a text", F::TokenClaims, with(json!({"nbf": "now"}))),
            ("iat is a list", F::TokenClaims, with(json!({"iat": []}))),
            ("lives too long", F::TokenLifetime, with(json!({"exp": START + 86_400}))),
            (
                "lives too long, no iat",
                F::TokenLifetime,
                with(json!({"iat": null, "exp": START + 86_401})),
            ),
            ("no subject", F::TokenClaims, with(json!({"sub": null}))),
            ("an empty subject", F::TokenClaims, with(json!({"sub": ""}))),
            ("a number as subject", F::TokenClaims, with(json!({"sub": 7}))),
            ("a header in the subject", F::TokenClaims, with(json!({"sub": "a\r\nx-admin: 1"}))),
            ("a subject like a book", F::TokenClaims, with(json!({"sub": "x".repeat(257)}))),
            ("jti is a number", F::TokenClaims, with(json!({"jti": 7}))),
            ("too many scopes", F::TokenClaims, with(json!({"scope": huge.join(" ")}))),
            ("bound to a key we cannot see", F::TokenClaims, with(json!({"cnf": {"jkt": "x"}}))),
            (
                "bound to half a certificate",
                F::TokenClaims,
                with(json!({"cnf": {"x5t#S256": "AAAA"}})),
            ),
            (
                "no organisation",
                F::TokenUnmapped(Unmapped::Organisation),
                with(json!({"org": null})),
            ),
            (
                "an organisation that is none",
                F::TokenUnmapped(Unmapped::Organisation),
                with(json!({"org": "a:b"})),
            ),
            (
                "two organisations",
                F::TokenUnmapped(Unmapped::Organisation),
                with(json!({"org": ["acme", "evil"]})),
            ),
            ("no role", F::TokenUnmapped(Unmapped::Role), with(json!({"role": null}))),
            (
                "two roles",
                F::TokenUnmapped(Unmapped::Role),
                with(json!({"role": ["analyst", "admin"]})),
            ),
            (
                "a role that is none",
                F::TokenUnmapped(Unmapped::Role),
                with(json!({"role": "an admin"})),
            ),
            ("no tier", F::TokenUnmapped(Unmapped::Tier), with(json!({"tier": {}}))),
        ],
        inline(json!({})),
    );
}

// Proves: B18, X25
#[test]
fn a_configured_claim_of_the_agent_has_an_identifier_or_is_absent() {
    let agent = |value: Value| token(&claims_with(json!({"workload": value})));
    let refused = F::TokenUnmapped(Unmapped::Agent);
    every(
        vec![
            ("an empty agent", refused, agent(json!(""))),
            ("an agent like a book", refused, agent(json!("x".repeat(257)))),
            ("a header in the agent", refused, agent(json!("a\r\nx-admin: 1"))),
            ("a number as agent", refused, agent(json!(7))),
            ("two agents", refused, agent(json!(["a", "b"]))),
        ],
        inline(json!({"claims": {"agent": "workload"}})),
    );
}

// Proves: B18
#[test]
fn a_mapping_opens_no_more_than_it_says() {
    let with = |more: Value| token(&claims_with(more));
    let mapped = inline(json!({
        "organisations": ["acme"], "roles": {"agents": "analyst", "ops": "admin"}
    }));
    every(
        vec![
            (
                "another organisation",
                F::TokenUnmapped(Unmapped::Organisation),
                with(json!({"org": "beta", "role": "ops"})),
            ),
            (
                "an internal name from outside",
                F::TokenUnmapped(Unmapped::Role),
                with(json!({"role": "admin"})),
            ),
            (
                "a role that only starts so",
                F::TokenUnmapped(Unmapped::Role),
                with(json!({"role": "agents2"})),
            ),
        ],
        mapped,
    );
}

/// Every letter counts.
// Proves: B18
#[test]
fn no_letter_of_a_token_can_be_changed() {
    let issuers = issuers(&[inline(json!({}))]);
    let good = token(&claims());
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone().into_bytes();
        bad[at] = if bad[at] == b'A' { b'E' } else { b'A' };
        refusal(std::str::from_utf8(&bad).unwrap(), &issuers);
    }
}
