//! The recorded state of tools guards admissions, until it expires.

use std::time::Duration;

use portcullis_redis_lua::{Admit, AdmitReply, Expected, Guard, GuardState, Key, Observe};
use redis::Commands as _;

use crate::valkey::{Valkey, run};

// Proves: X5
#[test]
fn the_last_list_decides_for_every_gateway() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let keys = ["0a", "0b"].map(|digest| Key::observed("acme", digest));
    let admit = |expected: Expected| Admit {
        guards: vec![Guard { key: keys[1].clone(), expected }],
        windows: vec![],
        used: None,
        intent: None,
    };
    let same = || Expected::Revision("same".into());
    for (states, now, expected, passes) in [
        (["same", "same"], "same", same(), true),
        (["same", "breaking"], "breaking", same(), false),
        (["breaking", "same"], "same", same(), true),
    ] {
        let tools = keys.iter().cloned().zip(states.map(str::to_owned)).collect();
        let observe = Observe { tools, life: Duration::from_secs(60), at: 7 };
        let _ = run(&mut connection, &observe.call());
        let admit = admit(expected);
        let reply = admit.decode(run(&mut connection, &admit.call())).unwrap();
        // When the list was seen, for gateways that saw another list.
        let moved = vec![GuardState::Present { rev: now.into(), doc: b"7".to_vec() }];
        let told = if passes { AdmitReply::Admitted(vec![]) } else { AdmitReply::Stale(moved) };
        assert_eq!(reply, told, "{states:?}");
    }
    for key in keys {
        let life: i64 = connection.pttl(key.as_str()).unwrap();
        assert!((1..=60_000).contains(&life), "{life}");
    }
}
