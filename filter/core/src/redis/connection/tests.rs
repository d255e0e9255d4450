//! The life of the stream, told by what the driver has to do. Knows no socket and no clock either.

use portcullis_redis_lua::{Admit, Key, ScriptCall};

use super::*;

const TIMEOUT: Duration = Duration::from_millis(250);

fn at(millis: u64) -> UnixTime {
    UnixTime::from_micros(millis * 1_000)
}

fn get(name: &str) -> Command {
    Command::Get(Key::policy_document(name))
}

fn admit() -> ScriptCall {
    Admit { guards: Vec::new(), windows: Vec::new(), used: None }.call()
}

fn send<W>(command: &Command) -> Output<W> {
    Output::Send(command.encode())
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

fn status(text: &str) -> Value {
    Value::Status(text.into())
}

/// What opening sends first.
fn preamble() -> Vec<Output<char>> {
    PREAMBLE.iter().map(|script| send(&Command::Load(script))).collect()
}

/// The replies to the preamble.
fn loaded() -> Vec<u8> {
    PREAMBLE.iter().flat_map(|script| format!("$40\r\n{}\r\n", script.sha1).into_bytes()).collect()
}

/// A connection that Redis answered at time zero.
fn up() -> Connection<char> {
    let mut connection = Connection::new(TIMEOUT, 7);
    assert_eq!(connection.opened(at(0)), preamble());
    assert_eq!(connection.received(at(0), &loaded()), []);
    assert!(connection.is_up());
    connection
}

/// How long after `from` a lost stream is asked for again, to the millisecond.
fn wait(connection: &mut Connection<char>, from: u64) -> u64 {
    let mut waits = 0..;
    waits.find(|wait| connection.tick(at(from + wait)) == [Output::Open]).unwrap()
}

#[test]
fn opens_only_once_somebody_asks() {
    let mut connection = Connection::new(TIMEOUT, 7);
    assert_eq!(connection.tick(at(0)), []);
    assert_eq!(connection.submit(at(1), 'a', get("a")), []);
    assert_eq!(connection.tick(at(1)), [Output::Open]);
    assert!(!connection.is_up());
}

#[test]
fn what_waited_for_the_first_opening_is_sent_after_the_scripts() {
    let mut connection = Connection::new(TIMEOUT, 7);
    assert_eq!(connection.submit(at(1), 'a', get("a")), []);
    assert_eq!(connection.submit(at(2), 'b', get("b")), []);
    let mut sent = preamble();
    sent.extend([send(&get("a")), send(&get("b"))]);
    assert_eq!(connection.opened(at(3)), sent);
    // The first stream is trusted: nobody waits for the scripts to be loaded.
    assert_eq!(connection.submit(at(4), 'c', get("c")), [send(&get("c"))]);
    let replies = [loaded(), b"$1\r\nA\r\n$1\r\nB\r\n".to_vec()].concat();
    let expected = [Output::Reply('a', bulk("A")), Output::Reply('b', bulk("B"))];
    assert_eq!(connection.received(at(5), &replies), expected);
}

#[test]
fn a_first_opening_that_fails_fails_what_waited_for_it() {
    let mut connection = Connection::new(TIMEOUT, 7);
    assert_eq!(connection.submit(at(0), 'a', get("a")), []);
    let failed = Output::Failed('a', CallFailure::Disconnected);
    assert_eq!(connection.closed(at(1)), [failed]);
}

#[test]
fn replies_go_to_their_waiters_in_order_whatever_the_chunks() {
    let mut connection = up();
    for waiter in ['a', 'b', 'c'] {
        assert_eq!(connection.submit(at(1), waiter, get("x")), [send(&get("x"))]);
    }
    assert_eq!(connection.received(at(2), b"$1\r\nA\r\n$1\r"), [Output::Reply('a', bulk("A"))]);
    assert_eq!(connection.received(at(3), b"\nB\r"), []);
    let rest = [Output::Reply('b', bulk("B")), Output::Reply('c', Value::Error("ERR no".into()))];
    assert_eq!(connection.received(at(4), b"\n-ERR no\r\n"), rest);
}

// Proves: B2
#[test]
fn an_overdue_reply_closes_the_stream_and_fails_everything_that_waits() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
    assert_eq!(connection.submit(at(200), 'b', get("b")).len(), 1);
    assert_eq!(connection.tick(at(250)), []);
    let failed = |waiter| Output::Failed(waiter, CallFailure::TimedOut);
    assert_eq!(connection.tick(at(251)), [Output::Close, failed('a'), failed('b')]);
    assert!(!connection.is_up());
}

#[test]
fn a_stream_that_never_answers_is_given_up() {
    let mut connection = Connection::new(TIMEOUT, 7);
    assert_eq!(connection.submit(at(0), 'a', get("a")), []);
    assert_eq!(connection.opened(at(10)).len(), PREAMBLE.len() + 1);
    assert_eq!(connection.tick(at(259)), []);
    let failed = Output::Failed('a', CallFailure::TimedOut);
    assert_eq!(connection.tick(at(260)), [Output::Close, failed]);
}

#[test]
fn an_answered_command_leaves_its_deadline_behind() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
    assert_eq!(connection.received(at(2), b"+OK\r\n").len(), 1);
    assert_eq!(connection.tick(at(9_999)), []);
    assert!(connection.is_up());
}

