//! A key is rotated and deployed while its client calls without a pause.
//!
//! Owns the client and the key that it has mounted. The operator's tool owns the rotation.

use super::guide::{Guide, abridged};
use super::notes::Notes;
use crate::failure::{Failure, Result};
use portcullis_stack::{KeySpec, ready};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Long enough to deploy a key in the tour; in production it is a day.
const OVERLAP: &str = "4s";
/// Enough calls to reach both workers.
const SOME: usize = 10;
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that reads its mounted key before each call.
struct Client {
    mounted: Mutex<String>,
    over: AtomicBool,
    calls: AtomicUsize,
    failed: AtomicUsize,
}

impl Client {
    fn call_without_pause(&self, guide: &Guide<'_>) {
        while !self.over.load(Ordering::Relaxed) {
            let key = self.mounted.lock().map(|key| key.clone()).unwrap_or_default();
            // The same call again and again would be a loop, and the demo's policy stops loops.
            let limit = self.calls.load(Ordering::Relaxed) % 50 + 1;
            let answer = guide.call_silently(&key, "query_users", &json!({"limit": limit}));
            let served = answer.is_ok_and(|answer| answer.status() == 200);
            self.failed.fetch_add(usize::from(!served), Ordering::Relaxed);
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn deploy(&self, key: &str) {
        if let Ok(mut mounted) = self.mounted.lock() {
            key.clone_into(&mut mounted);
        }
    }

    fn makes(&self, more: usize) -> Result<()> {
        let goal = self.calls.load(Ordering::Relaxed).saturating_add(more);
        let made = || (self.calls.load(Ordering::Relaxed) >= goal).then_some(());
        Ok(ready::eventually("further calls of the client", PATIENCE, made)?)
    }
}

pub(super) fn rotated(guide: &Guide<'_>, notes: &mut Notes) -> Result<()> {
    let operator = &guide.stack.operator;
    let issued =
        operator.issue_key(&KeySpec { name: "tour-rotated", ..KeySpec::acme("analyst") })?;
    let client = Client {
        mounted: Mutex::new(issued.key.clone()),
        over: AtomicBool::new(false),
        calls: AtomicUsize::new(0),
        failed: AtomicUsize::new(0),
    };
    notes.sent(format!("calls of query_users without a pause, key {}", abridged(&issued.key)));
    let new = thread::scope(|scope| {
        scope.spawn(|| client.call_without_pause(guide));
        let new = rotate_and_deploy(guide, &issued.id, &client, notes);
        client.over.store(true, Ordering::Relaxed);
        new
    })?;
    let (calls, failed) = (client.calls.into_inner(), client.failed.into_inner());
    notes.came(format!("{calls} calls over the whole rotation, {failed} of them failed"));
    notes.expect("not one call to fail", failed == 0 && calls >= 4 * SOME);

    let old = guide.call(&issued.key, "query_users", json!({"limit": 1}), notes)?;
    notes.expect("the old key to fail once the overlap ended", old.status() == 401);
    let answer = guide.call_silently(&new, "query_users", &json!({"limit": 1}))?;
    notes.expect("the new key to work", answer.status() == 200);
    let shown = guide.operator(&["audit", "show", "--admin", "--key", &issued.id], notes)?;
    notes.expect("the admin chain to tell who rotated which key, when and why", shown);
    let whole = guide.operator(&["audit", "verify", "--admin"], notes)?;
    notes.expect("the admin chain to be whole", whole);
    Ok(())
}

/// Rotates the key; returns the new key once the old one's overlap is over.
fn rotate_and_deploy(
    guide: &Guide<'_>,
    id: &str,
    client: &Client,
    notes: &mut Notes,
) -> Result<String> {
    client.makes(SOME)?;
    let arguments = ["key", "rotate", id, "--overlap", OVERLAP, "--reason", "monthly rotation"];
    notes.sent(format!("portcullis {}", arguments.join(" ")));
    let rotated = guide.stack.operator.json(&arguments)?;
    let new = rotated.get("key").and_then(Value::as_str).unwrap_or_default().to_owned();
    let sha256 = rotated.pointer("/record/secrets/0/sha256").and_then(Value::as_str);
    let label: String = sha256.unwrap_or_default().chars().take(12).collect();
    notes.came(format!("a new key {}, secret {label}, shown once", abridged(&new)));
    client.makes(SOME)?;
    notes.sent("the new key is deployed; the client takes it up with its next call");
    client.deploy(&new);
    client.makes(SOME)?;

    let show = ["key", "show", id];
    let shown = guide.operator(&show, notes)?;
    notes.expect("the operator's tool to tell when the old secret was last used", shown);
    let record = guide.stack.operator.json(&show)?;
    let last = record.pointer("/record/secrets/1/last_used").and_then(Value::as_str);
    notes.came(format!("the old secret was last used {}", last.unwrap_or("never")));
    notes.expect("the last use of the old secret to be known", last.is_some());

    let ended = || {
        let record = guide.stack.operator.json(&show).ok()?;
        (record.pointer("/record/secrets/1/state")? == "ended").then_some(())
    };
    ready::eventually("the end of the overlap", PATIENCE, ended)?;
    client.makes(SOME)?;
    if new.is_empty() {
        return Err(Failure::new("a new key from portcullis key rotate"));
    }
    Ok(new)
}
