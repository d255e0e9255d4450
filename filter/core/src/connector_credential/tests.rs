//! Where credentials are, and what is made of them.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::*;
use crate::auth::{IdentityKind, Principal, Restrictions, Scopes};
use crate::id::{KeyId, OrgId, PolicyName};
use crate::secret::Secret;
use crate::time::UnixTime;
use crate::vault::*;

fn mount(path: &str, kv: KvVersion) -> Mount {
    Mount { path: path.to_owned(), kv }
}

fn principal(kind: IdentityKind) -> Principal {
    Principal {
        org: OrgId::new("acme").unwrap(),
        identity: kind.into(),
        name: "somebody".into(),
        role: PolicyName::new("analyst").unwrap(),
        tier: PolicyName::new("free").unwrap(),
        scopes: Scopes::Unknown,
        agent: None,
        restrictions: Restrictions::default(),
    }
}

fn person(subject: &str) -> Principal {
    principal(IdentityKind::Token { issuer: "https://idp".into(), subject: subject.into() })
}

fn resolve(pattern: &str, who: &Principal, claims: &Value) -> Result<SecretRef, Unresolved> {
    let claims: Map<String, Value> = claims.as_object().cloned().unwrap_or_default();
    let connector = PolicyName::new("crm").unwrap();
    let facts = who.facts(&claims, &connector);
    SecretPattern::parse(pattern).unwrap().resolve(facts, &["token".to_owned()])
}

fn path(pattern: &str, who: &Principal, claims: &Value) -> Result<String, Unresolved> {
    resolve(pattern, who, claims).map(|secret| secret.api_path(&[]))
}

// Proves: C1
#[test]
fn references_name_one_field_and_cannot_leave_their_mount() {
    let secret = SecretRef::parse("vault://secret/connectors/demo#api_key").unwrap();
    assert_eq!(secret.api_path(&[]), "/v1/secret/data/connectors/demo");
    // Finding 7.2: a mount with a slash was read as a mount and a path.
    let deep = SecretRef::parse("vault://team/kvv2/crm#key").unwrap();
    let mounts = [
        mount("team", KvVersion::Two),
        mount("team/kvv2", KvVersion::Two),
        mount("team/kv", KvVersion::One),
    ];
    assert_eq!(deep.api_path(&mounts), "/v1/team/kvv2/data/crm");
    assert_eq!(deep.api_path(&[]), "/v1/team/data/kvv2/crm");
    let first = SecretRef::parse("vault://team/kv/crm#key").unwrap();
    assert_eq!(first.api_path(&mounts), "/v1/team/kv/crm");
    assert_eq!(secret.api_path(&mounts), "/v1/secret/data/connectors/demo");
    assert!(SecretPattern::parse("vault://secret/data/demo#x").unwrap().has_api_form());
    assert!(SecretPattern::parse("vault://v1/secret/demo#x").unwrap().has_api_version());
    let pinned = resolve("vault://secret/demo?version=3#token", &person("ada"), &json!({}));
    let pinned = pinned.unwrap();
    assert_eq!(pinned.api_path(&[]), "/v1/secret/data/demo?version=3");
    assert_eq!(pinned.to_string(), "vault://secret/demo?version=3#token");
    for bad in [
        "secret/demo#x",
        "vault://secret#x",
        "vault://secret/../sys#x",
        "vault://secret/a//b#x",
        "vault://secret/a?list=true#x",
        "vault://secret/a?version=0#x",
        "vault://secret/a?version=1&list=true#x",
        "vault://{org}/a#x",
        "vault://secret/{org}{sub}#x",
        "vault://secret/{sub}-{org}#x",
        "vault://secret/{nobody}#x",
        "vault://secret/{claim:}#x",
        "vault://secret/{sub#x",
        "vault://secret/a}#x",
    ] {
        assert_eq!(SecretPattern::parse(bad), None, "{bad}");
    }
}

