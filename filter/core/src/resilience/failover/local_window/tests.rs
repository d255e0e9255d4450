//! Compares local windows with a model that keeps every draw.

use proptest::collection::vec;
use proptest::prelude::*;

use portcullis_redis_lua::Scope;

use super::*;

const HALF: WorkerShare = WorkerShare(500_000);

fn at(micros: u64) -> UnixTime {
    UnixTime::from_micros(micros)
}

fn org(name: &str) -> &'static OrgId {
    static ORGS: std::sync::OnceLock<[OrgId; 2]> = std::sync::OnceLock::new();
    let orgs = ORGS.get_or_init(|| ["acme", "globex"].map(|name| OrgId::new(name).unwrap()));
    orgs.iter().find(|org| org.as_str() == name).unwrap()
}

fn acme(micros: u64) -> (&'static OrgId, UnixTime) {
    (org("acme"), at(micros))
}

fn window(name: &str, limit: u64, length_us: u64, cost: u64) -> Window {
    let key = Key::window(Scope::Org("acme"), name, &[]);
    Window { key, limit, length_us, grain_us: 1, cost, alert: None }
}

#[test]
fn a_share_of_less_than_one_unit_is_one_unit_in_more_time() {
    let part = |limit, length_us, share| {
        let part = WorkerWindow::of(&window("w", limit, length_us, 1), WorkerShare(share));
        (part.limit, part.length.as_micros())
    };
    assert_eq!(part(100, 1_000_000, 100_000), (10, 1_000_000));
    assert_eq!(part(5, 1_000_000, 100_000), (1, 2_000_000));
    assert_eq!(part(3, 1_000_000, 100_000), (1, 3_333_334), "rounded to the later side");
    assert_eq!(part(7, 1_000_000, 1_000_000), (7, 1_000_000));
    assert_eq!(part(u64::MAX, u64::MAX, 1_000_000), (u64::MAX, u128::from(u64::MAX)));
    assert_eq!(part(0, 1, 1), (1, 1_000_000), "a limit of none does not divide by none");
}

// Proves: B11
#[test]
fn all_windows_of_a_call_are_drawn_from_or_none() {
    let mut windows = LocalWindows::default();
    let call = [window("wide", 8, 1_000, 1), window("narrow", 2, 1_000, 1)];
    assert_eq!(windows.draw(acme(0), &call, HALF), Ok(()));
    let full = LocalLimit { window: 1, retry_after: Some(Duration::from_micros(900)) };
    for _ in 0..5 {
        assert_eq!(windows.draw(acme(100), &call, HALF), Err(full));
    }
    for _ in 0..3 {
        assert_eq!(
            windows.draw(acme(200), &call[..1], HALF),
            Ok(()),
            "the refused ones cost nothing"
        );
    }
    assert!(windows.draw(acme(200), &call[..1], HALF).is_err());
}

#[test]
fn a_call_that_costs_more_than_the_share_never_fits() {
    let mut windows = LocalWindows::default();
    let never = Err(LocalLimit { window: 0, retry_after: None });
    assert_eq!(windows.draw(acme(0), &[window("w", 10, 1_000, 6)], HALF), never);
    assert_eq!(windows.draw(acme(0), &[window("w", 10, 1_000, 5)], HALF), Ok(()));
    assert_eq!(windows.draw(acme(0), &[window("w", 10, 1_000, 6)], HALF), never);
}

#[test]
fn windows_are_bounded_and_live_ones_are_never_forgotten() {
    let mut windows = LocalWindows::default();
    let name = |n: usize| [window(&n.to_string(), 2, 10_000_000, 1)];
    for n in 0..MAX_OF_ORG {
        assert_eq!(windows.draw(acme(0), &name(n), HALF), Ok(()));
    }
    let crowded = Err(LocalLimit { window: 0, retry_after: Some(CROWDED) });
    assert_eq!(windows.draw(acme(5_000_000), &name(MAX_OF_ORG), HALF), crowded);
    assert!(windows.draw(acme(5_000_000), &name(7), HALF).is_err(), "still full");
    assert_eq!(windows.draw(acme(10_000_000), &name(MAX_OF_ORG), HALF), Ok(()));
    assert_eq!(windows.ledgers.len(), 1);
}

