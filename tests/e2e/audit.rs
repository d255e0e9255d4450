//! The audit log: complete, fit to be read by others, and impossible to change unnoticed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use portcullis_stack::ready;
use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::world::{Workers, replaced};
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};

use crate::metrics::eventually;

pub(crate) fn cases() -> Vec<Case> {
    cases!["audit":
        inputs_are_logged_without_secrets,
        inputs_are_capped_and_still_told_apart,
        refusals_of_every_stage_are_in_the_log,
        intact_log_verifies_and_every_change_is_named,
        no_call_is_lost_when_envoy_is_killed,
        redis_notes_how_far_chains_have_come,
    ]
}

// Proves: A16, B14, C6
fn inputs_are_logged_without_secrets(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["redact"] = json!(["ssn"]);
        let paths = json!(["$.customer.number", "$.lines[*].note"]);
        let tools = ["query_users", "create_note", "delete_user"];
        let tools = tools.map(|tool| (tool.to_owned(), json!({"redact": paths})));
        policy["connectors"]["demo"]["tools"] = Value::Object(tools.into_iter().collect());
    });
    let key = org.key("analyst").key;
    let arguments = json!({
        "name_contains": "kept", "password": "hunter2-one", "api_key": "hunter2-two",
        "nested": {"accessToken": "hunter2-three", "list": [{"client-secret": {"x": "hunter2-four"}}]},
        "SSN": "hunter2-five", "ssn": 123_454_321,
        "customer": {"number": "hunter2-six", "city": "kept"}, "lines": [{"note": "hunter2-seven", "n": 1}],
    });
    // Allowed, refused and hidden: the input of each is logged.
    for tool in ["query_users", "create_note", "delete_user"] {
        let entry = org.call(&key, tool, arguments.clone()).audit();
        let text = entry.to_string();
        assert!(!text.contains("hunter2") && !text.contains("123454321"), "{tool}: {text}");
        assert_eq!(entry["input"]["name_contains"], "kept", "{tool}: {text}");
        assert_eq!(entry["input"]["customer"]["city"], "kept", "{tool}: {text}");
        assert_eq!(entry["input"]["lines"][0]["n"], 1, "{tool}: {text}");
        for name in ["password", "api_key", "SSN", "ssn"] {
            assert!(entry["input"].get(name).is_some(), "{tool}: the name {name} stays: {text}");
        }
    }
}

