//! One hundred shapes of secrets that must not be in a log, and one hundred ordinary values that must stay readable.

use serde_json::{Value, json};

use super::{Redaction, redact, shown_text};

/// Is in every secret of a free form.
const MARK: &str = "hunter2";

fn logged(value: Value) -> String {
    let arguments = serde_json::Map::from_iter([("argument".to_owned(), value)]);
    let names = ["ssn".to_owned()];
    let shown = redact(&arguments, Redaction { names: &names, paths: &[], max_bytes: 16_384 });
    crate::json::canonical(&shown)
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

/// Texts with [`MARK`] where the secret is.
const TEXTS: [&str; 31] = [
    "password=hunter2",
    "password: hunter2",
    "password = hunter2",
    "PASSWORD='hunter2'",
    "export API_KEY=hunter2",
    "DB_PASSWORD=hunter2 ./run",
    "--token=hunter2",
    "--password hunter2",
    "Authorization: Bearer hunter2.1",
    "authorization: basic hunter2=",
    "curl -H 'X-Api-Key: hunter2' https://a.example",
    "curl -u alice:hunter2 https://a.example",
    "curl --user alice:hunter2 https://a.example",
    "Cookie: sid=hunter2",
    "https://alice:hunter2@a.example/x",
    "postgres://app:hunter2@db.example:5432/crm",
    "redis://:hunter2@cache.example/0",
    "https://a.example/?access_token=hunter2&x=1",
    "https://a.example/?x=1&api_key=hunter2",
    "https://a.example/#access_token=hunter2",
    "https://a.example/cb;jsessionid=hunter2",
    "https://a.example/?pass%77ord=hunter2",
    "https://a.example/?next=https%3A%2F%2Fb.example%2F%3Ftoken%3Dhunter2%26x%3D1",
    "Server=db;User Id=a;Password=hunter2;",
    "AccountName=a;AccountKey=hunter2==;EndpointSuffix=x",
    "<password>hunter2</password>",
    "https://alice:hunter2@a.example/?token=a%20b",
    "https://a.example/ghp_hunter20123456789abcdef/x?token=a%3D",
    "api_key:hunter2YmFyYmF6%3D%3D",
    "curl -u https://alice:hunter2@a.example",
    "password hunter2: token=hunter2",
];

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
    assert!(structured.len() + TEXTS.len() + forms.len() >= 100);
    let mut leaks = Vec::new();
    for value in structured {
        let shown = logged(value.clone());
        if shown.contains(MARK) {
            leaks.push(shown);
        }
    }
    for text in TEXTS.into_iter().take(TEXTS.len() - 1) {
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

const INNOCENT: [&str; 82] = [
    "",
    "hello",
    "Weekly report for Q4",
    "alice@acme.example",
    "Alice Example <alice@acme.example>",
    "+49 30 901820",
    "+1 (555) 010-9999",
    "2026-11-29T17:19:09Z",
    "2026-11-29 17:19:09.123456",
    "1764436749123456",
    "1764436749123456789",
    "INV-2026-0042",
    "order 1234567890123456",
    "4111111111111112",
    "1234 5678 9012 3456",
    "192.0.2.7",
    "2001:db8::7",
    "192.0.2.0/24",
    "https://acme.example/",
    "https://acme.example/a/b?page=2&sort=name#top",
    "https://acme.example:8443/search?q=token+ring",
    "http://localhost:3000/health",
    "postgres://app@db.example:5432/crm",
    "git@github.com:acme/repo.git",
    "s3://bucket/key/with/slashes.parquet",
    "file:///var/log/app.log",
    "urn:isbn:0451450523",
    "note://team/7",
    "users://{id}/profile",
    "C:\\Users\\alice\\Documents\\plan.docx",
    "/etc/hosts",
    "src/main.rs:42:7",
    "SELECT id, name FROM users WHERE plan = 'pro' LIMIT 10",
    "UPDATE t SET a = 1 WHERE b > 2",
    "a == b && c != d",
    "x = y + 1",
    "fn main() { println!(\"hi\"); }",
    "<p class=\"lead\">Hello</p>",
    "{\"user\": \"u\", \"n\": 1.50}",
    "[1, 2, 3]",
    "key: value",
    "name=alice",
    "plan=pro;seats=5",
    "LANG=de_DE.UTF-8",
    "PATH=/usr/bin:/bin",
    "author: Ann Author",
    "compass bearing 270",
    "the basic plan bears no token of it",
    "Basic JavaScript course",
    "a digest of the news",
    "design, assign, significant",
    "passenger list",
    "boarding pass 12A",
    "pin the post",
    "secretary general",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "550e8400-e29b-41d4-a716-446655440000",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "v1.2.3-beta.4+build.5",
    "sha256:9f86d081884c7d65",
    "978-3-16-148410-0",
    "DE123456789",
    "DE89370400440532013001",
    "B0B1KQ4Z3N",
    "4 1/2 cups",
    "12:30",
    "3.14159",
    "-273.15",
    "1e100",
    "50 %",
    "€ 1.234,56",
    "ÄÖÜ äöü ß",
    "日本語のテキスト",
    "🙂 ok",
    "skip-link, sky-high, task-list-with-a-long-name",
    "npm_package_vulnerabilities",
    "hf_list_all_public_models",
    "sk-learn-model-evaluation",
    "docker run -u 1000:1000 image",
    "git push -u https://a.example/repo",
    "npm_package_vulnerabilities of /hf_list_all_public_models/",
];

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