// Finding 12.7: one key with made-up tool names took all local windows, and another organisation's first call was 429.
#[test]
fn what_one_organisation_fills_is_full_for_it_alone() {
    let mut windows = LocalWindows::default();
    let name = |n: usize| [window(&n.to_string(), 2, 10_000_000, 1)];
    let own = |n: usize| {
        let key = Key::window(Scope::Org("globex"), &n.to_string(), &[]);
        [Window { key, ..window("w", 2, 10_000_000, 1) }]
    };
    let mut begun = 0;
    for n in 0..MAX_WINDOWS {
        begun += usize::from(windows.draw(acme(0), &name(n), HALF).is_ok());
    }
    assert_eq!(begun, MAX_OF_ORG);
    for n in 0..FLOOR_OF_ORG {
        assert_eq!(windows.draw((org("globex"), at(1)), &own(n), HALF), Ok(()), "{n}");
    }
    // Once they are empty, new windows fit again.
    assert_eq!(windows.draw(acme(10_000_001), &name(MAX_OF_ORG), HALF), Ok(()));
}

#[test]
fn a_large_window_keeps_few_draws() {
    let mut windows = LocalWindows::default();
    let call = [window("w", 1_000_000, 1_000_000, 1)];
    let admitted =
        (0..600_000).filter(|micros| windows.draw(acme(*micros), &call, HALF).is_ok()).count();
    assert_eq!(admitted, 500_000);
    let kept = windows.ledgers[&call[0].key].draws.len();
    assert!(kept <= 2 * 1_024 + 2, "{kept}");
}

/// The time between two calls; sometimes the clock goes back.
fn steps() -> impl Strategy<Value = Vec<(i64, u64)>> {
    let step = prop_oneof![8 => 0_i64..400, 2 => 0_i64..3_000, 1 => -500_i64..0];
    vec((step, 0_u64..4), 1..200)
}

proptest! {
    // Proves: A9
    #[test]
    fn no_interval_holds_more_than_the_share_and_nobody_waits_in_vain(
        limit in 2_u64..40, length in 100_u64..5_000, steps in steps()
    ) {
        let mut windows = LocalWindows::default();
        let part = WorkerWindow::of(&window("w", limit, length, 1), HALF);
        let span = u64::try_from(part.length.as_micros()).unwrap();
        let (mut clock, mut now) = (1_000_000_i64, 0_u64);
        let mut draws: Vec<(u64, u64)> = Vec::new();
        for (step, cost) in steps {
            clock += step;
            let told = u64::try_from(clock).unwrap();
            now = now.max(told);
            let call = [window("w", limit, length, cost)];
            let used = |from: u64| -> u64 {
                draws.iter().filter(|(time, _)| time + span > from).map(|(_, units)| units).sum()
            };
            match windows.draw(acme(told), &call, HALF) {
                Ok(()) => draws.push((now, cost)),
                Err(LocalLimit { retry_after: None, .. }) => prop_assert!(cost > part.limit),
                Err(LocalLimit { retry_after: Some(wait), .. }) => {
                    prop_assert!(used(now) + cost > part.limit, "refused though it fits");
                    let then = now + u64::try_from(wait.as_micros()).unwrap();
                    prop_assert!(used(then) + cost <= part.limit, "told to come back too early");
                    prop_assert!(used(then - 1) + cost > part.limit, "told to come back too late");
                }
            }
        }
        for (start, _) in &draws {
            let within = draws.iter().filter(|(time, _)| (*start..start + span).contains(time));
            prop_assert!(within.map(|(_, units)| units).sum::<u64>() <= part.limit);
        }
    }
}
