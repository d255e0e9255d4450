//! put_denial and forget: of two writers that read the same state, one is first; a change and its entry are written
//! together.

use portcullis_redis_lua::{
    DenialState, Forget, Key, Note, NotedReply, PutDenial, Scope, ScriptCall,
};
use redis::Commands as _;

use crate::valkey::{Valkey, run};

// Proves: X4
#[test]
fn a_denial_stands_in_the_list_until_it_is_taken_back() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let denial = Key::denied("acme", "token", "0a1b");
    let mut put = |state, last: Option<&str>, entry| {
        let note = Note { last_entry: last.map(str::as_bytes), entry };
        done(&mut connection, &PutDenial { org: "acme", denial: &denial, state, note }.call())
    };
    let denied = DenialState::Denied { rev: "r1", doc: "{}" };
    assert_eq!(put(denied, Some("nought"), "one"), NotedReply::Conflict, "nothing was noted");
    assert_eq!(put(denied, None, "one"), NotedReply::Done);
    assert_eq!(put(DenialState::Allowed, None, "two"), NotedReply::Conflict);

    let mut connection = valkey.connect();
    let rev: String = connection.hget(denial.as_str(), "rev").expect("a revision");
    let index = Key::denied_index("acme");
    let listed: Vec<String> = connection.smembers(index.as_str()).expect("the list");
    assert_eq!((rev.as_str(), listed), ("r1", vec![denial.to_string()]));

    let note = Note { last_entry: Some(b"one"), entry: "two" };
    let back = PutDenial { org: "acme", denial: &denial, state: DenialState::Allowed, note };
    assert_eq!(done(&mut connection, &back.call()), NotedReply::Done);
    let mut left: Vec<String> = connection.keys("*").expect("all keys");
    left.sort();
    let expected = [Key::admin("acme").to_string(), Key::policy("acme").to_string()];
    assert_eq!(left, expected, "nothing but the chain and the generation is left");
    assert_eq!(chain(&mut connection), ["one", "two"]);
}

// Proves: X4
#[test]
fn windows_are_forgotten_with_a_note_or_not_at_all() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let window = |name| Key::window(Scope::Org("acme"), name, &[]);
    let (first, second, third) = (window("a"), window("b"), window("c"));
    for key in [&first, &second, &third] {
        let _: () = connection.rpush(key.as_str(), 1).expect("a list");
    }
    let keys = [&first, &second];
    let forget = |last_entry, entry| {
        Forget { org: "acme", keys: &keys, note: Note { last_entry, entry } }.call()
    };
    let early = forget(Some(b"nought"), "one");
    assert_eq!(done(&mut connection, &early), NotedReply::Conflict);
    let all: usize = connection.exists(&[first.as_str(), second.as_str()]).expect("a number");
    assert_eq!(all, 2, "nothing is changed");

    assert_eq!(done(&mut connection, &forget(None, "one")), NotedReply::Done);
    let mut left: Vec<String> = connection.keys("*").expect("all keys");
    left.sort();
    assert_eq!(left, [Key::admin("acme").to_string(), third.to_string()]);
    assert_eq!(chain(&mut connection), ["one"]);
}

fn done(connection: &mut redis::Connection, call: &ScriptCall) -> NotedReply {
    NotedReply::decode(run(connection, call)).expect("a reply")
}

fn chain(connection: &mut redis::Connection) -> Vec<String> {
    connection.lrange(Key::admin("acme").as_str(), 0, -1).expect("the chain")
}
