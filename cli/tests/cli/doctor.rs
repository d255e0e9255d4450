//! `portcullis doctor` in front of a real Valkey, and of none. In front of Envoy and OpenBao it stands in the
//! end-to-end tests.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::harness::{Operator, Said, Scratch, golden_file, run};

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

// Finding of an outside tester: with ten gateways, nothing said which of them was bad.
#[test]
fn with_several_envoys_each_row_names_its_own() {
    let urls = ["http://127.0.0.1:1", "http://admin:hunter2@127.0.0.1:2/"];
    let said = |urls: &[&str], more: &[&str]| {
        let admin: Vec<&str> = urls.iter().flat_map(|url| ["--envoy-admin", *url]).collect();
        let redis = [("PORTCULLIS_REDIS", "redis://127.0.0.1:1/")];
        run(&[&["doctor"][..], &admin[..], more].concat(), &redis, "")
    };
    let shown = ["http://127.0.0.1:1", "http://127.0.0.1:2/"];
    let json = report(&said(&urls, &["--output", "json"]));
    let envoys: Vec<&str> =
        json["checks"].as_array().unwrap().iter().filter_map(|it| it["envoy"].as_str()).collect();
    assert_eq!(envoys, shown, "{json:#}");
    let text = said(&urls, &[]).stdout;
    assert!(text.starts_with("STATE    ENVOY"), "{text}");
    for url in shown {
        let row = |line: &str| line.starts_with("bad ") && line.contains(&format!("  {url}  "));
        assert_eq!(text.lines().filter(|line| row(line)).count(), 1, "{url}: {text}");
    }
    assert!(text.lines().any(|line| line.starts_with("bad      -  ")), "the row of Redis: {text}");
    assert!(!text.contains("hunter2"), "{text}");
    // With one Envoy the table is as it was.
    let one = said(&urls[..1], &[]).stdout;
    assert!(one.starts_with("STATE    CHECK") && !one.contains(urls[0]), "{one}");
    let json = report(&said(&urls[..1], &["--output", "json"]));
    assert!(json["checks"].as_array().unwrap().iter().any(|it| it["envoy"] == urls[0]), "{json:#}");
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
    let redis = format!("redis://{nobody}/");
    let environment = [("PORTCULLIS_REDIS", redis.as_str()), ("VAULT_TOKEN", "s.of-a-test")];
    let said = run(&arguments, &environment, "");
    let report = report(&said);
    assert_eq!(said.status, 1);
    for name in ["redis", "vault", "envoy"] {
        assert_eq!(check(&report, name).0, "bad", "{report:#}");
    }
    // Finding of a fresh reader: it was `bad`, with the error of Redis and its next step, as if Vault had failed.
    let unknown = ("unknown", "Redis did not say which secrets active policies name");
    assert_eq!(check(&report, "vault.secrets"), unknown);
}

// Finding of a fresh reader: 21 seconds, while the page says one.
#[test]
fn a_redis_that_hangs_is_asked_once() {
    // The kernel takes connections for it; it reads none.
    let hung = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}/", hung.local_addr().expect("an address"));
    let said = run(&["doctor", "--output", "json"], &[("PORTCULLIS_REDIS", &url)], "");
    let report = report(&said);
    assert_eq!(said.status, 1);
    assert_eq!(check(&report, "redis"), ("bad", "no answer within 1 s"));
    let checks = report["checks"].as_array().expect("checks").iter();
    let of_redis = checks.filter(|it| it["check"].as_str().expect("a name").starts_with("redis"));
    assert_eq!(of_redis.count(), 1, "{report:#}");
    hung.set_nonblocking(true).expect("no wait");
    let mut connections: Vec<_> = hung.incoming().map_while(Result::ok).collect();
    assert_eq!(connections.len(), 1);
    // One command: each further one would wait for another second.
    let mut asked = String::new();
    connections[0].set_nonblocking(false).expect("to the end");
    connections[0].read_to_string(&mut asked).expect("text");
    assert_eq!(asked, "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n");
}

/// Answers every request that it has no secret; ends with the last one that is asked for.
fn vault_without_secrets(listener: &TcpListener, requests: usize) -> Vec<String> {
    let mut paths = Vec::new();
    for _ in 0..requests {
        let (mut connection, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(connection.try_clone().expect("a second handle"));
        let (mut line, mut length) = (String::new(), 0_usize);
        while reader.read_line(&mut line).expect("a line") > 2 {
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            if line.ends_with("HTTP/1.1\r\n") {
                paths.push(line.split(' ').nth(1).expect("a path").to_owned());
            }
            line.clear();
        }
        reader.read_exact(&mut vec![0; length]).expect("the body");
        let answer = "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 13\r\n\r\n{\"errors\":[]}";
        connection.write_all(answer.as_bytes()).expect("it is taken");
    }
    paths
}

// Issue 14, finding of a fresh reader: the line named one organisation of those that use the reference, and no step.
// Proves: X16
#[test]
fn a_missing_secret_is_asked_for_once_with_its_organisations_and_the_command() {
    let operator = Operator::with_policy();
    let (own, shared) = (golden_file("policy.yaml"), "[globex, initech, umbrella]");
    for (name, orgs) in [("shared.yaml", shared), ("one.yaml", "[wayne]")] {
        let policy = own.replace("[acme]", orgs).replace("limit: 5,", "limit: 6,");
        let policy = Scratch::new(name, &policy);
        operator.says(&["policy", "push", policy.path(), "--reason", "more"]).json();
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (said, paths) = std::thread::scope(|scope| {
        // Health, the secret, and what the token may do.
        let paths = scope.spawn(|| vault_without_secrets(&listener, 3));
        let environment =
            [("PORTCULLIS_REDIS", operator.valkey.url()), ("VAULT_TOKEN", "s.of-a-test")];
        let said = run(&["doctor", "--vault", &url, "--output", "json"], &environment, "");
        (said, paths.join().expect("it ends"))
    });
    assert_eq!(paths[1], "/v1/secret/data/connectors/demo", "{paths:?}");
    let report = report(&said);
    let checks = report["checks"].as_array().expect("checks").iter();
    let of_secrets =
        checks.filter(|it| it["check"].as_str().expect("a name").starts_with("vault.secret "));
    let found: Vec<&Value> = of_secrets.collect();
    assert_eq!(found.len(), 1, "{report:#}");
    assert_eq!(
        (&found[0]["state"], &found[0]["found"]),
        (
            &json!("bad"),
            &json!(
                "there is no such secret (/v1/secret/data/connectors/demo): calls of acme, globex, initech and 2 more \
                 that need it are refused"
            )
        )
    );
    let next = found[0]["next"].as_str().expect("a step");
    let command = "vault kv put -mount=secret connectors/demo api_key=- (or bao kv put …)";
    assert!(next.starts_with(command), "{next}");
}
