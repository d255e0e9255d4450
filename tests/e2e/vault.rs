//! Connector credentials: from Vault to the upstream, and nowhere else.

use std::fs;
use std::time::{Duration, Instant};

use portcullis_stack::{CREDENTIAL_FIELD, CREDENTIAL_PATH, Stack, ready};
use portcullis_tests::fake::{FakeUpstream, json_answer};
use portcullis_tests::gateway::sent_header;
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::{Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["vault":
        upstream_gets_the_credential_from_vault_and_never_the_clients_own,
        credential_goes_into_the_header_and_form_that_the_policy_says,
        vault_records_the_fetch_and_is_not_asked_for_every_call,
        secret_that_is_not_there_refuses_the_call,
        rotated_credential_is_picked_up_without_a_restart,
        credentials_show_up_in_no_log_and_no_configuration,
        credential_that_a_server_refuses_is_read_again_once_a_second,
    ]
}

fn credential(stack: &Stack) -> String {
    fs::read_to_string(stack.connector.credential_file()).unwrap().trim().to_owned()
}

// Proves: A5, C1
fn upstream_gets_the_credential_from_vault_and_never_the_clients_own(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst").key;
    let message = mcp::call("query_users", json!({})).to_string();
    for request in [
        Request::post(DEMO, message.clone()).bearer(&key),
        Request::post(DEMO, message).header("x-api-key", &key),
    ] {
        let answer = org.gateway.send(&request);
        assert_eq!(answer.rows().len(), 10);
        let upstream = answer.upstream();
        let sent = sent_header(&upstream[0], "authorization");
        assert_eq!(sent, [format!("Bearer {}", credential(world.stack()))]);
        assert!(!upstream[0].to_string().contains(&key), "the client's key went on");
    }
}

/// Puts a value at a path of the test's own and makes it the credential of a connector.
pub(crate) fn with_secret(
    world: &World<'_>,
    connector: &str,
    header: &str,
    template: &str,
    value: &str,
) -> Organisation {
    let stack = world.stack();
    Organisation::with_policy(stack, |policy| {
        let path = format!("connectors/{}", policy["organisations"][0].as_str().unwrap());
        stack.openbao.put_secret(&path, "token", value).unwrap();
        policy["connectors"][connector]["credential"] = json!({
            "secret": format!("vault://secret/{path}#token"), "header": header, "template": template,
        });
    })
}

// Proves: C1
fn credential_goes_into_the_header_and_form_that_the_policy_says(world: &World<'_>) {
    fn head_as_text(request: &str) -> Vec<Vec<u8>> {
        let head = request.split("\r\n\r\n").next().unwrap_or_default();
        let content = json!([{"type": "text", "text": head}]);
        json_answer(&json!({"jsonrpc": "2.0", "id": 1, "result": {"content": content}}).to_string())
    }
    let fake = FakeUpstream::answering(head_as_text);
    let own = world.with_python_as(&fake);
    let org = with_secret(world, "python", "x-upstream-key", "v1:{secret}!", "s3cret");
    let org = org.through(&own.gateway);
    let key = org.key("analyst").key;
    let request = Request::post(PYTHON, mcp::call("echo", json!({"message": "x"})).to_string())
        .bearer(&key)
        .header("x-upstream-key", "the client's idea");
    let result = org.gateway.send(&request).result();
    let head = result["content"][0]["text"].as_str().unwrap();
    let sent: Vec<&str> =
        head.lines().filter_map(|line| line.strip_prefix("x-upstream-key: ")).collect();
    assert_eq!(sent, ["v1:s3cret!"]);
    assert!(!head.contains("authorization"), "{head}");
}

/// The reads of that path in OpenBao's own audit log.
pub(crate) fn fetches(stack: &Stack, path: &str) -> Vec<Value> {
    let text = fs::read_to_string(stack.openbao.audit_log()).unwrap_or_default();
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries
        .filter(|entry| entry["type"] == "response" && entry["request"]["operation"] == "read")
        .filter(|entry| entry["request"]["path"] == path)
        .collect()
}

// Proves: A6
fn vault_records_the_fetch_and_is_not_asked_for_every_call(world: &World<'_>) {
    let stack = world.stack();
    let org = with_secret(world, "demo", "authorization", "Bearer {secret}", &credential(stack));
    let key = org.key("analyst").key;
    let path = format!("secret/data/connectors/{}", org.name);
    assert_eq!(fetches(stack, &path), Vec::<Value>::new());
    for _ in 0..12 {
        assert_eq!(org.call(&key, "query_users", json!({})).rows().len(), 10);
    }
    let seen = fetches(stack, &path);
    assert!((1..=2).contains(&seen.len()), "at most once per worker: {seen:?}");
    for entry in &seen {
        assert_eq!(entry["auth"]["display_name"], "token-portcullis", "{entry}");
        assert!(!entry.to_string().contains(&credential(stack)), "{entry}");
    }
}