// Proves: C1
#[test]
fn each_caller_has_a_path_of_its_own() {
    let ada = person("ada@example.com");
    let claims = json!({"team": "sales", "level": 3, "deep": {"id": "x"}, "list": ["a"]});
    for (pattern, expected) in [
        ("vault://secret/users/{org}/{sub}#token", "/v1/secret/data/users/acme/ada@example.com"),
        ("vault://secret/{connector}/{claim:team}#token", "/v1/secret/data/crm/sales"),
        (
            "vault://secret/{iss}/u-{sub}#token",
            "/v1/secret/data/https=3A=2F=2Fidp/u-ada@example.com",
        ),
        ("vault://secret/{claim:level}/{claim:deep.id}#token", "/v1/secret/data/3/x"),
    ] {
        assert_eq!(path(pattern, &ada, &claims).unwrap(), expected);
    }
    let key = principal(IdentityKind::Key(KeyId::new("k1a2b3c4").unwrap()));
    assert_eq!(path("vault://s/{key}#t", &key, &json!({})).unwrap(), "/v1/s/data/k1a2b3c4");
    let certificate = principal(IdentityKind::Certificate("spiffe://a/b".into()));
    let of_certificate = path("vault://s/{cert}#t", &certificate, &json!({}));
    assert_eq!(of_certificate.unwrap(), "/v1/s/data/spiffe=3A=2F=2Fa=2Fb");
    for (pattern, who, fault) in [
        ("vault://s/{sub}#t", &key, Unresolved::Absent),
        ("vault://s/{key}#t", &ada, Unresolved::Absent),
        ("vault://s/{claim:none}#t", &ada, Unresolved::Absent),
        ("vault://s/{claim:list}#t", &ada, Unresolved::NoName),
        ("vault://s/{sub}#t", &person(&"a".repeat(257)), Unresolved::NoName),
        ("vault://s/.{sub}#t", &person(""), Unresolved::NoName),
    ] {
        assert_eq!(path(pattern, who, &claims).unwrap_err(), fault, "{pattern}");
    }
    assert_eq!(path("vault://s/.{sub}#t", &person("."), &json!({})).unwrap(), "/v1/s/data/.=2E");
    // A caller whose name is that of a deeper mount reads none of it.
    let mounts = [mount("team", KvVersion::Two), mount("team/kvv2", KvVersion::One)];
    let secret = resolve("vault://team/{sub}/x#t", &person("kvv2"), &json!({})).unwrap();
    assert_eq!(secret.api_path(&mounts), "/v1/team/data/kvv2/x");
    assert_eq!(
        secret.owner(),
        Some("acme/".to_owned() + person("kvv2").identity.holder()).as_deref()
    );
}