// Proves: B2, C10
#[test]
fn while_down_commands_fail_at_once_until_a_new_stream_answers() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
    let lost = Output::Failed('a', CallFailure::Disconnected);
    assert_eq!(connection.closed(at(2)), [lost]);
    let refused = |waiter| [Output::Failed(waiter, CallFailure::Refused)];
    assert_eq!(connection.submit(at(3), 'b', get("b")), refused('b'));
    let opens = 2 + wait(&mut connection, 2);
    assert_eq!(connection.submit(at(opens), 'c', get("c")), refused('c'));
    assert_eq!(connection.opened(at(opens)), preamble());
    assert_eq!(connection.submit(at(opens), 'd', get("d")), refused('d'));
    assert_eq!(connection.received(at(opens), &loaded()), []);
    assert_eq!(connection.submit(at(opens), 'e', get("e")), [send(&get("e"))]);
}

#[test]
fn the_wait_doubles_to_a_bound_and_never_falls_below_half_of_it() {
    let mut connection = up();
    let mut now = 0;
    for bound in [50, 100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000] {
        assert_eq!(connection.closed(at(now)), []);
        let wait = wait(&mut connection, now);
        assert!((bound / 2..=bound).contains(&wait), "{wait} ms, bound {bound}");
        now += wait;
        assert_eq!(connection.opened(at(now)), preamble());
    }
    // A stream that answered starts anew.
    assert_eq!(connection.received(at(now), &loaded()), []);
    assert_eq!(connection.closed(at(now)), []);
    assert!(wait(&mut connection, now) <= 50);
}

#[test]
fn workers_do_not_all_knock_at_once() {
    let wait = |seed| {
        let mut connection = Connection::new(TIMEOUT, seed);
        (0..6).for_each(|_| assert_eq!(connection.closed(at(0)), []));
        wait(&mut connection, 0)
    };
    let mut waits: Vec<_> = (0..16).map(|worker| wait(worker * 2)).collect();
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 8, "{waits:?}");
}

// Proves: A10, B2
#[test]
fn a_forgotten_script_is_sent_by_its_source_exactly_once() {
    let mut connection = up();
    let by_digest = Command::Script(admit());
    assert_eq!(connection.submit(at(1), 'a', by_digest.clone()), [send(&by_digest)]);
    assert_eq!(connection.submit(at(1), 'b', get("b")), [send(&get("b"))]);
    let by_source = Command::ScriptSource(admit());
    let forgotten = b"-NOSCRIPT No matching script.\r\n";
    assert_eq!(connection.received(at(2), forgotten), [send(&by_source)]);
    // It now stands behind what was sent in the meantime.
    assert_eq!(connection.received(at(3), b"+B\r\n"), [Output::Reply('b', status("B"))]);
    let error = Value::Error("NOSCRIPT No matching script.".into());
    assert_eq!(connection.received(at(4), forgotten), [Output::Reply('a', error)]);
    assert!(connection.is_up());
}

#[test]
fn the_queue_is_bounded() {
    let mut connection = up();
    for _ in 0..MAX_PENDING {
        assert_eq!(connection.submit(at(1), 'a', get("a")), [send(&get("a"))]);
    }
    let refused = Output::Failed('b', CallFailure::Refused);
    assert_eq!(connection.submit(at(1), 'b', get("b")), [refused]);
    assert_eq!(connection.received(at(2), b"+A\r\n"), [Output::Reply('a', status("A"))]);
    assert_eq!(connection.submit(at(3), 'c', get("c")), [send(&get("c"))]);
}

#[test]
fn a_reply_that_nobody_asked_for_gives_the_stream_up() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
    let outputs = connection.received(at(2), b"+A\r\n+B\r\n");
    assert_eq!(outputs, [Output::Reply('a', status("A")), Output::Close]);
    assert!(!connection.is_up());
}

#[test]
fn bytes_that_are_not_redis_give_the_stream_up() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
    let failed = Output::Failed('a', CallFailure::Unreadable);
    assert_eq!(connection.received(at(2), b"HTTP/1.1 400 Bad Request"), [Output::Close, failed]);
    let refused = Output::Failed('b', CallFailure::Refused);
    assert_eq!(connection.submit(at(3), 'b', get("b")), [refused]);
}

#[test]
fn half_a_reply_of_a_lost_stream_is_not_the_start_of_the_next() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
    assert_eq!(connection.received(at(2), b"$100\r\nhalf"), []);
    assert_eq!(connection.closed(at(3)).len(), 1);
    assert_eq!(connection.opened(at(100)), preamble());
    assert_eq!(connection.received(at(101), &loaded()), []);
    assert!(connection.is_up());
}

// Proves: B2
#[test]
fn a_redis_that_cannot_load_the_scripts_stays_down() {
    let mut connection = Connection::new(TIMEOUT, 7);
    assert_eq!(connection.submit(at(0), 'a', get("a")), []);
    assert_eq!(connection.opened(at(0)).len(), PREAMBLE.len() + 1);
    let loading = b"-LOADING Redis is loading the dataset in memory\r\n";
    let failed = Output::Failed('a', CallFailure::Unreadable);
    assert_eq!(connection.received(at(1), loading), [Output::Close, failed]);
    let refused = Output::Failed('b', CallFailure::Refused);
    assert_eq!(connection.submit(at(2), 'b', get("b")), [refused]);
    let opens = 1 + wait(&mut connection, 1);
    assert_eq!(connection.opened(at(opens)), preamble());
    assert_eq!(connection.received(at(opens), loading), [Output::Close]);
    // Opening is not answering: the wait goes on growing.
    assert!(wait(&mut connection, opens) >= 50);
}
