//! Waiting until something is true, with a deadline, and never by a blind sleep.
//!
//! Owns the polling loop and its two ways to fail: the process died, or the time is over. Knows nothing about
//! components; what "ready" means is the caller's probe.

use crate::error::{Result, StackError};
use crate::http;
use crate::process::{self, Process};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at the probe.
const POLL: Duration = Duration::from_millis(20);
/// The most that a busy machine may stretch a bound: by then it hangs.
const MOST_STRETCHED: f64 = 15.0;

/// Waits until `probe` holds; fails at once, with the end of its log, when `process` ends meanwhile.
pub fn process_is_ready(
    process: &Process,
    bound: Duration,
    mut probe: impl FnMut() -> bool,
) -> Result<()> {
    let started = Instant::now();
    loop {
        // Death first: a probe may be answered by somebody else who has the same port.
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
    mut probe: impl FnMut() -> Option<T>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if process::is_stopping() {
            return Err(StackError::Stopping);
        }
        if is_over(started, bound) {
            return Err(StackError::NotReady {
                awaited: awaited.to_owned(),
                waited: started.elapsed(),
                tail: String::new(),
            });
        }
        thread::sleep(POLL);
    }
}

/// A bound is for a machine that has nothing else to do. Where many threads want each core, all of them take as much
/// longer.
fn is_over(started: Instant, bound: Duration) -> bool {
    let elapsed = started.elapsed();
    elapsed >= bound && elapsed >= bound.mul_f64(crowding().clamp(1.0, MOST_STRETCHED))
}

/// How many threads wanted each core in the last minute, where the machine says so.
fn crowding() -> f64 {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|load| load.parse::<f64>().ok()).unwrap_or(1.0);
    let cores = thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    load / cores as f64
}

/// Whether somebody accepts connections there.
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