// Proves: A16
fn inputs_are_capped_and_still_told_apart(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let entry = |text: String| {
        let answer = org.call(&key, "search_contacts", json!({"query": text}));
        answer.audit()
    };
    let (one, other) = (entry("a".repeat(100_000)), entry(format!("{}b", "a".repeat(100_000))));
    let many: Value =
        (0..9_000).map(|n| (format!("k{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
    let wide = org.call(&key, "search_contacts", many).audit();
    for entry in [&one, &other, &wide] {
        let length = entry["input"].to_string().len();
        assert!(length < 8_192, "{length} bytes of input in the log");
        assert_eq!(entry["input_sha256"].as_str().map(str::len), Some(64), "{entry}");
    }
    assert_ne!(one["input_sha256"], other["input_sha256"]);
    assert_eq!(one["input_sha256"], entry("a".repeat(100_000))["input_sha256"]);
}

// Proves: A15, B6, B10, B12
fn refusals_of_every_stage_are_in_the_log(world: &World<'_>) {
    let org = world.organisation();
    let (key, narrow) = (org.key("analyst").key, org.key_in("analyst", "narrow").key);
    for _ in 0..3 {
        org.call(&narrow, "query_users", json!({}));
    }
    let call = |key: &str, tool: &str| {
        Request::post(DEMO, mcp::call(tool, json!({})).to_string()).bearer(key)
    };
    for (rule, status, request) in [
        ("auth.no_credential", "denied", Request::post(DEMO, "{}")),
        ("request.content_type", "denied", call(&key, "x").without("content-type")),
        ("request.json", "denied", Request::post(DEMO, "{").bearer(&key)),
        ("tool.not_visible", "denied", call(&key, "delete_user")),
        ("roles.analyst.demo", "denied", call(&key, "create_note")),
        ("calls", "limited", call(&narrow, "query_users")),
    ] {
        let answer = org.gateway.send(&request);
        let entry = answer.audit();
        let found = entry["decision"]["rule"].as_str().unwrap_or_default();
        assert!(found.contains(rule), "expected {rule}: {entry}");
        assert_eq!(
            (&entry["decision"]["effect"], &entry["status"]),
            (&json!("deny"), &json!(status)),
            "{entry}"
        );
        assert_eq!(entry["error_code"], answer.error_code().unwrap(), "{entry}");
    }
}

fn verify(org: &Organisation, file: &Path) -> (Output, String) {
    let output = org.operator.run(&["audit", "verify", file.to_str().unwrap()]).unwrap();
    let said = [output.stdout.clone(), output.stderr.clone()].concat();
    (output, String::from_utf8_lossy(&said).into_owned())
}

// Proves: A17, A18
fn intact_log_verifies_and_every_change_is_named(world: &World<'_>) {
    let own = world.replica();
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    for tool in
        ["query_users", "create_note", "delete_user", "query_users", "search_contacts"].repeat(4)
    {
        org.call(&key, tool, json!({"query": tool})).audit();
    }
    let lines = own.gateway.audit().lines();
    let (output, said) = verify(&org, own.gateway.audit().file());
    assert_eq!(output.status.code(), Some(0), "{said}");

    // The second entry of a chain that goes on, so that there is something before and after it.
    let entries: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_chain = |chain: &Value| {
        (0..lines.len()).filter(|at| entries[*at]["chain"] == *chain).collect::<Vec<_>>()
    };
    let chain = entries.iter().map(|entry| of_chain(&entry["chain"])).max_by_key(Vec::len).unwrap();
    assert!(chain.len() >= 5, "two workers share twenty requests");
    let (second, third) = (chain[1], chain[2]);

    let mut edited = lines.clone();
    edited[second] = edited[second].replace("\"analyst\"", "\"admin\"");
    assert_ne!(edited, lines);
    let mut dropped = lines.clone();
    dropped.remove(second);
    let mut swapped = lines.clone();
    swapped.swap(second, third);
    let mut repeated = lines.clone();
    repeated.insert(third, lines[second].clone());
    let garbled = {
        let mut lines = lines.clone();
        lines[second].truncate(40);
        lines
    };
    // Where the first bad line stands, counted from one.
    for (what, lines, bad) in [
        ("edited", edited, second + 1),
        ("dropped", dropped, third),
        ("swapped", swapped, second + 1),
        ("repeated", repeated, third + 1),
        // What is no entry may be a line of another log: that one is missing shows in the next.
        ("garbled", garbled, third + 1),
    ] {
        let file = copy(&world.dir(), what, &lines);
        let (output, said) = verify(&org, &file);
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        assert!(said.contains(&format!("jsonl:{bad}:")), "{what}: expected line {bad} in {said}");
    }
}

// Issue 16: a crash lost the calls whose lines Envoy had not written yet. Proves: B13, A17
fn no_call_is_lost_when_envoy_is_killed(world: &World<'_>) {
    let own = world.envoy_changed(
        Workers::Two,
        |settings| settings,
        |template| {
            let audit = "\"audit\": {\"input_max_bytes\"";
            replaced(&template, audit, "\"audit\": {\"durable\": true, \"input_max_bytes\"")
        },
    );
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let message = mcp::call("query_users", json!({})).to_string();
    let request = Request::post(DEMO, message).bearer(&key);
    let address = own.gateway.address();
    // Until Envoy is gone: how many calls were answered.
    let calls = || {
        let mut answered = 0_u64;
        let mut wire = Wire::connect(address).expect("a gateway");
        while let Ok(reply) = wire.exchange(&request) {
            answered += u64::from(reply.status == 200);
        }
        answered
    };
    let answered: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(calls)).collect();
        ready::eventually("some entries", Duration::from_secs(60), || {
            (own.gateway.audit().lines().len() >= 100).then_some(())
        })
        .unwrap_or_else(|fault| panic!("{fault}"));
        own.envoy.process().kill_9();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let log = own.gateway.audit().file().to_str().unwrap();
    let verify = ["audit", "verify", log, "--intents", "--org", &org.name, "--output", "json"];
    // Calls of the last half minute may be open.
    let report = ready::eventually("a report of all calls", Duration::from_secs(90), || {
        let output = org.operator.run(&verify).unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let number = |name: &str| report["intents"][name].as_u64().unwrap();
        let listed = |name: &str| report["intents"][name].as_array().unwrap().len() as u64;
        let all = number("logged") + listed("incomplete") + listed("lost");
        (all == number("calls")).then_some(report)
    });
    let report = report.unwrap_or_else(|fault| panic!("{fault}"));
    let intents = &report["intents"];
    let listed = |name: &str| intents[name].as_array().unwrap();
    let calls = intents["calls"].as_u64().unwrap();
    // Each worker may have held one call for each of four clients when it was killed.
    assert!((answered..=answered + 4).contains(&calls), "{answered} answered: {intents:#}");
    assert_eq!((&report["bad"], &report["missing"]), (&json!(0), &json!(0)), "{report:#}");
    for call in listed("incomplete").iter().chain(listed("lost")) {
        assert_eq!(call["intent"]["tool_name"], "query_users", "{call}");
    }
    println!(
        "{answered} calls answered, {calls} intents; {} in the log, {} without an entry, {} lost",
        intents["logged"],
        listed("incomplete").len(),
        listed("lost").len()
    );
}

// Issue 16: a chain whose end was cut off was intact. Proves: A17
fn redis_notes_how_far_chains_have_come(world: &World<'_>) {
    let own = world.envoy_changed(
        Workers::One,
        |settings| settings,
        |template| {
            let audit = "\"audit\": {\"input_max_bytes\"";
            let often = "\"audit\": {\"checkpoint_entries\": 4, \"checkpoint_seconds\": 3600, \"input_max_bytes\"";
            replaced(&template, audit, often)
        },
    );
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst").key;
    let call = || org.call(&key, "query_users", json!({})).audit();
    let first = call();
    assert!(
        first["module"].as_str().is_some_and(|it| it.contains('+')),
        "the first entry: {first}"
    );
    assert_eq!(call()["module"], Value::Null);
    let anchored = |file: &Path| {
        let file = file.to_str().unwrap();
        let verify = ["audit", "verify", file, "--checkpoints", "--partial", "--output", "json"];
        let output = org.operator.run(&verify).unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let log = own.gateway.audit().file();
    let found = |count: u64| {
        eventually(&format!("{count} checkpoints"), || {
            let report = anchored(log);
            assert_eq!(report["intact"], true, "{report:#}");
            report["anchors"]["found"] == count
        });
    };
    found(1);
    // By number, long before it is time again.
    (0..4).for_each(|_| _ = call());
    let cut = |last: usize| {
        let lines = own.gateway.audit().lines();
        let kept = lines.len() - last;
        copy(&world.dir(), &format!("cut-{last}"), &lines[..kept])
    };
    // Noted a moment ago: Envoy may not have written it yet.
    eventually("a later checkpoint", || anchored(&cut(2))["anchors"]["open"] == 1);
    // The VM ends in order: what it wrote since is noted.
    call();
    assert_eq!(anchored(&cut(1))["intact"], true, "not noted yet");
    own.envoy.process().stop();
    let is_missed = || (anchored(&cut(1))["intact"] == false).then_some(());
    ready::eventually("a checkpoint of the end, and time", Duration::from_secs(60), is_missed)
        .unwrap_or_else(|fault| panic!("{fault}"));
    found(1);
}

fn copy(dir: &Path, name: &str, lines: &[String]) -> PathBuf {
    let file = dir.join(format!("{name}.jsonl"));
    fs::write(&file, lines.join("\n") + "\n").unwrap();
    file
}
