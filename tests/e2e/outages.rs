//! When something that a decision needs is not there: refused fast, audited, and over when it is back.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis_stack::{CREDENTIAL_FIELD, Stack, ready};
use portcullis_tests::fake::{FakeUpstream, json_answer};
use portcullis_tests::organisation::{Organisation, PYTHON};
use portcullis_tests::world::Workers;
use portcullis_tests::{Answer, Case, Gateway, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["outages":
        killed_redis_refuses_fast_recovers_by_itself_and_loses_no_audit_entry,
        hung_redis_refuses_within_its_deadline,
        slow_answer_fails_its_own_call_and_keeps_the_stream,
        absent_vault_refuses_what_needs_it_and_nothing_else,
        hung_vault_is_waited_for_by_few_and_found_again,
        absent_upstream_is_a_503_that_is_audited,
        silent_upstream_is_given_up,
        upstream_that_breaks_off_is_audited_as_an_error,
        client_that_leaves_during_the_call_is_audited_as_gone,
    ]
}

/// Without the gateway's own bounds a call would wait for Envoy's, which is longer. How fast a refusal is beyond that
/// is up to the machine.
const HUNG: Duration = Duration::from_secs(10);

/// Refused fast, with a hint when to come back, and audited.
fn assert_unavailable(answer: &Answer) {
    answer.assert_refused(503, -31_503);
    let wait = answer.header("retry-after").expect("Retry-After");
    assert!(wait.parse::<u64>().is_ok_and(|seconds| (1..=60).contains(&seconds)), "{wait}");
    assert!(answer.took() < HUNG, "{:?}", answer.took());
}

fn recovers(call: impl Fn() -> Answer) -> Vec<Answer> {
    let mut answers = Vec::new();
    // Both workers, so: a few successes in a row.
    ready::eventually("calls that succeed again", Duration::from_secs(20), || {
        answers.push(call());
        let last = answers.iter().rev().take(8);
        (answers.len() >= 8 && last.clone().all(|answer| answer.status() == 200)).then_some(())
    })
    .unwrap();
    answers
}

fn assert_log_verifies(stack: &Stack, gateway: &Gateway) {
    let file = gateway.audit().file().to_str().unwrap().to_owned();
    let output = stack.operator.run(&["audit", "verify", &file]).unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
}

// Proves: B2, B18, A10, A17
fn killed_redis_refuses_fast_recovers_by_itself_and_loses_no_audit_entry(world: &World<'_>) {
    let stack = world.own_stack(|options| options);
    let org = Organisation::new(&stack);
    let key = org.key("analyst").key;
    let call = || org.call(&key, "query_users", json!({"limit": 1}));
    let mut answers: Vec<Answer> = (0..6).map(|_| call()).collect();
    assert!(answers.iter().all(|answer| answer.status() == 200));

    stack.valkeys().for_each(|valkey| valkey.crash());
    for _ in 0..6 {
        let answer = call();
        assert_unavailable(&answer);
        let rule = answer.audit()["decision"]["rule"].clone();
        assert!(rule.as_str().is_some_and(|rule| rule.contains("redis")), "{rule}");
        answers.push(answer);
    }
    stack.valkeys().for_each(|valkey| valkey.restart().unwrap());
    answers.extend(recovers(call));

    for answer in &answers {
        assert_eq!(answer.audit()["http_status"], answer.status());
    }
    assert_eq!(org.gateway.audit().entries().len(), answers.len(), "one entry for each, no more");
    assert_log_verifies(&stack, &org.gateway);
}

