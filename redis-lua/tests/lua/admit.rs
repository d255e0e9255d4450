//! `admit` case by case: given state and arguments, the reply and the state and expiry afterwards.

use std::time::Duration;

use portcullis_redis_lua::{
    Admit, AdmitReply, Expected, Guard, GuardState, Key, Value, Window, WindowState,
};
use redis::Commands as _;

use crate::ledger::{self, Draw, draw_from, now_us, window};
use crate::valkey::{Valkey, run};

const SECOND: u64 = 1_000_000;

/// One row: earlier draws, as (how long ago, cost); the window of the call; the result.
struct Case {
    name: &'static str,
    drawn: &'static [(u64, u64)],
    limit: u64,
    length_us: u64,
    cost: u64,
    expected: ModelReply,
    /// Costs of the draws in the list afterwards, oldest first.
    left: &'static [u64],
}

#[derive(Debug)]
enum ModelReply {
    /// Remaining units, and which of the remaining draws leaves the window next.
    Admitted(u64),
    /// Remaining units, and how long ago the draw was made that must leave first.
    Refused(u64, Retry),
}

#[derive(Debug)]
enum Retry {
    WhenLeaves { ago_us: u64 },
    Never,
}

use ModelReply::{Admitted, Refused};
use Retry::{Never, WhenLeaves};

const CASES: &[Case] = &[
    Case {
        name: "first call",
        drawn: &[],
        limit: 5,
        length_us: SECOND,
        cost: 1,
        expected: Admitted(4),
        left: &[1],
    },
    Case {
        name: "last unit",
        drawn: &[(400_000, 1), (300_000, 1)],
        limit: 3,
        length_us: SECOND,
        cost: 1,
        expected: Admitted(0),
        left: &[1, 1, 1],
    },
    Case {
        name: "full",
        drawn: &[(400_000, 1), (300_000, 1), (200_000, 1)],
        limit: 3,
        length_us: SECOND,
        cost: 1,
        expected: Refused(0, WhenLeaves { ago_us: 400_000 }),
        left: &[1, 1, 1],
    },
    Case {
        name: "draws that left the window come back",
        drawn: &[(SECOND + 2, 1), (SECOND + 1, 1), (200_000, 1)],
        limit: 3,
        length_us: SECOND,
        cost: 1,
        expected: Admitted(1),
        left: &[1, 1],
    },
    Case {
        name: "draws that left are dropped even if the call is refused",
        drawn: &[(2 * SECOND, 9), (SECOND, 9), (200_000, 3)],
        limit: 3,
        length_us: SECOND,
        cost: 1,
        expected: Refused(0, WhenLeaves { ago_us: 200_000 }),
        left: &[3],
    },
    Case {
        name: "everything left",
        drawn: &[(3 * SECOND, 2), (2 * SECOND, 1)],
        limit: 3,
        length_us: SECOND,
        cost: 1,
        expected: Admitted(2),
        left: &[1],
    },
    Case {
        name: "costs add up",
        drawn: &[(400_000, 20), (300_000, 30)],
        limit: 100,
        length_us: SECOND,
        cost: 50,
        expected: Admitted(0),
        left: &[20, 30, 50],
    },
    Case {
        name: "waits for as many draws as the cost needs: one",
        drawn: &[(400_000, 20), (300_000, 30), (200_000, 40)],
        limit: 100,
        length_us: SECOND,
        cost: 30,
        expected: Refused(10, WhenLeaves { ago_us: 400_000 }),
        left: &[20, 30, 40],
    },
    Case {
        name: "waits for as many draws as the cost needs: two",
        drawn: &[(400_000, 20), (300_000, 30), (200_000, 40)],
        limit: 100,
        length_us: SECOND,
        cost: 31,
        expected: Refused(10, WhenLeaves { ago_us: 300_000 }),
        left: &[20, 30, 40],
    },
    Case {
        name: "waits for the last draw if the cost is the whole limit",
        drawn: &[(400_000, 20), (300_000, 30), (200_000, 1)],
        limit: 100,
        length_us: SECOND,
        cost: 100,
        expected: Refused(49, WhenLeaves { ago_us: 200_000 }),
        left: &[20, 30, 1],
    },
    Case {
        name: "cost above the limit never fits",
        drawn: &[],
        limit: 5,
        length_us: SECOND,
        cost: 6,
        expected: Refused(5, Never),
        left: &[],
    },
    Case {
        name: "limit zero never fits",
        drawn: &[],
        limit: 0,
        length_us: SECOND,
        cost: 1,
        expected: Refused(0, Never),
        left: &[],
    },
    Case {
        name: "cost zero draws nothing",
        drawn: &[(400_000, 5)],
        limit: 5,
        length_us: SECOND,
        cost: 0,
        expected: Admitted(0),
        left: &[5],
    },
    Case {
        name: "cost zero leaves no key behind",
        drawn: &[],
        limit: 5,
        length_us: SECOND,
        cost: 0,
        expected: Admitted(5),
        left: &[],
    },
    Case {
        name: "a lowered limit counts what is already drawn",
        drawn: &[(400_000, 4), (300_000, 4)],
        limit: 5,
        length_us: SECOND,
        cost: 1,
        expected: Refused(0, WhenLeaves { ago_us: 400_000 }),
        left: &[4, 4],
    },
    Case {
        name: "large numbers stay exact",
        drawn: &[(29 * 86_400 * SECOND, 4_000_000_000_001), (300_000, 1)],
        limit: 4_000_000_000_005,
        length_us: 30 * 86_400 * SECOND,
        cost: 2,
        expected: Admitted(1),
        left: &[4_000_000_000_001, 1, 2],
    },
];

