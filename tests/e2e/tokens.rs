//! Access tokens of an issuer whose keys are in the configuration: who gets in, who does not and why, and how denials hold.

use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::tokens::{Mint, now};
use portcullis_tests::{Answer, Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["tokens":
        token_calls_a_tool_and_never_goes_upstream,
        bad_tokens_are_all_401_and_reach_nobody,
        expired_is_told_from_invalid,
        denied_token_and_subject_are_refused_on_the_next_request_everywhere,
        denial_with_a_date_spares_new_tokens,
        metadata_tells_where_tokens_are,
        scopes_are_asked_for_all_at_once,
        conditions_see_the_claims_of_the_token,
    ]
}

fn query(org: &Organisation, token: &str) -> Answer {
    org.call(token, "query_users", json!({"limit": 2}))
}

// Proves: A3, B6, B7
fn token_calls_a_tool_and_never_goes_upstream(world: &World<'_>) {
    let org = world.organisation();
    let token = Mint::of(world.stack()).token(&org.name, json!({"jti": "t-1"}));
    for _ in 0..3 {
        let answer = query(&org, &token);
        assert_eq!(answer.rows().len(), 2);
        let seen = answer.upstream();
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(!seen[0].to_string().contains(&token), "the token went upstream: {seen:?}");
        let sent = portcullis_tests::gateway::sent_header(&seen[0], "x-portcullis-principal");
        assert_eq!(sent, ["agent-1"]);
        let entry = answer.audit();
        assert_eq!(
            (&entry["auth_method"], &entry["client_id"]),
            (&json!("jwt"), &json!("agent-1"))
        );
        assert_eq!(entry["org_id"], *org.name, "{entry}");
        assert_eq!(entry["events"][0]["event"], "auth_success", "{entry}");
        assert!(!entry.to_string().contains(&token), "the token is in the log");
    }
    org.call(&token, "create_note", json!({"title": "x"})).assert_refused(403, -31_403);
    org.call(&token, "delete_user", json!({"id": 1})).assert_refused(200, -32_602);
}

/// Tokens that must not be taken, by the rule that refuses each. The core has more of them in its own table.
pub(crate) fn bad_tokens(mint: &Mint, org: &str) -> Vec<(&'static str, String)> {
    let good = mint.token(org, json!({}));
    let with = |more: Value| mint.token(org, more);
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("three parts") };
    let none = "eyJhbGciOiJub25lIn0";
    let hmac = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImRlbW8ifQ";
    let crit = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImRlbW8iLCJjcml0IjpbImIiXX0";
    let twice = "eyJpc3MiOiJhIiwiaXNzIjoiYiJ9";
    vec![
        ("token_algorithm", format!("{none}.{claims}.")),
        ("token_algorithm", format!("{none}.{claims}.{signature}")),
        ("token_algorithm", format!("{hmac}.{claims}.{signature}")),
        ("token_header", format!("{crit}.{claims}.{signature}")),
        ("malformed_token", format!("{header}.{twice}.{signature}")),
        ("malformed_token", format!("{header}.{claims}=.{signature}")),
        ("malformed_token", "..".to_owned()),
        ("malformed_token", "a.b.c".to_owned()),
        ("malformed_key", format!("{header}.{claims}.{signature}.{claims}.{header}")),
        ("token_too_large", with(json!({"pad": "x".repeat(16_000)}))),
        ("bad_signature", format!("{header}.{claims}.")),
        ("bad_signature", format!("{header}.{claims}.{}", "A".repeat(86))),
        ("bad_signature", mint.forged("demo").token(org, json!({}))),
        ("unknown_signing_key", mint.forged("other").token(org, json!({}))),
        ("unknown_issuer", mint.forged("demo").named("https://evil.example").token(org, json!({}))),
        ("unknown_issuer", with(json!({"iss": null}))),
        ("wrong_audience", with(json!({"aud": "https://other.example/mcp"}))),
        ("wrong_audience", with(json!({"aud": null}))),
        ("expired", with(json!({"exp": now() - 60}))),
        ("not_yet_valid", with(json!({"nbf": now() + 120}))),
        ("not_yet_valid", with(json!({"iat": now() + 120}))),
        ("token_lifetime", with(json!({"exp": now() + 1_000_000}))),
        ("token_claims", with(json!({"exp": null}))),
        ("token_claims", with(json!({"sub": null}))),
        ("token_claims", with(json!({"sub": "a\r\nx-portcullis-org: b"}))),
        ("certificate_mismatch", with(json!({"cnf": {"x5t#S256": "A".repeat(43)}}))),
        ("token_claims", with(json!({"cnf": {"jkt": "x"}}))),
        ("token_not_mapped", with(json!({"org": null}))),
        ("token_not_mapped", with(json!({"org": ["a", "b"]}))),
        ("token_not_mapped", with(json!({"role": null}))),
    ]
}

