//! Outages: Redis is killed during the tour.

use super::guide::Guide;
use super::notes::Notes;
use super::tour::{Group, TourStep};
use crate::failure::Result;
use portcullis_stack::{env_file, ready};
use serde_json::json;
use std::time::{Duration, Instant};

pub(crate) const GROUP: Group = Group {
    title: "What breaks",
    steps: &[
        TourStep {
            title: "kill -9 of Valkey: the next call is refused at once, with 503",
            walk: killed,
        },
        TourStep { title: "Valkey is back: so is the gateway, by itself", walk: back },
    ],
};

/// A client sees a longer wait as a hang.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Reconnecting includes a back-off. Each worker of Envoy reconnects by itself; this many calls reach all of them.
const IN_A_ROW: usize = 12;
const RECOVERED_WITHIN: Duration = Duration::from_secs(10);

fn killed(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let valkey = guide.stack.valkey.process();
    notes.sent(format!("kill -9 {}", valkey.pid()));
    valkey.kill_9();
    let answer = guide.call(&guide.stack.analyst.key, "query_users", json!({"limit": 1}), notes)?;
    notes.came(format!("after {} ms", answer.took.as_millis()));
    notes.expect("status 503 and code -31503", answer.status() == 503 && answer.code() == -31503);
    notes.expect("Retry-After", answer.header("retry-after").is_some());
    notes.expect("an answer within a second", answer.took < AT_ONCE);
    Ok(())
}

fn back(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    notes.sent("valkey-server, on the same port, with its append-only file");
    guide.stack.valkey.restart()?;
    env_file::write(guide.stack)?;
    let started = Instant::now();
    let key = &guide.stack.analyst.key;
    let served = ready::eventually("calls that are served", RECOVERED_WITHIN, || {
        (0..IN_A_ROW).try_for_each(|_| {
            let answer = guide.call_silently(key, "query_users", &json!({"limit": 1})).ok()?;
            (answer.status() == 200).then_some(())
        })
    });
    notes.came(format!("served again after {} ms", started.elapsed().as_millis()));
    notes.expect("calls to be served again, without anybody touching the gateway", served.is_ok());
    Ok(())
}
