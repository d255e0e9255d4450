//! `explain --token`: what a gateway with these issuers makes of an access token.

use portcullis_redis_lua::{Admit, Key, Scope, Window};
use serde_json::{Value, json};

use crate::harness::{Operator, Said, Scratch, file, run};

/// An issuer of one's own.
struct Idp {
    key: Scratch,
    issuers: Scratch,
}

impl Idp {
    fn new() -> Self {
        let key = Scratch::nowhere("trial.pem");
        let issuers = run(&["token", "keygen", "--out", key.path()], &[], "").stdout;
        Self { key, issuers: Scratch::new("issuers.json", &issuers) }
    }

    fn token(&self, claims: &Value, more: &[&str]) -> Scratch {
        let claims = claims.to_string();
        let mint = ["token", "mint", "--key", self.key.path(), "--claims", &claims];
        let audience = ["--audience", "https://gw.example/demo/mcp"];
        let said = run(&[&mint[..], &audience, more].concat(), &[], "");
        assert_eq!(said.status, 0, "{said:?}");
        Scratch::new("token", &said.stdout)
    }

    fn explains(&self, operator: &Operator, token: &Scratch, more: &[&str]) -> Said {
        let who = ["explain", "--token", token.path(), "--issuers", self.issuers.path()];
        let what = ["--tool", "query_users", "--connector", "demo", "--source", "192.0.2.1"];
        operator.says(&[&who[..], &what, more].concat())
    }
}

fn answer(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
}

const MEANT: [&str; 2] = ["--endpoint", "https://gw.example/demo/mcp"];

/// An operator of a policy whose windows outlast a slow test.
fn operator() -> Operator {
    let operator = Operator::new();
    let policy = crate::harness::golden_file("policy.yaml").replace("window: 1s", "window: 1m");
    let policy = Scratch::new("policy.yaml", &policy);
    operator.says(&["policy", "push", policy.path(), "--reason", "start"]).json();
    operator
}

/// An agent of acme.
fn claims() -> Value {
    json!({"org": "acme", "role": "analyst", "tier": "free", "sub": "agent-7"})
}

// Proves: X31
#[test]
fn the_holder_of_a_token_is_decided_about_with_its_windows_and_its_canary() {
    let (operator, idp) = (operator(), Idp::new());
    let token = idp.token(&claims(), &[]);
    let said = idp.explains(&operator, &token, &MEANT);
    assert_eq!(said.status, 0, "{said:?}");
    let told = answer(&said);
    assert_eq!((&told["gateway"], &told["role"]), (&json!("allow"), &json!("analyst")));
    assert_eq!(told["windows_now"][0]["remaining"], json!(5), "{told}");
    assert_eq!(told["notes"], json!([]));
    // Its windows are those of the subject.
    let show = ["limits", "show", "--subject", "agent-7", "--issuer", "https://trial.example/"];
    let of = ["--org", "acme", "--role", "analyst", "--tier", "free"];
    let windows = operator.says(&[&show[..], &of].concat()).json();
    let holder = windows["windows"][0]["of"]["key"].as_str().unwrap().to_owned();
    let window = Window {
        key: Key::window(Scope::Org("acme"), "tiers.free.calls", &[("key", &holder)]),
        limit: 5,
        length_us: 60_000_000,
        grain_us: 1,
        cost: 5,
        alert: None,
    };
    let admit = Admit { guards: vec![], windows: vec![window], used: None, intent: None };
    crate::valkey::run(&mut operator.redis(), &admit.call());
    let told = answer(&idp.explains(&operator, &token, &MEANT));
    assert_eq!(told["gateway"], "limited", "{told}");

    let candidate = Scratch::new(
        "canary.yaml",
        &crate::harness::golden_file("policy.yaml")
            .replace("query_users, ", "")
            .replace("window: 1s", "window: 1m"),
    );
    let canary = ["policy", "canary", "start", candidate.path(), "--reason", "r"];
    let who = ["--subject", "agent-7", "--issuer", "https://trial.example/"];
    operator.says(&[&canary[..], &who].concat()).json();
    let said = idp.explains(&operator, &token, &MEANT);
    assert_eq!((said.status, &answer(&said)["gateway"]), (1, &json!("deny")), "{said:?}");
}

#[test]
fn the_certificate_that_a_token_is_bound_to_is_not_checked() {
    let (operator, idp) = (operator(), Idp::new());
    let mut claims = claims();
    claims["cnf"] = json!({"x5t#S256": "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s"});
    let said = idp.explains(&operator, &idp.token(&claims, &[]), &MEANT);
    assert_eq!(said.status, 0, "{said:?}");
    let part = format!("the client certificate {}, which the token is bound to", "ab".repeat(32));
    assert_eq!(answer(&said)["not_checked"][0], json!(part), "{said:?}");
}

