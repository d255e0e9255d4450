//! Many connections at once. Each window has a recorder: a window with a limit that is never reached, which the same
//! atomic calls draw from. The recorder's list is therefore the exact history of admitted calls.

use std::time::{Duration, Instant};

use portcullis_redis_lua::{AdmitReply, Window};
use redis::Commands as _;

use crate::ledger::{self, Draw, draw_from, window};
use crate::model::Random;
use crate::valkey::{Valkey, run};

const CONNECTIONS: u64 = 8;
const ROUNDS: u64 = 4;
const RUN_FOR: Duration = Duration::from_millis(600);
const WINDOWS: usize = 5;

/// A window of one round, without the cost.
#[derive(Debug, Clone, Copy)]
struct Drawn {
    limit: u64,
    length_us: u64,
    grain_us: u64,
}

impl Drawn {
    /// A random window, from a few calls in a moment on; every other one has a coarse grain.
    fn at_random(random: &mut Random, nth: usize) -> Self {
        let length_us = 3_000 + random.random_below(300_000);
        let grain_us = if nth.is_multiple_of(2) { 1 } else { 1 + random.random_below(length_us) };
        Self { limit: 3 + random.random_below(120), length_us, grain_us }
    }

    fn window(self, nth: usize, cost: u64) -> Window {
        let grain_us = self.grain_us;
        Window { grain_us, ..window(&format!("window-{nth}"), self.limit, self.length_us, cost) }
    }
}

// Proves: A8, A9, A10, B1
#[test]
fn no_interval_ever_holds_more_than_the_limit() {
    for server in Valkey::each() {
        for round in 0..ROUNDS {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let seed = (now.unwrap().as_nanos() as u64) << 8 | round << 1 | 1;
            limits_hold(&server, seed);
        }
    }
}

fn limits_hold(server: &Valkey, seed: u64) {
    let mut connection = server.connect();
    let _: () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
    let mut random = Random(seed);
    let windows: [Drawn; WINDOWS] = std::array::from_fn(|nth| Drawn::at_random(&mut random, nth));
    let about = format!("{}, seed {seed}: {windows:?}", server.name());
    let seeds: Vec<u64> = (0..CONNECTIONS).map(|_| 1 + random.random_below(u64::MAX)).collect();
    let admitted: [u64; WINDOWS] = std::thread::scope(|scope| {
        let windows = &windows;
        let clients: Vec<_> = seeds
            .into_iter()
            .map(|seed| scope.spawn(move || draw_at_random(server, windows, seed)))
            .collect();
        clients.into_iter().fold([0; WINDOWS], |mut sum, client| {
            for (sum, units) in sum.iter_mut().zip(client.join().unwrap()) {
                *sum += units;
            }
            sum
        })
    });

    let mut filled = 0;
    for (nth, (drawn, units)) in windows.into_iter().zip(admitted).enumerate() {
        let kept = ledger::read(&mut connection, &drawn.window(nth, 0).key).len() as u64;
        let most = (drawn.length_us.div_ceil(drawn.grain_us) + 1).min(drawn.limit);
        assert!(kept <= most, "{about}: {kept} dates in window {nth}");
        let history = ledger::read(&mut connection, &recorder(nth, 0).key);
        let recorded: u64 = history.iter().map(|draw| draw.cost).sum();
        assert_eq!(recorded, units, "{about}: drawn in full by each admitted call, by no other");
        let fullest = fullest_interval(&history, drawn.length_us);
        assert!(fullest <= drawn.limit, "{about}: {fullest} units in window {nth}");
        filled += usize::from(fullest + 3 > drawn.limit);
    }
    assert!(filled > 0, "{about}: too little happened to prove anything");
    every_key_expires(&mut connection);
}

/// Draws from a random choice of windows, ignores every reply, and sometimes pauses; returns the units admitted per
/// window.
fn draw_at_random(server: &Valkey, windows: &[Drawn; WINDOWS], seed: u64) -> [u64; WINDOWS] {
    let mut random = Random(seed);
    let mut connection = server.connect();
    let mut admitted = [0; WINDOWS];
    let end = Instant::now() + RUN_FOR;
    while Instant::now() < end {
        let costs: [u64; WINDOWS] =
            std::array::from_fn(|_| [0, 0, 1, 1, 2, 3][random.random_below(6) as usize]);
        let asked = windows.iter().zip(costs).enumerate();
        let asked =
            asked.flat_map(|(nth, (drawn, cost))| [drawn.window(nth, cost), recorder(nth, cost)]);
        let admit = draw_from(asked.collect());
        if let AdmitReply::Admitted(_) = admit.decode(run(&mut connection, &admit.call())).unwrap()
        {
            for (sum, cost) in admitted.iter_mut().zip(costs) {
                *sum += cost;
            }
        }
        if random.random_below(50) == 0 {
            std::thread::sleep(Duration::from_micros(random.random_below(20_000)));
        }
    }
    admitted
}

fn recorder(nth: usize, cost: u64) -> Window {
    window(&format!("recorder-{nth}"), 1 << 50, 3_600_000_000, cost)
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
    for server in Valkey::each() {
        waits_as_told(&server);
    }
}

fn waits_as_told(server: &Valkey) {
    let mut connection = server.connect();
    let mut random = Random(7);
    let mut waits = 0;
    for _ in 0..400 {
        let costs = [1 + random.random_below(2), 1 + random.random_below(9)];
        let admit = draw_from(vec![
            window("calls", 4, 12_000, costs[0]),
            window("credits", 20, 25_000, costs[1]),
            Window { grain_us: 3_000, ..window("bytes", 30, 30_000, costs[1]) },
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
    vanishes_when_idle(&mut connection);
}

/// The longest window here is 30 ms; the server takes a moment to notice.
fn vanishes_when_idle(connection: &mut redis::Connection) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while redis::cmd("DBSIZE").query::<u64>(connection).unwrap() > 0 {
        assert!(Instant::now() < deadline, "keys of idle windows are still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}