// Proves: B18
fn bad_tokens_are_all_401_and_reach_nobody(world: &World<'_>) {
    let org = world.organisation();
    let mint = Mint::of(world.stack());
    for (rule, token) in bad_tokens(&mint, &org.name) {
        let answer = org.post(&token, &mcp::list());
        assert_eq!(answer.status(), 401, "{rule}: {token} {}", answer.text());
        answer.assert_refused(401, -31_401);
        let entry = answer.audit();
        assert_eq!(entry["decision"]["rule"], format!("auth.{rule}"), "{token} {entry}");
        assert_eq!(entry["events"][0]["reason"], rule, "{entry}");
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
        assert_eq!(challenge.contains("resource_metadata"), rule != "malformed_key", "{challenge}");
    }
    // Meant for one endpoint, used at another.
    let elsewhere = Request::post(PYTHON, mcp::list().to_string());
    let answer = org.gateway.send(&elsewhere.bearer(&mint.token(&org.name, json!({}))));
    answer.assert_refused(401, -31_401);
    assert_eq!(answer.audit()["decision"]["rule"], "auth.wrong_audience");
    // In the wrong place.
    let token = mint.token(&org.name, json!({}));
    let as_key = Request::post(DEMO, mcp::list().to_string()).header("x-api-key", &token);
    org.gateway.send(&as_key).assert_refused(401, -31_401);
    let in_url = Request::post(&format!("{DEMO}?access_token={token}"), mcp::list().to_string());
    org.gateway.send(&in_url).assert_refused(401, -31_401);
}

// Proves: B7
fn expired_is_told_from_invalid(world: &World<'_>) {
    let org = world.organisation();
    let mint = Mint::of(world.stack());
    let expired = query(&org, &mint.token(&org.name, json!({"exp": now() - 60})));
    let invalid = query(&org, &mint.forged("demo").token(&org.name, json!({})));
    let told = |answer: &Answer| answer.message()["error"]["message"].clone();
    assert_eq!((expired.status(), told(&expired)), (401, json!("The credential has expired")));
    assert_eq!((invalid.status(), told(&invalid)), (401, json!("The credential is not valid")));
    // Remembered, and judged again each time.
    let short = mint.token(&org.name, json!({"exp": now() - 28}));
    assert_eq!(query(&org, &short).status(), 200, "within the leeway");
    let refused = portcullis_stack::ready::eventually(
        "the token's end",
        std::time::Duration::from_secs(10),
        || (query(&org, &short).status() == 401).then_some(()),
    );
    refused.unwrap();
}

// Proves: A21, X2
fn denied_token_and_subject_are_refused_on_the_next_request_everywhere(world: &World<'_>) {
    let org = world.organisation();
    let other = world.replica();
    let mint = Mint::of(world.stack());
    let token = |sub: &str, jti: &str| mint.token(&org.name, json!({"sub": sub, "jti": jti}));
    let (first, second, third) = (token("a", "t-1"), token("a", "t-2"), token("b", "t-3"));
    let everywhere = [org.clone(), org.through(&other.gateway)];
    let admitted = |token: &str| {
        let statuses: Vec<u16> =
            (0..4).map(|n| query(&everywhere[n % 2], token).status()).collect();
        assert!(statuses.iter().all(|status| *status == statuses[0]), "{statuses:?}");
        statuses[0]
    };
    let cli = |verb: &str, what: &[&str]| {
        let place = ["token", verb, "--issuer", mint.issuer(), "--org", &org.name];
        let reason = ["--reason", "a test wants it"];
        org.operator.json(&[&place[..], what, &reason].concat()).unwrap();
    };
    for token in [&first, &second, &third] {
        assert_eq!(admitted(token), 200);
    }
    cli("deny", &["--jti", "t-1"]);
    assert_eq!([&first, &second, &third].map(|token| admitted(token)), [401, 200, 200]);
    let refused = query(&org, &first);
    refused.assert_refused(401, -31_401);
    let entry = refused.audit();
    assert_eq!(
        (&entry["decision"]["rule"], &entry["client_id"]),
        (&json!("auth.denied"), &json!("a"))
    );
    cli("deny", &["--subject", "a"]);
    cli("allow", &["--jti", "t-1"]);
    assert_eq!([&first, &second, &third].map(|token| admitted(token)), [401, 401, 200]);
    cli("allow", &["--subject", "a"]);
    assert_eq!(admitted(&first), 200);
    // Callers that do not pause: once the CLI is back, no caller is let in.
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for place in everywhere.iter().cycle().take(8) {
            let (over, token) = (&over, &third);
            scope.spawn(move || {
                for _ in 0..60 {
                    let was_over = over.load(Ordering::SeqCst);
                    let status = query(place, token).status();
                    assert!(!was_over || status == 401, "admitted after the denial: {status}");
                }
            });
        }
        cli("deny", &["--subject", "b"]);
        over.store(true, Ordering::SeqCst);
    });
}

