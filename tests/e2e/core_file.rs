//! What a core file of Envoy would hold of credentials: of those in use, and of those that were replaced.

use std::fs;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_stack::{known_secrets, ready};
use portcullis_tests::fake::{FakeUpstream, json_answer};
use portcullis_tests::memory::copies_in_modules;
use portcullis_tests::organisation::{Organisation, PYTHON};
use portcullis_tests::world::Workers;
use portcullis_tests::{Case, Request, World, cases, mcp};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    cases!["core_file":
        no_core_file_is_written_of_a_gateway,
        a_credential_that_was_replaced_is_in_no_memory_of_the_module,
    ]
}

// What starts the gateway of `up`, the demo and this suite gives it no room for a core file.
fn no_core_file_is_written_of_a_gateway(world: &World<'_>) {
    let own = world.envoy(Workers::One, |settings| settings);
    let pid = own.envoy.process().pid();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"]);
}

/// Says back nothing of what it got.
fn answer(_: &str) -> Vec<Vec<u8>> {
    let content = json!([{"type": "text", "text": "done"}]);
    json_answer(&json!({"jsonrpc": "2.0", "id": 1, "result": {"content": content}}).to_string())
}

// Proves: A5, X12
fn a_credential_that_was_replaced_is_in_no_memory_of_the_module(world: &World<'_>) {
    let stack = world.stack();
    let fake = FakeUpstream::answering(answer);
    let own = world.envoy(Workers::One, |settings| {
        settings.set("VAULT_CACHE_SECONDS", 1).python(fake.address())
    });
    let mut path = String::new();
    let org = Organisation::with_policy(stack, |policy| {
        path = format!("connectors/core-{}", policy["organisations"][0].as_str().unwrap());
        policy["connectors"]["python"]["credential"] = json!({
            "secret": format!("vault://secret/{path}"),
            "headers": {"authorization": "Bearer {token}", "x-account": "Basic {base64(user:token)}"},
            "query": {"key": "{token}"}, "echo": "mask",
        });
    });
    let org = org.through(&own.gateway);
    let (key, path) = (org.key("analyst").key, path);
    let user = |token: &str| token[9..].split("-Z").next().unwrap().to_owned();
    let put = |token: &str| {
        let fields = json!({"data": {"user": user(token), "token": token}});
        stack.openbao.call("POST", &format!("secret/data/{path}"), &fields).unwrap();
        known_secrets::note(token, "the trial of core files");
    };
    let call = || {
        let call = mcp::call("echo", json!({"message": "x"})).to_string();
        let answer = org.gateway.send(&Request::post(PYTHON, call).bearer(&key));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let sent = fake.requests().pop().unwrap();
        sent.split("Bearer ").nth(1).unwrap().lines().next().unwrap().to_owned()
    };
    // As long as a token, and unlike every other text; a slash, so that its forms in JSON and in a query differ.
    let token =
        |number: u32| format!("replaced/credential-{number}-{}-{}", org.name, "Zq3vX9".repeat(100));
    let tokens = [1, 2, 3].map(token);
    for token in &tokens {
        put(token);
        let used = || (call() == *token).then_some(());
        ready::eventually("the credential", Duration::from_secs(20), used).unwrap();
        (0..20).for_each(|_| assert_eq!(call(), *token));
    }
    let base64 =
        |token: &str| STANDARD.encode(format!("{}:{token}", user(token)))[40..200].to_owned();
    let [first, second, live] = &tokens;
    // The short text is a part of the token, too, and of the query. What is short has more places to hide than what is
    // long, such as the state of a digest.
    let texts = [user(first), base64(first), user(second), base64(second), user(live)];
    let texts = texts.each_ref().map(String::as_str);
    let found = copies_in_modules(own.envoy.process().pid(), texts).unwrap();
    println!("of those that were replaced, and the one in use: {found:?}");
    // The search finds what is there.
    assert!(found[4] >= 2, "{found:?}");
    assert_eq!(found[..4], [0; 4]);
}
