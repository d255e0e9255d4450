//! The intent of a call is in Redis before the call is forwarded; the admission writes it in the same step.

use portcullis_redis_lua::{
    Admit, AdmitReply, ChainEnd, Complete, Expected, Guard, Intent, Key, Scope, Use, Window,
};

use crate::valkey::{Valkey, run};

type Told = Vec<(String, Vec<String>)>;

// Issue 16.
// Proves: B13, A17
#[test]
fn an_intent_is_appended_with_the_admission_and_with_none_that_is_stale() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let key = Key::intents("acme");
    let admit = |expected, used: Option<Use>| Admit {
        guards: vec![Guard { key: Key::policy("acme"), expected }],
        windows: vec![Window {
            key: Key::window(Scope::Org("acme"), "calls", &[]),
            limit: 1,
            length_us: 60_000_000,
            grain_us: 1,
            cost: 1,
            alert: None,
        }],
        used,
        intent: Some(Intent { key: key.clone(), doc: b"what".to_vec() }),
    };
    let mut told = |admit: &Admit| {
        let reply = admit.decode(run(&mut connection, &admit.call())).unwrap();
        let told: Told = redis::cmd("XRANGE")
            .arg(key.as_str())
            .arg("-")
            .arg("+")
            .query(&mut connection)
            .unwrap();
        (reply, told.len())
    };
    let stale = admit(Expected::Revision("1".into()), None);
    assert!(matches!(told(&stale), (AdmitReply::Stale(_), 0)));
    let used = Use { key: Key::used("acme", "a"), field: "f".into() };
    assert!(matches!(told(&admit(Expected::Absent, Some(used))), (AdmitReply::Admitted(_), 1)));
    // A limit may be in shadow mode: then the call goes on.
    assert!(matches!(told(&admit(Expected::Absent, None)), (AdmitReply::Limited { .. }, 2)));
    let entry = ChainEnd { seq: 7, hash: "h".into() };
    let complete = Complete { key: key.clone(), request_id: "r".into(), chain: "c".into(), entry };
    let _ = run(&mut connection, &complete.call());
    let told: Told =
        redis::cmd("XRANGE").arg(key.as_str()).arg("-").arg("+").query(&mut connection).unwrap();
    let fields = ["done", "r", "chain", "c", "seq", "7", "hash", "h"].map(str::to_owned);
    assert_eq!(told[0].1, ["intent", "what"]);
    assert_eq!(told[2].1, fields);
    let life: i64 = redis::cmd("PTTL").arg(key.as_str()).query(&mut connection).unwrap();
    assert!((1..=86_400_000).contains(&life), "{life}");
}
