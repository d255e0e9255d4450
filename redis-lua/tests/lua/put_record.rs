//! put_record: compare and set of a record together with the admin chain.

use portcullis_redis_lua::{Expected, Key, PutRecord, PutRecordReply};
use redis::Commands as _;

use crate::valkey::{Valkey, run};

fn put<'a>(
    expected: Expected,
    doc: &'a str,
    last_entry: Option<&'a str>,
    entry: &'a str,
) -> PutRecord<'a> {
    let last_entry = last_entry.map(str::as_bytes);
    PutRecord { org: "acme", id: "a1", expected, doc, last_entry, entry }
}

fn chain(connection: &mut redis::Connection) -> Vec<String> {
    connection.lrange(Key::admin("acme").as_str(), 0, -1).unwrap()
}

// Proves: A23
#[test]
fn writes_only_over_what_was_read_and_never_without_its_entry() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let revision = |rev: &str| Expected::Revision(rev.into());
    let written = |rev: &str| PutRecordReply::Written { rev: rev.into() };
    let conflict = |rev: Option<&str>| PutRecordReply::Conflict { rev: rev.map(str::to_owned) };

    for ((expected, doc, last), reply, stored, entries) in [
        ((revision("1"), "a", None), conflict(None), None, &[][..]),
        ((Expected::Unknown, "b", None), conflict(None), None, &[]),
        ((Expected::Absent, "c", Some("of a")), conflict(None), None, &[]),
        ((Expected::Absent, "d", None), written("1"), Some("d"), &["of d"]),
        ((Expected::Absent, "e", Some("of d")), conflict(Some("1")), Some("d"), &["of d"]),
        ((Expected::Unknown, "f", Some("of d")), conflict(Some("1")), Some("d"), &["of d"]),
        ((revision("2"), "g", Some("of d")), conflict(Some("1")), Some("d"), &["of d"]),
        ((revision("1"), "h", None), conflict(Some("1")), Some("d"), &["of d"]),
        ((revision("1"), "i", Some("of c")), conflict(Some("1")), Some("d"), &["of d"]),
        ((revision("1"), "j", Some("of d")), written("2"), Some("j"), &["of d", "of j"]),
        ((revision("1"), "k", Some("of j")), conflict(Some("2")), Some("j"), &["of d", "of j"]),
    ] {
        let entry = format!("of {doc}");
        let put = put(expected, doc, last, &entry);
        assert_eq!(put.decode(run(&mut connection, &put.call())), Ok(reply), "{put:?}");

        let doc: Option<String> =
            connection.hget(Key::record("acme", "a1").as_str(), "doc").unwrap();
        assert_eq!(doc.as_deref(), stored, "{put:?}");
        let index: Vec<String> = connection.smembers(Key::record_index("acme").as_str()).unwrap();
        assert_eq!(index, stored.map(|_| "a1".to_owned()).into_iter().collect::<Vec<_>>());
        assert_eq!(chain(&mut connection), entries, "{put:?}");
    }
}

#[test]
fn of_many_writers_that_read_the_same_revision_one_wins() {
    let valkey = Valkey::start();
    let wins: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let put = put(Expected::Absent, "{}", None, "entry");
                    let reply = put.decode(run(&mut valkey.connect(), &put.call()));
                    usize::from(matches!(reply, Ok(PutRecordReply::Written { .. })))
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert_eq!(wins, 1);
    assert_eq!(chain(&mut valkey.connect()), ["entry"]);
}

// Proves: A23
#[test]
fn writers_of_different_records_share_one_chain_without_a_gap() {
    const EACH: usize = 20;
    let valkey = Valkey::start();
    std::thread::scope(|scope| {
        for writer in 0..6 {
            let mut connection = valkey.connect();
            scope.spawn(move || {
                let id = format!("record{writer}");
                for number in 0..EACH {
                    let expected = match number {
                        0 => Expected::Absent,
                        rev => Expected::Revision(rev.to_string()),
                    };
                    loop {
                        let last: Option<String> =
                            connection.lindex(Key::admin("acme").as_str(), -1).unwrap();
                        let place = last.as_deref().map_or(0, |last| last.parse().unwrap());
                        let entry = format!("{}", place + 1_u64);
                        let put = PutRecord {
                            org: "acme",
                            id: &id,
                            expected: expected.clone(),
                            doc: "{}",
                            last_entry: last.as_deref().map(str::as_bytes),
                            entry: &entry,
                        };
                        match put.decode(run(&mut connection, &put.call())).unwrap() {
                            PutRecordReply::Written { .. } => break,
                            PutRecordReply::Conflict { .. } => {}
                        }
                    }
                }
            });
        }
    });
    let expected: Vec<String> = (1..=6 * EACH).map(|place| place.to_string()).collect();
    assert_eq!(chain(&mut valkey.connect()), expected);
}
