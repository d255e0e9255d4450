//! Many connections at once. Each window has a recorder beside it: a window without an effective limit
//! that the same atomic calls draw from, so its list is the exact history of what was admitted.

use std::time::{Duration, Instant};

use portcullis_redis_lua::{AdmitReply, Window};
use redis::Commands as _;

use crate::ledger::{self, Draw, draw_from, window};
use crate::model::Random;
use crate::valkey::{Valkey, run};

const CONNECTIONS: u64 = 8;
const RUN_FOR: Duration = Duration::from_millis(1_500);
const WINDOWS: [(&str, u64, u64); 4] =
    [("a", 3, 5_000), ("b", 25, 50_000), ("c", 100, 400_000), ("d", 60, 250_000)];

// Proves: A8, A9, A10, B1
#[test]
fn no_interval_ever_holds_more_than_the_limit() {
    let valkey = Valkey::start();
    let admitted: [u64; 4] = std::thread::scope(|scope| {
        let valkey = &valkey;
        let clients: Vec<_> = (1..=CONNECTIONS)
            .map(|seed| scope.spawn(move || draw_at_random(valkey, seed)))
            .collect();
        clients.into_iter().fold([0; 4], |mut sum, client| {
            for (sum, units) in sum.iter_mut().zip(client.join().unwrap()) {
                *sum += units;
            }
            sum
        })
    });

    let mut connection = valkey.connect();
    for ((name, limit, length_us), units) in WINDOWS.into_iter().zip(admitted) {
        let history = ledger::read(&mut connection, &recorder(name, 0).key);
        let recorded: u64 = history.iter().map(|draw| draw.cost).sum();
        assert_eq!(recorded, units, "{name}: drawn in full by each admitted call, by no other");
        assert!(recorded > limit, "{name}: too little happened to prove anything");
        let fullest = fullest_interval(&history, length_us);
        assert!(fullest <= limit, "{name}: {fullest} units within {length_us} us, limit {limit}");
    }
    every_key_expires(&mut connection);
}

/// Draws from a random choice of windows, obeying no answer; returns the units admitted per window.
fn draw_at_random(valkey: &Valkey, seed: u64) -> [u64; 4] {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut connection = valkey.connect();
    let mut admitted = [0; 4];
    let end = Instant::now() + RUN_FOR;
    while Instant::now() < end {
        let costs = WINDOWS.map(|_| [0, 0, 1, 1, 2, 3][random.below(6) as usize]);
        let windows =
            WINDOWS.into_iter().zip(costs).flat_map(|((name, limit, length_us), cost)| {
                [window(name, limit, length_us, cost), recorder(name, cost)]
            });
        let admit = draw_from(windows.collect());
        if let AdmitReply::Admitted(_) = admit.decode(run(&mut connection, &admit.call())).unwrap()
        {
            for (sum, cost) in admitted.iter_mut().zip(costs) {
                *sum += cost;
            }
        }
    }
    admitted
}

fn recorder(name: &str, cost: u64) -> Window {
    window(&format!("recorder-{name}"), 1 << 50, 3_600_000_000, cost)
}

/// The most units in any half-open interval `[t, t + length)`; it is enough to start at each draw.
fn fullest_interval(history: &[Draw], length_us: u64) -> u64 {
    assert!(history.is_sorted_by_key(|draw| draw.at_us));
    (0..history.len())
        .map(|first| {
            let end = history[first].at_us + length_us;
            let inside = history[first..].iter().take_while(|draw| draw.at_us < end);
            inside.map(|draw| draw.cost).sum()
        })
        .max()
        .unwrap_or(0)
}

fn every_key_expires(connection: &mut redis::Connection) {
    let keys: Vec<String> = connection.keys("*").unwrap();
    assert!(!keys.is_empty());
    for key in keys {
        let ttl: i64 = connection.pttl(&key).unwrap();
        assert_ne!(ttl, -1, "{key} stays for ever");
    }
}

// Proves: A12
#[test]
fn who_waits_as_told_is_admitted() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let mut random = Random(7);
    let mut waits = 0;
    for _ in 0..400 {
        let costs = [1 + random.below(2), 1 + random.below(9)];
        let admit = draw_from(vec![
            window("calls", 4, 12_000, costs[0]),
            window("credits", 20, 25_000, costs[1]),
        ]);
        let reply = admit.decode(run(&mut connection, &admit.call())).unwrap();
        let AdmitReply::Limited { retry_after, .. } = reply else {
            continue;
        };
        waits += 1;
        std::thread::sleep(retry_after.expect("every cost is below its limit"));
        let reply = admit.decode(run(&mut connection, &admit.call())).unwrap();
        assert!(matches!(reply, AdmitReply::Admitted(_)), "after {retry_after:?}: {reply:?}");
    }
    assert!(waits > 40, "told to wait only {waits} times");
}
