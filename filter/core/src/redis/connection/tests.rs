//! The states of the stream, as the driver's actions. Knows no socket and no clock either.

mod room;
mod silence;

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
    Admit { guards: Vec::new(), windows: Vec::new(), used: None, intent: None }.call()
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

/// The first command on a new stream, and the probe of an idle one.
fn ping() -> Vec<Output<char>> {
    vec![send(&Command::Ping)]
}

const PONG: &[u8] = b"+PONG\r\n";

/// A connection that Redis answered at time zero.
fn up() -> Connection<char> {
    let mut connection = Connection::new(TIMEOUT, 7);
    assert_eq!(connection.opened(at(0)), ping());
    assert_eq!(connection.received(at(0), PONG), []);
    assert!(connection.is_up());
    connection
}

/// The time after `from` at which a lost stream is reopened, in milliseconds.
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
fn what_waited_for_the_first_opening_is_sent_after_a_ping() {
    let mut connection = Connection::new(TIMEOUT, 7);
    assert_eq!(connection.submit(at(1), 'a', get("a")), []);
    assert_eq!(connection.submit(at(2), 'b', get("b")), []);
    let mut sent = ping();
    sent.extend([send(&get("a")), send(&get("b"))]);
    assert_eq!(connection.opened(at(3)), sent);
    // The first stream is trusted: commands do not wait for the answer to the ping.
    assert_eq!(connection.submit(at(4), 'c', get("c")), [send(&get("c"))]);
    let replies = [PONG, b"$1\r\nA\r\n$1\r\nB\r\n"].concat();
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
        let command = get(&waiter.to_string());
        assert_eq!(connection.submit(at(1), waiter, command.clone()), [send(&command)]);
    }
    assert_eq!(connection.received(at(2), b"$1\r\nA\r\n$1\r"), [Output::Reply('a', bulk("A"))]);
    assert_eq!(connection.received(at(3), b"\nB\r"), []);
    let rest = [Output::Reply('b', bulk("B")), Output::Reply('c', Value::Error("ERR no".into()))];
    assert_eq!(connection.received(at(4), b"\n-ERR no\r\n"), rest);
}

fn timed_out<W>(waiter: W) -> Output<W> {
    Output::Failed(waiter, CallFailure::TimedOut)
}

fn refused<W>(waiter: W) -> [Output<W>; 1] {
    [Output::Failed(waiter, CallFailure::Refused)]
}

// Proves: B2
#[test]
fn an_overdue_command_fails_alone_and_its_late_reply_is_dropped() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
    assert_eq!(connection.submit(at(200), 'b', get("b")).len(), 1);
    assert_eq!(connection.tick(at(250)), []);
    assert_eq!(connection.tick(at(251)), [timed_out('a')]);
    assert_eq!(connection.tick(at(261)), [], "told once");
    assert_eq!(connection.submit(at(262), 'c', get("c")), [send(&get("c"))]);
    let replies = b"$1\r\nA\r\n$1\r\nB\r\n$1\r\nC\r\n";
    let heard = [Output::Reply('b', bulk("B")), Output::Reply('c', bulk("C"))];
    assert_eq!(connection.received(at(300), replies), heard);
    assert!(connection.is_up());
}

#[test]
fn a_late_script_that_redis_does_not_know_is_not_sent_again() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', Command::Script(admit())).len(), 1);
    assert_eq!(connection.tick(at(251)), [timed_out('a')]);
    assert_eq!(connection.received(at(252), b"-NOSCRIPT No matching script.\r\n"), []);
    assert_eq!(connection.submit(at(253), 'b', get("b")), [send(&get("b"))]);
    assert_eq!(connection.received(at(254), b"+B\r\n"), [Output::Reply('b', status("B"))]);
}

// Proves: B2
#[test]
fn nobody_waits_for_a_hung_redis_until_it_speaks_again() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
    assert_eq!(connection.submit(at(450), 'b', get("b")).len(), 1);
    assert_eq!(connection.tick(at(300)), [timed_out('a')]);
    assert_eq!(connection.submit(at(500), 'c', get("c")), [send(&get("c"))]);
    // Silent for two deadlines: the waiting commands fail at once, and new ones do not wait.
    assert_eq!(connection.tick(at(501)), [timed_out('b'), timed_out('c')]);
    assert_eq!(connection.submit(at(501), 'd', get("d")), refused('d'));
    assert_eq!(connection.submit(at(900), 'e', get("e")), refused('e'));
    // One reply is enough: outstanding replies come first, and are dropped.
    assert_eq!(connection.received(at(901), b"$1\r\nA\r\n"), []);
    assert_eq!(connection.submit(at(902), 'f', get("f")), [send(&get("f"))]);
    let rest = b"$1\r\nB\r\n$1\r\nC\r\n$1\r\nF\r\n";
    assert_eq!(connection.received(at(903), rest), [Output::Reply('f', bulk("F"))]);
}

