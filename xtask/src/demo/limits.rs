//! Rate limits: a sliding window per key, decided in Redis.

use super::guide::{Guide, abridged};
use super::notes::Notes;
use super::tour::{Group, TourStep};
use crate::failure::Result;
use portcullis_stack::KeySpec;
use serde_json::json;
use std::time::{Duration, Instant};

pub(crate) const GROUP: Group = Group {
    title: "How much",
    steps: &[
        TourStep {
            title: "Tier free: the sixth call within a second is a 429 that says when to come back",
            walk: limited,
        },
        TourStep { title: "Nobody else is held up by it", walk: others },
    ],
};

/// How many calls tier `free` allows in any second.
const ADMITTED: usize = 5;

fn limited(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let spec = KeySpec { name: "tour-free", tier: "free", ..KeySpec::acme("analyst") };
    let key = guide.stack.operator.issue_key(&spec)?.key;
    let arguments = json!({"limit": 1});
    let started = Instant::now();
    let mut statuses = Vec::new();
    for _ in 0..ADMITTED {
        statuses.push(guide.call_silently(&key, "query_users", &arguments)?.status());
    }
    notes.sent(format!("{ADMITTED} calls, key {}", abridged(&key)));
    notes.came(format!("{statuses:?} in {} ms", started.elapsed().as_millis()));
    let answer = guide.call(&key, "query_users", arguments, notes)?;
    notes.expect("five calls to be admitted", statuses == [200; ADMITTED]);
    notes.expect(
        "the sixth to be a 429 with code -31429",
        answer.status() == 429 && answer.code() == -31429,
    );
    let seconds = answer.header("retry-after").and_then(|value| value.parse::<u64>().ok());
    notes.expect("Retry-After in whole seconds", seconds == Some(1));
    let wait =
        answer.reply.json().pointer("/error/data/retryAfterMs").and_then(serde_json::Value::as_u64);
    notes.expect(
        "retryAfterMs in the body, within the window",
        wait.is_some_and(|wait| (1..=1000).contains(&wait)),
    );
    // Not a blind sleep: the gateway asked for this wait.
    std::thread::sleep(Duration::from_millis(wait.unwrap_or(1000)));
    notes.sent(format!("the same after {} ms", wait.unwrap_or(1000)));
    let again = guide.call_silently(&key, "query_users", &json!({"limit": 1}))?;
    notes.came(again.status().to_string());
    notes.expect("the call to be admitted after the stated wait", again.status() == 200);
    Ok(())
}

fn others(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let answer = guide.call(&guide.stack.analyst.key, "query_users", json!({"limit": 1}), notes)?;
    notes.expect("status 200", answer.status() == 200);
    Ok(())
}
