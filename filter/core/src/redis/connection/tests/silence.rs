//! What counts as silence of Redis: incomplete replies do, time in which the worker was busy does not.

use super::*;

// Finding 10.3: a reply that trickles hung every call of the worker for ever.
#[test]
fn a_reply_that_trickles_is_no_sign_of_life() {
    let mut connection = up();
    assert_eq!(connection.submit(at(1), 'a', get("x")), [send(&get("x"))]);
    assert_eq!(connection.submit(at(200), 'b', get("y")), [send(&get("y"))]);
    assert_eq!(connection.received(at(100), b"$9\r\nA"), []);
    assert_eq!(connection.received(at(240), b"B"), []);
    assert_eq!(connection.tick(at(251)), [timed_out('a')]);
    assert_eq!(connection.received(at(400), b"C"), []);
    assert_eq!(connection.tick(at(450)), [timed_out('b')]);
    assert_eq!(connection.tick(at(501)), []);
    assert_eq!(connection.received(at(600), b"D"), []);
    assert_eq!(connection.submit(at(601), 'c', get("z")), refused('c'));
    assert_eq!(connection.received(at(1_000), b"E"), []);
    assert_eq!(connection.tick(at(1_001)), [Output::Close(Cause::Silent)]);
}

// Finding 3.1: parsing a large body cost the calls of others their answers, and tripped the breaker.
#[test]
fn time_in_which_the_worker_was_busy_counts_against_nobody() {
    let mut connection = up();
    assert_eq!(connection.submit(at(100), 'a', get("x")), [send(&get("x"))]);
    // Busy from 110 to 910; meanwhile the host accepts another command.
    assert_eq!(connection.submit(at(900), 'b', get("y")), [send(&get("y"))]);
    connection.excuse(at(910), Duration::from_millis(800));
    assert_eq!(connection.tick(at(910)), []);
    assert_eq!(connection.tick(at(1_149)), []);
    assert_eq!(connection.tick(at(1_150)), [timed_out('a')], "150 ms after the worker was free");
    assert_eq!(connection.tick(at(1_159)), []);
    assert_eq!(connection.tick(at(1_160)), [timed_out('b')]);
}