fn signal(stack: &Stack, name: &str) {
    for valkey in stack.valkeys() {
        let pid = valkey.process().pid().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

// Proves: B2, B18
fn hung_redis_refuses_within_its_deadline(world: &World<'_>) {
    let stack = world.own_stack(|options| options.set("REDIS_TIMEOUT_MS", 800));
    let org = Organisation::new(&stack);
    let key = org.key("analyst").key;
    let call = || org.call(&key, "query_users", json!({"limit": 1}));
    for _ in 0..6 {
        assert_eq!(call().status(), 200);
    }
    // It still accepts connections; it only never answers.
    signal(&stack, "-STOP");
    for _ in 0..4 {
        assert_unavailable(&call());
    }
    signal(&stack, "-CONT");
    recovers(call);
    assert_log_verifies(&stack, &org.gateway);
}

/// How many connections to Redis the gateway made so far.
fn connections(stack: &Stack) -> u64 {
    let page = "stats?filter=^cluster.portcullis_redis(_stream)?.upstream_cx_total$";
    let text = stack.envoy.admin(page).unwrap().text();
    text.lines().filter_map(|line| line.rsplit_once(": ")?.1.parse::<u64>().ok()).sum()
}

// Proves: B2
fn slow_answer_fails_its_own_call_and_keeps_the_stream(world: &World<'_>) {
    // Less than what Envoy's redis_proxy allows on a Cluster (0.8 s): the gateway is to give up first.
    let stack = world.own_stack(|options| options.set("REDIS_TIMEOUT_MS", 500));
    let org = Organisation::new(&stack);
    let key = org.key("analyst").key;
    let call = || org.call(&key, "query_users", json!({"limit": 1}));
    for _ in 0..12 {
        assert_eq!(call().status(), 200);
    }
    let before = connections(&stack);
    signal(&stack, "-STOP");
    let slow = call();
    signal(&stack, "-CONT");
    assert_unavailable(&slow);
    assert_eq!(slow.audit()["decision"]["rule"], "unavailable.redis.timed_out");
    assert!(slow.took() >= Duration::from_millis(500), "{:?}", slow.took());
    // The answer that came too late is for no request: those after it get their own, on the same connection.
    for _ in 0..12 {
        assert_eq!(call().status(), 200);
    }
    assert_eq!(connections(&stack), before);
}

// Proves: B2, A5
fn absent_vault_refuses_what_needs_it_and_nothing_else(world: &World<'_>) {
    let stack = world.own_stack(|options| options);
    let org = Organisation::new(&stack);
    let other = Organisation::with_policy(&stack, |policy| {
        policy["connectors"]["demo"]["credential"]["secret"] =
            json!("vault://secret/connectors/cold#api_key");
    });
    let (key, other_key) = (org.key("analyst").key, other.key("analyst").key);
    let call = || org.call(&key, "query_users", json!({"limit": 1}));
    // Both workers have the credential in memory.
    for _ in 0..12 {
        assert_eq!(call().status(), 200);
    }
    stack.openbao.process().kill_9();
    let answer = other.call(&other_key, "query_users", json!({"limit": 1}));
    assert_unavailable(&answer);
    let rule = answer.audit()["decision"]["rule"].clone();
    assert!(rule.as_str().is_some_and(|rule| rule.contains("vault")), "{rule}");
    // A leased credential holds for its stated life, and a connector without one never asks.
    assert_eq!(call().status(), 200);
    let python = mcp::modern(PYTHON, mcp::call("add", json!({"a": 1, "b": 1}))).bearer(&other_key);
    assert_eq!(other.gateway.send(&python).status(), 200);
}

/// Whether the fake Vault has come to itself.
static VAULT_ANSWERS: AtomicBool = AtomicBool::new(false);

// Proves: B2, C10
fn hung_vault_is_waited_for_by_few_and_found_again(world: &World<'_>) {
    // A fake, since the fault has to be forced: it accepts connections and reads, and says nothing.
    let vault = FakeUpstream::answering(|_| match VAULT_ANSWERS.load(Ordering::SeqCst) {
        true => json_answer(&json!({"data": {"data": {CREDENTIAL_FIELD: "s3cret"}}}).to_string()),
        false => Vec::new(),
    });
    let fake = FakeUpstream::answering(|_| {
        let result = json!({"content": [{"type": "text", "text": "hello"}]});
        json_answer(&json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string())
    });
    let (address, python) = (vault.address(), fake.address());
    let own = world.envoy(Workers::One, |settings| {
        let settings = settings.set("VAULT_HOST", address.ip()).set("VAULT_PORT", address.port());
        settings.set("VAULT_TIMEOUT_MS", 500).python(python)
    });
    let org = Organisation::with_policy(world.stack(), |policy| {
        let credential = policy["connectors"]["demo"]["credential"].clone();
        policy["connectors"]["python"]["credential"] = credential;
        policy["connectors"]["demo"].as_object_mut().unwrap().remove("credential");
    });
    let org = org.through(&own.gateway);
    let key = org.key("analyst").key;
    let call = || {
        let message = mcp::call("echo", json!({"message": "hello"})).to_string();
        org.gateway.send(&Request::post(PYTHON, message).bearer(&key))
    };
    // The first ones wait; then one at a time tries, after growing waits, and the others do not ask.
    let mut rules: Vec<String> = Vec::new();
    let not_asked =
        |rules: &[String]| rules.iter().filter(|rule| rule.contains("not_asked")).count();
    while not_asked(&rules) < 10 {
        assert!(rules.len() < 100, "nearly everybody waits: {rules:?}");
        let answer = call();
        assert_unavailable(&answer);
        let rule = answer.audit()["decision"]["rule"].as_str().unwrap().to_owned();
        let waited = answer.took() >= Duration::from_millis(450);
        assert!(rule.contains("not_asked") || (rule.contains("timed_out") && waited), "{rule}");
        rules.push(rule);
    }
    let not_asked = not_asked(&rules);
    assert!(rules[..3].iter().all(|rule| rule.contains("timed_out")), "{rules:?}");
    let reads = vault.requests().into_iter().filter(|head| head.starts_with("GET /v1/secret/"));
    assert_eq!(reads.count(), rules.len() - not_asked, "who does not wait did not ask");
    let stats = own.envoy.admin("stats?filter=portcullis_not_asked_total").unwrap().text();
    assert!(stats.trim().ends_with(&format!(": {not_asked}")), "{stats}");
    // Who needs no credential is served all the while: this one's server is asked, and wants a credential.
    let other = org.call(&key, "get_dashboard_metrics", json!({}));
    assert_eq!(other.audit()["decision"]["rule"], "upstream.credential_refused");
    assert_eq!(fake.requests().len(), 0, "nothing went on without a credential");

    VAULT_ANSWERS.store(true, Ordering::SeqCst);
    recovers(call);
    assert!(fake.requests().iter().all(|request| request.contains("Bearer s3cret")));
}

// Proves: B2, B18
fn absent_upstream_is_a_503_that_is_audited(world: &World<'_>) {
    let stack = world.own_stack(|options| options);
    let org = Organisation::new(&stack);
    let key = org.key("analyst").key;
    let call = || org.call(&key, "query_users", json!({"limit": 1}));
    assert_eq!(call().status(), 200);
    stack.connector.process().kill_9();
    for _ in 0..4 {
        let answer = call();
        assert_eq!(
            (answer.status(), answer.error_code()),
            (503, Some(-31_503)),
            "{}",
            answer.text()
        );
        assert_eq!(answer.message()["id"], 1, "clients wait for their id: {}", answer.text());
        assert!(answer.header("retry-after").is_some());
        assert!(answer.took() < HUNG, "{:?}", answer.took());
        let entry = answer.audit();
        assert_eq!(
            (&entry["status"], &entry["http_status"]),
            (&json!("error"), &json!(503)),
            "{entry}"
        );
    }
}

/// An upstream of the test's own behind a single worker.
fn behind_fake(
    world: &World<'_>,
    fake: &FakeUpstream,
) -> (portcullis_tests::world::OwnEnvoy, Organisation, String) {
    let own = world.with_python_as(fake);
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    (own, org, key)
}

fn echo(key: &str) -> Request {
    Request::post(PYTHON, mcp::call("echo", json!({"message": "x"})).to_string()).bearer(key)
}

// Proves: B2
fn silent_upstream_is_given_up(world: &World<'_>) {
    let fake = FakeUpstream::answering(|_| Vec::new());
    let (_own, org, key) = behind_fake(world, &fake);
    let answer = org.gateway.send(&echo(&key));
    assert!(answer.took() < HUNG, "{:?}", answer.took());
    // Finding 5.11: it may still be running, so no client is asked to repeat it (RFC 9110 §15.6.5).
    assert_eq!(answer.status(), 504, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(answer.error_code(), Some(-31_504), "{}", answer.text());
    assert_eq!(answer.message()["id"], 1);
    let entry = answer.audit();
    assert_eq!(entry["status"], "error", "{entry}");
    assert_eq!(entry["http_status"], answer.status(), "{entry}");
}

// Proves: B2
fn upstream_that_breaks_off_is_audited_as_an_error(world: &World<'_>) {
    /// More is announced than comes; then it hangs up, or says nothing until the gateway gives up.
    fn part(request: &str) -> Vec<Vec<u8>> {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n";
        let start = format!("{head}{{\"jsonrpc\":").into_bytes();
        if request.contains("user-agent: hangs-up") { vec![start, Vec::new()] } else { vec![start] }
    }
    let fake = FakeUpstream::answering(part);
    let (own, org, key) = behind_fake(world, &fake);
    for how in ["hangs-up", "falls-silent"] {
        let mut wire = Wire::connect(own.gateway.address()).unwrap();
        let request = echo(&key).without("user-agent").header("user-agent", how);
        assert!(wire.exchange(&request).is_err(), "{how}: the client sees that it is not whole");
        let entries = eventually_by_agent(&org.gateway, how);
        assert_eq!(entries[0]["status"], "error", "{how}: {}", entries[0]);
    }
}

// Proves: A15
fn client_that_leaves_during_the_call_is_audited_as_gone(world: &World<'_>) {
    let fake = FakeUpstream::answering(|_| Vec::new());
    let (own, org, key) = behind_fake(world, &fake);
    let mut wire = Wire::connect(own.gateway.address()).unwrap();
    wire.write(&echo(&key).without("user-agent").header("user-agent", "impatient").bytes())
        .unwrap();
    ready::eventually("the call at the upstream", Duration::from_secs(10), || {
        (fake.bytes() > 0).then_some(())
    })
    .unwrap();
    drop(wire);
    let entries = eventually_by_agent(&org.gateway, "impatient");
    assert_eq!(entries[0]["status"], "aborted", "{}", entries[0]);
    assert_eq!(entries[0]["tool_name"], "echo");
}

fn eventually_by_agent(gateway: &Gateway, agent: &str) -> Vec<Value> {
    let entries = ready::eventually("the audit entry", Duration::from_secs(10), || {
        let entries = gateway.audit().entries_where("user_agent", agent);
        (!entries.is_empty()).then_some(entries)
    })
    .unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries
}