// Proves: A8, A9, A10, A12
#[test]
fn one_window() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    for (nth, case) in CASES.iter().enumerate() {
        // In a list that has been in use for long, the running totals do not start at zero.
        for (variant, first) in [("new", 0), ("old", 9_000_000_000)] {
            let asked = window(&format!("{variant}-{nth}"), case.limit, case.length_us, case.cost);
            check(&mut connection, case, &asked, first);
        }
    }
}

fn check(connection: &mut redis::Connection, case: &Case, asked: &Window, first: u64) {
    let seeded_at = now_us(connection);
    let draws: Vec<_> =
        case.drawn.iter().map(|&(ago_us, cost)| Draw { at_us: seeded_at - ago_us, cost }).collect();
    if !draws.is_empty() {
        ledger::seed(connection, &asked.key, first, &draws);
    }

    let admit = draw_from(vec![asked.clone()]);
    let before = now_us(connection);
    let reply = admit.decode(run(connection, &admit.call())).expect(case.name);
    let after = now_us(connection);
    let left = ledger::read(connection, &asked.key);

    assert_eq!(left.iter().map(|draw| draw.cost).collect::<Vec<_>>(), case.left, "{}", case.name);
    let until_left = |at_us: u64| {
        let leaves = at_us + case.length_us;
        Duration::from_micros(leaves - after)..=Duration::from_micros(leaves - before)
    };
    let state = match (&case.expected, reply) {
        (Admitted(remaining), AdmitReply::Admitted(windows)) => {
            assert_eq!(windows[0].remaining, *remaining, "{}", case.name);
            if case.cost > 0 {
                let drawn_at = left.last().expect("drawn").at_us;
                assert!((before..=after).contains(&drawn_at), "{}: {drawn_at}", case.name);
                expires_with_the_last_draw(connection, asked, drawn_at);
            }
            windows[0]
        }
        (Refused(remaining, retry), AdmitReply::Limited { retry_after, window: 0, windows }) => {
            assert_eq!(windows[0].remaining, *remaining, "{}", case.name);
            match (retry, retry_after) {
                (WhenLeaves { ago_us }, Some(wait)) => {
                    let exact = until_left(seeded_at - ago_us);
                    assert!(exact.contains(&wait), "{}: {wait:?} not in {exact:?}", case.name);
                }
                (Never, None) => {}
                (_, other) => panic!("{}: {retry:?}, got {other:?}", case.name),
            }
            windows[0]
        }
        (expected, reply) => panic!("{}: {expected:?}, got {reply:?}", case.name),
    };
    match left.first() {
        Some(oldest) => assert!(until_left(oldest.at_us).contains(&state.reset), "{}", case.name),
        None => assert_eq!(state.reset, Duration::ZERO, "{}", case.name),
    }
}

fn expires_with_the_last_draw(connection: &mut redis::Connection, asked: &Window, drawn_at: u64) {
    let expires_ms: u64 =
        redis::cmd("PEXPIRETIME").arg(asked.key.as_str()).query(connection).expect("an expiry");
    assert_eq!(expires_ms, (drawn_at + asked.length_us).div_ceil(1000));
}