// Proves: A5, B2
fn secret_that_is_not_there_refuses_the_call(world: &World<'_>) {
    for reference in [
        "vault://secret/connectors/no-such-path#token",
        "vault://secret/connectors/demo#no_such_field",
        "vault://secret/forbidden/by-vault#token",
    ] {
        let org = Organisation::with_policy(world.stack(), |policy| {
            policy["connectors"]["demo"]["credential"]["secret"] = json!(reference);
        });
        let answer = org.call(&org.key("analyst").key, "query_users", json!({}));
        answer.assert_refused(503, -31_503);
        assert!(answer.header("retry-after").is_some(), "{reference}");
        assert!(!answer.text().contains("vault"), "the client learns no names: {}", answer.text());
    }
}

// Proves: C2
fn rotated_credential_is_picked_up_without_a_restart(world: &World<'_>) {
    let stack = world.own_stack(|options| options.set("VAULT_CACHE_SECONDS", 1));
    let org = Organisation::new(&stack);
    let key = org.key("analyst").key;
    let call = || org.call(&key, "query_users", json!({"limit": 1}));
    assert_eq!(call().rows().len(), 1);
    stack.openbao.put_secret(CREDENTIAL_PATH, CREDENTIAL_FIELD, "the-new-one").unwrap();
    portcullis_stack::files::write_private(stack.connector.credential_file(), "the-new-one")
        .unwrap();
    // Both workers, so: a few successes in a row.
    let mut in_a_row = 0;
    ready::eventually("the new credential", Duration::from_secs(10), || {
        let answer = call();
        in_a_row = if answer.status() == 200 { in_a_row + 1 } else { 0 };
        (in_a_row >= 8).then_some(())
    })
    .unwrap();
    let upstream = call().upstream();
    assert_eq!(sent_header(&upstream[0], "authorization"), ["Bearer the-new-one"]);
}

// Proves: A5, A16, C1, C6
fn credentials_show_up_in_no_log_and_no_configuration(world: &World<'_>) {
    let stack = world.stack();
    let org = world.organisation();
    let key = org.key("analyst").key;
    for tool in ["query_users", "create_note", "delete_user"] {
        org.call(&key, tool, json!({})).audit();
    }
    let secrets = [credential(stack), key];
    let logs = stack.options().logs();
    let mut looked_at = vec![
        ("audit log".to_owned(), fs::read(org.gateway.audit().file()).unwrap()),
        ("config dump".to_owned(), stack.envoy.admin("config_dump").unwrap().body),
        ("stats".to_owned(), stack.envoy.admin("stats").unwrap().body),
    ];
    for entry in fs::read_dir(logs).unwrap() {
        let path = entry.unwrap().path();
        looked_at.push((path.display().to_string(), fs::read(path).unwrap()));
    }
    for (place, bytes) in looked_at {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.is_empty() || place.ends_with(".log"), "{place} is empty");
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{place} contains a credential");
        }
    }
}

// Finding 1.6: a server that answers 401 had Vault read for each call, 98 times for 100.
// Proves: C2
fn credential_that_a_server_refuses_is_read_again_once_a_second(world: &World<'_>) {
    let fake = FakeUpstream::answering(|_| {
        vec![b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_vec()]
    });
    let own = world.with_python_as(&fake);
    let org = with_secret(world, "python", "x-upstream-key", "{secret}", "s3cret");
    let org = org.through(&own.gateway);
    let key = org.key("analyst").key;
    let path = format!("secret/data/connectors/{}", org.name);
    let begun = Instant::now();
    let calls = 60;
    for _ in 0..calls {
        let call = mcp::call("echo", json!({"message": "x"})).to_string();
        let answer = org.gateway.send(&Request::post(PYTHON, call).bearer(&key));
        let refused = (answer.status(), answer.error_code());
        assert_eq!(refused, (503, Some(-31_503)), "{}", answer.text());
    }
    let most = usize::try_from(begun.elapsed().as_secs()).expect("not long") + 2;
    let reads = fetches(world.stack(), &path).len();
    println!("{reads} reads of the credential for {calls} calls in {:?}", begun.elapsed());
    assert!((1..=most).contains(&reads), "{reads} reads in {:?}", begun.elapsed());
}
