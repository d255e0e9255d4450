//! Reading windows: the reply shows the state that an admission sees, and nothing is written.

use std::time::Duration;

use portcullis_redis_lua::{AdmitReply, Key, LOOK, Look, Scope, Window};

use crate::ledger::{Draw, draw_from, read, seed, window};
use crate::valkey::{Valkey, run, send};

#[test]
fn what_is_seen_is_what_an_admission_would_find() {
    for valkey in Valkey::each() {
        let mut connection = valkey.connect();
        let now: (u64, u64) = redis::cmd("TIME").query(&mut connection).unwrap();
        let now = now.0 * 1_000_000 + now.1;
        let length = 60_000_000;
        let ahead = |seconds: i64| vec![-seconds * 1_000_000];
        let exact = [
            (0, vec![]),
            (1, vec![10_000_000]),
            (9, vec![59_000_000, 30_000_000, 1_000_000]),
            (11, vec![200_000_000]),
            (6, vec![300_000_000, 200_000_000, 100_000_000, 50_000_000, 30_000_000, 20_000_000]),
            (8, vec![300_000_000, 200_000_000, 100_000_000, 50_000_000, 30_000_000, 20_000_000]),
            (10, vec![40_000_000; 5]),
            (1, vec![90_000_000; 7]),
            // The clock went back: below a whole window such draws stay as they are, beyond it they are of now.
            (9, ahead(50)),
            (9, ahead(61)),
            (9, ahead(90)),
            (9, ahead(130)),
        ]
        .map(|(cost, ages)| (1, cost, ages));
        // As far ahead as a draw of this grain may be dated, and further.
        let coarse = [65, 75].map(|seconds| (10_000_000, 9, ahead(seconds)));
        for (nth, (grain_us, cost, ages)) in exact.into_iter().chain(coarse).enumerate() {
            let name = format!("calls-{nth}");
            let mut one = Window { cost, grain_us, ..window("x", 10, length, 1) };
            one.key = Key::window(Scope::Org("acme"), &name, &[]);
            let draws: Vec<Draw> = ages
                .iter()
                .copied()
                .zip(0_u64..)
                .map(|(age, nth)| Draw { at_us: now.saturating_add_signed(-age) + nth, cost: 2 })
                .collect();
            if !draws.is_empty() {
                seed(&mut connection, &one.key, 3, &draws);
            }
            let before = read(&mut connection, &one.key);
            let look = Look { windows: vec![one.clone()] };
            let call = look.call();
            let mut reply = send(&mut connection, &call.evalsha_ro());
            if reply.is_noscript() {
                reply = send(&mut connection, &call.eval_ro());
            }
            let seen = look.decode(reply).expect("a state");
            assert_eq!(read(&mut connection, &one.key), before, "{name}: something was written");
            let nothing = Window { cost: 0, ..one.clone() };
            let admit = draw_from(vec![nothing]);
            let found = admit.decode(run(&mut connection, &admit.call())).expect("a reply");
            let AdmitReply::Admitted(found) = found else { panic!("{found:?}") };
            assert_eq!(seen[0].remaining, found[0].remaining, "{name}");
            assert_eq!(seen[0].used, 10 - found[0].remaining, "{name}");
            let apart = seen[0].reset.abs_diff(found[0].reset);
            assert!(apart.as_secs() < 5, "{name}: {seen:?} {found:?}");
            let admit = draw_from(vec![one]);
            let wait = match admit.decode(run(&mut connection, &admit.call())).expect("a reply") {
                AdmitReply::Admitted(_) => Some(Duration::ZERO),
                AdmitReply::Limited { retry_after, .. } => retry_after,
                AdmitReply::Stale(states) => panic!("{states:?}"),
            };
            match (seen[0].wait, wait) {
                (None, None) => {}
                (Some(seen), Some(wait)) => {
                    assert_eq!(seen.is_zero(), wait.is_zero(), "{name} {cost}");
                    assert!(seen.abs_diff(wait).as_secs() < 5, "{name} {cost}: {seen:?} {wait:?}");
                }
                other => panic!("{name} {cost}: {other:?}"),
            }
        }
    }
}

#[test]
fn an_overdrawn_window_is_seen_with_all_that_is_used() {
    for valkey in Valkey::each() {
        let mut connection = valkey.connect();
        let one = window("credits", 30, 60_000_000, 28);
        let charge = Window::overdraw(vec![Window { cost: 9, ..one.clone() }]);
        let admit = draw_from(vec![one.clone()]);
        admit.decode(run(&mut connection, &admit.call())).expect("a reply");
        run(&mut connection, &charge);
        let look = Look { windows: vec![Window { cost: 1, ..one }] };
        let seen = look.decode(run(&mut connection, &look.call())).expect("a state");
        assert_eq!((seen[0].remaining, seen[0].used), (0, 37));
        assert!(seen[0].wait.is_some_and(|wait| !wait.is_zero()), "{seen:?}");
    }
}

#[test]
fn it_is_a_script_that_writes_nothing() {
    assert!(LOOK.source.starts_with("#!lua flags=no-writes\n"));
}
