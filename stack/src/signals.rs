//! Ctrl-C and other signals: at any time, they stop all started processes.
//!
//! Owns the thread that waits for signals. It ends the process itself, so no other code has to handle signals.

use crate::failure::{Failure, Result};
use crate::process;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

/// Not an exit status: no signal is expected.
const UNEXPECTED: i32 = -1;

static ENDING: AtomicI32 = AtomicI32::new(UNEXPECTED);

/// After this call, a signal stops all processes and then this one.
pub fn handle() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::new(format!("could not handle signals: {error}")))?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!("\nstopping …");
            process::stop_everything();
            std::process::exit(match ENDING.load(Ordering::SeqCst) {
                UNEXPECTED => 128 + signal,
                status => status,
            });
        }
    });
    Ok(())
}

/// After this call, a signal is the ordinary end, with this exit status.
pub fn end_with(status: i32) {
    ENDING.store(status, Ordering::SeqCst);
}

/// A failure during the stop is a consequence of it: the signal thread ends the process.
pub fn yield_to_stop() {
    while process::is_stopping() {
        thread::sleep(Duration::from_millis(50));
    }
}
