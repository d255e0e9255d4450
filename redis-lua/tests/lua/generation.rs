//! The generation of an organisation: every change increases it, and every admission returns it.

use portcullis_redis_lua::{
    AcceptRestore, Admit, AdmitReply, DenialState, Expected, Generation, Guard, GuardState, Key,
    Note, NotedReply, PutDenial, PutPolicy, PutRecord, Stamp,
};

use crate::ledger::{now_us, window};
use crate::valkey::{Valkey, run};

fn admit(policy: Expected) -> Admit {
    let record = Guard { key: Key::record("acme", "a1"), expected: Expected::Absent };
    let policy = Guard { key: Key::policy("acme"), expected: policy };
    Admit {
        guards: vec![record, policy],
        windows: vec![window("calls", 5, 1_000, 1)],
        used: None,
        intent: None,
    }
}

fn stamp(connection: &mut redis::Connection, admit: &Admit) -> (AdmitReply, Stamp) {
    let reply = run(connection, &admit.call());
    let (reply, stamp) = admit.decode_stamped(reply).expect("the promised form");
    (reply, stamp.expect("a stamp"))
}

/// Finding 9.5: a gateway could not distinguish a restored copy of Redis from the later state.
#[test]
fn every_change_of_a_key_a_policy_or_a_denial_makes_it_grow_and_every_reply_tells_it() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let absent = admit(Expected::Absent);
    let (reply, before) = stamp(&mut connection, &absent);
    assert!(matches!(reply, AdmitReply::Admitted(_)));
    assert_eq!(before.generation, Generation::default());
    let now = u128::from(now_us(&mut connection));
    assert!(now - before.time.as_micros() < 60_000_000, "Redis's own clock");

    let policy = PutPolicy {
        org: "acme",
        expected: None,
        rev: "v1",
        doc: "{}",
        last_entry: None,
        entry: "1",
    };
    run(&mut connection, &policy.call());
    let (reply, after) = stamp(&mut connection, &absent);
    let present = GuardState::Present { rev: "v1".into(), doc: b"{}".to_vec() };
    assert_eq!(reply, AdmitReply::Stale(vec![GuardState::Current, present]));
    assert_eq!(after.generation, Generation::new(1));

    let record = PutRecord {
        org: "acme",
        id: "a2",
        expected: Expected::Absent,
        doc: "{}",
        last_entry: Some(b"1"),
        entry: "2",
    };
    run(&mut connection, &record.call());
    let denial = Key::denied("acme", "token", "0a1b");
    let note = |last_entry, entry| Note { last_entry: Some(last_entry), entry };
    let denied = DenialState::Denied { rev: "r", doc: "{}" };
    for (state, note) in [(denied, note(b"2", "3")), (DenialState::Allowed, note(b"3", "4"))] {
        run(&mut connection, &PutDenial { org: "acme", denial: &denial, state, note }.call());
    }
    // Of two writers that read the same state, one is first; the other changes nothing.
    run(&mut connection, &record.call());
    let known = admit(Expected::Revision("v1".into()));
    let (reply, after) = stamp(&mut connection, &known);
    assert!(matches!(reply, AdmitReply::Admitted(_)), "{reply:?}");
    assert_eq!(after.generation, Generation::new(4));

    let accept = AcceptRestore { org: "acme", note: note(b"4", "5") };
    let done = NotedReply::decode(run(&mut connection, &accept.call())).expect("a reply");
    assert_eq!(done, NotedReply::Done);
    let again = NotedReply::decode(run(&mut connection, &accept.call())).expect("a reply");
    assert_eq!(again, NotedReply::Conflict, "the chain has another end");
    let (_, accepted) = stamp(&mut connection, &known);
    assert!(accepted.generation.is_restored_since(after.generation));
    assert!(!after.generation.is_restored_since(Generation::default()));
    let note = note(b"5", "6");
    run(&mut connection, &PutDenial { org: "acme", denial: &denial, state: denied, note }.call());
    let (_, later) = stamp(&mut connection, &known);
    assert!(later.generation > accepted.generation);
    assert!(!later.generation.is_restored_since(accepted.generation));
}
