//! What an operator does to a key holds at once, on every gateway, under load: no cache window.
//!
//! Two Envoys with two workers each share one Valkey; sixteen clients call without a pause. The moment
//! that counts is the one at which the operator's command has returned.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_stack::{IssuedKey, OpenBao, Stack};
use portcullis_tests::crowd::{Crowd, Met};
use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::pair::Pair;
use portcullis_tests::{Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["keys":
        no_call_is_admitted_anywhere_once_the_command_has_returned,
        a_key_is_rotated_and_redeployed_under_load_without_one_failed_call,
        the_first_use_is_noted_without_a_window_too,
        a_key_works_only_from_its_addresses,
        a_key_may_do_less_than_its_role,
    ]
}

const CLIENTS: usize = 16;
/// Enough to meet both workers of both gateways, before and after.
const CALLS_OF_EACH: u64 = 12;

/// Every call of the crowd with that key, and when `command` had returned.
fn while_called(
    pair: &Pair,
    key: &IssuedKey,
    tool: &str,
    command: impl FnOnce(),
) -> (Vec<Met>, SystemTime) {
    let request = || call(&key.key, tool);
    Crowd::calls_during(&pair.gateways.each_ref(), CLIENTS, request, |crowd| {
        crowd.each_makes(CALLS_OF_EACH);
        command();
        let returned = SystemTime::now();
        crowd.each_makes(CALLS_OF_EACH);
        returned
    })
}

fn call(key: &str, tool: &str) -> Request {
    let arguments = match tool {
        "create_note" => json!({"title": "a note", "body": "of the crowd"}),
        _ => json!({}),
    };
    Request::post(DEMO, mcp::call(tool, arguments).to_string()).bearer(key)
}

/// All calls were admitted until the change, and none that was sent from `moment` on.
fn assert_nothing_after(met: &[Met], moment: SystemTime, refusal: (u16, i64)) {
    for gateway in 0..2 {
        let of_gateway: Vec<&Met> = met.iter().filter(|met| met.gateway == gateway).collect();
        let before = of_gateway.iter().filter(|met| met.received < moment && met.is_admitted());
        assert!(before.count() > CLIENTS, "the key worked at gateway {gateway} before");
        let after: Vec<_> = of_gateway.iter().filter(|met| met.sent >= moment).collect();
        assert!(after.len() > CLIENTS, "gateway {gateway} was called afterwards");
        for met in after {
            assert!(!met.is_admitted(), "gateway {gateway} admitted a call afterwards: {met:?}");
            assert_eq!((met.reply.status, met.code()), refusal, "{met:?}");
        }
    }
    for met in met.iter().filter(|met| !met.is_admitted()) {
        assert_eq!((met.reply.status, met.code()), refusal, "refused for another reason: {met:?}");
    }
}

fn operate(org: &Organisation, arguments: &[&str]) -> Value {
    let changes = matches!(arguments, ["key", "set" | "rotate" | "revoke" | "issue", ..]);
    let reason: &[&str] = match changes && !arguments.contains(&"--reason") {
        true => &["--reason", "a test"],
        false => &[],
    };
    org.operator.json(&[arguments, reason].concat()).unwrap_or_else(|fault| panic!("{fault}"))
}

// Proves: A21, X2
fn no_call_is_admitted_anywhere_once_the_command_has_returned(world: &World<'_>) {
    let pair = Pair::start(world);
    let org = Organisation::new(&pair.stack);
    let metrics = "get_dashboard_metrics";
    for (role, tool, command, refusal) in [
        ("analyst", metrics, &["revoke", "--reason", "leaked"][..], (401, -31_401)),
        // From all tools to a few, of which this is shown but refused, or not even shown.
        ("admin", "create_note", &["set", "--role", "analyst"], (403, -31_403)),
        ("admin", metrics, &["set", "--tools", "query_*"], (200, -32_602)),
        ("analyst", metrics, &["set", "--connectors", "python"], (403, -31_403)),
        ("analyst", metrics, &["set", "--sources", "192.0.2.0/24"], (403, -31_403)),
        ("analyst", metrics, &["set", "--expires", "0s"], (401, -31_401)),
        ("analyst", metrics, &["rotate", "--overlap", "0s"], (401, -31_401)),
    ] {
        let key = org.key(role);
        let arguments = [&["key", command[0], &key.id][..], &command[1..]].concat();
        let (met, returned) = while_called(&pair, &key, tool, || drop(operate(&org, &arguments)));
        assert_nothing_after(&met, returned, refusal);
        pair.assert_evidence(&key.id, &met);
    }
    // What is still to come holds from its first second on, without a further command.
    for (verb, option, told) in [
        ("set", "--expires", "/record/expires_at"),
        ("rotate", "--overlap", "/record/rotated/overlap_until"),
    ] {
        let key = org.key("analyst");
        let end = Cell::new(UNIX_EPOCH);
        let (met, _) = while_called(&pair, &key, metrics, || {
            let said = operate(&org, &["key", verb, &key.id, option, "2s"]);
            end.set(second(said.pointer(told).expect("an end")));
            until(end.get());
        });
        assert_nothing_after(&met, end.get(), (401, -31_401));
        for met in met.iter().filter(|met| met.received < end.get()) {
            assert!(met.is_admitted(), "{verb}: refused before its end: {met:?}");
        }
        pair.assert_evidence(&key.id, &met);
    }
}

