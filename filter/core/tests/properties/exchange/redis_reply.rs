//! A reader for Redis's replies, independent of the core's.
//!
//! Owns the meaning of admission replies. `watch` owns the consequences.

use portcullis_redis_lua::Value;

/// Redis's last answer about the basis of the verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RedisReply {
    /// Nothing yet.
    None,
    /// The basis is current, and this many windows were drawn from.
    Admitted(usize),
    /// The basis has changed.
    Stale,
}

/// The meaning of a reply to an admission call; updates the expected basis.
pub(super) fn understood(reply: &Value, belief: &mut [String; 2], windows: usize) -> RedisReply {
    let Value::Array(items) = reply else {
        return RedisReply::None;
    };
    match items.as_slice() {
        [Value::Int(1), states @ ..] => {
            let plain = states.iter().all(|state| matches!(state, Value::Int(0..)));
            // With a stamp or without.
            let whole = [3 * windows, 3 * windows + 2].contains(&states.len());
            if plain && whole { RedisReply::Admitted(windows) } else { RedisReply::None }
        }
        [Value::Int(0), guards @ ..] if [4, 6].contains(&guards.len()) => {
            let guards = guards.get(..4).unwrap();
            for (guard, belief) in guards.chunks(2).zip(belief.iter_mut()) {
                if let Value::Bulk(rev) = &guard[0] {
                    *belief = String::from_utf8_lossy(rev).into_owned();
                }
            }
            RedisReply::Stale
        }
        _ => RedisReply::None,
    }
}
