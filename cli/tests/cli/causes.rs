//! A Redis that takes no writes, or knows no user: the cause is said. And replicas that do not follow.

use std::time::Duration;

use crate::harness::{Operator, Said, issue, run};

fn configure(operator: &Operator, words: &[&str]) {
    let mut redis = operator.redis();
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| _ = command.arg(*word));
    command.exec(&mut redis).unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

fn found(said: &Said) -> String {
    said.refusal()["found"].as_str().unwrap().to_owned()
}

// Findings 9.4 and 9.14: all of these said "check --redis", and doctor said all good.
#[test]
fn a_server_that_takes_no_writes_is_told_as_such_by_every_command_and_by_doctor() {
    let primary = Operator::new();
    let address = primary.valkey.url().trim_start_matches("redis://").trim_end_matches('/');
    let (host, port) = address.split_once(':').unwrap();
    for (words, undo, cause) in [
        (
            &["CONFIG", "SET", "maxmemory", "1"][..],
            &["CONFIG", "SET", "maxmemory", "0"][..],
            "Redis is out of memory",
        ),
        (
            &["REPLICAOF", host, port],
            &["REPLICAOF", "NO", "ONE"],
            "this server is a read-only replica",
        ),
    ] {
        let operator = Operator::with_policy();
        configure(&operator, words);
        let said = found(&issue(&operator, &[]));
        assert!(said.starts_with(cause), "{said}");
        let said = operator.says(&["doctor"]);
        let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!((said.status, &report["healthy"]), (1, &false.into()), "{report:#}");
        let checks = report["checks"].as_array().unwrap();
        let admission = checks.iter().find(|check| check["check"] == "redis.admission").unwrap();
        assert_eq!(admission["state"], "bad", "{admission}");
        assert!(admission["found"].as_str().unwrap().contains(cause), "{admission}");
        configure(&operator, undo);
    }
}

// Finding 9.4: what doctor tries leaves nothing behind.
#[test]
fn doctor_leaves_nothing_behind() {
    let operator = Operator::with_policy();
    assert_eq!(operator.says(&["doctor"]).status, 0);
    let mut redis = operator.redis();
    for _ in 0..500 {
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("*portcullis-doctor*").query(&mut redis).unwrap();
        if keys.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the probe's window is still there");
}

// Finding 9.14.
#[test]
fn a_wrong_password_and_missing_rights_are_told_apart() {
    let operator = Operator::with_policy();
    configure(&operator, &["ACL", "SETUSER", "guest", "on", ">right", "~portcullis:*", "+ping"]);
    let list = |user: &str| {
        let url = operator.valkey.url().replace("redis://", &format!("redis://{user}@"));
        run(&["key", "list", "--output", "json"], &[("PORTCULLIS_REDIS", &url)], "")
    };
    let wrong = "Redis does not accept the user name or the password";
    assert_eq!(list("guest:wrong").unanswered()["found"], wrong);
    assert_eq!(found(&list("guest:right")), "this Redis user may not do that");
}

#[test]
fn a_server_without_tls_is_told_as_such() {
    let operator = Operator::with_policy();
    let url = operator.valkey.url().replace("redis://", "rediss://");
    let said = run(&["key", "list", "--output", "json"], &[("PORTCULLIS_REDIS", &url)], "");
    let found = said.unanswered()["found"].to_string();
    assert!(found.contains("the server speaks no TLS, and the URL asks for it"), "{said:?}");
}

// Finding 7.1: push said active, and gateways read database 0.
#[test]
fn another_database_than_the_gateways_read_is_refused() {
    let operator = Operator::with_policy();
    let url = format!("{}1", operator.valkey.url());
    let said = run(&["key", "list"], &[("PORTCULLIS_REDIS", &url)], "");
    assert_eq!(said.status, 2, "{said:?}");
    assert!(said.stderr.contains("database 1") && said.stderr.contains("database 0"), "{said:?}");
    let zero = format!("{}0", operator.valkey.url());
    assert_eq!(run(&["key", "list"], &[("PORTCULLIS_REDIS", &zero)], "").status, 0);
}

// Finding 10.5: a replica without the last change was promoted, and a revoked key was back.
#[test]
fn a_change_that_replicas_do_not_have_is_told_of() {
    let (operator, replica) = (Operator::with_policy(), Operator::new());
    let address = operator.valkey.url().trim_start_matches("redis://").trim_end_matches('/');
    let (host, port) = address.split_once(':').unwrap();
    configure(&replica, &["REPLICAOF", host, port]);
    let connected = |operator: &Operator| {
        let info: String =
            redis::cmd("INFO").arg("replication").query(&mut operator.redis()).unwrap();
        info.contains("state=online")
    };
    for _ in 0..3_000 {
        if connected(&operator) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(connected(&operator), "the replica does not connect");
    let issued = issue(&operator, &[]);
    let id = issued.json()["record"]["id"].as_str().unwrap().to_owned();

    // Connected, and deaf.
    let pid = replica.valkey.pid().to_string();
    let signal = |name: &str| {
        let kill = std::process::Command::new("kill").args([name, &pid]).status();
        assert!(kill.is_ok_and(|status| status.success()));
    };
    signal("-STOP");
    let said = operator.says(&["key", "revoke", &id, "--reason", "leaked"]);
    signal("-CONT");
    assert_eq!(said.status, 0, "it was revoked all the same: {said:?}");
    assert!(said.stderr.contains("only 0 of 1 replicas have it"), "{said:?}");
}
