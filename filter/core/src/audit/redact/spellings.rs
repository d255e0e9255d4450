//! One hundred shapes of secrets that must not be in a log, and one hundred ordinary values that must stay readable.

use serde_json::{Value, json};

use super::cases::{INNOCENT, SECRETS};
use super::{Redaction, redact, shown_text};

/// Is in every secret of a free form.
const MARK: &str = "hunter2";

fn logged(value: Value) -> String {
    let arguments = serde_json::Map::from_iter([("argument".to_owned(), value)]);
    let names = ["ssn".to_owned()];
    redact(&arguments, Redaction { names: &names, paths: &[], max_bytes: 16_384 }).canonical()
}

/// Arguments with [`MARK`] where the secret is.
fn structured() -> Vec<Value> {
    vec![
        json!({"password": MARK}),
        json!({"PassWord": MARK}),
        json!({"user": {"pwd": MARK}}),
        json!({"passphrase": [MARK]}),
        json!({"api_key": MARK}),
        json!({"apiKey": MARK}),
        json!({"x-api-key": MARK}),
        json!({"API KEY": MARK}),
        json!({"access_token": MARK}),
        json!({"refreshToken": {"value": MARK}}),
        json!({"id_token": MARK}),
        json!({"client_secret": MARK}),
        json!({"clientSecret": [[MARK]]}),
        json!({"private_key": MARK}),
        json!({"ssh-key": MARK}),
        json!({"Authorization": format!("Custom {MARK}")}),
        json!({"Proxy-Authorization": MARK}),
        json!({"cookie": MARK}),
        json!({"Set-Cookie": [MARK]}),
        json!({"sessionId": MARK}),
        json!({"credentials": {"a": MARK}}),
        json!({"connectionString": MARK}),
        json!({"signature": MARK}),
        json!({"otp": MARK}),
        json!({"mfa_code": MARK}),
        json!({"security-code": MARK}),
        json!({"cardNumber": MARK}),
        json!({"db_pass": MARK}),
        json!({"redis_auth": MARK}),
        json!({"ssn": MARK}),
        json!({"S.S.N": MARK}),
        json!({"ｐａｓｓｗｏｒｄ": MARK}),
        json!({"pass\u{200b}word": MARK}),
        json!({"𝐭𝐨𝐤𝐞𝐧": MARK}),
        json!({"name": "Authorization", "value": MARK}),
        json!({"key": "api_key", "value": MARK}),
        json!({"header": "X-Auth-Token", "content": MARK}),
        json!({"field": "password", "data": MARK, "type": "text"}),
        json!([{"name": "password", "value": MARK}]),
        json!(["API_KEY", MARK]),
        json!(["--password", MARK]),
        json!(["run", "--api-key", MARK, "now"]),
        json!({"env": [["DB_PASSWORD", MARK]]}),
        json!({"headers": [["Authorization", MARK]]}),
        json!(format!("{{\"password\": \"{MARK}\"}}")),
        json!(format!("{{\"a\": {{\"token\": \"{MARK}\"}}}}")),
        json!(json!({"text": json!({"token": MARK}).to_string()}).to_string()),
        json!(format!("[{{\"name\": \"password\", \"value\": \"{MARK}\"}}]")),
    ]
}

/// Secrets that are known by their form alone.
fn forms() -> Vec<String> {
    let digits = "0123456789abcdefghij0123456789ABCDEFGHIJ";
    let mut forms: Vec<String> = [
        "pck_acme_k1_",
        "ghp_",
        "gho_",
        "github_pat_",
        "glpat-",
        "sk-proj-",
        "sk_live_",
        "rk_live_",
        "whsec_",
        "xoxb-",
        "xoxp-",
        "xapp-",
        "hf_",
        "npm_",
        "pypi-",
        "hvs.",
        "hvb.",
        "dop_v1_",
        "SG.",
        "ya29.",
        "dapi",
    ]
    .map(|start| format!("{start}{digits}"))
    .into();
    forms.extend([
        "AKIAIOSFODNN7EXAMPLE".to_owned(),
        "ASIAIOSFODNN7EXAMPLE".to_owned(),
        "AIzaSyA0123456789abcdefghij0123456789ABC".to_owned(),
        "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ".to_owned(),
        format!("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.{digits}"),
        "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----".to_owned(),
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk".to_owned(),
        "4111111111111111".to_owned(),
        "4111 1111 1111 1111".to_owned(),
        "5555-5555-5555-4444".to_owned(),
        "378282246310005".to_owned(),
        "3782 822463 10005".to_owned(),
        "DE89370400440532013000".to_owned(),
        "GB29 NWBK 6016 1331 9268 19".to_owned(),
        "FR1420041010050500013M02606".to_owned(),
    ]);
    forms
}