// Proves: A5
#[test]
fn a_value_is_taken_only_when_a_header_can_carry_it() {
    let secret = SecretRef::parse("vault://secret/demo#api_key").unwrap();
    let of = |value: Value| {
        let body = json!({"data": {"data": {"api_key": value}, "metadata": {}}}).to_string();
        secret.read_one(body.as_bytes()).map(|value| value.expose().to_owned())
    };
    assert_eq!(of(json!("s3cret")).unwrap(), "s3cret");
    assert_eq!(of(json!("s3cret\n")).unwrap(), "s3cret");
    assert_eq!(of(json!("s3cret\r\n")).unwrap(), "s3cret");
    assert_eq!(of(json!(7)).unwrap(), "7");
    assert_eq!(of(json!(12_345_678_901_234_567_890_u64)).unwrap(), "12345678901234567890");
    for (bad, fault) in [
        (json!(""), SecretFault::Empty),
        (json!("\n"), SecretFault::Empty),
        (json!("a\r\nhost: evil"), SecretFault::NotAscii),
        (json!("a\n\n"), SecretFault::NotAscii),
        (json!("s\u{e9}cret"), SecretFault::NotAscii),
        (json!(true), SecretFault::NotText),
        (json!({"a": 1}), SecretFault::NotText),
        (json!("s".repeat(MAX_SECRET_BYTES + 1)), SecretFault::TooLong),
    ] {
        assert_eq!(of(bad).unwrap_err(), fault);
    }
    assert!(of(json!("s".repeat(MAX_SECRET_BYTES))).is_ok());
    for (body, fault) in [
        (&br#"{"data":null}"#[..], SecretFault::NotKv),
        (br#"{"data":{"data":null,"metadata":{}}}"#, SecretFault::NotKv),
        (br#"{"data":{"data":{"other":"x"},"metadata":{}}}"#, SecretFault::NoSuchField),
        (b"upstream connect error", SecretFault::NotJson),
        // Finding 10.9: the last one counted.
        (br#"{"data":{"data":{"api_key":"a","api_key":"b"},"metadata":{}}}"#, SecretFault::NotJson),
    ] {
        assert_eq!(secret.read(body).unwrap_err(), fault);
    }
    // KV v1, also with a field that is called as version 2 calls all of them.
    let first = br#"{"data":{"api_key":"one","data":"x"}}"#;
    assert_eq!(secret.read_one(first).unwrap().expose(), "one");
}

// A secret that an engine made has a lease; KV version 1 states a duration, and none.
// Proves: X12
#[test]
fn a_lease_is_one_with_an_id() {
    let secret = SecretRef::parse("vault://database/creds/crm#username").unwrap();
    let of = |id: Value, seconds: Value| {
        let body = json!({"lease_id": id, "lease_duration": seconds, "data": {"username": "u"}});
        secret.read(body.to_string().as_bytes()).unwrap().lease
    };
    let made = of(json!("database/creds/crm/x"), json!(60)).unwrap();
    assert_eq!((made.lasts, made.renewable), (Duration::from_secs(60), false));
    assert_eq!(made.id, LeaseId::new("database/creds/crm/x"));
    assert_eq!(of(json!("../x"), json!(60)).unwrap().id, None);
    for (id, seconds) in [
        (json!(""), json!(2_764_800)),
        (Value::Null, json!(60)),
        (json!("x"), json!(0)),
        (json!("x"), json!(-1)),
        (json!("x"), json!("60")),
    ] {
        assert_eq!(of(id, seconds), None);
    }
}

// Proves: A5
#[test]
fn an_echo_is_found_in_each_form_that_a_server_may_give_it() {
    let mut fields = Vec::new();
    let mut template = |text: &str| Template::parse(text, None, &mut fields).unwrap();
    let headers = vec![("authorization".to_owned(), template("Basic {base64(user:password)}"))];
    let query = vec![("key".to_owned(), template("{password}"))];
    let pattern = SecretPattern::parse("vault://secret/crm").unwrap();
    let source = Source::secret(pattern, fields);
    let stated = (Stale::Configured, Echo::Mask);
    let credential = ConnectorCredential::new(source, (headers, query), None, stated);
    let values = ["ada-lovelace", "a long/pass\"word"].map(|text| Secret::new(text.into()));
    let cached = CachedSecret::new(values.into(), UnixTime::from_micros(7), Duration::ZERO);
    let injected = credential.render(&cached);
    assert_eq!(injected.read, Some(UnixTime::from_micros(7)));
    let basic = injected.headers[0].1.expose().to_owned();
    let base64 = basic.strip_prefix("Basic ").unwrap().to_owned();
    for form in [
        basic,
        base64,
        "a long/pass\"word".to_owned(),
        // In JSON, with and without the escape that a slash may have, and in a URL.
        r#"a long/pass\"word"#.to_owned(),
        r#"a long\/pass\"word"#.to_owned(),
        "a+long%2Fpass%22word".to_owned(),
        "ada-lovelace".to_owned(),
    ] {
        let mut mask = credential.render(&cached).echo.unwrap();
        let masked = mask.feed(format!("<{form}>").as_bytes(), true);
        assert!(masked.found, "{form}");
        let expected = format!("<{}>", "*".repeat(form.len()));
        assert_eq!(String::from_utf8(masked.bytes).unwrap(), expected, "{form}");
    }
}

// Proves: A5
#[test]
fn templates_put_several_fields_where_they_belong() {
    let mut fields = Vec::new();
    let read = |text: &str, fields: &mut Vec<String>| Template::parse(text, Some("key"), fields);
    let plain = read("v1:{secret}!", &mut fields).unwrap();
    let basic = read("Basic {base64(user:password)}", &mut fields).unwrap();
    let both = read("{user}-{key}", &mut fields).unwrap();
    assert_eq!(fields, ["key", "user", "password"]);
    let values = ["s3cret", "ada", "pass:word"].map(|text| Secret::new(text.into()));
    assert_eq!(plain.render(&values).expose(), "v1:s3cret!");
    assert_eq!(basic.render(&values).expose(), "Basic YWRhOnBhc3M6d29yZA==");
    assert_eq!(both.render(&values).expose(), "ada-s3cret");
    for bad in [
        "",
        "Bearer abc",
        "{secret",
        "secret}",
        "{}",
        "{a b}",
        "{base64()}",
        "{base64(a:)}",
        "\n{secret}",
    ] {
        assert_eq!(read(bad, &mut fields), None, "{bad}");
    }
    assert_eq!(Template::parse("{secret}", None, &mut fields), None);
}
