//! Several workers and one window, with pending calls: never too many units, and not far too few.

use std::collections::BTreeMap;

use super::*;
use crate::policy::Cost;
use portcullis_redis_lua::Scope;
use std::time::Duration;

const LIMIT: u64 = 20;
const LENGTH: u64 = 10_000;
const LASTS: u64 = 1_000;

fn quota(lease: u64) -> Quota {
    let lasts = if lease > 0 { LASTS } else { 0 };
    Quota {
        name: "limits.hot".into(),
        cost: Cost::Calls,
        length: Duration::from_micros(LENGTH),
        lease: (lease > 0).then_some(lease),
        lasts: Duration::from_micros(lasts),
        window: Window {
            key: Key::window(Scope::Org("acme"), "hot", &[]),
            limit: LIMIT,
            length_us: LENGTH + lasts,
            grain_us: 1,
            cost: 1,
            alert: None,
        },
    }
}

/// The window in Redis: the time and size of each draw.
#[derive(Default)]
struct Redis(Vec<(u64, u64)>);

impl Redis {
    /// Draws, if everything fits; returns the window's state.
    fn draw(&mut self, asked: &[Window], now: u64) -> (bool, Vec<WindowState>) {
        let Some(window) = asked.first() else {
            return (true, Vec::new());
        };
        let inside = self.0.iter().filter(|(at, _)| at + window.length_us > now);
        let used: u64 = inside.map(|(_, cost)| cost).sum();
        let fits = used + window.cost <= window.limit;
        if fits {
            self.0.push((now, window.cost));
        }
        let used = used + if fits { window.cost } else { 0 };
        let remaining = window.limit - used;
        (
            fits,
            vec![WindowState { remaining, reset: Duration::ZERO, raised: false, redated: false }],
        )
    }
}

struct Random(u64);

