//! `explain`: the decision, the deciding rule, every step, the exit status. `approve` without anything that waits.

use serde_json::{Value, json};

use crate::harness::{Operator, Said, Scratch, file, run};

/// What `explain` says of a call of role `role` by the policy in a file: no Redis is asked.
fn explain(role: &str, tool: &str, arguments: &Value, more: &[&str]) -> Said {
    let (policy, arguments) = (file("rules.yaml"), arguments.to_string());
    let command = ["explain", "--org", "acme", "--policy", &policy, "--role", role, "--tool", tool];
    let command = [&command[..], &["--arguments", &arguments], more].concat();
    run(&command, &[("PORTCULLIS_REDIS", "redis://127.0.0.1:1/")], "")
}

const NOON: [&str; 2] = ["--at", "2027-01-04T12:00:00Z"];

#[test]
fn every_decision_has_its_rule_and_its_exit_status() {
    let cases: [(&str, &str, Value, i32, &str, &str); 7] = [
        ("agent", "balance", json!({"days": 7}), 0, "allow", ""),
        ("agent", "balance", json!({"days": 90}), 0, "allow", ""),
        (
            "agent",
            "transfer",
            json!({"amount": 5}),
            1,
            "needs_approval",
            "connectors.bank.tools.transfer.approval",
        ),
        (
            "agent",
            "transfer",
            json!({"amount": 500}),
            1,
            "deny",
            "connectors.bank.tools.transfer.conditions[0]",
        ),
        ("agent", "close_account", json!({}), 1, "deny", "roles.agent.bank.deny"),
        ("reader", "transfer", json!({"amount": 5}), 1, "deny", "roles.reader.allow_write"),
        ("nobody", "balance", json!({}), 1, "deny", "roles.nobody.bank"),
    ];
    for (role, tool, arguments, status, decision, rule) in cases {
        let more = [&NOON[..], &["--connector", "bank", "--output", "json"]].concat();
        let said = explain(role, tool, &arguments, &more);
        assert_eq!((said.status, said.stderr.as_str()), (status, ""), "{said:?}");
        let told: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(told["decision"], decision, "{told}");
        assert_eq!(told["rule"].as_str().unwrap_or_default(), rule, "{told}");
        assert_eq!(told["allowed"], status == 0);
    }
}

#[test]
fn people_read_each_step_and_what_would_be_drawn() {
    let told = explain("agent", "balance", &json!({"days": 90}), &NOON);
    let lines: Vec<_> = told.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let lines: Vec<String> = lines.iter().map(|words: &Vec<&str>| words.join(" ")).collect();
    let (first, rest) = lines.split_first().unwrap();
    assert_eq!(first, "allow");
    assert!(rest[0].starts_with("a caller (agent) calls bank/balance under policy "), "{told:?}");
    assert_eq!(
        rest[1..],
        [
            "considered",
            "passed tiers.free",
            "passed roles.agent.bank.allow",
            "passed connectors.bank.conditions[0]",
            "changed connectors.bank.tools.balance.max_records days becomes 30",
            "goes on with {\"days\":30}",
            "would draw from tiers.free.calls",
            "not checked: the route to its server (portcullis doctor checks that)",
        ]
    );
    // By night a condition that is on trial does not hold.
    let night = explain("agent", "balance", &json!({"days": 9}), &["--at", "2027-01-04T20:00:00Z"]);
    assert_eq!(night.status, 0, "{night:?}");
    assert!(
        night.stdout.starts_with("shadow_deny by connectors.bank.conditions[0]\n"),
        "{night:?}"
    );
    let undecided = explain("agent", "transfer", &json!({"amount": "5"}), &NOON);
    assert!(undecided.stdout.contains("cannot be decided"), "{undecided:?}");
}

