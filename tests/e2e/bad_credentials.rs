//! Every kind of credential that must not be taken, in one table: each is refused as stated, by the rule stated, and
//! reaches no upstream.
//!
//! Tokens have a table of their own, in `tokens`, which is part of this one; certificates that fail in the handshake
//! never become requests, and are in `certificates`.

use portcullis_stack::IssuedKey;
use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::tokens::Mint;
use portcullis_tests::{Case, Request, World, cases, mcp};
use serde_json::Value;

use crate::credentials::forged;
use crate::tokens::bad_tokens;

pub(crate) fn cases() -> Vec<Case> {
    cases!["bad_credentials":
        every_bad_credential_is_refused_as_stated_and_reaches_nobody,
    ]
}

/// A request with a bad credential, and what must come of it.
struct Bad {
    what: &'static str,
    status: u16,
    rule: &'static str,
    request: Request,
}

fn list() -> Request {
    Request::post(DEMO, mcp::list().to_string())
}

fn at(path_and_query: &str) -> Request {
    Request::post(path_and_query, mcp::list().to_string())
}

fn bad(what: &'static str, rule: &'static str, request: Request) -> Bad {
    Bad { what, status: 401, rule, request }
}

/// What has no form that could hold anywhere.
fn misplaced_and_malformed(key: &str) -> Vec<Bad> {
    let header = |name: &str, value: &str| list().header(name, value);
    let bearer = |value: &str| header("authorization", &format!("Bearer {value}"));
    let malformed = |what, value: &str| bad(what, "malformed_key", bearer(value));
    let swapped = key.replacen("pck_", "PCK_", 1);
    let query = |name: &str| at(&format!("{DEMO}?{name}={key}"));
    vec![
        bad("nothing", "no_credential", list()),
        bad("a cookie", "no_credential", header("cookie", &format!("key={key}"))),
        bad(
            "for a proxy",
            "no_credential",
            header("proxy-authorization", &format!("Bearer {key}")),
        ),
        bad("an empty header", "empty_credential", header("authorization", "")),
        bad("a scheme alone", "empty_credential", header("authorization", "Bearer")),
        bad("Basic", "unsupported_scheme", header("authorization", "Basic YTpi")),
        bad("Digest", "unsupported_scheme", header("authorization", "Digest username=\"a\"")),
        bad("the key without a scheme", "unsupported_scheme", header("authorization", key)),
        bad("an empty key", "empty_credential", header("x-api-key", "")),
        bad("bytes", "malformed_key", list().header("authorization", b"Bearer pck_\xff\xfe")),
        bad("bytes as key", "malformed_key", list().header("x-api-key", b"\xc3\x28")),
        malformed("a prefix", "pck_"),
        malformed("another prefix", &key.replacen("pck_", "sk_", 1)),
        malformed("a prefix in capitals", &swapped),
        malformed("a key cut short", &key[..key.len() - 1]),
        malformed("a key too long", &format!("{key}0")),
        malformed("two keys in one", &format!("{key}{key}")),
        malformed("two keys with a comma", &format!("{key}, {key}")),
        malformed("a blank inside", &key.replacen('_', " ", 2)),
        malformed("an id with a brace", &key.replacen('_', "_}", 2)),
        malformed("JSON", "{\"key\":1}"),
        malformed("far too much", &"x".repeat(20_000)),
        // Envoy joins the two with a comma before the filter sees them.
        bad("two headers", "malformed_key", bearer(key).header("authorization", "Bearer x")),
        bad("the same twice", "several_credentials", bearer(key).header("x-api-key", key)),
        bad("two keys", "several_credentials", header("x-api-key", key).header("x-api-key", key)),
        bad("in the query", "credential_in_query", query("access_token")),
        bad("in the query as key", "credential_in_query", query("api_key")),
        bad("in the query, escaped", "credential_in_query", query("access%5Ftoken")),
        bad("in the query, with dashes", "credential_in_query", query("X-API-Key")),
        bad("in the query beside a good one", "credential_in_query", query("apikey").bearer(key)),
    ]
}

