//! A session or task that a server handed out belongs to one holder.

use std::time::Duration;

use portcullis_redis_lua::{
    Admit, AdmitReply, Bind, BindReply, Expected, Guard, GuardState, Key, ScriptCall,
};
use redis::Commands as _;

use crate::valkey::{Valkey, run};

// Proves: X17
#[test]
fn the_first_holder_keeps_it_and_it_guards_admissions_until_it_expires() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let key = Key::binding("acme", "session", "0a1b");
    let bind = |holder: &str| Bind {
        key: key.clone(),
        holder: holder.into(),
        life: Duration::from_secs(60),
    };
    let mut ask = |call: &ScriptCall| run(&mut connection, call);

    assert_eq!(Bind::decode(ask(&bind("k1").call())), Ok(BindReply::Bound));
    assert_eq!(Bind::decode(ask(&bind("k2").call())), Ok(BindReply::Foreign));
    assert_eq!(Bind::decode(ask(&bind("k1").call())), Ok(BindReply::Bound));

    for (holder, admitted) in [("k1", true), ("k2", false)] {
        let expected = Expected::Revision(holder.into());
        let guard = Guard { key: key.clone(), expected };
        let admit = Admit { guards: vec![guard], windows: vec![], used: None, intent: None };
        let reply = admit.decode(ask(&admit.call())).unwrap();
        let moved = vec![GuardState::Present { rev: "k1".into(), doc: vec![] }];
        let told = if admitted { AdmitReply::Admitted(vec![]) } else { AdmitReply::Stale(moved) };
        assert_eq!(reply, told, "{holder}");
    }
    let life: i64 = connection.pttl(key.as_str()).unwrap();
    assert!((1..=60_000).contains(&life), "{life}");
}