fn denial_with_a_date_spares_new_tokens(world: &World<'_>) {
    let org = world.organisation();
    let mint = Mint::of(world.stack());
    let old = mint.token(&org.name, json!({"sub": "c", "iat": now() - 100}));
    // `iat` has whole seconds: one of the second in which the command runs was issued before it.
    let last = mint.token(&org.name, json!({"sub": "c", "iat": now()}));
    org.operator
        .json(&[
            "token",
            "deny",
            "--issuer",
            mint.issuer(),
            "--org",
            &org.name,
            "--subject",
            "c",
            "--issued-before",
            "now",
            "--reason",
            "laptop lost",
        ])
        .unwrap();
    assert_eq!(query(&org, &old).status(), 401);
    assert_eq!(query(&org, &last).status(), 401);
    let new = mint.token(&org.name, json!({"sub": "c", "iat": now() + 1}));
    assert_eq!(query(&org, &new).status(), 200);
}

fn metadata_tells_where_tokens_are(world: &World<'_>) {
    let org = world.organisation();
    let stack = world.stack();
    let get =
        |path: &str| org.gateway.send(&Request::bare("GET", path).header("host", "gateway.test"));
    let challenge = org.gateway.send(&Request::post(DEMO, mcp::list().to_string()));
    challenge.assert_refused(401, -31_401);
    let challenge = challenge.header("www-authenticate").expect("a challenge");
    let (_, url) = challenge.split_once("resource_metadata=\"").expect("where the document is");
    let url = url.trim_end_matches('"');
    let path = url.strip_prefix(&stack.envoy.url()).expect("a URL of this gateway");
    assert_eq!(path, format!("/.well-known/oauth-protected-resource{DEMO}"));
    let document = get(path);
    assert_eq!(document.status(), 200);
    assert_eq!(document.header("content-type").as_deref(), Some("application/json"));
    let document: Value = serde_json::from_slice(&document.reply.body).unwrap();
    assert_eq!(
        document,
        json!({
            "resource": stack.mcp_url(), "authorization_servers": [stack.issuer.name()],
            "bearer_methods_supported": ["header"],
        })
    );
    assert_eq!(get("/.well-known/oauth-protected-resource").status(), 200);
    // Whoever has a key is not sent to look for a token.
    let bad = org.post("pck_acme_k1a2b3c4d5_x", &mcp::list());
    assert!(!bad.header("www-authenticate").unwrap().contains("resource_metadata"));
}

fn scopes_are_asked_for_all_at_once(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        let demo = &mut policy["connectors"]["demo"];
        demo["scopes"] = json!(["tools:use"]);
        demo["tools"] = json!({"query_users": {"scopes": ["users:read"]}});
    });
    let mint = Mint::of(world.stack());
    let token = |scope: &str| mint.token(&org.name, json!({"scope": scope}));
    let lacking = query(&org, &token("tools:use"));
    lacking.assert_refused(403, -31_403);
    let challenge = lacking.header("www-authenticate").expect("a challenge");
    for part in
        [r#"error="insufficient_scope""#, r#"scope="tools:use users:read""#, "resource_metadata="]
    {
        assert!(challenge.contains(part), "{challenge}");
    }
    assert_eq!(lacking.audit()["decision"]["rule"], "credential.scopes");
    assert_eq!(org.post(&token("users:read"), &mcp::list()).status(), 403);
    assert_eq!(query(&org, &token("tools:use users:read")).rows().len(), 2);
    // A key has a role, and no scopes to lack.
    assert_eq!(query(&org, &org.key("analyst").key).rows().len(), 2);
}

fn conditions_see_the_claims_of_the_token(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["roles"]["analyst"]["demo"]["conditions"] =
            json!([{"when": "claims.team == 'sales' && claims.clearance.level >= 3"}]);
    });
    let mint = Mint::of(world.stack());
    let query = |claims: Value| query(&org, &mint.token(&org.name, claims));
    let sales = |level: u32| json!({"team": "sales", "clearance": {"level": level}});
    for _ in 0..2 {
        assert_eq!(query(sales(3)).rows().len(), 2);
    }
    // What one token says counts for no other token, with or without claims of the kind.
    for other in [sales(2), json!({"team": "ops", "clearance": {"level": 9}}), json!({})] {
        let answer = query(other);
        answer.assert_refused(403, -31_403);
        assert_eq!(answer.audit()["decision"]["rule"], "roles.analyst.demo.conditions[0]");
    }
    let key = org.call(&org.key("analyst").key, "query_users", json!({"limit": 2}));
    key.assert_refused(403, -31_403);
}