// Proves: X31
#[test]
fn a_token_that_is_refused_says_what_of_it() {
    let (operator, idp) = (operator(), Idp::new());
    let refused = |token: &Scratch, more: &[&str], rule: &str, why: &str| {
        let said = idp.explains(&operator, token, more);
        assert_eq!(said.status, 1, "{said:?}");
        assert_eq!(answer(&said)["rule"], json!(rule), "{said:?}");
        assert!(said.stdout.contains(why), "{why}: {said:?}");
    };
    let token = idp.token(&claims(), &[]);
    let elsewhere = ["--endpoint", "https://gw.example/python/mcp"];
    refused(&token, &elsewhere, "auth.wrong_audience", "aud is");
    // Finding 7 of a fresh reader: which one was expected, and when that was.
    refused(&token, &elsewhere, "auth.wrong_audience", "accepted: https://gw.example/python/mcp");
    let later = ["--at", "1h"];
    refused(&token, &later, "auth.expired", "exp is");
    refused(&token, &later, "auth.expired", "Z\"");
    let who = ["explain", "--token", token.path(), "--issuers", idp.issuers.path()];
    let said = operator.plainly(&[&who[..], &later, &["--tool", "x"]].concat());
    assert!(said.stdout.contains("the client gets 401: The credential has expired"), "{said:?}");
    let mut unmapped = claims();
    unmapped.as_object_mut().unwrap().remove("tier");
    let token = idp.token(&unmapped, &[]);
    refused(&token, &MEANT, "auth.token_not_mapped", "tier: the claim tier is missing");
    let other = Idp::new();
    refused(&other.token(&claims(), &[]), &MEANT, "auth.bad_signature", "");
    let stranger = other.token(&claims(), &["--issuer", "https://other.example/"]);
    refused(&stranger, &MEANT, "auth.unknown_issuer", "https://other.example/");
    refused(&Scratch::new("token", "nonsense"), &MEANT, "auth.malformed_token", "");

    let token = idp.token(&claims(), &[]);
    let deny = ["token", "deny", "--subject", "agent-7", "--issuer", "https://trial.example/"];
    operator.says(&[&deny[..], &["--org", "acme", "--reason", "laptop lost"]].concat()).json();
    refused(&token, &MEANT, "auth.denied", "subject agent-7");
}

#[test]
fn what_cannot_be_checked_is_said() {
    let (operator, idp) = (operator(), Idp::new());
    let token = idp.token(&claims(), &[]);
    let told = answer(&idp.explains(&operator, &token, &[]));
    assert!(told["notes"].to_string().contains("--endpoint"), "{told}");
    // Keys that the gateway fetches: given in a file, or believed.
    let issuers: Value =
        serde_json::from_str(&std::fs::read_to_string(idp.issuers.path()).unwrap()).unwrap();
    let fetched = json!({"auth": {"issuers": [{
        "issuer": "https://trial.example/",
        "jwks": {"cluster": "idp", "authority": "idp.example", "path": "/jwks"},
    }]}});
    let keys = Scratch::new("jwks.json", &issuers[0]["jwks_inline"].to_string());
    let fetched = Scratch::new("plugin.json", &fetched.to_string());
    let asks = |more: &[&str]| {
        let who = ["explain", "--token", token.path(), "--issuers", fetched.path()];
        let what = ["--tool", "query_users", "--connector", "demo"];
        let policy = file("policy.yaml");
        let told = run(
            &[&who[..], &what, &MEANT, &["--policy", &policy, "--output", "json"], more].concat(),
            &[],
            "",
        );
        answer(&told)
    };
    let believed = asks(&[]);
    assert_eq!(believed["gateway"], "allow", "{believed}");
    assert!(believed["notes"].to_string().contains("--jwks"), "{believed}");
    let proven = asks(&["--jwks", keys.path()]);
    assert_eq!((&proven["gateway"], &proven["notes"]), (&json!("allow"), &json!([])), "{proven}");
}

// Proves: X32
#[test]
fn the_holder_of_a_token_of_another_organisation_is_not_explained() {
    let (operator, idp) = (operator(), Idp::new());
    let token = idp.token(&claims(), &[]);
    let said = idp.explains(&operator, &token, &["--organisation", "globex"]);
    assert_eq!((said.status, said.stdout.as_str()), (2, ""), "{said:?}");
    let document: Value = serde_json::from_str(&said.stderr).unwrap();
    let found = "--organisation (or PORTCULLIS_ORG) is globex, and the token names acme";
    let error = &document["error"];
    assert_eq!((&error["found"], &error["where"]), (&json!(found), &json!("--token")));
    let own = idp.explains(&operator, &token, &["--organisation", "acme"]);
    assert_eq!(answer(&own)["gateway"], json!("allow"), "{own:?}");
}
