//! The scripts as files: digests, flags, and what a Redis user with few rights can do with them.

use portcullis_redis_lua::{Admit, AdmitReply, Expected, Guard, Key, PutRecord, SCRIPTS, Value};

use crate::ledger::{self, Draw, draw_from, window};
use crate::valkey::{Valkey, run, send};

#[test]
fn digests_are_what_script_load_says() {
    Valkey::each().for_each(|server| check_digests(&server));
}

fn check_digests(valkey: &Valkey) {
    let mut connection = valkey.connect();
    for script in SCRIPTS {
        let words = ["SCRIPT", "LOAD", script.source].map(|word| word.as_bytes().to_vec());
        assert_eq!(
            send(&mut connection, &words),
            Value::Bulk(script.sha1.as_bytes().to_vec()),
            "write this digest into scripts/{}.lua.sha1",
            script.name
        );
    }
}

#[test]
fn unknown_script_says_noscript_and_eval_cures_it() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let call = draw_from(vec![window("calls", 5, 1_000_000, 1)]).call();
    assert!(send(&mut connection, &call.evalsha()).is_noscript());
    assert!(matches!(send(&mut connection, &call.eval()), Value::Array(_)));
    assert!(matches!(send(&mut connection, &call.evalsha()), Value::Array(_)));
}

#[test]
fn runs_under_an_acl_with_just_the_documented_rights() {
    Valkey::each().for_each(|server| run_with_few_rights(&server));
}

fn run_with_few_rights(valkey: &Valkey) {
    let mut connection = valkey.connect();
    let rules = "on >secret ~portcullis:* resetchannels -@all +eval +evalsha +time +hget +lindex \
                 +lrange +lset +ltrim +rpush +pexpireat +set +hset +hincrby +sadd";
    let _: () = redis::cmd("ACL")
        .arg("SETUSER")
        .arg("gateway")
        .arg(rules.split_whitespace().collect::<Vec<_>>())
        .query(&mut connection)
        .expect("rules are well-formed");
    let _: () =
        redis::cmd("AUTH").arg("gateway").arg("secret").query(&mut connection).expect("user");

    let mut admit = draw_from(vec![window("calls", 1, 2_000, 1)]);
    admit.guards = vec![Guard { key: Key::record("acme", "a1"), expected: Expected::Absent }];
    let mut refused = 0;
    for _ in 0..200 {
        let reply = admit.decode(run(&mut connection, &admit.call())).expect("allowed by the ACL");
        refused += usize::from(matches!(reply, AdmitReply::Limited { .. }));
    }
    assert!(refused > 0, "no call took the refusing path");

    let put = PutRecord {
        org: "acme",
        id: "a1",
        expected: Expected::Absent,
        doc: "{}",
        last_entry: None,
        entry: "{}",
    };
    put.decode(run(&mut connection, &put.call())).expect("allowed by the ACL");
}

#[test]
fn full_memory_refuses_the_whole_script_up_front() {
    Valkey::each().for_each(|server| fill_memory(&server));
}

fn fill_memory(valkey: &Valkey) {
    let mut connection = valkey.connect();
    let admit = draw_from(vec![window("a", 5, 1_000, 1), window("b", 5, 60_000_000, 1)]);
    // A draw that left the window: when memory is full, the script may trim it but not append.
    ledger::seed(&mut connection, &admit.windows[0].key, 0, &[Draw { at_us: 1, cost: 1 }]);
    let before = lists(&mut connection, &admit);

    let words = ["CONFIG", "SET", "maxmemory", "1"].map(|word| word.as_bytes().to_vec());
    send(&mut connection, &words);
    let reply = run(&mut connection, &admit.call());
    assert!(matches!(&reply, Value::Error(text) if text.starts_with("OOM")), "{reply:?}");
    assert_eq!(lists(&mut connection, &admit), before);
}

fn lists(connection: &mut redis::Connection, admit: &Admit) -> Vec<Vec<Draw>> {
    admit.windows.iter().map(|window| ledger::read(connection, &window.key)).collect()
}