#[test]
fn a_stream_that_stays_silent_is_given_up() {
    for timeout in [50, 250, 400] {
        let mut connection = Connection::new(Duration::from_millis(timeout), 7);
        assert_eq!(connection.opened(at(0)), ping());
        assert_eq!(connection.received(at(0), PONG), []);
        assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
        assert_eq!(connection.tick(at(1 + timeout)), [timed_out('a')]);
        let patience = 1_000.max(4 * timeout);
        assert_eq!(connection.tick(at(patience)), []);
        assert_eq!(connection.tick(at(1 + patience)), [Output::Close(Cause::Silent)]);
        assert!(wait(&mut connection, 1 + patience) <= 50);
    }
}

#[test]
fn a_stream_that_never_answers_is_given_up() {
    let mut connection = Connection::new(TIMEOUT, 7);
    assert_eq!(connection.submit(at(0), 'a', get("a")), []);
    assert_eq!(connection.opened(at(10)).len(), 2);
    assert_eq!(connection.tick(at(249)), []);
    assert_eq!(connection.tick(at(250)), [timed_out('a')]);
    assert_eq!(connection.tick(at(510)), []);
    assert_eq!(connection.submit(at(510), 'b', get("b")), refused('b'));
    assert_eq!(connection.tick(at(1_009)), []);
    assert_eq!(connection.tick(at(1_010)), [Output::Close(Cause::Silent)]);
}

#[test]
fn who_waited_too_long_for_the_first_opening_is_not_sent() {
    let mut connection = Connection::new(TIMEOUT, 7);
    assert_eq!(connection.submit(at(0), 'a', get("a")), []);
    assert_eq!(connection.submit(at(100), 'b', get("b")), []);
    assert_eq!(connection.tick(at(250)), [timed_out('a'), Output::Open]);
    assert_eq!(connection.opened(at(250)), [send(&Command::Ping), send(&get("b"))]);
}

#[test]
fn a_stream_without_traffic_is_tried_from_time_to_time() {
    let mut connection = up();
    assert_eq!(connection.tick(at(4_999)), []);
    assert_eq!(connection.tick(at(5_000)), ping());
    assert_eq!(connection.tick(at(5_010)), [], "once at a time");
    assert_eq!(connection.received(at(5_020), PONG), []);
    assert_eq!(connection.take_probed(), Some(Probed::Answered(Duration::from_millis(20))));
    assert_eq!(connection.tick(at(10_000)), []);
    assert_eq!(connection.tick(at(10_020)), ping());
    // A vanished peer is detected before a call needs it.
    assert_eq!(connection.tick(at(11_020)), [Output::Close(Cause::Silent)]);
    assert_eq!(connection.take_probed(), Some(Probed::Lost));
    assert_eq!(connection.take_probed(), None, "it is told once");
}

#[test]
fn a_dead_part_of_redis_costs_nobody_any_waiting() {
    let mut connection = up();
    let failure = b"-upstream failure\r\n";
    for _ in 0..3 {
        assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
        let failed = [Output::Failed('a', CallFailure::Disconnected)];
        assert_eq!(connection.received(at(2), failure), failed);
    }
    assert_eq!(connection.submit(at(3), 'a', get("a")), refused('a'));
    // Other parts are used as before, and after a while a probe checks whether this part is back.
    assert_eq!(connection.submit(at(3), 'b', get("b")), [send(&get("b"))]);
    assert_eq!(connection.submit(at(53), 'c', get("a")), [send(&get("a"))]);
    assert_eq!(connection.submit(at(53), 'd', get("a")), refused('d'));
    let heard = [Output::Reply('b', status("B")), Output::Reply('c', status("C"))];
    assert_eq!(connection.received(at(54), b"+B\r\n+C\r\n"), heard);
    assert_eq!(connection.submit(at(55), 'e', get("a")), [send(&get("a"))]);
}

#[test]
fn what_only_says_not_now_is_a_failure_and_no_reply() {
    let mut connection = up();
    for (error, why) in [
        ("upstream failure", CallFailure::Disconnected),
        ("no upstream host", CallFailure::Refused),
        ("LOADING Valkey is loading the dataset in memory", CallFailure::Refused),
        ("CLUSTERDOWN The cluster is down", CallFailure::Refused),
        ("READONLY You can't write against a read only replica.", CallFailure::Refused),
    ] {
        assert_eq!(connection.submit(at(1), 'a', get(error)).len(), 1);
        let reply = format!("-{error}\r\n");
        assert_eq!(connection.received(at(2), reply.as_bytes()), [Output::Failed('a', why)]);
    }
    // An error that waiting does not solve is returned unchanged: it must not cause a degraded decision.
    for error in ["NOPERM no", "OOM command not allowed", "WRONGTYPE no", "MOVED 7 h:1"] {
        assert_eq!(connection.submit(at(1), 'a', get(error)).len(), 1);
        let reply = format!("-{error}\r\n");
        let heard = [Output::Reply('a', Value::Error(error.into()))];
        assert_eq!(connection.received(at(2), reply.as_bytes()), heard);
    }
    assert!(connection.is_up());
}