/// Issue 14, finding of a fresh reader: `allow`, while the secret of the connector was missing. Proves: X16
#[test]
fn an_allowed_call_names_what_is_not_checked() {
    let policy = file("policy.yaml");
    let command = ["explain", "--org", "acme", "--policy", &policy, "--role", "analyst"];
    let ask = |connector: &str, tool: &str, more: &[&str]| {
        let call = ["--connector", connector, "--tool", tool];
        run(&[&command[..], &call, more].concat(), &[], "")
    };
    let both = "not checked: the connector's credential, the route to its server";
    let said = ask("demo", "query_users", &[]);
    assert!(said.status == 0 && said.stdout.contains(both), "{said:?}");
    let said = ask("python", "echo", &[]);
    assert!(said.stdout.contains("not checked: the route to its server"), "{said:?}");
    let json = ask("demo", "query_users", &["--output", "json"]).json();
    let parts = ["the connector's credential", "the route to its server"];
    assert_eq!(json["not_checked"], json!(parts), "{json}");
    // A refused call reaches neither.
    let said = ask("demo", "create_note", &[]);
    assert!(said.status == 1 && !said.stdout.contains("not checked"), "{said:?}");
}

#[test]
fn a_question_that_makes_no_sense_is_usage() {
    for command in [
        &["explain", "--tool", "x"][..],
        &["explain", "--role", "agent", "--tool", "x"],
        &["explain", "--key", "k1a2b3", "--role", "agent", "--tool", "x"],
        &["explain", "--key", "k1a2b3", "--tool", "x", "--arguments", "[1]"],
        &["explain", "--key", "k1a2b3", "--tool", "x", "--arguments", "{\"a\":1,\"a\":2}"],
        &["approve", "grant", "0123456789abcdef"],
        &["approve", "grant", "xyz", "--reason", "r"],
    ] {
        let said = run(command, &[], "");
        assert_eq!(said.status, 2, "{command:?}: {said:?}");
    }
    let other = explain("agent", "balance", &json!({}), &["--connector", "shop"]);
    assert_eq!(other.status, 2, "{other:?}");
}

#[test]
fn the_certificate_that_a_key_is_bound_to_is_not_checked() {
    let operator = Operator::new();
    operator.says(&["policy", "push", &file("rules.yaml"), "--reason", "start"]).json();
    let issue =
        ["key", "issue", "--org", "acme", "--name", "n", "--role", "agent", "--tier", "free"];
    let sha256 = "ab".repeat(32);
    let bound = operator.says(&[&issue[..], &["--certificate", &sha256]].concat()).json();
    let id = bound["record"]["id"].as_str().expect("an id").to_owned();
    let ask = ["explain", "--key", &id, "--tool", "balance", "--at", NOON[1]];
    let said = operator.plainly(&ask);
    assert_eq!(said.status, 0, "{said:?}");
    let part = format!("the client certificate {sha256}, which the key is bound to");
    assert!(said.stdout.contains(&format!("\nnot checked: {part}\n")), "{said:?}");
    let route = "the route to its server";
    assert_eq!(operator.says(&ask).json()["not_checked"], json!([part, route]));
    operator.says(&["key", "set", &id, "--certificate", "none"]).json();
    assert_eq!(operator.says(&ask).json()["not_checked"], json!([route]));
}

#[test]
fn a_key_is_judged_by_the_active_policy_and_its_own_record() {
    let operator = Operator::new();
    operator.says(&["policy", "push", &file("rules.yaml"), "--reason", "start"]).json();
    let issue =
        ["key", "issue", "--org", "acme", "--name", "n", "--role", "agent", "--tier", "free"];
    let issued = operator.says(&[&issue[..], &["--tools", "balance"]].concat()).json();
    let id = issued["record"]["id"].as_str().expect("an id").to_owned();
    let ask = |tool| operator.says(&["explain", "--key", &id, "--tool", tool, "--at", NOON[1]]);
    assert_eq!(ask("balance").json()["allowed"], true);
    let refused = ask("transfer");
    assert_eq!(refused.status, 1);
    let told: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(told["rule"], "credential.tools");
    operator.says(&["key", "revoke", &id, "--reason", "r"]).json();
    let revoked = ask("balance");
    assert_eq!(revoked.status, 1, "{revoked:?}");
    let told: Value = serde_json::from_str(&revoked.stdout).unwrap();
    assert_eq!((&told["allowed"], &told["rule"]), (&json!(false), &json!("auth.revoked")));
}

