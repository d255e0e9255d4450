//! Checkpoints of an audit chain: they go forward, and neither back nor to another history.

use portcullis_redis_lua::{ChainEnd, Checkpoint, CheckpointReply, Key};
use redis::Commands as _;

use crate::valkey::{Valkey, run};

fn end(seq: u64, hash: &str) -> ChainEnd {
    ChainEnd { seq, hash: hash.to_owned() }
}

// Issue 16.
// Proves: A17
#[test]
fn a_checkpoint_goes_neither_back_nor_to_another_history() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let mut note = |last: ChainEnd, end: ChainEnd| {
        let checkpoint = Checkpoint { chain: "c".into(), last, end, build: "b" };
        Checkpoint::decode(run(&mut connection, &checkpoint.call())).unwrap()
    };
    use CheckpointReply::{Noted, Recovered, Refused};
    assert_eq!(note(end(0, ""), end(5, "five")), Noted);
    assert_eq!(note(end(0, ""), end(5, "five")), Noted, "asked again: the reply was lost");
    assert_eq!(note(end(5, "five"), end(9, "nine")), Noted);
    for (last, next) in [
        (end(5, "five"), end(7, "seven")),
        (end(9, "nine"), end(8, "eight")),
        (end(9, "nine"), end(9, "other")),
        (end(9, "other"), end(12, "twelve")),
        (end(0, ""), end(12, "twelve")),
    ] {
        assert_eq!(note(last.clone(), next.clone()), Refused(end(9, "nine")), "{last:?} {next:?}");
    }
    // Redis was restored from an older copy.
    assert_eq!(note(end(20, "twenty"), end(21, "one more")), Recovered);
    let key = Key::checkpoint("c");
    let seq: u64 = connection.hget(key.as_str(), "seq").unwrap();
    let names: Vec<String> = connection.zrange(Key::checkpoints().as_str(), 0, -1).unwrap();
    assert_eq!((seq, names), (21, vec!["c".to_owned()]));
    for key in [key, Key::checkpoints()] {
        let life: i64 = connection.pttl(key.as_str()).unwrap();
        assert!(life > 0, "{key}");
    }
}
