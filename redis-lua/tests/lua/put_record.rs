//! Compare and set of a record.

use portcullis_redis_lua::{Expected, Key, PutRecord, PutRecordReply};
use redis::Commands as _;

use crate::valkey::{Valkey, run};

#[test]
fn writes_only_over_the_revision_that_was_read() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let revision = |rev: &str| Expected::Revision(rev.into());
    let written = |rev: &str| PutRecordReply::Written { rev: rev.into() };
    let conflict = |rev: Option<&str>| PutRecordReply::Conflict { rev: rev.map(str::to_owned) };

    for (expected, doc, reply, stored) in [
        (revision("1"), "a", conflict(None), None),
        (Expected::Unknown, "b", conflict(None), None),
        (Expected::Absent, "c", written("1"), Some("c")),
        (Expected::Absent, "d", conflict(Some("1")), Some("c")),
        (Expected::Unknown, "e", conflict(Some("1")), Some("c")),
        (revision("2"), "f", conflict(Some("1")), Some("c")),
        (revision("1"), "g", written("2"), Some("g")),
        (revision("1"), "h", conflict(Some("2")), Some("g")),
    ] {
        let put = PutRecord { org: "acme", id: "a1", expected, doc };
        assert_eq!(put.decode(run(&mut connection, &put.call())), Ok(reply), "{put:?}");

        let doc: Option<String> =
            connection.hget(Key::record("acme", "a1").as_str(), "doc").unwrap();
        assert_eq!(doc.as_deref(), stored, "{put:?}");
        let index: Vec<String> = connection.smembers(Key::record_index("acme").as_str()).unwrap();
        assert_eq!(index, stored.map(|_| "a1".to_owned()).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn of_many_writers_that_read_the_same_revision_one_wins() {
    let valkey = Valkey::start();
    let wins: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let put =
                        PutRecord { org: "acme", id: "a1", expected: Expected::Absent, doc: "{}" };
                    let reply = put.decode(run(&mut valkey.connect(), &put.call()));
                    usize::from(matches!(reply, Ok(PutRecordReply::Written { .. })))
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert_eq!(wins, 1);
}