// Proves: A9
#[test]
fn a_jump_of_the_clock_back_admits_no_more_than_the_limit() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let asked = window("calls", 3, SECOND, 1);
    let admit = draw_from(vec![asked.clone()]);
    // The clock was half a second ahead when these were drawn.
    let ahead = Draw { at_us: now_us(&mut connection) + SECOND / 2, cost: 1 };
    ledger::seed(&mut connection, &asked.key, 0, &[ahead, ahead]);

    let reply = admit.decode(run(&mut connection, &admit.call())).unwrap();
    assert!(
        matches!(&reply, AdmitReply::Admitted(windows) if windows[0].remaining == 0 && !windows[0].redated),
        "{reply:?}"
    );
    assert_eq!(
        ledger::read(&mut connection, &asked.key),
        [ahead, Draw { cost: 2, ..ahead }],
        "dated like the newest"
    );
    expires_with_the_last_draw(&mut connection, &asked, ahead.at_us);

    match admit.decode(run(&mut connection, &admit.call())).unwrap() {
        AdmitReply::Limited { retry_after: Some(wait), .. } => {
            assert!(wait > SECOND_LONG && wait <= SECOND_LONG * 3 / 2, "{wait:?}");
        }
        reply => panic!("{reply:?}"),
    }
}

const SECOND_LONG: Duration = Duration::from_secs(1);

// Proves: A9
// Finding 10.6: Redis's clock went back by an hour, and a limit of some calls a second was used up for an hour.
#[test]
fn draws_from_a_far_future_are_dated_now_and_still_count() {
    for server in Valkey::each() {
        let mut connection = server.connect();
        let asked = window("calls", 3, SECOND, 1);
        let admit = draw_from(vec![asked.clone()]);
        let hour = now_us(&mut connection) + 3_600 * SECOND;
        let drawn = [hour, hour + 1].map(|at_us| Draw { at_us, cost: 1 });
        ledger::seed(&mut connection, &asked.key, 40, &drawn);

        let reply = admit.decode(run(&mut connection, &admit.call())).unwrap();
        assert!(
            matches!(&reply, AdmitReply::Admitted(windows) if windows[0].remaining == 0 && windows[0].redated),
            "{reply:?}"
        );
        let kept = ledger::read(&mut connection, &asked.key);
        assert_eq!(kept.iter().map(|draw| draw.cost).sum::<u64>(), 3, "{kept:?}");
        expires_with_the_last_draw(&mut connection, &asked, kept.last().unwrap().at_us);
        match admit.decode(run(&mut connection, &admit.call())).unwrap() {
            AdmitReply::Limited { retry_after: Some(wait), windows, .. } => {
                assert!(wait <= SECOND_LONG, "{wait:?}");
                assert!(!windows[0].redated, "said once");
            }
            reply => panic!("{reply:?}"),
        }
    }
}

#[test]
fn several_windows_are_drawn_from_all_or_none() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let windows = |costs: [u64; 3]| {
        draw_from(vec![
            window("second", 5, 60 * SECOND, costs[0]),
            window("hour", 3, 3_600 * SECOND, costs[1]),
            window("day", 4, 600 * SECOND, costs[2]),
        ])
    };
    let remaining = |states: &[WindowState]| states.iter().map(|s| s.remaining).collect::<Vec<_>>();
    let mut ask = |costs| {
        let admit = windows(costs);
        let reply = admit.decode(run(&mut connection, &admit.call())).unwrap();
        let left: Vec<usize> = admit
            .windows
            .iter()
            .map(|window| ledger::read(&mut connection, &window.key).len())
            .collect();
        match reply {
            AdmitReply::Admitted(states) => ("admitted", None, remaining(&states), left),
            AdmitReply::Limited { retry_after, window, windows } => {
                let verdict = if retry_after.is_some() { "refused" } else { "never" };
                (verdict, Some(window), remaining(&windows), left)
            }
            AdmitReply::Stale(_) => panic!("no guards"),
        }
    };
    assert_eq!(ask([1, 1, 1]), ("admitted", None, vec![4, 2, 3], vec![1, 1, 1]));
    assert_eq!(ask([1, 0, 2]), ("admitted", None, vec![3, 2, 1], vec![2, 1, 2]));
    // The middle window is full; the others keep their units.
    assert_eq!(ask([1, 3, 1]), ("refused", Some(1), vec![3, 2, 1], vec![2, 1, 2]));
    // Two windows are full: the reply names the one with the longer wait.
    assert_eq!(ask([4, 1, 2]), ("refused", Some(2), vec![3, 2, 1], vec![2, 1, 2]));
    assert_eq!(ask([4, 3, 2]), ("refused", Some(1), vec![3, 2, 1], vec![2, 1, 2]));
    // An endless wait is the longest.
    assert_eq!(ask([6, 3, 2]), ("never", Some(0), vec![3, 2, 1], vec![2, 1, 2]));
    assert_eq!(ask([4, 3, 5]), ("never", Some(2), vec![3, 2, 1], vec![2, 1, 2]));
    assert_eq!(ask([3, 2, 1]), ("admitted", None, vec![0, 0, 0], vec![3, 2, 3]));
}

