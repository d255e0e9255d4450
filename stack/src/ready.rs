//! Waits until a condition holds, with a deadline, and never by a blind sleep.
//!
//! Owns the polling loop and its two failures: the process ended, or the time is over. Knows nothing about components;
//! the caller's probe defines "ready".

use crate::error::{Result, StackError};
use crate::http;
use crate::process::{self, Process};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// The time between two probes.
const POLL: Duration = Duration::from_millis(20);
/// A busy machine may stretch a bound at most by this factor; beyond it, the process hangs.
const MOST_STRETCHED: f64 = 15.0;

/// Waits until `probe` holds; fails at once, with the end of its log, when `process` ends.
pub fn process_is_ready(
    process: &Process,
    bound: Duration,
    mut probe: impl FnMut() -> bool,
) -> Result<()> {
    let started = Instant::now();
    loop {
        // Checks for the end first: another process on the same port may answer the probe.
        if let Some(status) = process.status() {
            return Err(died(process, &status.to_string()));
        }
        if probe() {
            return Ok(());
        }
        if is_over(started, bound) {
            return Err(StackError::NotReady {
                awaited: process.name().to_owned(),
                waited: started.elapsed(),
                tail: process.log_tail(),
            });
        }
        thread::sleep(POLL);
    }
}

/// Waits until `probe` yields a value: an audit line, a metric, a reply of a certain kind.
pub fn eventually<T>(
    awaited: &str,
    bound: Duration,
    probe: impl FnMut() -> Option<T>,
) -> Result<T> {
    polled(POLL, |started| is_over(started, bound), probe).map_err(|waited| {
        match process::is_stopping() {
            true => StackError::Stopping,
            false => {
                StackError::NotReady { awaited: awaited.to_owned(), waited, tail: String::new() }
            }
        }
    })
}

/// Waits until `probe`, called so often, yields a value. The bound does not depend on the machine's load.
pub fn within<T>(bound: Duration, every: Duration, probe: impl FnMut() -> Option<T>) -> Option<T> {
    polled(every, |started| started.elapsed() >= bound, probe).ok()
}

/// Calls `probe` until it yields a value; how long it was called in vain, when the wait is over or the process stops.
fn polled<T>(
    every: Duration,
    is_over: impl Fn(Instant) -> bool,
    mut probe: impl FnMut() -> Option<T>,
) -> std::result::Result<T, Duration> {
    let started = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if process::is_stopping() || is_over(started) {
            return Err(started.elapsed());
        }
        thread::sleep(every);
    }
}

/// A bound assumes an idle machine. When several threads compete for each core, everything takes longer by that factor.
fn is_over(started: Instant, bound: Duration) -> bool {
    let elapsed = started.elapsed();
    elapsed >= bound && elapsed >= bound.mul_f64(crowding().clamp(1.0, MOST_STRETCHED))
}

/// The number of threads that competed for each core in the last minute, where the machine reports it.
fn crowding() -> f64 {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|load| load.parse::<f64>().ok()).unwrap_or(1.0);
    let cores = thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    load / cores as f64
}

/// Whether a server accepts connections there.
pub fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// Whether a GET is answered with 200.
pub fn answers_200(url: &str) -> bool {
    http::get(url).is_ok_and(|reply| reply.status == 200)
}

fn died(process: &Process, status: &str) -> StackError {
    if process::is_stopping() {
        return StackError::Stopping;
    }
    StackError::Died {
        process: process.name().to_owned(),
        status: status.to_owned(),
        log: process.log().to_owned(),
        tail: process.log_tail(),
    }
}
