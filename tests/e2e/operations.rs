//! What an operator does with a running gateway, and what they learn when it does not go well.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis_stack::{CREDENTIAL_PATH, http, ready};
use portcullis_tests::fake::FakeUpstream;
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::world::{OwnEnvoy, Workers, replaced};
use portcullis_tests::{Case, Request, World, cases, mcp};
use serde_json::{Value, json};

use crate::metrics::eventually;

/// How long a change may take to show on a busy machine.
const SOON: Duration = Duration::from_secs(30);

pub(crate) fn cases() -> Vec<Case> {
    cases!["operations":
        health_says_when_envoy_is_taken_out_of_service,
        health_tells_what_fails_and_that_it_is_over,
        vault_is_probed_while_no_call_asks_it,
        it_is_a_released_envoy_that_calls_redis_vault_and_the_servers,
        lost_audit_lines_are_told_by_doctor,
        policy_of_an_organisation_names_only_what_it_may,
    ]
}

fn admin(own: &OwnEnvoy, page: &str) {
    let url = format!("{}/{page}", own.envoy.admin_url());
    let reply = http::send("POST", &url, &[], b"").unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(reply.status, 200, "{page}: {}", reply.text());
}

// Finding 9.8: the health document was 200 while the gateway was drained. Proves: B2
fn health_says_when_envoy_is_taken_out_of_service(world: &World<'_>) {
    let own = world.single_worker();
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let health = || {
        let request = Request::bare("GET", "/portcullis/health").header("host", "x");
        own.gateway.send(&request).status()
    };
    assert_eq!(health(), 200);
    admin(&own, "healthcheck/fail");
    assert_eq!(health(), 503);
    assert_eq!(org.call(&key, "get_dashboard_metrics", json!({})).status(), 200, "it still serves");
    admin(&own, "healthcheck/ok");
    assert_eq!(health(), 200);
}

/// The version of the policy that decides about `key`.
fn deciding_version(org: &Organisation, key: &str) -> Value {
    org.call(key, "get_dashboard_metrics", json!({})).audit()["policy_version"].clone()
}

