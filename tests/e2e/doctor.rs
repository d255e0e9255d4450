//! `portcullis doctor` in front of a gateway that works: a real Envoy, Redis and OpenBao.

use portcullis_tests::organisation::DEMO;
use portcullis_tests::{Case, World, cases};
use serde_json::{Value, json};

use crate::metrics::eventually;

pub(crate) fn cases() -> Vec<Case> {
    cases!["doctor": doctor_finds_a_working_gateway_in_order]
}

/// The demo's path, as a client of a public name calls it.
const OF_A_HOST: &str = "http://mcp.example/demo/mcp";

// Proves: X16
fn doctor_finds_a_working_gateway_in_order(world: &World<'_>) {
    let (org, stack) = (world.organisation(), world.stack());
    let key = org.key("analyst").key;
    assert_eq!(org.call(&key, "query_users", json!({"limit": 1})).status(), 200);
    let (envoy, vault) = (stack.envoy.admin_url(), stack.openbao.url());
    let module = stack.options().artifacts.filter.to_string_lossy().into_owned();
    let environment = [("PORTCULLIS_ENVOY_ADMIN", envoy.as_str()), ("VAULT_ADDR", vault.as_str())];
    let look = |module: &str| -> Value {
        let probe = format!("{}{DEMO}", stack.envoy.url());
        let address = stack.envoy.url().trim_start_matches("http://").to_owned();
        // A host that is no name here: the probe connects to the gateway all the same.
        let hosts = ["--probe", &probe, "--probe", OF_A_HOST, "--probe-address", &address];
        let arguments =
            [&["doctor", "--module", module, "--output", "json"][..], &hosts[..]].concat();
        let said = org.operator.run_with(&arguments, &environment).expect("it runs");
        serde_json::from_slice(&said.stdout).expect("one JSON document")
    };
    let policy = format!("policy {}", org.name);
    let probed = format!("probe {}{DEMO}", stack.envoy.url());
    let of_a_host = format!("probe {OF_A_HOST}");
    let in_order = [
        "redis",
        "redis.clock",
        "redis.admission",
        "redis.role",
        "vault",
        "vault.clock",
        "envoy",
        "envoy.clock",
        "envoy.module",
        "envoy.build",
        "envoy.audit_log",
        "envoy.failure_policy",
        "envoy.configuration",
        "envoy.guard",
        "envoy.seal",
        &probed,
        &of_a_host,
        "envoy.listener gateway",
        "envoy.cluster portcullis_redis",
        "envoy.cluster portcullis_vault",
        "envoy.dependency redis",
        &policy,
    ];
    // Envoy's workers hand over what they counted every few seconds.
    eventually("everything is in order", || {
        let report = look(&module);
        in_order.iter().all(|check| state(&report, check) == Some("good"))
    });
    let another = look(&stack.envoy.audit_log().to_string_lossy());
    assert_eq!(state(&another, "envoy.module"), Some("bad"), "{another:#}");
    assert_eq!(another["healthy"], false);
}

fn state<'a>(report: &'a Value, check: &str) -> Option<&'a str> {
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().find(|one| one["check"] == check)?["state"].as_str()
}
