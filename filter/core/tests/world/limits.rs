//! Windows and prices in scenarios.

use portcullis_redis_lua::Value;
use serde_json::json;

/// `v4`: calls cost credits, and so do rows.
pub(super) fn priced(mut document: serde_json::Value) -> serde_json::Value {
    document["connectors"]["open"]["tools"] = json!({
        "query": {"price": 10, "row_price": 2}, "dear": {"price": 101},
    });
    document["tiers"]["free"]["limits"]["hour"] =
        json!({"limit": 100, "window": "1h", "cost": "credits"});
    document
}

/// `v5`: one window over all organisations.
pub(super) fn global(mut document: serde_json::Value) -> serde_json::Value {
    document["limits"] = json!({"all": {"limit": 9, "window": "1s", "per": ["global"]}});
    document
}

/// `v6`: workers draw three units at once.
pub(super) fn leased(mut document: serde_json::Value) -> serde_json::Value {
    document["tiers"]["free"]["limits"]["calls"]["lease"] = json!(3);
    document
}

/// The reply to an admission, except for a changed state.
pub(super) fn reply(words: &[&str]) -> Value {
    let int = |text: &str| text.parse().unwrap();
    let (head, states): (Vec<i64>, Vec<i64>) = match words {
        ["admitted"] => (vec![1], Vec::new()),
        ["admitted", remaining @ ..] => {
            (vec![1], remaining.iter().flat_map(|left| [int(left), 1_000, 0]).collect())
        }
        ["limited", micros] => (vec![2, int(micros), 0], vec![0, int(micros), 0]),
        ["drawn", states @ ..] => (vec![1], self::states(states)),
        ["limited", micros, index, states @ ..] => {
            (vec![2, int(micros), int(index)], self::states(states))
        }
        _ => panic!("no such reply: {words:?}"),
    };
    Value::Array(head.into_iter().chain(states).map(Value::Int).collect())
}

/// `remaining/reset_us` for each window, with `!` for a raised alert.
fn states(states: &[&str]) -> Vec<i64> {
    let ints = states.iter().flat_map(|state| {
        let (plain, raised) = state.strip_suffix('!').map_or((*state, 0), |plain| (plain, 1));
        let (remaining, reset) = plain.split_once('/').unwrap();
        [remaining.parse().unwrap(), reset.parse().unwrap(), raised]
    });
    ints.collect()
}
