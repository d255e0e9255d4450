//! Slowing down guessing: invariants for every order of failures, successes and waits.

use std::time::Duration;

use portcullis_core::auth::throttle::{Attempt, Throttle, ThrottleConfig};
use portcullis_core::time::UnixTime;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;

#[derive(Clone, Debug)]
enum Op {
    /// Time passes, or the clock is set back.
    At(u64),
    Fail(u8, u8),
    Succeed(u8),
    Ask(u8, u8),
}

fn op() -> impl Strategy<Value = Op> {
    let (address, credential) = (0..4_u8, 0..4_u8);
    prop_oneof![
        (0..400_u64).prop_map(Op::At),
        (address.clone(), credential.clone()).prop_map(|(a, c)| Op::Fail(a, c)),
        credential.clone().prop_map(Op::Succeed),
        (address, credential).prop_map(|(a, c)| Op::Ask(a, c)),
    ]
}

fn address(number: u8) -> String {
    format!("192.0.2.{number}")
}

proptest! {
    #![proptest_config(cases(512))]

    // Proves: A14
    #[test]
    fn a_wait_is_bounded_ends_when_it_says_and_meets_only_what_failed_before(
        failures in 0..5_u32,
        ops in vec(op(), 0..60),
    ) {
        let (window, longest) = (Duration::from_secs(30), Duration::from_secs(20));
        let mut throttle = Throttle::new(ThrottleConfig { failures, window, longest, trials: 500 });
        let mut now = UnixTime::from_micros(0);
        let mut proven = [None; 4];
        let mut failed = [0; 4];
        let mut bad = [false; 4];
        for op in ops {
            match op {
                Op::At(second) => now = UnixTime::from_micros(second * 1_000_000),
                Op::Fail(from, credential) => {
                    throttle.failed(&address(from), &[credential; 32], now);
                    proven[usize::from(credential)] = None;
                    failed[usize::from(from)] += 1;
                    bad[usize::from(credential)] = true;
                }
                Op::Succeed(credential) => {
                    throttle.succeeded("192.0.2.0", [credential; 32], Attempt::Free, now);
                    proven[usize::from(credential)] = Some(());
                    bad[usize::from(credential)] = false;
                }
                Op::Ask(from, credential) => {
                    let answer = throttle.check(&address(from), &[credential; 32], now);
                    let Err(wait) = answer else { continue };
                    prop_assert!(wait <= longest && !wait.is_zero());
                    prop_assert_eq!(proven[usize::from(credential)], None);
                    // A credential that is new here only waits for its address's share.
                    prop_assert!(bad[usize::from(credential)] || wait < Duration::from_secs(1));
                    prop_assert!(failures > 0 && failed[usize::from(from)] >= failures);
                    let later = now.after(wait);
                    prop_assert!(throttle.check(&address(from), &[credential; 32], later).is_ok());
                }
            }
        }
    }
}
