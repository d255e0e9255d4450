//! Redis in other places than next door: behind TLS with a password, and as a Cluster.
//!
//! The whole suite runs there too (`PORTCULLIS_TEST_REDIS`); here is what only such a Redis can show.

use std::time::Duration;

use portcullis_stack::{Stack, Topology, ready};
use portcullis_tests::organisation::Organisation;
use portcullis_tests::world::on;
use portcullis_tests::{Answer, Case, World, cases};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    cases!["redis_places":
        users_and_tls_serve_and_envoy_keeps_the_password,
        server_that_cannot_prove_its_name_is_not_spoken_to,
        hung_node_takes_its_organisations_with_it_and_nobody_elses,
        lost_node_takes_its_organisations_with_it_until_it_is_back,
        window_over_all_organisations_is_refused_on_a_cluster,
    ]
}

fn call(org: &Organisation, key: &str) -> Answer {
    org.call(key, "get_dashboard_metrics", json!({}))
}

// Proves: C1
fn users_and_tls_serve_and_envoy_keeps_the_password(world: &World<'_>) {
    let stack = world.own_stack(on(Topology::Secured));
    let org = Organisation::new(&stack);
    let key = org.key_in("analyst", "narrow");
    for _ in 0..3 {
        let answer = call(&org, &key.key);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(answer.upstream().len(), 1);
    }
    assert_eq!(call(&org, &key.key).status(), 429, "windows are counted there");
    let output = org.operator.run(&["key", "revoke", &key.id, "--reason", "a test"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    call(&org, &key.key).assert_refused(401, -31_401);

    let file = stack.dir().join("redis-password");
    let password = std::fs::read_to_string(file).unwrap();
    let dump = stack.envoy.admin("config_dump").unwrap().text();
    assert!(dump.contains("portcullis_redis_server") && !dump.contains(&password));
    // Without a password nothing is answered.
    let mut anybody = std::net::TcpStream::connect(stack.valkey.address()).unwrap();
    std::io::Write::write_all(&mut anybody, b"GET portcullis:organisations\r\n").unwrap();
    let mut reply = [0; 7];
    std::io::Read::read_exact(&mut anybody, &mut reply).unwrap();
    assert_eq!(&reply, b"-NOAUTH");
}

// Proves: B2
fn server_that_cannot_prove_its_name_is_not_spoken_to(world: &World<'_>) {
    let stack = world.own_stack(on(Topology::Secured));
    let org = Organisation::new(&stack);
    let key = org.key("analyst").key;
    assert_eq!(call(&org, &key).status(), 200);
    // The same server, the same authority; another name is expected.
    let template = stack.options().root.join("envoy/envoy.yaml");
    let other = world.envoy_before(&stack, &template, |settings| {
        settings.set("REDIS_TLS_NAME", "elsewhere.internal")
    });
    let there = org.through(&other.gateway);
    let answer = call(&there, &key);
    answer.assert_refused(503, -31_503);
    let failed = other.envoy.admin("stats?filter=portcullis_redis_server.ssl.fail_verify_san");
    let failed = failed.unwrap().text();
    assert!(!failed.trim().ends_with(": 0"), "{failed}");
}

/// Two organisations on different nodes.
fn apart(stack: &Stack) -> (Organisation, Organisation) {
    let one = Organisation::new(stack);
    let home = stack.valkey_of(&one.name).address();
    let others = std::iter::repeat_with(|| Organisation::new(stack)).take(20);
    let other = others.into_iter().find(|org| stack.valkey_of(&org.name).address() != home);
    (one, other.expect("three nodes"))
}

// Proves: B2
fn hung_node_takes_its_organisations_with_it_and_nobody_elses(world: &World<'_>) {
    let stack = world.own_stack(|options| {
        // Long enough for a busy machine, short enough for a test that waits for it.
        on(Topology::Cluster)(options).set("REDIS_TIMEOUT_MS", 600).set("REDIS_OP_TIMEOUT", "0.5s")
    });
    let (calm, struck) = apart(&stack);
    let (calm_key, struck_key) = (calm.key("analyst").key, struck.key("analyst").key);
    for _ in 0..8 {
        assert_eq!(call(&calm, &calm_key).status(), 200);
        assert_eq!(call(&struck, &struck_key).status(), 200);
    }

    let node = stack.valkey_of(&struck.name).process();
    let signal = |name: &str| {
        let pid = node.pid().to_string();
        let kill = std::process::Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(kill.success());
    };
    signal("-STOP");
    // The first on each worker find it out by waiting; then one at a time tries, and the others are refused at once.
    let mut rules = Vec::new();
    while rules.iter().filter(|rule| **rule == "unavailable.redis.refused").count() < 8 {
        assert!(rules.len() < 100, "nearly everybody waits: {rules:?}");
        let answer = call(&struck, &struck_key);
        answer.assert_refused(503, -31_503);
        rules.push(answer.audit()["decision"]["rule"].clone());
        assert_eq!(call(&calm, &calm_key).status(), 200, "the others are served");
    }
    assert!(rules.iter().any(|rule| *rule != "unavailable.redis.refused"), "{rules:?}");
    signal("-CONT");
    ready::eventually("the node's organisations again", Duration::from_secs(20), || {
        (0..8).all(|_| call(&struck, &struck_key).status() == 200).then_some(())
    })
    .unwrap();
}

// Proves: B2, A10
fn lost_node_takes_its_organisations_with_it_until_it_is_back(world: &World<'_>) {
    let stack = world.own_stack(|options| {
        // Long enough for a busy machine, short enough for a test that waits for it.
        on(Topology::Cluster)(options).set("REDIS_TIMEOUT_MS", 600).set("REDIS_OP_TIMEOUT", "0.5s")
    });
    let (calm, struck) = apart(&stack);
    let (calm_key, struck_key) = (calm.key("analyst").key, struck.key_in("analyst", "narrow").key);
    for _ in 0..8 {
        assert_eq!(call(&calm, &calm_key).status(), 200);
    }
    assert_eq!(call(&struck, &struck_key).status(), 200);

    let node = stack.valkey_of(&struck.name);
    node.crash();
    for _ in 0..12 {
        let answer = call(&struck, &struck_key);
        answer.assert_refused(503, -31_503);
        assert_eq!(answer.audit()["http_status"], 503);
        // The gateway's own bound, and not Envoy's for a request.
        assert!(answer.took() < Duration::from_secs(10), "{:?}", answer.took());
        assert_eq!(call(&calm, &calm_key).status(), 200, "the others are served");
    }
    node.restart().unwrap();
    let mut admitted = 0;
    ready::eventually("the node's organisations again", Duration::from_secs(30), || {
        let status = call(&struck, &struck_key).status();
        admitted += u32::from(status == 200);
        (status == 429).then_some(())
    })
    .unwrap();
    assert_eq!(admitted, 2, "of three an hour one was drawn before");
    assert_eq!(call(&calm, &calm_key).status(), 200);
}

/// Has all nodes do it, of which one does.
fn somewhere(stack: &Stack, words: &[&str]) {
    let done = stack.valkeys().any(|valkey| {
        let client = redis::Client::open(valkey.url()).expect("its URL");
        let mut connection = client.get_connection().expect("Valkey");
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| _ = command.arg(*word));
        command.query::<redis::Value>(&mut connection).is_ok()
    });
    assert!(done, "{words:?}");
}

// Proves: B11
fn window_over_all_organisations_is_refused_on_a_cluster(world: &World<'_>) {
    let stack = world.own_stack(on(Topology::Cluster));
    let org = Organisation::new(&stack);
    let key = org.key("analyst").key;
    assert_eq!(call(&org, &key).status(), 200);
    let before = org.operator.json(&["policy", "history"]).unwrap();
    let mut policy = org.standard_policy();
    policy["limits"] = json!({"all": {"limit": 5, "window": "1h", "per": ["global"]}});

    let refusal = org.push_refused(&policy);
    assert_eq!(refusal["found"], "limits.all counts over all organisations");
    let said = refusal.to_string();
    assert!(
        said.contains("Redis Cluster") && said.contains("docs/explanation/exact-limits.md"),
        "{said}"
    );
    assert_eq!(org.operator.json(&["policy", "history"]).unwrap(), before, "nothing was changed");
    for _ in 0..7 {
        assert_eq!(call(&org, &key).status(), 200, "the policy before goes on");
    }

    // A person has a tool that does not ask. The gateways do: they go on with the last good policy.
    let version = portcullis_core::policy::version_of(&policy).expect("a version");
    let document = portcullis_core::json::canonical_exact(&policy);
    let pointer = json!({"version": version, "activated_at": 1, "actor": "x", "reason": "x"});
    somewhere(&stack, &["SETNX", &format!("portcullis:policy:doc:{version}"), &document]);
    let active = format!("portcullis:{{{}}}:policy", org.name);
    let pointer = pointer.to_string();
    somewhere(&stack, &["HSET", &active, "rev", version.as_str(), "doc", &pointer]);
    let answers: Vec<Answer> = (0..8).map(|_| call(&org, &key)).collect();
    for answer in &answers {
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_ne!(answer.audit()["policy_version"], version.as_str());
    }
    let told = |answer: &Answer| answer.audit()["events"].to_string().contains("policy_unusable");
    assert!(answers.iter().any(told), "nobody is told");
    // A worker without a policy from before serves no caller.
    let fresh = world.envoy_before(&stack, &stack.options().root.join("envoy/envoy.yaml"), |s| s);
    let answer = call(&org.through(&fresh.gateway), &key);
    answer.assert_refused(503, -31_503);
    assert_eq!(answer.audit()["decision"]["rule"], "policy.unusable");
}