// Finding of a fresh reader: 1 was both "refused" and "Redis does not answer", and a script took one for the other.
#[test]
fn a_call_that_could_not_be_explained_is_not_one_that_is_refused() {
    let (rules, nowhere) = (file("rules.yaml"), Scratch::nowhere("nowhere.yaml"));
    let redis = [("PORTCULLIS_REDIS", "redis://127.0.0.1:1/")];
    let ask = |more: &[&str]| {
        run(&[&["explain", "--tool", "transfer"][..], more].concat(), &redis, "").status
    };
    let role = ["--org", "acme", "--role", "reader"];
    assert_eq!(ask(&[&role[..], &["--policy", &rules]].concat()), 1);
    assert_eq!(ask(&role), 2);
    assert_eq!(ask(&["--key", "k1a2b3"]), 2);
    assert_eq!(ask(&[&role[..], &["--policy", nowhere.path()]].concat()), 2);
    assert_eq!(ask(&["--request", "req-7", "--log", nowhere.path()]), 2);
}

// Proves: X25
#[test]
fn a_condition_on_the_agent_is_explained_with_one_and_without() {
    let policy = Scratch::new(
        "agents.yaml",
        r#"
version: 1
organisations: [acme]
connectors:
  crm:
    path: /crm/mcp
    tools: {create_lead: {}}
    conditions:
      - {when: 'principal.agent == "crm-bot"', message: Only crm-bot may call}
roles: {agent: {crm: {allow: ["*"]}}}
tiers:
  free: {limits: {calls: {limit: 5, window: 1s}}}
"#,
    );
    let command = ["explain", "--org", "acme", "--policy", policy.path(), "--role", "agent"];
    let says = |more: &[&str]| {
        let redis = [("PORTCULLIS_REDIS", "redis://127.0.0.1:1/")];
        run(&[&command[..], &["--tool", "create_lead"], more].concat(), &redis, "")
    };
    assert_eq!(says(&["--agent", "crm-bot"]).status, 0);
    assert_eq!(says(&["--agent", "other"]).status, 1);
    assert_eq!(says(&[]).status, 1);
}

#[test]
fn what_does_not_wait_cannot_be_decided_on() {
    let operator = Operator::with_policy();
    assert_eq!(operator.says(&["approve", "list"]).json()["approvals"], json!([]));
    let refusal =
        operator.says(&["approve", "grant", "0123456789abcdef", "--reason", "r"]).refusal();
    assert_eq!(refusal["found"], "no call 0123456789abcdef waits");
}

/// A call of `balance` by the key `k1a2b3` that a gateway wrote into its log, as `change` has it.
fn logged(
    version: &str,
    change: impl FnOnce(&mut portcullis_core::audit::Entry),
) -> crate::harness::Scratch {
    use portcullis_core::audit::{Chain, Decision, Entry};
    use sha2::Digest as _;
    let mut entry = Entry {
        timestamp: "2027-01-04T12:00:00.000000Z".into(),
        request_id: "req-7".into(),
        org_id: Some("acme".into()),
        api_key_id: Some("k1a2b3".into()),
        principal: Some("cursor".into()),
        auth_method: Some("api_key"),
        role: Some("agent".into()),
        connector: Some("bank".into()),
        mcp_method: Some("tools/call".into()),
        tool_name: Some("balance".into()),
        input: Some("{}".to_owned()),
        status: "denied",
        policy_version: Some(version.to_owned()),
        decision: Decision { effect: "deny", rule: String::new() },
        client_address: "192.0.2.1".into(),
        ..Entry::default()
    };
    change(&mut entry);
    let digest = sha2::Sha256::digest(entry.input.as_deref().unwrap_or_default().as_bytes());
    entry.input_sha256.get_or_insert_with(|| base16ct::lower::encode_string(&digest));
    let line = Chain::new("worker-a".into()).append(&entry) + "\n";
    crate::harness::Scratch::new("explained.jsonl", &line)
}