/// Keys whose check digits are wrong, and keys that were never issued.
fn mistyped_and_made_up(org: &Organisation, key: &IssuedKey) -> Vec<Bad> {
    let typo = |at: usize| {
        let mut text = key.key.clone().into_bytes();
        text[at] = if text[at] == b'x' { b'y' } else { b'x' };
        String::from_utf8(text).expect("still text")
    };
    let last = key.key.len() - 1;
    let mistyped = |what, text: String| bad(what, "check_digits", list().bearer(&text));
    vec![
        mistyped("a mistyped check digit", typo(last)),
        mistyped("a mistyped secret", typo(last - 10)),
        mistyped("a mistyped id", typo("pck__".len() + org.name.len())),
        bad("an id that nobody has", "unknown_key", list().bearer(&forged(&org.name, "nobody1"))),
        bad(
            "an organisation that is not",
            "unknown_key",
            list().bearer(&forged("nowhere", &key.id)),
        ),
        bad("another secret", "wrong_secret", list().bearer(&forged(&org.name, &key.id))),
        bad(
            "another secret as key",
            "wrong_secret",
            list().header("x-api-key", forged(&org.name, &key.id)),
        ),
    ]
}

/// Keys that were issued, and do not hold.
fn ended_and_restricted(org: &Organisation) -> Vec<Bad> {
    let set = |key: &IssuedKey, arguments: &[&str]| {
        let set = ["key", "set", &key.id, "--org", &org.name, "--reason", "a test"];
        let command = [&set[..], arguments].concat();
        org.operator.json(&command).unwrap_or_else(|fault| panic!("{fault}"));
    };
    let with = |arguments: &[&str]| {
        let key = org.key("analyst");
        set(&key, arguments);
        list().bearer(&key.key)
    };
    let revoked = org.key("analyst");
    org.operator.revoke_key(&revoked.id, "a test wants it").expect("revoke");
    let rotated = org.key("analyst");
    let rotate = ["key", "rotate", &rotated.id, "--org", &org.name, "--overlap", "0s"];
    let rotate = [&rotate[..], &["--reason", "a test"]].concat();
    let renewed: Value = org.operator.json(&rotate).expect("rotate");
    assert!(renewed["key"].is_string(), "{renewed}");
    let elsewhere = Bad {
        status: 403,
        ..bad("from elsewhere", "source_not_allowed", with(&["--sources", "10.0.0.0/8"]))
    };
    vec![
        bad("revoked", "revoked", list().bearer(&revoked.key)),
        bad("rotated out", "rotated_out", list().bearer(&rotated.key)),
        bad("expired", "expired", with(&["--expires", "2026-01-01T00:00:00Z"])),
        bad("not yet valid", "not_yet_valid", with(&["--not-before", "30d"])),
        elsewhere,
        Bad {
            status: 403,
            ..bad(
                "from elsewhere, IPv6",
                "source_not_allowed",
                with(&["--sources", "2001:db8::/32"]),
            )
        },
        bad(
            "without its certificate",
            "certificate_mismatch",
            with(&["--certificate", &"ab".repeat(32)]),
        ),
    ]
}

// Proves: B18
fn every_bad_credential_is_refused_as_stated_and_reaches_nobody(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst");
    let mut table = misplaced_and_malformed(&key.key);
    table.extend(mistyped_and_made_up(&org, &key));
    table.extend(ended_and_restricted(&org));
    let tokens = bad_tokens(&Mint::of(world.stack()), &org.name);
    let token = |(rule, token): (_, String)| bad("a token", rule, list().bearer(&token));
    table.extend(tokens.into_iter().map(token));
    for Bad { what, status, rule, request } in &table {
        let answer = org.gateway.send(request);
        assert_eq!(answer.status(), *status, "{what}: {}", answer.text());
        answer.assert_refused(*status, if *status == 401 { -31_401 } else { -31_403 });
        let entry = answer.audit();
        assert_eq!(entry["decision"]["rule"], format!("auth.{rule}"), "{what}: {entry}");
        let event = &entry["events"][0];
        assert_eq!(
            (&event["event"], &event["reason"]),
            (&"auth_failed".into(), &(*rule).into()),
            "{what}"
        );
        assert!(
            !answer.text().contains(&key.key) && !entry.to_string().contains(&key.key),
            "{what}"
        );
    }
    println!("{} bad credentials", table.len());
    // None of it was held against the good one.
    assert_eq!(org.gateway.send(&list().bearer(&key.key)).status(), 200);
}
