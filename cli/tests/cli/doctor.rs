//! `portcullis doctor` in front of a real Valkey, and of nobody. In front of Envoy and OpenBao it stands in the
//! end-to-end tests.

use serde_json::{Value, json};

use crate::harness::{Operator, Said, run};

/// State and finding of one check.
fn check<'a>(report: &'a Value, name: &str) -> (&'a str, &'a str) {
    let checks = report["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["check"] == name);
    let check = check.unwrap_or_else(|| panic!("no {name} in {report:#}"));
    (check["state"].as_str().expect("a state"), check["found"].as_str().expect("what was found"))
}

fn report(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("one JSON document: {said:?}"))
}

#[test]
fn a_server_on_its_own_is_looked_at_and_what_is_not_named_is_said_to_be_unknown() {
    let operator = Operator::with_policy();
    let said = operator.says(&["doctor"]);
    let report = report(&said);
    assert_eq!((said.status, &report["healthy"]), (0, &json!(true)), "{report:#}");
    assert_eq!(check(&report, "redis").0, "good");
    assert_eq!(check(&report, "redis.clock").0, "good");
    assert!(check(&report, "redis.version").1.starts_with("Valkey "), "{report:#}");
    assert_eq!(check(&report, "redis.eviction").0, "good");
    assert_eq!(check(&report, "policy acme").0, "good");
    for name in ["vault", "envoy"] {
        assert_eq!(check(&report, name), ("unknown", "not looked at"));
    }
}

#[test]
fn what_would_let_guarantees_slip_is_bad_or_to_be_looked_at() {
    let operator = Operator::with_policy();
    let mut redis = operator.redis();
    for (name, value) in [("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lru")] {
        let set = redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut redis);
        set.expect("a setting");
    }
    let version: String = redis::cmd("HGET")
        .arg(portcullis_redis_lua::Key::policy("acme").as_str())
        .arg("rev")
        .query(&mut redis)
        .expect("a version");
    let document = portcullis_redis_lua::Key::policy_document(&version);
    redis::cmd("DEL").arg(document.as_str()).exec(&mut redis).expect("gone");
    let said = operator.says(&["doctor"]);
    let report = report(&said);
    assert_eq!((said.status, &report["healthy"]), (1, &json!(false)), "{report:#}");
    assert_eq!(check(&report, "redis.eviction").0, "bad");
    assert_eq!(check(&report, "redis.persistence").0, "warning", "the tests keep no file");
    let (state, found) = check(&report, "policy acme");
    assert!(state == "bad" && found.ends_with("its document is gone"), "{found}");
    let text = operator.plainly(&["doctor"]);
    assert_eq!(text.status, 1);
    assert!(text.stdout.contains("maxmemory-policy noeviction"), "{}", text.stdout);
}

#[test]
fn where_nobody_answers_everything_else_is_looked_at_all_the_same() {
    let nobody = "127.0.0.1:1";
    let arguments = [
        "doctor",
        "--vault",
        &format!("http://{nobody}"),
        "--envoy-admin",
        &format!("http://{nobody}"),
        "--output",
        "json",
    ];
    let said = run(&arguments, &[("PORTCULLIS_REDIS", &format!("redis://{nobody}/"))], "");
    let report = report(&said);
    assert_eq!(said.status, 1);
    for name in ["redis", "vault", "envoy"] {
        assert_eq!(check(&report, name).0, "bad", "{report:#}");
    }
}
