//! Strings that take a while to come: policies of megabytes.

use super::*;

#[test]
fn a_string_is_read_once_for_all_who_ask_for_it_meanwhile() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("x")), [send(&get("x"))]);
    assert_eq!(connection.submit(at(1), 'b', get("x")), []);
    assert_eq!(connection.submit(at(1), 'c', get("y")), [send(&get("y"))]);
    let first = [Output::Reply('a', bulk("A")), Output::Reply('b', Value::Nil)];
    assert_eq!(connection.received(at(2), b"$1\r\nA\r\n"), first);
    assert_eq!(connection.submit(at(3), 'd', get("y")), []);
    assert_eq!(connection.tick(at(260)), [timed_out('c'), timed_out('d')]);
    // It was told that it took too long, so whoever asks now asks anew.
    assert_eq!(connection.submit(at(261), 'e', get("y")), [send(&get("y"))]);
    let failed = ['e', 'f'].map(|waiter| Output::Failed(waiter, CallFailure::Disconnected));
    assert_eq!(connection.submit(at(262), 'f', get("y")), []);
    assert_eq!(connection.closed(at(263)), failed);
}

#[test]
fn nobody_is_given_up_while_a_long_reply_comes() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("x")), [send(&get("x"))]);
    assert_eq!(connection.submit(at(2), 'b', get("y")), [send(&get("y"))]);
    assert_eq!(connection.received(at(100), b"$4\r\nA"), []);
    assert_eq!(connection.received(at(240), b"B"), []);
    assert_eq!(connection.tick(at(300)), [], "both are overdue, but Redis is at it");
    assert_eq!(connection.received(at(400), b"C"), []);
    // No byte for as long as a command may take.
    assert_eq!(connection.tick(at(650)), [timed_out('a'), timed_out('b')]);
    assert_eq!(connection.received(at(660), b"D\r\n+late\r\n"), []);
}