impl Random {
    fn random_below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

enum Event {
    /// A worker starts a call.
    Ask(usize, u8),
    /// Redis receives it.
    Reach(usize, u8, DrawPlan, Vec<Window>),
    /// The worker receives the answer, given at that time.
    Answer(usize, u8, DrawPlan, (bool, Vec<WindowState>), u64),
}

/// The times of admitted calls, with three workers and `lease` units a lease, under more demand than the limit.
fn admitted(lease: u64, seed: u64) -> Vec<u64> {
    let (quotas, mut random) = ([quota(lease)], Random(seed));
    let mut workers: [Leases; 3] = Default::default();
    let (mut redis, mut admitted) = (Redis::default(), Vec::new());
    let mut events: BTreeMap<(u64, u64), Event> = BTreeMap::new();
    for call in 0..4_000 {
        let at = call * 50 + random.random_below(200);
        events.insert((at, call), Event::Ask(random.random_below(3) as usize, 0));
    }
    let moment = |now| UnixTime::from_micros(now);
    while let Some(((now, call), event)) = events.pop_first() {
        let later = now + 1 + random.random_below(150);
        match event {
            Event::Ask(worker, round) => {
                let (plan, windows) = workers[worker].draw(&quotas, moment(now));
                events.insert((later, call), Event::Reach(worker, round, plan, windows));
            }
            Event::Reach(worker, round, plan, windows) => {
                let reply = redis.draw(&windows, now);
                // Some answers take longer than a lease lasts.
                let later = later + if random.random_below(40) == 0 { 2 * LASTS } else { 0 };
                events.insert((later, call), Event::Answer(worker, round, plan, reply, now));
            }
            Event::Answer(worker, round, plan, (drawn, states), at) => {
                let leases = &mut workers[worker];
                let settled = match drawn {
                    true => leases.admitted(plan, &quotas, states, moment(now)),
                    false => leases.limited(plan, &quotas, states, moment(now)),
                };
                match settled {
                    DrawResult::For(states) => {
                        assert_eq!(states.len(), 1);
                        admitted.extend(drawn.then_some(at));
                    }
                    DrawResult::Again if round < 3 => {
                        events.insert((later, call), Event::Ask(worker, round + 1));
                    }
                    DrawResult::Rest(plan, windows) if round < 3 => {
                        let event = Event::Reach(worker, round + 1, plan, windows);
                        events.insert((later, call), event);
                    }
                    DrawResult::Again | DrawResult::Rest(..) => {}
                }
            }
        }
    }
    admitted.sort_unstable();
    admitted
}

// Proves: A9
#[test]
fn slices_never_admit_more_than_the_limit_and_not_much_less() {
    for seed in 1..=15 {
        let exact = admitted(0, seed).len() as f64;
        for lease in [2, 5, 20] {
            let times = admitted(lease, seed);
            for (first, start) in times.iter().enumerate() {
                let inside = times[first..].iter().take_while(|time| **time < start + LENGTH);
                let count = inside.count() as u64;
                assert!(count <= LIMIT, "lease {lease}, seed {seed}: {count} from {start}");
            }
            let share = times.len() as f64 / exact;
            // Every unit counts a tenth longer, and the unused units of three workers' leases are lost.
            let least = if lease == 20 { 0.3 } else { 0.6 };
            assert!(
                share > least,
                "lease {lease}, seed {seed}: {share} of what exact windows admit"
            );
        }
    }
}

#[test]
fn a_slice_is_used_up_before_another_is_drawn_and_expires() {
    let (quotas, mut leases) = ([quota(3)], Leases::default());
    let at = |micros| UnixTime::from_micros(1_000_000 + micros);
    let state = |remaining| {
        vec![WindowState { remaining, reset: Duration::ZERO, raised: false, redated: false }]
    };
    let cost = |leases: &mut Leases, now| {
        let (plan, windows) = leases.draw(&quotas, now);
        (windows.first().map(|window| window.cost), plan)
    };
    let (first, plan) = cost(&mut leases, at(0));
    assert_eq!(first, Some(3));
    // While a lease is being drawn, other calls draw single units.
    assert_eq!(cost(&mut leases, at(1)).0, Some(1));
    assert!(matches!(leases.admitted(plan, &quotas, state(17), at(9)), DrawResult::For(_)));
    let (second, plan) = cost(&mut leases, at(10));
    assert_eq!(second, None);
    leases.give_back(plan, &quotas);
    assert_eq!(cost(&mut leases, at(11)).0, None);
    let (third, plan) = cost(&mut leases, at(12));
    assert_eq!(third, None);
    let DrawResult::For(states) = leases.admitted(plan, &quotas, vec![], at(20)) else { panic!() };
    assert_eq!(states[0].remaining, 17);
    let (fourth, plan) = cost(&mut leases, at(30));
    assert_eq!(fourth, Some(3));
    // Only two units are left: single draws from now on.
    assert!(matches!(leases.limited(plan, &quotas, state(2), at(40)), DrawResult::Again));
    assert_eq!(cost(&mut leases, at(41)).0, Some(1));
    let (later, plan) = cost(&mut leases, at(40 + LASTS));
    assert_eq!(later, Some(3));
    leases.admitted(plan, &quotas, state(5), at(41 + LASTS));
    let (held, plan) = cost(&mut leases, at(42 + LASTS));
    assert_eq!(held, None);
    // The answer came after the unit had expired.
    let late = leases.admitted(plan, &quotas, vec![], at(40 + 2 * LASTS));
    let DrawResult::Rest(_, windows) = late else { panic!("{late:?}") };
    assert_eq!(windows[0].cost, 3, "the last one was over, too");
    // The clock was set back.
    let (_, plan) = cost(&mut leases, at(41 + 3 * LASTS));
    leases.admitted(plan, &quotas, state(9), at(42 + 3 * LASTS));
    assert_eq!(cost(&mut leases, at(0)).0, Some(3));
}

// A test under load had 225 draws for 224 calls.
// Proves: A9
#[test]
fn what_redis_drew_is_not_drawn_again_when_a_held_unit_was_too_old() {
    let mut plain = quota(0);
    plain.name = "limits.plain".into();
    plain.window.key = Key::window(Scope::Org("acme"), "plain", &[]);
    let (quotas, mut leases) = ([quota(3), plain], Leases::default());
    let at = |micros| UnixTime::from_micros(1_000_000 + micros);
    let states = |count| {
        let state =
            WindowState { remaining: 9, reset: Duration::ZERO, raised: false, redated: false };
        vec![state; count]
    };
    let asked = |windows: &[Window]| -> Vec<(String, u64)> {
        let shown = windows.iter().map(|window| (window.key.as_str().to_owned(), window.cost));
        shown.collect()
    };
    let [hot, plain] = ["hot", "plain"].map(|name| Key::window(Scope::Org("acme"), name, &[]));
    let [hot, plain] = [hot, plain].map(|key| key.as_str().to_owned());
    let (plan, windows) = leases.draw(&quotas, at(0));
    assert_eq!(asked(&windows), [(hot.clone(), 3), (plain.clone(), 1)]);
    assert!(matches!(leases.admitted(plan, &quotas, states(2), at(1)), DrawResult::For(_)));
    // The second call has a unit; Redis is slow.
    let (plan, windows) = leases.draw(&quotas, at(10));
    assert_eq!(asked(&windows), [(plain, 1)]);
    let late = leases.admitted(plan, &quotas, states(1), at(LASTS + 1));
    let DrawResult::Rest(plan, windows) = late else { panic!("{late:?}") };
    assert_eq!(asked(&windows), [(hot, 3)]);
    assert_eq!(plan.asked(0), Some(0));
    let DrawResult::For(stand) = leases.admitted(plan, &quotas, states(1), at(LASTS + 2)) else {
        panic!("it was drawn")
    };
    assert_eq!(stand.len(), 2);
}