// Proves: A22, A24, B5, C2, C12, X3
fn a_key_is_rotated_and_redeployed_under_load_without_one_failed_call(world: &World<'_>) {
    let pair = Pair::start(world);
    let org = Organisation::new(&pair.stack);
    let (old, bystander) = (org.key("analyst"), org.key("analyst"));
    let mounted = Mounted::new(&pair.stack);
    mounted.deploy(&old.key);
    let request = || call(&mounted.key(), "get_dashboard_metrics");
    let gateways = pair.gateways.each_ref();
    let (met, (new, end)) = Crowd::calls_during(&gateways, CLIENTS, request, |crowd| {
        crowd.each_makes(CALLS_OF_EACH);
        let arguments = ["key", "rotate", &old.id, "--overlap", "6s", "--reason", "monthly"];
        let rotated = operate(&org, &arguments);
        let end = second(&rotated["record"]["rotated"]["overlap_until"]);
        // The new key works before anybody has it, the old one still does.
        crowd.each_makes(CALLS_OF_EACH);
        let new = rotated["key"].as_str().expect("a key").to_owned();
        mounted.deploy(&new);
        crowd.each_makes(CALLS_OF_EACH);
        assert!(SystemTime::now() < end, "too slow a machine for this overlap");
        until(end);
        crowd.each_makes(CALLS_OF_EACH);
        (new, end)
    });
    let failed: Vec<&Met> = met.iter().filter(|met| !met.is_admitted()).collect();
    assert!(failed.is_empty(), "{} of {} calls failed: {:?}", failed.len(), met.len(), failed[0]);
    let after = met.iter().filter(|met| met.sent >= end).count();
    assert!(after > CLIENTS, "only {after} calls after the overlap");
    pair.assert_evidence(&old.id, &met);

    for gateway in &pair.gateways {
        for _ in 0..6 {
            let there = org.through(gateway);
            let answer = there.call(&old.key, "get_dashboard_metrics", json!({}));
            answer.assert_refused(401, -31_401);
            assert_eq!(answer.audit()["decision"]["rule"], "auth.rotated_out");
            assert_eq!(there.call(&new, "get_dashboard_metrics", json!({})).rows().len(), 6);
            let other = there.call(&bystander.key, "get_dashboard_metrics", json!({}));
            assert_eq!(other.status(), 200, "another key was touched");
        }
    }
    // When both were last used is known, and that the old one was in use until late.
    let shown = operate(&org, &["key", "show", &old.id])["record"].clone();
    for secret in [&shown["secrets"][0], &shown["secrets"][1]] {
        assert!(secret["last_used"].is_string(), "{shown}");
    }
    assert!(shown["warnings"][0].as_str().is_some_and(|w| w.contains("locked out")), "{shown}");
    let chain = operate(&org, &["audit", "show", "--admin", "--key", &old.id])["entries"].clone();
    let told = ["action", "reason"].map(|field| chain[0][field].clone());
    assert_eq!(told, [json!("key.rotate"), json!("monthly")], "{chain}");
    operate(&org, &["audit", "verify", "--admin"]);
}

fn the_first_use_is_noted_without_a_window_too(world: &World<'_>) {
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["tiers"]["unlimited"] = json!({"limits": {}});
    });
    let key = org.key_in("analyst", "unlimited");
    let secrets = || operate(&org, &["key", "show", &key.id])["record"]["secrets"].clone();
    assert_eq!(secrets()[0]["last_used"], Value::Null);
    assert_eq!(org.call(&key.key, "query_users", json!({"limit": 1})).status(), 200);
    assert!(secrets()[0]["last_used"].is_string(), "{}", secrets());
    // The warning about a client with the old secret rests on uses after the rotation.
    let rotated = operate(&org, &["key", "rotate", &key.id, "--overlap", "1h"]);
    let at = second(&rotated["record"]["rotated"]["at"]);
    until(at + Duration::from_secs(1));
    assert_eq!(org.call(&key.key, "query_users", json!({"limit": 1})).status(), 200);
    let secrets = secrets();
    let times = secrets.as_array().expect("secrets").iter().map(|secret| &secret["last_used"]);
    let used: Vec<SystemTime> = times.filter(|time| time.is_string()).map(second).collect();
    assert!(matches!(used[..], [old] if old > at), "{secrets}");
}

