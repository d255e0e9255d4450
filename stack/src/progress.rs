//! Reports slow steps: a line for every step of more than two seconds, and nothing for the others.
//!
//! Writes to standard error, so that a command's own output stays clean. Knows nothing about the steps.

use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A shorter step gets no line.
const QUIET: Duration = Duration::from_secs(2);
/// How often a terminal's line is redrawn.
const RENEW: Duration = Duration::from_secs(1);

/// Runs `work`, and reports it as `name` if it takes long, with its time at the end.
pub fn step<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let (result, shown) = watched(name, work);
    if shown {
        eprintln!("{name}: {}", seconds(started.elapsed()));
    }
    result
}

/// As [`step`], for a caller that reports the end itself.
pub fn announced<T>(name: &str, work: impl FnOnce() -> T) -> T {
    watched(name, work).0
}

fn watched<T>(name: &str, work: impl FnOnce() -> T) -> (T, bool) {
    let started = Instant::now();
    let (done, over) = channel::<()>();
    let shown = name.to_owned();
    let ticker = thread::spawn(move || tick(&shown, started, &over));
    let result = work();
    drop(done);
    let shown = ticker.join().unwrap_or(false);
    if shown && stderr().is_terminal() {
        // Clears the line that was redrawn.
        eprint!("\r\x1b[K");
    }
    (result, shown)
}

/// Seconds with one decimal.
pub fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

/// Returns whether it showed a line.
fn tick(name: &str, started: Instant, over: &Receiver<()>) -> bool {
    if over.recv_timeout(QUIET) != Err(RecvTimeoutError::Timeout) {
        return false;
    }
    if !stderr().is_terminal() {
        eprintln!("{name} …");
        // The sender sends nothing; its drop marks the end.
        let _ = over.recv();
        return true;
    }
    loop {
        let mut out = stderr();
        // A failure to show progress is no reason to stop.
        let _ = write!(out, "\r\x1b[K\x1b[2m{name} … {} s\x1b[0m", started.elapsed().as_secs());
        let _ = out.flush();
        if over.recv_timeout(RENEW) != Err(RecvTimeoutError::Timeout) {
            return true;
        }
    }
}
