//! What a gateway holds for callers who have proved nothing is bounded.

use std::fs;

use portcullis_stack::ready;
use portcullis_tests::organisation::DEMO;
use portcullis_tests::world::{Mode, Workers};
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};
use std::time::Duration;

use super::credentials::forged;

pub(crate) fn cases() -> Vec<Case> {
    cases!["unproven": bodies_of_unproven_callers_are_held_within_bounds]
}

const MIB: usize = 1 << 20;

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default()
}

// Finding 2.2: 200 connections that hold 1 MB bodies with unproven keys took 184 MB.
// Proves: B2, B18
fn bodies_of_unproven_callers_are_held_within_bounds(world: &World<'_>) {
    // Nobody's time is up before all have come.
    let own = world.envoy(Workers::One, |settings| settings.set("REQUEST_TIMEOUT", "60s"));
    let org = world.organisation().through(&own.gateway);
    let key = org.key("analyst");
    assert_eq!(org.call(&key.key, "query_users", json!({"limit": 1})).rows().len(), 1);
    let pid = own.envoy.process().pid();
    let before = resident(pid);
    // A well-formed key that nobody has, and all of a body but its last bytes.
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
    let entries = || {
        // In split mode the key is asked for before the body comes, and nothing is held.
        let limit = match Mode::of_this_run() {
            Mode::Hold => "request.unproven_bytes_per_address",
            Mode::Split => "auth.wrong_secret",
        };
        let entries = own.gateway.audit().entries();
        entries.into_iter().filter(|entry| entry["decision"]["rule"] == limit).count()
    };
    // Four of nearly 1 MiB have room.
    let refused = ready::eventually("the others are refused", Duration::from_secs(20), || {
        (entries() >= 196).then(entries)
    });
    let refused = refused.unwrap_or_else(|fault| panic!("{fault}: {}", entries()));
    match Mode::of_this_run() {
        Mode::Hold => assert_eq!(refused, 196),
        Mode::Split => assert!((196..=200).contains(&refused), "{refused}"),
    }
    let held = resident(pid).saturating_sub(before);
    eprintln!("200 connections with 1 MiB each: {} KiB more", held);
    assert!(held < 60 * 1024, "{held} KiB");
    let reply = wires.pop().unwrap().read_reply();
    if let Ok(reply) = reply {
        let message: Value = serde_json::from_slice(&reply.body).unwrap();
        match Mode::of_this_run() {
            Mode::Hold => {
                assert_eq!((reply.status, &message["error"]["code"]), (429, &json!(-31_429)));
                assert_eq!(reply.header("retry-after").as_deref(), Some("1"));
            }
            Mode::Split => assert_eq!(reply.status, 401),
        }
    }
    // Somebody who was proven here has room all the same, however slow the body comes.
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
    ready::eventually("there is room again", Duration::from_secs(20), || {
        let mut wire = Wire::connect(own.gateway.address()).ok()?;
        wire.write(&[head.as_slice(), &part, &[b' '; 999]].concat()).ok()?;
        (wire.read_reply().ok()?.status == 401).then_some(())
    })
    .unwrap_or_else(|fault| panic!("{fault}"));
}