#[test]
fn an_answered_command_leaves_its_deadline_behind() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
    assert_eq!(connection.received(at(2), b"+OK\r\n").len(), 1);
    assert_eq!(connection.tick(at(4_999)), []);
    assert!(connection.is_up());
}

// Proves: B2
#[test]
fn while_down_commands_fail_at_once_until_a_new_stream_answers() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
    let lost = Output::Failed('a', CallFailure::Disconnected);
    assert_eq!(connection.closed(at(2)), [lost]);
    assert_eq!(connection.submit(at(3), 'b', get("b")), refused('b'));
    let opens = 2 + wait(&mut connection, 2);
    assert_eq!(connection.submit(at(opens), 'c', get("c")), refused('c'));
    assert_eq!(connection.opened(at(opens)), ping());
    assert_eq!(connection.submit(at(opens), 'd', get("d")), refused('d'));
    assert_eq!(connection.received(at(opens), PONG), []);
    assert_eq!(connection.submit(at(opens), 'e', get("e")), [send(&get("e"))]);
}

#[test]
fn the_wait_doubles_to_a_bound_and_never_falls_below_half_of_it() {
    let mut connection = up();
    let mut now = 0;
    for bound in [50, 100, 200, 400, 800, 1_000, 1_000, 1_000] {
        assert_eq!(connection.closed(at(now)), []);
        let wait = wait(&mut connection, now);
        assert!((bound / 2..=bound).contains(&wait), "{wait} ms, bound {bound}");
        now += wait;
        assert_eq!(connection.opened(at(now)), ping());
    }
    // A stream that answered starts the back-off again.
    assert_eq!(connection.received(at(now), PONG), []);
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
    // It is now queued after the commands sent meanwhile.
    assert_eq!(connection.received(at(3), b"+B\r\n"), [Output::Reply('b', status("B"))]);
    let error = Value::Error("NOSCRIPT No matching script.".into());
    assert_eq!(connection.received(at(4), forgotten), [Output::Reply('a', error)]);
    assert!(connection.is_up());
}

#[test]
fn a_reply_that_nobody_asked_for_gives_the_stream_up() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
    let outputs = connection.received(at(2), b"+A\r\n+B\r\n");
    let close = Output::Close(Cause::Unreadable);
    assert_eq!(outputs, [Output::Reply('a', status("A")), close]);
    assert!(!connection.is_up());
}

#[test]
fn bytes_that_are_not_redis_give_the_stream_up() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
    let failed = Output::Failed('a', CallFailure::Unreadable);
    assert_eq!(
        connection.received(at(2), b"HTTP/1.1 400 Bad Request"),
        [Output::Close(Cause::Unreadable), failed]
    );
    assert_eq!(connection.submit(at(3), 'b', get("b")), refused('b'));
}

#[test]
fn half_a_reply_of_a_lost_stream_is_not_the_start_of_the_next() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("a")).len(), 1);
    assert_eq!(connection.received(at(2), b"$100\r\nhalf"), []);
    assert_eq!(connection.closed(at(3)).len(), 1);
    assert_eq!(connection.opened(at(100)), ping());
    assert_eq!(connection.received(at(101), PONG), []);
    assert!(connection.is_up());
}

// Proves: B2
#[test]
fn a_redis_that_refuses_a_ping_stays_down() {
    let mut connection = Connection::new(TIMEOUT, 7);
    assert_eq!(connection.submit(at(0), 'a', get("a")), []);
    assert_eq!(connection.opened(at(0)).len(), 2);
    let loading = b"-LOADING Redis is loading the dataset in memory\r\n";
    let error = "LOADING Redis is loading the dataset in memory";
    let close = || Output::Close(Cause::Unusable(error.into()));
    let failed = Output::Failed('a', CallFailure::Unreadable);
    assert_eq!(connection.received(at(1), loading), [close(), failed]);
    assert_eq!(connection.submit(at(2), 'b', get("b")), refused('b'));
    let opens = 1 + wait(&mut connection, 1);
    assert_eq!(connection.opened(at(opens)), ping());
    assert_eq!(connection.received(at(opens), loading), [close()]);
    // An opened stream without an answer does not reset the back-off.
    assert!(wait(&mut connection, opens) >= 50);
}
