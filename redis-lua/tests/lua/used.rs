//! Recording a use: when the script records it, what it writes, and that it writes nothing without one.

use portcullis_redis_lua::{Admit, AdmitReply, Expected, Guard, Key, Use, Window};
use redis::Commands as _;

use crate::ledger::{now_us, window};
use crate::valkey::{Valkey, run};

const DAY_MS: i64 = 86_400_000;

fn admit(expected: Expected, windows: Vec<Window>, field: &str) -> Admit {
    let used = Use { key: Key::used("acme", "a1"), field: field.into() };
    let guard = Guard { key: Key::record("acme", "a1"), expected };
    Admit { guards: vec![guard], windows, used: Some(used), intent: None }
}

#[test]
fn a_use_is_noted_unless_a_guard_moved() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let used = Key::used("acme", "a1");
    let one = || vec![window("calls", 1, 60_000_000, 1)];

    let moved = admit(Expected::Revision("7".into()), one(), "s1");
    let reply = moved.decode(run(&mut connection, &moved.call())).unwrap();
    assert!(matches!(reply, AdmitReply::Stale(_)), "{reply:?}");
    assert!(!connection.exists::<_, bool>(used.as_str()).unwrap(), "a guard moved");

    let before = now_us(&mut connection) / 1_000_000;
    for (windows, field) in [(one(), "s1"), (one(), "s2"), (vec![], "s3")] {
        let admit = admit(Expected::Absent, windows, field);
        let reply = admit.decode(run(&mut connection, &admit.call())).unwrap();
        let expected = match field {
            "s2" => matches!(reply, AdmitReply::Limited { .. }),
            _ => matches!(reply, AdmitReply::Admitted(_)),
        };
        assert!(expected, "{field}: {reply:?}");
    }
    let after = now_us(&mut connection) / 1_000_000;
    let mut noted: Vec<(String, u64)> = connection.hgetall(used.as_str()).unwrap();
    noted.sort();
    let fields: Vec<&str> = noted.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(fields, ["s1", "s2", "s3"]);
    assert!(noted.iter().all(|(_, at)| (before..=after).contains(at)), "{noted:?}");

    let left: i64 = connection.pttl(used.as_str()).unwrap();
    assert!(left > 90 * DAY_MS - 10_000 && left <= 90 * DAY_MS + 1, "{left}");
}

#[test]
fn nothing_is_noted_unless_asked() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    for used in [None, Some(Use { key: Key::used("acme", "a1"), field: String::new() })] {
        let windows = vec![window("calls", 5, 60_000_000, 1)];
        let admit = Admit { guards: vec![], windows, used, intent: None };
        let reply = admit.decode(run(&mut connection, &admit.call())).unwrap();
        assert!(matches!(reply, AdmitReply::Admitted(_)), "{reply:?}");
    }
    let keys: Vec<String> = connection.keys("*").unwrap();
    assert_eq!(keys, [window("calls", 5, 60_000_000, 1).key.to_string()]);
}