/// Finding 1 of a fresh reader: `allow`, exit 0, for calls that were refused by what the policy does not tell. The log
/// is the answer. Proves: X4
#[test]
fn a_call_that_was_refused_is_never_explained_as_allowed() {
    let operator = Operator::new();
    let pushed = operator.says(&["policy", "push", &file("rules.yaml"), "--reason", "r"]).json();
    let version = pushed["version"].as_str().unwrap();
    for (status, rule, gateway) in [
        ("denied", "auth.revoked", "deny"),
        ("limited", "tiers.free.month", "limited"),
        ("denied", "connectors.bank.on_drift.breaking", "deny"),
        ("denied", "connectors.bank.tools.balance.approval", "deny"),
        ("unavailable", "unavailable.redis.unreadable", "deny"),
    ] {
        let log =
            logged(version, |entry| (entry.status, entry.decision.rule) = (status, rule.into()));
        let ask = ["explain", "--request", "req-7", "--log", log.path()];
        let said = operator.plainly(&ask);
        assert_eq!(said.status, 1, "{said:?}");
        assert!(said.stdout.starts_with(&format!("{gateway} by {rule}\n")), "{said:?}");
        let differs = "decided again by the policy of that time: allow; the log counts";
        assert!(said.stdout.contains(differs), "{said:?}");
        assert!(said.stdout.contains("not replayed: windows, keys"), "{said:?}");
        let said = operator.says(&ask);
        let told: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(
            (said.status, &told["allowed"], &told["gateway"]),
            (1, &json!(false), &json!(gateway))
        );
        assert_eq!((&told["rule"], &told["replay"]["decision"]), (&json!(rule), &json!("allow")));
    }
    // The log does not say which rule hides a tool, and a policy that is gone takes nothing from the log's answer.
    let log = logged(version, |entry| {
        (entry.tool_name, entry.decision.rule) =
            (Some("close_account".into()), "tool.not_visible".into());
    });
    let said = operator.plainly(&["explain", "--request", "req-7", "--log", log.path()]);
    assert!(said.stdout.contains("by the policy of that time: the same"), "{said:?}");
    let log = logged("0123456789abcdef", |entry| entry.decision.rule = "auth.revoked".into());
    let said = operator.plainly(&["explain", "--request", "req-7", "--log", log.path()]);
    assert!(said.status == 1 && said.stdout.starts_with("deny by auth.revoked\n"), "{said:?}");
    assert!(
        said.stdout.contains("not decided again: there is no policy 0123456789abcdef"),
        "{said:?}"
    );
    // And the other way round: what passed then was allowed.
    let log = logged(version, |entry| {
        (entry.status, entry.tool_name) = ("success", Some("close_account".into()));
        entry.decision.effect = "allow";
    });
    let said = operator.plainly(&["explain", "--request", "req-7", "--log", log.path()]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.stdout.starts_with("allow\n"), "{said:?}");
}