// Proves: B16, A32
fn health_tells_what_fails_and_that_it_is_over(world: &World<'_>) {
    let stack = world.own_stack(|options| options);
    let org = Organisation::new(&stack);
    let key = org.key("analyst").key;
    let ask = |path: &str| org.gateway.send(&Request::bare("GET", path).header("host", "x"));
    // One worker may not have been called yet: until it is the one that was.
    let called = || {
        let answer = org.call(&key, "get_dashboard_metrics", json!({}));
        let health = ask("/portcullis/health");
        let document = health.message();
        let checks = document["checks"].as_array().cloned().unwrap_or_default();
        (answer.status() == 200 && checks.len() >= 3).then_some((health.status(), document))
    };
    let (status, document) = ready::eventually("a worker that called all", SOON, called)
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((status, &document["status"]), (200, &json!("healthy")), "{document}");
    let active = deciding_version(&org, &key);
    assert_eq!(document["policies"][&org.name], active, "{document}");
    assert!(document["build"].is_string() && document["uptime_seconds"].is_u64(), "{document}");
    for (check, name) in [("redis", None), ("vault", None), ("connector", Some("demo"))] {
        let checks = document["checks"].as_array().expect("checks");
        let found = checks.iter().find(|one| one["check"] == check && one["name"].as_str() == name);
        let found = found.unwrap_or_else(|| panic!("no {check} in {document}"));
        assert_eq!(found["status"], "healthy", "{found}");
        assert!(found["latency_ms"].is_u64() && found["age_seconds"].is_u64(), "{found}");
    }
    let text = document.to_string();
    assert!(!text.contains("127.0.0.1") && !text.contains("vault://"), "{text}");

    // Found out by the gateway itself: no client calls.
    stack.valkeys().for_each(|valkey| valkey.crash());
    let is = |wanted: u16| (ask("/portcullis/health").status() == wanted).then_some(());
    ready::eventually("an unhealthy gateway", SOON, || is(503)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(ask("/portcullis/health?ready").status(), 200, "it is not the gateway that is down");
    stack.valkeys().for_each(|valkey| valkey.restart().unwrap_or_else(|fault| panic!("{fault}")));
    ready::eventually("a healthy gateway", SOON, || is(200)).unwrap_or_else(|e| panic!("{e}"));
}

// Proves: B16
fn vault_is_probed_while_no_call_asks_it(world: &World<'_>) {
    static SEALED: AtomicBool = AtomicBool::new(false);
    let vault = FakeUpstream::answering(|_| {
        let line = if SEALED.load(Ordering::SeqCst) { "503 Service Unavailable" } else { "200 OK" };
        vec![format!("HTTP/1.1 {line}\r\ncontent-length: 2\r\n\r\n{{}}").into_bytes()]
    });
    let address = vault.address();
    let own = world.envoy(Workers::One, |settings| {
        settings.set("VAULT_HOST", address.ip()).set("VAULT_PORT", address.port())
    });
    let says = |wanted: &str| {
        let request = Request::bare("GET", "/portcullis/health").header("host", "x");
        let document = own.gateway.send(&request).message();
        let checks = document["checks"].as_array().cloned().unwrap_or_default();
        let vault = checks.into_iter().find(|check| check["check"] == "vault")?;
        (vault["status"] == wanted && document["status"] == wanted).then_some(vault)
    };
    let is = |wanted| ready::eventually(wanted, SOON, || says(wanted)).unwrap();
    assert!(is("healthy")["latency_ms"].is_u64());
    SEALED.store(true, Ordering::SeqCst);
    assert_eq!(is("degraded").get("latency_ms"), None);
    SEALED.store(false, Ordering::SeqCst);
    is("healthy");
    let asked = vault.requests();
    assert!(asked.iter().all(|head| head.starts_with("GET /v1/sys/health?")), "{asked:?}");
}

// Proves: X14
fn it_is_a_released_envoy_that_calls_redis_vault_and_the_servers(world: &World<'_>) {
    let own = world.single_worker();
    let page = |path: &str| -> Value {
        serde_json::from_str(&own.envoy.admin(path).unwrap().text()).expect("JSON")
    };
    // Commit, version, "Clean" (no local change), "RELEASE", and the TLS library.
    let version = page("server_info")["version"].as_str().expect("a version").to_owned();
    let parts: Vec<_> = version.split('/').collect();
    assert_eq!(parts[2..4], ["Clean", "RELEASE"], "{version}");
    let clusters = page("clusters?format=json");
    let clusters = clusters["cluster_statuses"].as_array().expect("clusters").iter();
    let names: BTreeSet<_> = clusters.map(|it| it["name"].as_str().expect("a name")).collect();
    let known = ["demo", "python", "portcullis_idp", "portcullis_redis", "portcullis_vault"].into();
    assert_eq!(names, known);
    let filters = page("config_dump?resource=static_listeners").to_string();
    assert_eq!(filters.matches("extensions.filters.http.wasm.v3.Wasm").count(), 1, "{filters}");
}

// Finding 9.2: entries were lost, and doctor said all good. Proves: X16
fn lost_audit_lines_are_told_by_doctor(world: &World<'_>) {
    let own = world.single_worker();
    let org = world.organisation().through(&own.gateway);
    let state = |check: &str| {
        let url = own.envoy.admin_url();
        let environment = [("PORTCULLIS_ENVOY_ADMIN", url.as_str())];
        let said = org.operator.run_with(&["doctor", "--output", "json"], &environment);
        let report: Value = serde_json::from_slice(&said.expect("it runs").stdout).expect("JSON");
        let checks = report["checks"].as_array().expect("checks").clone();
        let check = checks.into_iter().find(|one| one["check"] == check);
        check.map(|check| check["state"].as_str().expect("a state").to_owned())
    };
    assert_eq!(state("envoy.audit_log").as_deref(), Some("good"));
    // The directory is gone when the log is reopened, as after a rotation that went wrong.
    let dir = own.envoy.audit_log().parent().expect("a directory").to_owned();
    let aside = dir.with_extension("aside");
    fs::rename(&dir, &aside).expect("a directory that can be moved");
    admin(&own, "reopen_logs");
    let key = org.key("analyst").key;
    let message = mcp::call("get_dashboard_metrics", json!({})).to_string();
    own.gateway.send(&Request::post(DEMO, message).bearer(&key));
    eventually("doctor tells of it", || state("envoy.audit_log").as_deref() == Some("bad"));
    fs::rename(&aside, &dir).expect("and back");
}

// Finding 12.10: a policy named another organisation's secret, for a server of its own. Proves: X32
fn policy_of_an_organisation_names_only_what_it_may(world: &World<'_>) {
    let org = world.organisation();
    let bounds = json!({&org.name: {
        "paths": [DEMO], "secrets": [format!("vault://secret/{CREDENTIAL_PATH}#*")],
    }});
    let own = world.envoy_changed(
        Workers::One,
        |settings| settings,
        |template| {
            let audit = "\"audit\": {\"input_max_bytes\"";
            replaced(&template, audit, &format!("\"organisations\": {bounds},\n{:24}{audit}", ""))
        },
    );
    let (here, key) = (org.through(&own.gateway), org.key("analyst").key);
    assert_eq!(here.call(&key, "get_dashboard_metrics", json!({})).status(), 200);
    let elsewhere = mcp::modern(PYTHON, mcp::call("add", json!({"a": 1, "b": 1}))).bearer(&key);
    let refused = here.gateway.send(&elsewhere);
    assert_eq!(refused.status(), 404, "{}", refused.text());
    assert!(refused.upstream().is_empty());
    assert_eq!(refused.audit()["connector"], "python");
    // An organisation without bounds of its own may name nothing there.
    let other = world.organisation();
    let key = other.key("analyst").key;
    let refused = other.through(&own.gateway).call(&key, "get_dashboard_metrics", json!({}));
    assert_eq!(refused.status(), 404, "{}", refused.text());
    assert_eq!(other.call(&key, "get_dashboard_metrics", json!({})).status(), 200);
}
