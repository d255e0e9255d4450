//! What an operator does to the policy holds at once, on every gateway, under load: no cache window.
//!
//! Two Envoys with two workers each share one Valkey; sixteen clients call without a pause. The moment
//! that counts is the one at which the operator's command has returned.

use std::collections::HashMap;
use std::time::SystemTime;

use portcullis_tests::crowd::{Crowd, Met};
use portcullis_tests::organisation::{DEMO, Organisation};
use portcullis_tests::pair::Pair;
use portcullis_tests::{Case, Request, World, cases, mcp};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["policy":
        no_call_is_decided_on_the_old_version_once_a_rollback_has_returned,
    ]
}

const CLIENTS: usize = 16;
/// Enough to meet both workers of both gateways, in each stretch.
const CALLS_OF_EACH: u64 = 25;

/// What one command did, and when.
struct Done {
    name: &'static str,
    begun: SystemTime,
    returned: SystemTime,
    version: String,
}

impl Done {
    fn of(name: &'static str, command: impl FnOnce() -> Value) -> Self {
        let begun = SystemTime::now();
        let said = command();
        let version = said["version"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned();
        Self { name, begun, returned: SystemTime::now(), version }
    }
}

// Proves: A26, X4
fn no_call_is_decided_on_the_old_version_once_a_rollback_has_returned(world: &World<'_>) {
    let pair = Pair::start(world);
    let org = Organisation::new(&pair.stack);
    let key = org.key("analyst");
    let mut strict = org.standard_policy();
    strict["roles"]["analyst"]["demo"]["allow"] = json!(["query_users", "search_contacts"]);
    let operate =
        |arguments: &[&str]| org.operator.json(arguments).unwrap_or_else(|fault| panic!("{fault}"));
    let first = operate(&["policy", "show"])["version"].as_str().unwrap().to_owned();

    let request = || {
        let message = mcp::call("get_dashboard_metrics", json!({}));
        Request::post(DEMO, message.to_string()).bearer(&key.key)
    };
    let (met, done) = Crowd::calls_during(&pair.gateways.each_ref(), CLIENTS, request, |crowd| {
        crowd.each_makes(CALLS_OF_EACH);
        let pushed = Done::of("push", || org.push(&strict));
        crowd.each_makes(CALLS_OF_EACH);
        let back = Done::of("rollback", || operate(&["policy", "rollback", "--reason", "strict"]));
        crowd.each_makes(CALLS_OF_EACH);
        [pushed, back]
    });
    assert_eq!((done[0].version != first, &done[1].version), (true, &first));

    let entries = pair.assert_evidence(&key.id, &met);
    let versions: HashMap<&str, &str> = entries
        .iter()
        .map(|entry| ["request_id", "policy_version"].map(|field| entry[field].as_str().unwrap()))
        .map(<(&str, &str)>::from)
        .collect();
    for met in &met {
        let version = decided(met, &versions);
        // What the client saw is what that version says, and there is no third way.
        let expected = if version == first { (200, 0) } else { (200, -32_602) };
        assert_eq!((met.reply.status, met.code()), expected, "{met:?}");
    }
    report(&met, &versions, &done, &first);
    for gateway in 0..2 {
        let of_gateway = || met.iter().filter(|met| met.gateway == gateway);
        // From the return of a command to the beginning of the next one there is one version.
        let stretches = [
            (SystemTime::UNIX_EPOCH, done[0].begun, &first),
            (done[0].returned, done[1].begun, &done[0].version),
            (done[1].returned, SystemTime::now(), &first),
        ];
        for (from, to, version) in stretches {
            let within = of_gateway().filter(|met| met.sent >= from && met.received < to);
            let decided: Vec<_> = within.map(|met| decided(met, &versions)).collect();
            assert!(decided.len() > CLIENTS, "gateway {gateway} was called: {}", decided.len());
            let other = decided.iter().filter(|decided| *decided != version).count();
            assert_eq!(other, 0, "calls at gateway {gateway} decided on another than {version}");
        }
    }
}

/// The version that decided, as the audit log has it.
fn decided<'a>(met: &Met, versions: &HashMap<&str, &'a str>) -> &'a str {
    let id = met.reply.header("x-portcullis-request-id").expect("a request id");
    versions.get(id.as_str()).unwrap_or_else(|| panic!("no entry of {id}"))
}

fn report(met: &[Met], versions: &HashMap<&str, &str>, done: &[Done; 2], first: &str) {
    let count = |what: &dyn Fn(&Met) -> bool| {
        let (mut old, mut new) = (0, 0);
        for met in met.iter().filter(|met| what(met)) {
            *(if decided(met, versions) == first { &mut old } else { &mut new }) += 1;
        }
        format!("{} calls ({old} on the first version, {new} on the second)", old + new)
    };
    println!("{CLIENTS} clients, 2 gateways: {}, none failed but by policy", count(&|_| true));
    for Done { name, begun, returned, .. } in done {
        let took = returned.duration_since(*begun).unwrap_or_default();
        let during = count(&|met| met.received >= *begun && met.sent < *returned);
        println!("  {name} took {took:?}; under way meanwhile: {during}");
        println!("  begun after {name} had returned: {}", count(&|met| met.sent >= *returned));
    }
}
