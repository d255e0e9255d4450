//! put_policy: of two writers that read the same state, one is first; a change and its entry are written together.

use portcullis_redis_lua::{Key, PutPolicy, PutPolicyReply};
use redis::Commands as _;

use crate::valkey::{Valkey, run};

// Proves: X4
#[test]
fn only_who_saw_the_last_state_moves_an_organisation() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let mut put = |expected, rev, last: Option<&str>, entry| {
        let last_entry = last.map(str::as_bytes);
        let put = PutPolicy { org: "acme", expected, rev, doc: "{}", last_entry, entry };
        PutPolicy::decode(run(&mut connection, &put.call())).expect("a reply")
    };
    let (moved, conflict) = (PutPolicyReply::Stale, PutPolicyReply::Conflict);
    assert_eq!(put(Some("v0"), "v1", None, "one"), conflict, "nothing was active");
    assert_eq!(put(None, "v1", Some("nought"), "one"), conflict, "nothing was noted");
    assert_eq!(put(None, "v1", None, "one"), moved);
    assert_eq!(put(None, "v2", None, "two"), conflict);
    assert_eq!(put(Some("v1"), "v2", None, "two"), conflict, "somebody noted something");
    assert_eq!(put(Some("v1"), "v2", Some("one"), "two"), moved);

    let rev: String = connection.hget(Key::policy("acme").as_str(), "rev").expect("a revision");
    assert_eq!(rev, "v2");
    let entries: Vec<String> =
        connection.lrange(Key::admin("acme").as_str(), 0, -1).expect("the chain");
    assert_eq!(entries, ["one", "two"]);
}
