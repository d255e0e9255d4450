//! What a gateway holds for callers who have proved nothing is bounded.

use portcullis_stack::ready;
use portcullis_tests::organisation::DEMO;
use portcullis_tests::world::{OwnEnvoy, Workers};
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};
use std::time::Duration;

use super::credentials::forged;

pub(crate) fn cases() -> Vec<Case> {
    cases!["unproven": bodies_of_unproven_callers_are_held_within_bounds]
}

const MIB: usize = 1 << 20;

/// Bytes that Envoy holds now. What the process has from the system says how much it once held: its allocator
/// keeps it, and one read of a socket takes as much as a connection may buffer.
fn allocated(own: &OwnEnvoy) -> u64 {
    let page = own.envoy.admin("memory").expect("Envoy's memory").body;
    let page: Value = serde_json::from_slice(&page).expect("JSON");
    page["allocated"].as_str().and_then(|bytes| bytes.parse().ok()).expect("a number")
}

// Finding 2.2: 200 connections that hold 1 MB bodies with unproven keys took 184 MB.
// Proves: B2, B18
fn bodies_of_unproven_callers_are_held_within_bounds(world: &World<'_>) {
    // No caller's time is up before all have come.
    let own = world.envoy(Workers::One, |settings| settings.set("REQUEST_TIMEOUT", "300s"));
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst");
    assert_eq!(org.call(&key.key, "query_users", json!({"limit": 1})).rows().len(), 1);
    let before = allocated(&own);
    // A well-formed key that does not exist, and all of a body but its last bytes.
    let request = Request::post(DEMO, vec![b' '; MIB - 1]).bearer(&forged(&org.name, &key.id));
    let head = request.head(Some(MIB - 1));
    let part = vec![b' '; MIB - 1_000];
    let open = || {
        let mut wire = Wire::connect(own.gateway.address()).unwrap();
        // Refused in the middle of it: the gateway may have closed by then.
        let _ = wire.write(&head).and_then(|()| wire.write(&part));
        wire
    };
    let mut wires: Vec<Wire> = (0..200).map(|_| open()).collect();
    let entries = |rules: &[&str]| {
        let entries = own.gateway.audit().entries();
        let rule = |entry: &Value| entry["decision"]["rule"].as_str().map(str::to_owned);
        entries.iter().filter_map(rule).filter(|rule| rules.contains(&rule.as_str())).count()
    };
    // The key is asked for before the body is whole: some learn that it is wrong, and give their room to others.
    let rules = ["request.unproven_bytes_per_address", "auth.wrong_secret"];
    // Four of nearly 1 MiB have room.
    let refused = ready::eventually("the others are refused", Duration::from_secs(60), || {
        (entries(&rules) >= 196).then(|| entries(&rules))
    });
    let refused = refused.unwrap_or_else(|fault| panic!("{fault}: {}", entries(&rules)));
    assert!((196..=200).contains(&refused), "{refused}");
    // A refused connection is closed a second later, and lets go of what was read of it.
    let held = || allocated(&own).saturating_sub(before) >> 10;
    let bounded = ready::eventually("what is held is bounded", Duration::from_secs(60), || {
        Some(held()).filter(|held| *held < 20 << 10)
    });
    let bounded = bounded.unwrap_or_else(|fault| panic!("{fault}: {} KiB", held()));
    eprintln!("200 connections with 1 MiB each: {bounded} KiB more");
    let reply = wires.pop().unwrap().read_reply();
    if let Ok(reply) = reply {
        let message: Value = serde_json::from_slice(&reply.body).unwrap();
        match reply.status {
            429 => {
                assert_eq!(message["error"]["code"], -31_429);
                assert_eq!(reply.header("retry-after").as_deref(), Some("1"));
            }
            401 => {}
            status => panic!("{status}"),
        }
    }
    // A caller who was proven here has room all the same, however slow the body comes.
    let text = mcp::call("query_users", json!({"limit": 1, "name_contains": "x".repeat(200_000)}));
    let request = Request::post(DEMO, text.to_string()).bearer(&key.key);
    let bytes = request.bytes();
    let mut wire = Wire::connect(own.gateway.address()).unwrap();
    for piece in bytes.chunks(50_000) {
        wire.write(piece).unwrap();
    }
    assert_eq!(wire.read_reply().unwrap().status, 200);
    // What is let go makes room again.
    drop(wires);
    ready::eventually("there is room again", Duration::from_secs(60), || {
        let mut wire = Wire::connect(own.gateway.address()).ok()?;
        wire.write(&[head.as_slice(), &part, &[b' '; 999]].concat()).ok()?;
        (wire.read_reply().ok()?.status == 401).then_some(())
    })
    .unwrap_or_else(|fault| panic!("{fault}"));
}
