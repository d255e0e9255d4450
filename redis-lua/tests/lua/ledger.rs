//! The tests' own reader and writer of a window's list: `total_0, time_1, total_1, ..`.

use portcullis_redis_lua::{Admit, Alert, Key, Scope, Window};
use redis::Commands as _;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draw {
    pub(crate) at_us: u64,
    pub(crate) cost: u64,
}

/// All draws still in the list, oldest first.
pub(crate) fn read(connection: &mut redis::Connection, key: &Key) -> Vec<Draw> {
    let list: Vec<u64> = connection.lrange(key.as_str(), 0, -1).expect("a list of integers");
    let totals = list.iter().step_by(2);
    let times = list.iter().skip(1).step_by(2);
    assert!(list.is_empty() || list.len() % 2 == 1, "half a draw in {list:?}");
    times
        .zip(totals.clone().zip(totals.skip(1)))
        .map(|(&at_us, (before, after))| Draw { at_us, cost: after - before })
        .collect()
}

/// Writes draws as if `admit` had made them, the totals starting at `first`.
pub(crate) fn seed(connection: &mut redis::Connection, key: &Key, first: u64, draws: &[Draw]) {
    let mut list = vec![first];
    for draw in draws {
        list.extend([draw.at_us, list.last().expect("never empty") + draw.cost]);
    }
    let _: () = connection.rpush(key.as_str(), list).expect("Valkey takes it");
    let _: () = connection.pexpire(key.as_str(), 3_600_000).expect("Valkey takes it");
}

/// Appends draws to a list that may exist already.
pub(crate) fn append(connection: &mut redis::Connection, key: &Key, draws: &[Draw]) {
    let last: Option<u64> = connection.lindex(key.as_str(), -1).expect("a list of integers");
    match last {
        None => seed(connection, key, 0, draws),
        Some(mut total) => {
            let mut list = Vec::new();
            for draw in draws {
                total += draw.cost;
                list.extend([draw.at_us, total]);
            }
            let _: () = connection.rpush(key.as_str(), list).expect("Valkey takes it");
        }
    }
}

/// Redis's clock.
pub(crate) fn now_us(connection: &mut redis::Connection) -> u64 {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(connection).expect("a time");
    seconds * 1_000_000 + micros
}

pub(crate) fn window(name: &str, limit: u64, length_us: u64, cost: u64) -> Window {
    let key = Key::window(Scope::Org("acme"), name, &[("key", "a1")]);
    Window { key, limit, length_us, grain_us: 1, cost, alert: None }
}

/// A window with an alert from `from` units on.
pub(crate) fn alerting(name: &str, limit: u64, length_us: u64, cost: u64, from: u64) -> Window {
    let mark = Key::mark(Scope::Org("acme"), name, &[("key", "a1")]);
    Window { alert: Some(Alert { mark, from }), ..window(name, limit, length_us, cost) }
}

pub(crate) fn draw_from(windows: Vec<Window>) -> Admit {
    Admit { guards: vec![], windows, used: None, intent: None }
}