// Finding of an outside tester: the id was that of the redacted arguments, and no call waits under it. Proves: X4
#[test]
fn an_approval_of_redacted_arguments_has_the_id_of_the_log_or_none() {
    use portcullis_core::audit::AuditEvent;
    let operator = Operator::new();
    let pushed = operator.says(&["policy", "push", &file("rules.yaml"), "--reason", "r"]).json();
    let version = pushed["version"].as_str().unwrap();
    let id = "44a69f987567e72e";
    let asked = || vec![AuditEvent::ApprovalRequested { id: id.to_owned() }];
    let redacted = || Some("0".repeat(64));
    let by_log = format!("  approval {id}, by the log; portcullis approve list has its state\n");
    for (sha256, events, told) in [
        (redacted(), asked(), by_log.as_str()),
        (
            redacted(),
            Vec::new(),
            "  approval: unknown, its id follows from arguments that the log redacts",
        ),
        (None, Vec::new(), ": not requested yet\n"),
    ] {
        let exact = sha256.is_none();
        let log = logged(version, |entry| {
            entry.tool_name = Some("transfer".into());
            entry.input = Some(r#"{"amount":50,"token":"[redacted]"}"#.to_owned());
            entry.decision.rule = "connectors.bank.tools.transfer.approval".into();
            (entry.input_sha256, entry.events) = (sha256, events);
        });
        let ask = ["explain", "--request", "req-7", "--log", log.path()];
        let said = operator.plainly(&ask);
        assert!(said.status == 1 && said.stdout.contains(told), "{told}: {said:?}");
        assert_eq!(said.stdout.contains("not requested yet"), exact, "{said:?}");
        assert!(said.stdout.contains("would draw from"), "{said:?}");
        let replay: Value = serde_json::from_str(&operator.says(&ask).stdout).unwrap();
        assert_eq!(replay["replay"]["approval"].is_string(), exact, "{replay}");
    }
}

/// Finding 14 of a fresh reader: the hint named an option that `audit search` did not have.
#[test]
fn a_request_is_found_in_the_log_by_the_command_that_explain_names() {
    let operator = Operator::new();
    let log = logged("9e443fd60c2722d5", |entry| entry.mcp_method = Some("tools/list".into()));
    let said = operator.says(&["explain", "--request", "req-7", "--log", log.path()]);
    assert_eq!((said.status, said.stdout.as_str()), (2, ""), "{said:?}");
    let said: Value = serde_json::from_str(&said.stderr).unwrap();
    let next = said["error"]["next"].as_str().unwrap();
    let words = next.strip_prefix("portcullis ").unwrap().split_whitespace();
    let words: Vec<&str> =
        words.take(5).map(|it| if it == "LOG" { log.path() } else { it }).collect();
    let found = operator.says(&words);
    assert_eq!(found.status, 0, "{found:?}");
    assert!(found.stdout.contains("tools/list"), "{found:?}");
}

/// Finding 17 of a fresh reader: "the role has no such connector" of a role that does not exist.
#[test]
fn a_role_that_the_policy_does_not_have_is_named_with_the_nearest() {
    let said = explain("agnet", "balance", &json!({}), &["--connector", "bank"]);
    assert_eq!(said.status, 1, "{said:?}");
    let told = "the policy has no role agnet; its roles are agent, reader; did you mean agent?";
    assert!(said.stdout.contains(told), "{said:?}");
    assert!(!explain("agent", "balance", &json!({}), &[]).stdout.contains("has no role"));
}

/// Task 10: `explain` could not say why a call that was made was refused. Proves: X4
#[test]
fn a_call_of_the_audit_log_is_explained_by_its_request_id() {
    let operator = Operator::new();
    let pushed = operator.says(&["policy", "push", &file("rules.yaml"), "--reason", "r"]).json();
    let arguments = r#"{"amount":500}"#;
    let log = logged(pushed["version"].as_str().unwrap(), |entry| {
        entry.tool_name = Some("transfer".into());
        entry.input = Some(arguments.to_owned());
        entry.decision.rule = "connectors.bank.tools.transfer.conditions[0]".into();
    });
    let ask =
        |request: &str| operator.plainly(&["explain", "--request", request, "--log", log.path()]);
    let said = ask("req-7");
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        said.stdout.starts_with("deny by connectors.bank.tools.transfer.conditions[0]\n"),
        "{said:?}"
    );
    assert!(said.stdout.contains("arguments.amount <= 100 is false"), "{said:?}");
    let told = "the log has status denied at 2027-01-04T12:00:00";
    assert!(said.stdout.contains(told), "{said:?}");
    assert!(said.stdout.contains("by the policy of that time: the same"), "{said:?}");
    assert!(!said.stdout.contains("not replayed"), "{said:?}");
    assert!(said.stdout.contains("decided by the first tier"), "no such key: {said:?}");
    assert!(ask("req-8").stderr.contains("no call of a tool has the request id req-8"));
}