fn a_key_works_only_from_its_addresses(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("analyst");
    for (sources, admitted) in
        [("127.0.0.1", true), ("192.0.2.0/24,10.0.0.0/8", false), ("127.0.0.0/8", true)]
    {
        operate(&org, &["key", "set", &key.id, "--sources", sources]);
        for _ in 0..6 {
            let answer = org.post(&key.key, &mcp::list());
            if admitted {
                assert_eq!(answer.status(), 200, "{sources}: {}", answer.text());
                continue;
            }
            answer.assert_refused(403, -31_403);
            assert_eq!(answer.header("www-authenticate"), None, "no other credential would help");
            assert!(!answer.text().contains("192.0.2"), "told from where: {}", answer.text());
            let entry = answer.audit();
            assert_eq!(entry["decision"]["rule"], "auth.source_not_allowed", "{entry}");
            assert_eq!(entry["api_key_id"], json!(key.id), "the secret was right");
        }
    }
    // What a client says about its address is not believed.
    operate(&org, &["key", "set", &key.id, "--sources", "192.0.2.0/24"]);
    let request = Request::post(DEMO, mcp::list().to_string()).bearer(&key.key);
    let answer = org.gateway.send(&request.header("x-forwarded-for", "192.0.2.7"));
    answer.assert_refused(403, -31_403);
}

// Proves: A2
fn a_key_may_do_less_than_its_role(world: &World<'_>) {
    let org = world.organisation();
    let key = org.key("admin");
    let tools = || org.post(&key.key, &mcp::list()).tools();
    assert!(tools().len() > 2);
    operate(&org, &["key", "set", &key.id, "--tools", "query_users,search_*"]);
    let mut left = tools();
    left.sort();
    assert_eq!(left, ["query_users", "search_contacts"]);
    assert_eq!(org.call(&key.key, "query_users", json!({"limit": 1})).rows().len(), 1);
    org.call(&key.key, "create_note", json!({})).assert_refused(200, -32_602);
    // The policy of this organisation states of no tool that it is read-only.
    operate(&org, &["key", "set", &key.id, "--read-only"]);
    assert_eq!(tools(), [""; 0]);
    org.call(&key.key, "query_users", json!({})).assert_refused(200, -32_602);
    operate(&org, &["key", "set", &key.id, "--read-only=off", "--connectors", "python"]);
    let answer = org.call(&key.key, "query_users", json!({}));
    answer.assert_refused(403, -31_403);
}

/// What clients have mounted: a file that is rendered from a secrets manager, as Vault Agent does, and
/// that is read anew for every call, since no agent is restarted for a rotation.
struct Mounted<'a> {
    openbao: &'a OpenBao,
    file: PathBuf,
}

impl<'a> Mounted<'a> {
    const SECRET: &'static str = "agents/cursor";

    fn new(stack: &'a Stack) -> Self {
        Self { openbao: &stack.openbao, file: stack.dir().join("mounted-key") }
    }

    /// Stores the key in OpenBao, and renders what is there.
    fn deploy(&self, key: &str) {
        let stored = self.openbao.put_secret(Self::SECRET, "api_key", key);
        stored.unwrap_or_else(|fault| panic!("{fault}"));
        let path = format!("secret/data/{}", Self::SECRET);
        let read = self.openbao.call("GET", &path, &Value::Null);
        let read = read.unwrap_or_else(|fault| panic!("{fault}")).json();
        let rendered = self.file.with_extension("next");
        let key = read["data"]["data"]["api_key"].as_str().expect("the key in OpenBao");
        std::fs::write(&rendered, key).expect("write a key");
        std::fs::rename(&rendered, &self.file).expect("rename a key");
    }

    fn key(&self) -> String {
        std::fs::read_to_string(&self.file).expect("a mounted key")
    }
}

/// A time that the operator's tool printed.
fn second(told: &Value) -> SystemTime {
    let told: jiff::Timestamp = told.as_str().expect("a time").parse().expect("RFC 3339");
    UNIX_EPOCH + Duration::from_secs(told.as_second().try_into().expect("after 1970"))
}

/// Waits for a moment that the gateway itself goes by.
fn until(moment: SystemTime) {
    if let Ok(left) = moment.duration_since(SystemTime::now()) {
        std::thread::sleep(left);
    }
}