// Proves: A21, X2
#[test]
fn a_moved_guard_comes_back_and_nothing_is_drawn() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    for (id, rev, doc) in [("a1", "7", "{\"a\":1}"), ("a2", "3", "{\"b\":2}")] {
        let key = Key::record("acme", id);
        let _: () = connection.hset_multiple(key.as_str(), &[("rev", rev), ("doc", doc)]).unwrap();
    }
    let rev = |rev: &str| Expected::Revision(rev.into());
    let present = |rev: &str, doc: &str| GuardState::Present { rev: rev.into(), doc: doc.into() };
    use Expected::{Absent, Unknown};
    use GuardState as G;

    let calls = window("calls", 100, 60 * SECOND, 1);
    let mut drawn = 0;
    for (expected, states) in [
        ([rev("7"), rev("3"), Absent], None),
        ([rev("6"), rev("3"), Absent], Some([present("7", "{\"a\":1}"), G::Current, G::Current])),
        ([Absent, rev("3"), Absent], Some([present("7", "{\"a\":1}"), G::Current, G::Current])),
        ([rev("7"), rev("3"), rev("1")], Some([G::Current, G::Current, G::Absent])),
        ([rev("7"), rev("3"), Unknown], Some([G::Current, G::Current, G::Absent])),
        (
            [Unknown, rev("2"), Unknown],
            Some([present("7", "{\"a\":1}"), present("3", "{\"b\":2}"), G::Absent]),
        ),
        ([rev("7"), rev("3"), Absent], None),
    ] {
        let guards = ["a1", "a2", "gone"].map(|id| Key::record("acme", id));
        let guards = guards.into_iter().zip(expected);
        let admit = Admit {
            guards: guards.map(|(key, expected)| Guard { key, expected }).collect(),
            windows: vec![calls.clone()],
            used: None,
            intent: None,
        };
        let reply = admit.decode(run(&mut connection, &admit.call())).unwrap();
        drawn += usize::from(states.is_none());
        match states {
            None => assert!(matches!(reply, AdmitReply::Admitted(_)), "{admit:?}: {reply:?}"),
            Some(states) => assert_eq!(reply, AdmitReply::Stale(states.into()), "{admit:?}"),
        }
        assert_eq!(ledger::read(&mut connection, &calls.key).len(), drawn, "{admit:?}");
    }
}

#[test]
fn without_windows_the_guards_decide_alone() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let guard = Guard { key: Key::record("acme", "a1"), expected: Expected::Absent };
    let admit = Admit { guards: vec![guard], windows: vec![], used: None, intent: None };
    let reply = run(&mut connection, &admit.call());
    assert!(matches!(&reply, Value::Array(items) if items.len() == 3), "{reply:?}");
    assert_eq!(admit.decode(reply), Ok(AdmitReply::Admitted(vec![])));
}

#[test]
fn a_key_of_another_type_is_an_error_and_nothing_is_drawn() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let admit = draw_from(vec![window("calls", 5, SECOND, 1), window("text", 5, SECOND, 1)]);
    let _: () = connection.set(admit.windows[1].key.as_str(), "x").unwrap();
    let reply = run(&mut connection, &admit.call());
    assert!(matches!(&reply, Value::Error(text) if text.starts_with("WRONGTYPE")), "{reply:?}");
    assert!(ledger::read(&mut connection, &admit.windows[0].key).is_empty());
}