// Issue 16.
// Proves: A16, C6, B14
#[test]
fn one_hundred_shapes_of_secrets_are_in_no_log() {
    let (structured, forms) = (structured(), forms());
    assert!(structured.len() + SECRETS.len() + forms.len() >= 100);
    let mut leaks = Vec::new();
    for value in structured {
        let shown = logged(value.clone());
        if shown.contains(MARK) {
            leaks.push(shown);
        }
    }
    for (text, _) in SECRETS {
        for shown in [logged(text.into()), shown_text(text), logged(json!([{"a": text}]))] {
            if shown.contains(MARK) {
                leaks.push(shown);
            }
        }
    }
    for secret in forms {
        for text in [
            secret.clone(),
            format!("see {secret}, please"),
            format!("note://a/{secret}/x?y={secret}"),
        ] {
            let shown = logged(text.into());
            // Nothing of it is left that is longer than its public beginning.
            let inner = secret.chars().skip(secret.len() / 2).take(6).collect::<String>();
            if shown.contains(&inner) {
                leaks.push(shown);
            }
        }
    }
    let number = logged(serde_json::from_str("4111111111111111").unwrap());
    if number.contains("1111111") {
        leaks.push(number);
    }
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
}

// Issue 16.
// Proves: A16
#[test]
fn one_hundred_ordinary_values_stay_readable() {
    let mut lost = Vec::new();
    let texts = INNOCENT.into_iter().map(Value::from);
    let all: Vec<Value> = texts.chain(innocent_structures()).collect();
    assert!(all.len() >= 100, "{}", all.len());
    for value in all {
        let plain = crate::json::canonical(&json!({"argument": value}));
        let shown = logged(value);
        if shown != plain {
            lost.push(format!("{plain}\n  is shown as {shown}"));
        }
    }
    assert!(lost.is_empty(), "{} lost:\n{}", lost.len(), lost.join("\n"));
}

fn innocent_structures() -> Vec<Value> {
    vec![
        json!(0),
        json!(42),
        json!(-1.5),
        json!(1_764_436_749_123_456_u64),
        json!(true),
        json!(null),
        json!([]),
        json!({}),
        json!({"limit": 10, "offset": 20}),
        json!({"query": "plan:pro", "sort": ["name", "-created"]}),
        json!({"name": "Accept", "value": "text/plain"}),
        json!({"key": "colour", "value": "red"}),
        json!([["LANG", "de"], ["TZ", "UTC"]]),
        json!(["run", "--verbose", "x"]),
        json!(["a", "b"]),
        json!({"author": "Ann", "compass": "N"}),
        json!({"shipping": {"street": "Main St 1", "zip": "12345"}}),
        json!({"from": "a@acme.example", "to": ["b@acme.example"], "subject": "Hi"}),
        json!({"key": "value"}),
        json!({"keys": ["a", "b"]}),
        json!({"total": 3, "passed": 2, "failed": 1}),
        json!({"primary_key": "id", "foreign_key": "user_id", "sort_key": "created"}),
        json!({"latitude": 52.52, "longitude": 13.405}),
        json!({"monkey": "x", "hockey": "y", "turkey": "z"}),
        json!({"max_tokens": 4096, "tokenCount": 3}),
        json!({"spin": 1, "opinion": "good", "pinned": true}),
    ]
}
